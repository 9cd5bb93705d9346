//! Equal work has equal results, and is done once.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use rqlab_tests::lab::{self, Lab};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

fn sweep(lab: &Lab, runs: &str, more: &str) {
    let said = lab.run(&format!("sweep tiny.ron --quiet --runs {runs} --out out {more}")).unwrap();
    assert_eq!(said.code, Some(0), "{}", said.err);
}

/// What every stage made, by its id.
fn made(lab: &Lab, runs: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    let stages = fs::read_dir(lab.path(runs).join("stages")).unwrap();
    let made = |stage: PathBuf| (PathBuf::from(stage.file_name().unwrap()), lab::made(&stage));
    stages.map(|stage| made(stage.unwrap().path())).map(|(id, bytes)| (id, bytes.unwrap())).collect()
}

/// When each file of each stage was last written.
fn written(lab: &Lab, runs: &str) -> BTreeMap<PathBuf, SystemTime> {
    let stages = fs::read_dir(lab.path(runs).join("stages")).unwrap();
    let files = stages.flat_map(|stage| fs::read_dir(stage.unwrap().path()).unwrap());
    files.map(|file| file.unwrap()).map(|file| (file.path(), file.metadata().unwrap().modified().unwrap())).collect()
}

#[test]
fn equal_runs_are_equal_to_the_bit_and_other_seeds_are_not() {
    let lab = Lab::new().unwrap();
    sweep(&lab, "one", "");
    sweep(&lab, "two", "");
    assert!(made(&lab, "one") == made(&lab, "two"));
    sweep(&lab, "three", "--seeds 1");
    let (one, three) = (made(&lab, "one"), made(&lab, "three"));
    let shared: Vec<_> = three.keys().filter(|id| one.contains_key(*id)).collect();
    // The classifier and what it sees in test and training images belong to the data, not to a trial.
    assert_eq!(shared.len(), 3);
    assert!(three.iter().all(|(id, bytes)| shared.contains(&id) || !one.values().any(|other| other == bytes)));
}

#[test]
fn trials_share_what_they_have_in_common() {
    let lab = Lab::new().unwrap();
    sweep(&lab, "runs", "");
    // Two depths with two priors each: four trials.
    let counts = [
        ("classifier", 1),
        ("reference", 1),
        ("training_images", 1),
        ("tokenizer", 2),
        ("tokens", 2),
        ("prior", 4),
        ("reconstruction", 2),
        ("generation", 4),
    ];
    for (kind, count) in counts {
        assert_eq!(lab.stages("runs", kind).unwrap().len(), count, "{kind}");
    }
}

#[test]
fn what_is_done_is_not_done_again() {
    let lab = Lab::new().unwrap();
    sweep(&lab, "runs", "");
    let (before, page) = (written(&lab, "runs"), lab.read("out/tiny/index.html").unwrap());
    sweep(&lab, "runs", "");
    assert_eq!(written(&lab, "runs"), before);
    assert_eq!(lab.read("out/tiny/index.html").unwrap(), page);
    // More seeds add to it; another report costs nothing.
    sweep(&lab, "runs", "--seeds 0,1 --set evaluation.pictures=2");
    let after = written(&lab, "runs");
    assert!(after.len() > before.len());
    assert!(before.iter().all(|(file, time)| after[file] == *time));
}
