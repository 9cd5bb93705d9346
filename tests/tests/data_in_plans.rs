//! What a plan says of the images it finds: what is used, what is left out, and what cannot work.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use image::{Rgb, RgbImage};
use rqlab_tests::lab::{EXPERIMENT, Lab, Said};
use std::fs;
use std::time::{Duration, SystemTime};

/// Flat images `000.png`, `001.png`, .. in a folder of the lab.
fn pictures(lab: &Lab, folder: &str, count: usize) {
    fs::create_dir_all(lab.path(folder)).unwrap();
    for i in 0..count {
        let image = RgbImage::from_pixel(16, 16, Rgb([(i * 4) as u8, folder.len() as u8 * 9, 50]));
        image.save(lab.path(&format!("{folder}/{i:03}.png"))).unwrap();
    }
}

/// A lab whose experiment has one trial, on `data`.
fn lab(data: &str) -> Lab {
    let lab = Lab::new().unwrap();
    let start = EXPERIMENT.find("    axes: {").unwrap();
    let end = EXPERIMENT.find("    seeds:").unwrap();
    let text = format!("{}{}", &EXPERIMENT[..start], &EXPERIMENT[end..]);
    lab.write("tiny.ron", text.replace("dead_leaves(size: 16, train: 64, test: 32, classes: 4)", data)).unwrap();
    lab
}

fn plan(lab: &Lab) -> Said {
    lab.run("plan tiny.ron").unwrap()
}

/// The plan holds all of these.
fn planned(lab: &Lab, parts: &[&str]) {
    let said = plan(lab);
    assert_eq!(said.code, Some(0), "{}", said.err);
    for part in parts {
        assert!(said.out.contains(part), "no {part:?} in:\n{}", said.out);
    }
}

/// The plan is refused with all of these, and nothing was begun.
fn refused(lab: &Lab, parts: &[&str]) {
    let said = plan(lab);
    assert_eq!((said.code, said.out.as_str()), (Some(2), ""), "{}", said.err);
    for part in parts {
        assert!(said.err.contains(part), "no {part:?} in:\n{}", said.err);
    }
    let swept = lab.run("sweep tiny.ron --runs runs --out out").unwrap();
    assert_eq!(swept.code, Some(2), "{}", swept.err);
    assert!(!lab.path("runs").join("stages").is_dir());
}

#[test]
fn what_is_left_out_stands_in_plan_and_sweep() {
    let lab = lab("folder(path: \"k\", size: 16)");
    pictures(&lab, "k/a", 30);
    pictures(&lab, "k/b", 3);
    pictures(&lab, "k/b/in", 30);
    for i in 0..2 {
        lab.write(&format!("k/b/{i}.tga"), "x").unwrap();
    }
    planned(
        &lab,
        &[
            "folder \"k\": 2 classes, 29 + 4 images, 32 files left out (2 .tga, 30 in folders within class folders)",
            "classes: a, b",
            "images per class: 2 to 27 training, 1 to 3 test",
            "size: 16 x 16, used as 16 x 16 x 3",
            "splits: 0.1 of each class for test, chosen by name",
            "left out: 2 files, .tga, such as ",
            "/k/b/0.tga; 30 files, in folders within class folders, such as ",
        ],
    );
    let swept = lab.run("sweep tiny.ron --runs runs --out out").unwrap();
    assert_eq!(swept.code, Some(0), "{}", swept.err);
    assert!(swept.err.contains("32 files left out (2 .tga, "), "{}", swept.err);
}

#[test]
fn splits_and_the_classes_that_they_lack_are_named() {
    let lab = lab("folder(path: \"v\", size: 16, expect: (3, 40, 15))");
    for class in ["a", "b"] {
        pictures(&lab, &format!("v/Train/{class}"), 20);
    }
    for class in ["a", "b", "c"] {
        pictures(&lab, &format!("v/valid/{class}"), 5);
    }
    pictures(&lab, "v/test", 4);
    planned(
        &lab,
        &[
            "3 classes, 40 + 15 images, 4 files left out",
            "splits: the folders `Train` and `valid`",
            "no training images of: c",
            "the folder `test` is not used: it has no class folders",
        ],
    );
}

/// One file of 220: known before hours of work, or left out.
#[test]
fn a_bad_file_is_found_in_the_plan_and_can_be_left_out() {
    let lab = lab("folder(path: \"bad\", size: 16)");
    for class in ["a", "b"] {
        pictures(&lab, &format!("bad/train/{class}"), 20);
        pictures(&lab, &format!("bad/test/{class}"), 10);
    }
    let whole = fs::read(lab.path("bad/test/b/004.png")).unwrap();
    lab.write("bad/test/b/005.png", &whole[..40]).unwrap();
    refused(&lab, &["bad/test/b/005.png: the image is damaged", "`bad_files: skip` leaves such files out"]);
    let said = lab.run("plan tiny.ron --set data.bad_files=skip").unwrap();
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.out.contains("2 classes, 40 + 19 images, 1 file left out (1 damaged)"), "{}", said.out);
}

