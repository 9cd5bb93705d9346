//! Which folders are splits, which are classes, and what lies beside them.

use super::{complaint, counts, flat, left_out, open, ramp, reds, save, two_classes};
use image::{Rgb, RgbImage};
use rqlab_dataset_folder::Folder;
use rqlab_sdk::prelude::*;
use std::fs;
use tempfile::TempDir;

#[test]
fn no_image_is_in_both_splits_and_a_new_file_moves_one_other_at_most() {
    let dir = two_classes();
    let labelled = |set: &Folder, split: Split| -> Vec<(u32, i32)> {
        let indices: Vec<usize> = (0..set.info().len(split)).collect();
        let labels = set.batch(split, &indices, None).unwrap().labels.as_slice().to_vec();
        labels.into_iter().zip(reds(set, split)).collect()
    };
    let before = open(dir.path(), "test_fraction: 0.3").unwrap();
    let (train, test) = (labelled(&before, Split::Train), labelled(&before, Split::Test));
    assert_eq!((train.len(), test.len()), (56, 24));
    assert!(train.iter().all(|image| !test.contains(image)));
    save(dir.path(), "owl/new.png", &RgbImage::from_pixel(8, 8, Rgb([99, 1, 0])));
    let after = open(dir.path(), "test_fraction: 0.3").unwrap();
    assert_ne!(after.info().digest, before.info().digest);
    let now = labelled(&after, Split::Test);
    assert!(test.iter().filter(|image| !now.contains(image)).count() <= 1);
}

/// A class of two images has one for each split, whatever their names are.
#[test]
fn every_class_is_in_both_splits_where_it_can_be() {
    let dir = TempDir::new().unwrap();
    for k in 0..20 {
        flat(dir.path(), &format!("p{k:02}"), 2);
    }
    flat(dir.path(), "single", 1);
    let set = open(dir.path(), "").unwrap();
    assert_eq!(counts(&set), (21, 21, 20));
    assert_eq!(set.info().summary.per_class[..20], [[1, 1]; 20]);
    assert_eq!(set.info().summary.per_class[20], [1, 0]);
}

#[test]
fn words_for_splits_are_known_in_any_case() {
    for (train, test) in
        [("train", "valid"), ("Train", "Test"), ("TRAINING", "holdout"), ("train", "dev"), ("training", "Eval")]
    {
        let dir = TempDir::new().unwrap();
        for class in ["a", "b"] {
            flat(dir.path(), &format!("{train}/{class}"), 20);
            flat(dir.path(), &format!("{test}/{class}"), 5);
        }
        let set = open(dir.path(), "expect: (2, 40, 10)").unwrap();
        assert_eq!(counts(&set), (2, 40, 10));
        assert_eq!(set.info().summary.splits, format!("the folders `{train}` and `{test}`"));
        assert!(set.info().summary.left_out.is_empty() && set.info().summary.notes.is_empty());
    }
}

#[test]
fn folders_beside_those_that_are_used_are_named() {
    let dir = TempDir::new().unwrap();
    for class in ["a", "b"] {
        flat(dir.path(), &format!("train/{class}"), 6);
        flat(dir.path(), &format!("val/{class}"), 3);
        flat(dir.path(), &format!("holdout/{class}"), 2);
        flat(dir.path(), &format!("extra/{class}"), 1);
    }
    // Test images without classes are of no use to a set with classes.
    flat(dir.path(), "test", 4);
    let set = open(dir.path(), "").unwrap();
    assert_eq!(counts(&set), (2, 12, 4));
    assert_eq!(left_out(&set), [("in folders that are not used", 6 + 2 + 4)]);
    let notes = set.info().summary.notes.join("\n");
    for part in [
        "`extra` is not used",
        "`test` is not used: it has no class folders",
        "`val` is not used: test images come from `holdout`",
    ] {
        assert!(notes.contains(part), "{notes}");
    }
    let set = open(dir.path(), "test: \"val\"").unwrap();
    assert_eq!(counts(&set), (2, 12, 6));
    assert!(complaint(dir.path(), "test: \"test\"").contains("it has no class folders"));
    assert!(complaint(dir.path(), "test: \"tests\"").contains("has no folder `tests`"));
}

