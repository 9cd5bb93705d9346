//! Agreement with the published systems and with steps of training in PyTorch, by the cases in `tests/parity` and
//! `tests/peers`. `RQLAB_PARITY` and `RQLAB_PEER_STEPS` may name folders of more.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking, and says when it skips")]

use rqlab_tests::parity::{Summary, TABLE, find, run};
use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// Systems whose smallest case is too large for the repository: see `tests/parity/README.md`.
const LEFT_OUT: [&str; 5] = ["encoder_decoder", "kl_vae_forward", "mar_forward", "mar_sample_tokens", "vqvae2_forward"];

fn kept(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)
}

/// Checks all cases of a folder; none may fail.
fn check(dir: &Path) -> Summary {
    let mut report = Vec::new();
    let summary = run(dir, |line| report.push(line.to_owned())).unwrap();
    assert_eq!(summary.failed, 0, "{}:\n{}", dir.display(), report.join("\n"));
    summary
}

#[test]
fn the_numbers_of_the_published_systems_hold() {
    let dir = kept("parity");
    let summary = check(&dir);
    assert_eq!((summary.passed, summary.skipped), (find(&dir).unwrap().len(), 0));
}

#[test]
fn every_system_has_a_case_in_the_repository() {
    let names =
        |folder: &str| find(&kept(folder)).unwrap().into_iter().map(|case| case.file_name().unwrap().to_owned());
    let mut here: BTreeSet<String> =
        names("parity").chain(names("peers")).map(|name| name.to_string_lossy().into_owned()).collect();
    here.extend(LEFT_OUT.map(str::to_owned));
    let known: BTreeSet<String> = TABLE.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(here, known);
}

#[test]
fn the_cases_in_the_repository_stay_small() {
    fn bytes(folder: &Path) -> u64 {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.map(|path| if path.is_dir() { bytes(&path) } else { fs::metadata(&path).unwrap().len() }).sum()
    }
    assert!(bytes(&kept("parity")) <= 6 << 20, "{} bytes; at most 6 MiB", bytes(&kept("parity")));
}

#[test]
fn more_cases_pass_where_there_are_some() {
    match env::var_os("RQLAB_PARITY") {
        Some(dir) => assert!(check(Path::new(&dir)).passed > 0),
        None => eprintln!("skipped: RQLAB_PARITY names no folder of more cases"),
    }
}

/// `tests/peers` holds steps of tiny models, and `tests/peers/export.py --small` writes those of larger ones.
#[test]
fn steps_of_training_are_those_of_pytorch() {
    assert_eq!(check(&kept("peers")).passed, 3);
    match env::var_os("RQLAB_PEER_STEPS") {
        Some(dir) => assert_eq!(check(Path::new(&dir)).passed, 3),
        None => eprintln!("skipped: RQLAB_PEER_STEPS names no folder of larger models' steps"),
    }
}
