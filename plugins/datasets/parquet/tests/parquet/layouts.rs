//! Where files lie, and which splits they are.

use super::{NAMES, Row, complaint, open, reds, rows, simple, write};
use parquet::basic::Compression;
use rqlab_sdk::prelude::*;
use std::fs;
use tempfile::TempDir;

/// Writes 6 training and 3 test rows to these places, from files of these names.
fn laid_out(train: &[&str], test: &[&str]) -> TempDir {
    let dir = TempDir::new().unwrap();
    for (files, first, count) in [(train, 0, 6), (test, 100, 3)] {
        for (at, file) in files.iter().enumerate() {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let each = count / files.len() as u8;
            write(&path, &rows(first + at as u8 * each, each), 2, &NAMES, Compression::SNAPPY);
        }
    }
    dir
}

#[test]
fn the_hubs_layouts_are_read() {
    for (train, test) in [
        (&["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"][..], &["test-00000-of-00001.parquet"][..]),
        (&["data/train-00000-of-00002-5a.parquet", "data/train-00001-of-00002-7b.parquet"], &["data/test.parquet"]),
        (&["default/train/0000.parquet", "default/train/0001.parquet"], &["default/test/0000.parquet"]),
        (&["plain_text/train-00000-of-00001.parquet"], &["plain_text/validation-00000-of-00001.parquet"]),
        (&["train/0000.parquet"], &["validation/0000.parquet"]),
        (&["data/Train/0000.parquet"], &["data/Dev/0000.parquet"]),
        (&["default/partial-train/0000.parquet"], &["default/partial-test/0000.parquet"]),
        (&["training.parquet"], &["holdout.parquet"]),
    ] {
        let dir = laid_out(train, test);
        let set = open(dir.path(), "path: \".\"").unwrap();
        let all = |split: Split, count: usize| reds(&set.batch(split, &(0..count).collect::<Vec<_>>(), None).unwrap());
        assert_eq!((set.info().train, set.info().test), (6, 3), "{train:?}");
        assert_eq!(all(Split::Train, 6), [0, 1, 2, 3, 4, 5], "{train:?}");
        assert_eq!(all(Split::Test, 3), [100, 101, 102], "{test:?}");
    }
}

#[test]
fn of_several_subsets_one_is_chosen_by_name() {
    let files = |split: &str| [format!("large/{split}/0000.parquet"), format!("small/{split}/0000.parquet")];
    let (train, test) = (files("train"), files("test"));
    let dir = laid_out(&[&train[0], &train[1]], &[&test[0], &test[1]]);
    let error = complaint(dir.path(), "path: \".\"");
    assert!(error.contains("2 subsets: `large`, `small`") && error.contains("subset: \"large\""), "{error}");
    let set = open(dir.path(), "path: \".\", subset: \"small\"").unwrap();
    assert_eq!((set.info().train, set.info().test), (3, 1));
    assert_eq!(reds(&set.batch(Split::Train, &[0], None).unwrap()), [3]);
    assert!(complaint(dir.path(), "path: \".\", subset: \"medium\"").contains("medium"));
}

#[test]
fn a_numbered_file_that_is_missing_is_named() {
    for (train, said) in [
        (&["train-00000-of-00003.parquet", "train-00002-of-00003.parquet"][..], "file 1 of the 3"),
        (&["default/train/0000.parquet", "default/train/0002.parquet"], "file 1 of the 3"),
        (
            &["train-00000-of-00002-a.parquet", "train-00000-of-00002-b.parquet"],
            "file 0 of the 2 numbered files is there 2",
        ),
        (&["train-00000-of-00001.parquet", "train-00000-of-00002.parquet"], "[1, 2]"),
    ] {
        let test = if train[0].starts_with("default") { "default/test/0000.parquet" } else { "test.parquet" };
        let dir = laid_out(train, &[test]);
        let error = complaint(dir.path(), "path: \".\"");
        assert!(error.contains(said) && error.contains("`train`"), "{error}");
    }
}