/// A class may be called as a split is.
#[test]
fn a_class_with_the_name_of_a_split_is_a_class_among_others() {
    let dir = TempDir::new().unwrap();
    for (folder, count) in [("car", 20), ("plane", 20), ("train", 20), ("train/steam", 30), ("train/diesel", 30)] {
        flat(dir.path(), folder, count);
    }
    let set = open(dir.path(), "expect: (3, 54, 6)").unwrap();
    assert_eq!(set.info().classes, ["car", "plane", "train"]);
    assert_eq!(left_out(&set), [("in folders within class folders", 60)]);
    assert!(set.info().summary.notes[0].contains("`train` read as a class"), "{:?}", set.info().summary.notes);
    let set = open(dir.path(), "nested: true").unwrap();
    assert_eq!(counts(&set), (3, 108, 12));
    let set = open(dir.path(), "layout: splits").unwrap();
    assert_eq!(set.info().classes, ["diesel", "steam"]);
    assert_eq!(left_out(&set), [("in folders that are not used", 40), ("outside the class folders", 20)]);

    let dir = TempDir::new().unwrap();
    flat(dir.path(), "test", 4);
    flat(dir.path(), "val", 4);
    assert!(complaint(dir.path(), "").contains("no folder of training images"));
    assert_eq!(open(dir.path(), "layout: classes").unwrap().info().classes, ["test", "val"]);
}

#[test]
fn images_without_class_folders_carry_no_label() {
    let dir = TempDir::new().unwrap();
    flat(dir.path(), "Train", 80);
    flat(dir.path(), "Test", 20);
    let set = open(dir.path(), "").unwrap();
    assert_eq!(counts(&set), (0, 80, 20));
    assert_eq!(set.batch(Split::Test, &[3, 4], None).unwrap().labels.as_slice(), [0, 0]);

    let dir = TempDir::new().unwrap();
    flat(dir.path(), ".", 50);
    let set = open(dir.path(), "").unwrap();
    assert_eq!(counts(&set), (0, 45, 5));
    rqlab_sdk::testing::dataset(&set);
}

#[test]
fn own_test_folders_are_used_and_the_digest_is_of_the_contents() {
    let dir = TempDir::new().unwrap();
    for name in ["train/a/0.png", "train/b/1.jpeg", "val/a/2.webp", "val/b/3.PNG"] {
        save(dir.path(), name, &ramp(12, 8));
    }
    let set = open(dir.path(), "").unwrap();
    assert_eq!((set.info().train, set.info().test), (2, 2));
    assert_eq!(set.info().image, [8, 12, 3]);
    let digest = set.info().digest.clone();
    assert_eq!(open(dir.path(), "flip: true").unwrap().info().digest, digest);
    assert_ne!(open(dir.path(), "background: (0, 0, 0)").unwrap().info().digest, digest);
    let mut other = ramp(12, 8);
    other.put_pixel(0, 0, Rgb([1, 2, 3]));
    save(dir.path(), "val/a/2.webp", &other);
    assert_ne!(open(dir.path(), "").unwrap().info().digest, digest);
}

#[test]
fn a_class_may_lack_images_in_a_split_and_is_named() {
    let dir = TempDir::new().unwrap();
    for name in ["train/a", "train/b", "test/b", "test/c"] {
        flat(dir.path(), name, 3);
    }
    let set = open(dir.path(), "").unwrap();
    assert_eq!(set.info().classes, ["a", "b", "c"]);
    assert_eq!(set.info().summary.per_class, [[3, 0], [3, 3], [0, 3]]);
    assert_eq!(set.batch(Split::Test, &[0, 5], None).unwrap().labels.as_slice(), [1, 2]);
    fs::rename(dir.path().join("set/test/b"), dir.path().join("set/test/B")).unwrap();
    let error = complaint(dir.path(), "");
    assert!(error.contains("the class `B` is spelled `b`"), "{error}");
}
