//! Agreement with the published systems, where their numbers are at hand.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking, and says when it skips")]

use std::env;
use std::path::PathBuf;

/// The folder of cases is that of `RQLAB_PARITY`, or `../shared/parity` beside the workspace.
#[test]
fn every_case_of_a_system_that_exists_passes() {
    let beside = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/parity"));
    let dir = env::var_os("RQLAB_PARITY").map_or(beside, PathBuf::from);
    if !dir.is_dir() {
        eprintln!("skipped: {} is not there; set RQLAB_PARITY to a folder of cases", dir.display());
        return;
    }
    let mut report = Vec::new();
    let summary = rqlab_tests::parity::run(&dir, |line| report.push(line.to_owned())).unwrap();
    assert!(summary.failed == 0 && summary.passed > 0, "{}", report.join("\n"));
}
