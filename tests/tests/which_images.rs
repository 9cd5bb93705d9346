//! Which images and classes are measured: a count that cuts a split sorted by class takes images of all classes, wherever it
//! cuts, and samples are drawn of the classes that the measured images have.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use image::{Rgb, RgbImage};
use rqlab_sdk::checkpoint::Checkpoint;
use rqlab_tests::lab::Lab;
use std::collections::BTreeMap;
use std::fs;

const COLOURS: [[u8; 3]; 4] = [[200, 30, 30], [30, 200, 30], [30, 30, 200], [220, 220, 30]];

/// A folder of four classes, each of one colour, with 30 training and 20 test images.
fn colours(lab: &Lab) {
    for (class, colour) in COLOURS.iter().enumerate() {
        for (split, count) in [("train", 30), ("test", 20)] {
            let folder = lab.path(&format!("data/{split}/{}", ["ant", "bee", "cat", "dog"][class]));
            fs::create_dir_all(&folder).unwrap();
            for n in 0..count {
                RgbImage::from_pixel(16, 16, Rgb(*colour)).save(folder.join(format!("{n:02}.png"))).unwrap();
            }
        }
    }
}

/// How many images of each class a stage's result has labels of.
fn labels(lab: &Lab, runs: &str, kind: &str) -> BTreeMap<u32, usize> {
    let stage = lab.stages(runs, kind).unwrap().remove(0);
    let kept = Checkpoint::load(&stage.join("result.safetensors")).unwrap();
    let mut found = BTreeMap::new();
    kept.codes["labels"].as_slice().iter().for_each(|&label| *found.entry(label).or_insert(0) += 1);
    found
}

#[test]
fn a_count_takes_images_of_all_classes() {
    let lab = Lab::new().unwrap();
    colours(&lab);
    let experiment = "tiny.ron --runs runs --set quantizer.depth=2 --set prior=ar(width:16,heads:2,layers:1) \
                      --set data=folder(path:\"data\") --set prior_training.images=24 --set evaluation.images=24 \
                      --set evaluation.pictures=4";
    let said = lab.run(&format!("sweep --quiet --out out {experiment}")).unwrap();
    assert_eq!(said.code, Some(0), "{}", said.err);

    // What a prior is trained on: 24 of 120, of which each class is expected to have 6.
    let trained = labels(&lab, "runs", "tokens");
    assert_eq!(trained.values().sum::<usize>(), 24);
    assert!(trained.len() == 4 && trained.values().all(|&images| images >= 2), "{trained:?}");
    // What the page shows: four pictures are one of each class.
    assert_eq!(labels(&lab, "runs", "reconstruction"), BTreeMap::from([(0, 1), (1, 1), (2, 1), (3, 1)]));

    // The same pictures from the command line, in the top row of the sheet.
    let said = lab.run(&format!("reconstruct --count 4 -o sheet.png {experiment}")).unwrap();
    assert_eq!(said.code, Some(0), "{}", said.err);
    let sheet = image::open(lab.path("sheet.png")).unwrap().into_rgb8();
    let top: Vec<[u8; 3]> = (0..4).map(|n| sheet.get_pixel(2 + 8 + 18 * n, 2 + 8).0).collect();
    assert_eq!(top, COLOURS);
}

/// A folder of two classes of unequal size: three dark images for each bright one.
fn unequal(lab: &Lab) {
    for (class, count, level) in [("bright", 6, 215), ("dark", 18, 40)] {
        for split in ["train", "test"] {
            let folder = lab.path(&format!("unequal/{split}/{class}"));
            fs::create_dir_all(&folder).unwrap();
            for n in 0..count {
                RgbImage::from_pixel(16, 16, Rgb([level + n; 3])).save(folder.join(format!("{n:02}.png"))).unwrap();
            }
        }
    }
}

#[test]
fn samples_are_of_the_classes_that_the_measured_images_have() {
    let lab = Lab::new().unwrap();
    unequal(&lab);
    let one = "--set quantizer.depth=2 --set prior=ar(width:16,heads:2,layers:1) --set data=folder(path:\"unequal\")";
    // All 20 samples are kept for the report.
    let kept = "--set evaluation.pictures=64 --set evaluation.samples=20 --set evaluation.images=24";
    for (runs, asked, expected) in [
        ("data", "data", vec![(0, 5), (1, 15)]),
        ("uniform", "uniform", vec![(0, 10), (1, 10)]),
        ("one", "class(\"dark\")", vec![(1, 20)]),
    ] {
        let experiment = format!("tiny.ron --runs {runs} {one} {kept} --set evaluation.labels={asked}");
        let said = lab.run(&format!("sweep --quiet --out out {experiment}")).unwrap();
        assert_eq!(said.code, Some(0), "{}", said.err);
        assert_eq!(labels(&lab, runs, "generation"), BTreeMap::from_iter(expected), "{asked}");
    }
    let said = lab.run(&format!("plan tiny.ron {one} --set evaluation.labels=class(\"grey\")")).unwrap();
    assert_eq!(said.code, Some(2), "{}", said.out);
    assert!(said.err.contains("there is no class `grey`: the data set has 2, from `bright` to `dark`"), "{}", said.err);
}

#[test]
fn each_sampling_seed_is_a_draw_of_its_own() {
    let lab = Lab::new().unwrap();
    let one = "--set quantizer.depth=2 --set prior=ar(width:16,heads:2,layers:1)";
    let said =
        lab.run(&format!("sweep tiny.ron --quiet --runs runs --out out {one} --set evaluation.sampling_seeds=[0,7]"));
    let said = said.unwrap();
    assert_eq!(said.code, Some(0), "{}", said.err);
    let stage = lab.stages("runs", "generation").unwrap().remove(0);
    let done: serde_json::Value = serde_json::from_slice(&fs::read(stage.join("done.json")).unwrap()).unwrap();
    let readings = done["readings"].as_array().unwrap();
    let distances: Vec<(String, f64)> = readings
        .iter()
        .filter(|reading| reading["measure"] == "sample_frechet")
        .map(|reading| (reading["at"].to_string(), reading["value"].as_f64().unwrap()))
        .collect();
    let [(_, mean), (_, first), (_, second)] = &distances[..] else { panic!("{distances:?}") };
    assert!((mean - (first + second) / 2.0).abs() < 1e-9 && first != second, "{distances:?}");
    for seeds in ["[]", "[3,3]"] {
        let said = lab.run(&format!("plan tiny.ron {one} --set evaluation.sampling_seeds={seeds}")).unwrap();
        assert!(said.code == Some(2) && said.err.contains("sampling seed"), "{seeds}: {}", said.err);
    }
}
