//! Agreement with the published systems where their numbers are at hand, and with steps of training in PyTorch.

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

/// `tests/peers` holds steps of tiny models. `RQLAB_PEER_STEPS` may name a folder of larger ones, which
/// `tests/peers/export.py --small` writes.
#[test]
fn steps_of_training_are_those_of_pytorch() {
    let kept = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/peers"));
    let more = env::var_os("RQLAB_PEER_STEPS").map(PathBuf::from);
    if more.is_none() {
        eprintln!("skipped the small workloads' own models; set RQLAB_PEER_STEPS to a folder of their steps");
    }
    for dir in [Some(kept), more].into_iter().flatten() {
        let mut report = Vec::new();
        let summary = rqlab_tests::parity::run(&dir, |line| report.push(line.to_owned())).unwrap();
        assert!(summary.failed == 0 && summary.passed == 3, "{}: {}", dir.display(), report.join("\n"));
    }
}