#[test]
fn images_of_several_sizes_are_refused_in_the_plan() {
    let lab = lab("folder(path: \"d\")");
    for folder in ["train/a", "train/b", "test/a", "test/b"] {
        pictures(&lab, &format!("d/{folder}"), 8);
    }
    RgbImage::new(18, 16).save(lab.path("d/test/b/007.png")).unwrap();
    refused(&lab, &["d/test/b/007.png: an image of 16 x 18 pixels", "31 of 32 are of 16 x 16", "give `size`"]);
}

/// Images in the split folders themselves: a set without classes, from the plan to the page.
#[test]
fn a_set_without_classes_is_trained_and_measured() {
    let lab = lab("folder(path: \"u\", size: 16)");
    pictures(&lab, "u/Train", 40);
    pictures(&lab, "u/Test", 20);
    planned(&lab, &["folder \"u\": no labels, 40 + 20 images", "splits: the folders `Train` and `Test`"]);
    let swept = lab.run("sweep tiny.ron --runs runs --out out").unwrap();
    assert_eq!(swept.code, Some(0), "{}", swept.err);
    assert!(swept.err.contains("1 of 1 trial"), "{}", swept.err);
}

/// What was found of files is kept until one of them changes.
#[test]
fn files_that_have_not_changed_are_looked_at_once() {
    let lab = lab("folder(path: \"k\", size: 16)");
    pictures(&lab, "k/a", 10);
    let plan = || {
        // Files that have only just been written may change again unnoticed: nothing is kept of them.
        let past = SystemTime::now() - Duration::from_secs(60);
        for entry in fs::read_dir(lab.path("k/a")).unwrap() {
            let file = fs::File::options().write(true).open(entry.unwrap().path()).unwrap();
            if file.metadata().unwrap().modified().unwrap() > past {
                file.set_modified(past).unwrap();
            }
        }
        let said = Said::from(
            lab.command("plan tiny.ron").unwrap().env("XDG_CACHE_HOME", lab.path("cache")).output().unwrap(),
        );
        assert_eq!(said.code, Some(0), "{}", said.err);
        said.out
    };
    let kept = || -> Vec<_> {
        let entries = fs::read_dir(lab.path("cache/rqlab/data")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    let first = plan();
    assert_eq!(kept().len(), 1);
    assert_eq!(plan(), first);
    assert_eq!(kept().len(), 1);
    // What is damaged is made again.
    let text = fs::read_to_string(&kept()[0]).unwrap();
    for damaged in [text.replace("\"grey\":0", "\"grey\":3"), "{".to_owned()] {
        fs::write(&kept()[0], damaged).unwrap();
        assert_eq!(plan(), first);
        assert_eq!(fs::read_to_string(&kept()[0]).unwrap(), text);
    }
    pictures(&lab, "k/a", 11);
    assert!(plan().contains("10 + 1 images"));
    assert_eq!(kept().len(), 2);
}

/// Distances are taken on features of a classifier, which labels train; and every measure needs some images.
#[test]
fn what_cannot_be_measured_is_said_before_any_work() {
    let lab = lab("folder(path: \"u\", size: 16)");
    pictures(&lab, "u/train", 20);
    pictures(&lab, "u/test", 8);
    let ask = |metric: &str| {
        let text = lab
            .read("tiny.ron")
            .unwrap()
            .replace("seeds: [0]", &format!("seeds: [0], report: (headline: \"{metric}\")"));
        lab.write("asks.ron", text).unwrap();
        lab.run("plan asks.ron").unwrap()
    };
    for metric in ["recon_frechet", "precision", "sample_frechet"] {
        let said = ask(metric);
        assert_eq!(said.code, Some(2), "{metric}");
        assert!(
            said.err.contains(&format!("no trial can have `{metric}`: features are those of a classifier")),
            "{}",
            said.err
        );
        assert!(said.err.contains("asks.ron:"), "{}", said.err);
    }
    for metric in ["psnr", "prior_bits_per_image"] {
        assert_eq!(ask(metric).code, Some(0), "{metric}");
    }

    // With classes, the measures that few images are too few for are named, and the others are taken.
    pictures(&lab, "c/train/a", 20);
    pictures(&lab, "c/train/b", 20);
    pictures(&lab, "c/test/a", 2);
    pictures(&lab, "c/test/b", 2);
    let data = "data=folder(path: \"c\", size: 16)";
    let planned =
        |name: &str| Said::from(lab.command(&format!("plan {name}")).unwrap().args(["--set", data]).output().unwrap());
    let said = planned("tiny.ron");
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.out.contains("Left out: density, coverage; it needs 6 real images, and there are 4."), "{}", said.out);
    assert!(!said.out.contains("precision"), "{}", said.out);
    ask("coverage");
    let said = planned("asks.ron");
    assert!(
        said.code == Some(2) && said.err.contains("no trial can have `coverage`: it needs 6 real images"),
        "{}",
        said.err
    );
}
