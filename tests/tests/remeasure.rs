//! Speeds are timed again without anything else of a trial changing.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use rqlab_tests::lab::{Lab, csv};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Every file of a folder of runs.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if path.is_dir() {
            found.extend(files(&path).into_iter().map(|(file, bytes)| (format!("{name}/{file}"), bytes)));
        } else {
            found.insert(name, fs::read(path).unwrap());
        }
    }
    found
}

/// The columns of a table by their names, without those of a machine's speed.
fn lasting(table: &str) -> Vec<Vec<String>> {
    let rows = csv(table);
    let is_speed = |name: &str| name.contains("images_per_second") || name == "other_load";
    let kept: Vec<usize> = (0..rows[0].len()).filter(|&column| !is_speed(&rows[0][column])).collect();
    rows.iter().map(|row| kept.iter().map(|&column| row[column].clone()).collect()).collect()
}

#[test]
fn speeds_are_replaced_with_when_and_where_and_nothing_else_changes() {
    let lab = Lab::new().unwrap();
    lab.edit("speed: []", "speed: [1, 2]").unwrap();
    let set = "tiny.ron --runs r --set quantizer.depth=2";
    let nothing = lab.run(&format!("remeasure {set}")).unwrap();
    assert_eq!(nothing.code, Some(2), "{}", nothing.err);
    for words in
        ["no speed to measure again", "none of 2 trials", "rqlab sweep tiny.ron --set quantizer.depth=2 --runs r"]
    {
        assert!(nothing.err.contains(words), "{words} in {}", nothing.err);
    }
    assert_eq!(lab.run(&format!("sweep {set} --out o --name here")).unwrap().code, Some(0));
    let (before, table) = (files(&lab.path("r/stages")), lab.read("o/here/results.csv").unwrap());

    let said = lab.run(&format!("remeasure {set}")).unwrap();
    assert_eq!(said.code, Some(0), "{}\n{}", said.out, said.err);
    for words in ["images_per_second_b1_cache", "decode_images_per_second_b2", " → ", "half of the rounds"] {
        assert!(said.out.contains(words), "{words} in {}", said.out);
    }
    let after = files(&lab.path("r/stages"));
    let changed: Vec<&String> = after.keys().filter(|file| before.get(*file) != after.get(*file)).collect();
    let measured: Vec<String> = lab
        .stages("r", "generation")
        .unwrap()
        .iter()
        .map(|dir| format!("{}/done.json", dir.file_name().unwrap().to_string_lossy()))
        .collect();
    assert_eq!(changed, measured.iter().collect::<Vec<_>>());
    assert_eq!(before.len(), after.len(), "files came or went");

    // The seal holds: the next sweep has nothing to do, and the page says when and where.
    let again = lab.run(&format!("sweep {set} --out o --name here")).unwrap();
    assert_eq!(again.code, Some(0), "{}", again.err);
    assert!(!again.err.contains("damaged") && files(&lab.path("r/stages")) == after, "{}", again.err);
    assert_eq!(lasting(&lab.read("o/here/results.csv").unwrap()), lasting(&table));
    let page = lab.read("o/here/index.html").unwrap();
    assert!(page.contains("timed again on 20") && page.contains("generation, speed"), "the page does not tell");
}

#[test]
fn what_has_no_speed_is_refused_with_what_to_do() {
    let lab = Lab::new().unwrap();
    for set in ["--set evaluation.speed=[]", "--set prior=None"] {
        let said = lab.run(&format!("remeasure tiny.ron --runs r {set}")).unwrap();
        assert_eq!(said.code, Some(2), "{}", said.err);
        assert!(
            said.err.contains("no trial times its sampling") && said.err.contains("speed: [1, 16]"),
            "{}",
            said.err
        );
    }
    let help = lab.run("remeasure --help").unwrap();
    for words in ["median of several rounds", "Examples:", "--trial <ID>"] {
        assert!(help.out.contains(words), "{words} in {}", help.out);
    }
}