#[test]
fn an_unlabelled_test_split_gives_way_to_a_labelled_one() {
    let dir = laid_out(&["train.parquet"], &["validation.parquet"]);
    let without: Vec<Row> = rows(200, 4).into_iter().map(|(image, _)| (image, Some(-1))).collect();
    write(&dir.path().join("test.parquet"), &without, 2, &NAMES, Compression::SNAPPY);
    let set = open(dir.path(), "path: \".\"").unwrap();
    assert_eq!((set.info().test, reds(&set.batch(Split::Test, &[0], None).unwrap())), (3, vec![100]));

    let error = complaint(dir.path(), "path: \".\", test: [\"test.parquet\"]");
    assert!(error.contains("test.parquet: every label in column `label` is -1"), "{error}");
    let set = open(dir.path(), "path: \".\", label_column: \"\"").unwrap();
    assert_eq!((set.info().test, set.info().classes.len()), (4, 0), "without labels the test split is as good");

    fs::remove_file(dir.path().join("validation.parquet")).unwrap();
    let error = complaint(dir.path(), "path: \".\", test_fraction: 0.0");
    assert!(error.contains("every label") && error.contains("label_column: \"\""), "{error}");
    let set = open(dir.path(), "path: \".\", test_fraction: 0.5").unwrap();
    let summary = &set.info().summary;
    assert!(summary.notes.iter().any(|note| note.contains("`test` is not used: every label in it is -1")));
    assert_eq!(summary.splits, "0.5 of each class of the training split for test, chosen by place");
}

#[test]
fn files_of_no_split_are_counted() {
    let dir = simple();
    write(&dir.path().join("extra.parquet"), &rows(0, 3), 3, &NAMES, Compression::SNAPPY);
    let set = open(dir.path(), "path: \".\"").unwrap();
    let left_out = &set.info().summary.left_out[0];
    assert_eq!((left_out.unit.as_str(), left_out.reason.as_str(), left_out.count), ("file", "of no split", 1));
    assert!(left_out.example.ends_with("extra.parquet"));
}

#[test]
fn test_images_can_be_taken_from_the_training_split_by_class() {
    let dir = TempDir::new().unwrap();
    write(&dir.path().join("train-0.parquet"), &rows(0, 60), 7, &NAMES, Compression::SNAPPY);
    let missing = complaint(dir.path(), "path: \".\", test_fraction: 0.0");
    assert!(missing.contains("there is no test-*.parquet or validation-*.parquet"), "{missing}");
    let set = open(dir.path(), "path: \".\"").unwrap();
    assert_eq!(set.info().summary.per_class, [[18, 2]; 3]);
    let all = |split: Split| {
        let indices: Vec<usize> = (0..set.info().len(split)).collect();
        let images = set.batch(split, &indices, None).unwrap();
        assert!(reds(&images).iter().zip(images.labels.as_slice()).all(|(red, label)| red % 3 == *label as i32));
        reds(&images)
    };
    let mut together = [all(Split::Train), all(Split::Test)].concat();
    together.sort_unstable();
    assert_eq!(together, (0..60).collect::<Vec<_>>());
    rqlab_sdk::testing::dataset(&set);
}

/// A set of the hub's can be planned with before it is fetched.
#[test]
fn what_is_expected_can_be_planned_with_and_is_checked() {
    let dir = simple();
    let nowhere = dir.path().join("nowhere");
    let set = open(&nowhere, "path: \"set\", size: (64, 48), expect: (10, 500, 50)").unwrap();
    assert_eq!((set.info().classes.len(), set.info().train, set.info().test), (10, 500, 50));
    assert_eq!(set.info().image, [64, 48, 3]);
    assert!(set.absent().unwrap().contains("nowhere"));
    assert!(set.batch(Split::Train, &[0], None).is_err());
    assert!(complaint(&nowhere, "path: \"set\", expect: (10, 500, 50)").contains("nowhere"));
    let files = "train: [\"a.parquet\"], test: [\"b.parquet\"], size: 8, expect: (1, 2, 3)";
    assert!(open(dir.path(), files).unwrap().absent().unwrap().contains("a.parquet"));

    let set = open(dir.path(), "path: \".\"").unwrap();
    let [classes, train, test] = [set.info().classes.len(), set.info().train, set.info().test];
    let expect = |test: usize| format!("path: \".\", expect: ({classes}, {train}, {test})");
    assert_eq!(open(dir.path(), &expect(test)).unwrap().absent(), None);
    let complaint = complaint(dir.path(), &expect(test + 1));
    assert!(complaint.contains(&format!("and {test} test images, where `expect` asks for")), "{complaint}");
}
