//! A prior sees the augmentation of its data set, or the plan says that it does not.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use image::{Rgb, RgbImage};
use rqlab_sdk::checkpoint::Checkpoint;
use rqlab_tests::lab::Lab;
use std::fs;

/// A folder of images that are white on the left and black on the right.
fn halves(lab: &Lab) {
    for (split, count) in [("train", 20), ("test", 8)] {
        let folder = lab.path(&format!("halves/{split}/all"));
        fs::create_dir_all(&folder).unwrap();
        for n in 0..count {
            let image = RgbImage::from_fn(16, 16, |x, y| Rgb([if x < 8 { 255 - (y + n) as u8 } else { 0 }; 3]));
            image.save(folder.join(format!("{n:02}.png"))).unwrap();
        }
    }
}

/// Images in the header of the tokens that the one such stage of `runs` has kept.
fn encoded(lab: &Lab, runs: &str) -> u64 {
    let stage = lab.stages(runs, "tokens").unwrap().remove(0);
    let bytes = fs::read(stage.join("level1.tokens")).unwrap();
    let images = u64::from_le_bytes(bytes[16..24].try_into().unwrap());
    let labels = Checkpoint::load(&stage.join("result.safetensors")).unwrap().codes["labels"].len();
    assert_eq!(labels, 16, "labels are those of the images");
    images
}

#[test]
fn variants_are_encoded_as_asked_and_the_plan_tells_the_cost() {
    let lab = Lab::new().unwrap();
    halves(&lab);
    let one = "--set quantizer.depth=2 --set prior=ar(width:16,heads:2,layers:1)";
    let flip = "--set data=folder(path:\"halves\",flip:true)";
    for (name, data, asked, images, told) in [
        ("plain", "--set data=folder(path:\"halves\")", "variants", 16, None),
        ("flips", flip, "variants", 32, Some("2 variants of each of 16 images are encoded")),
        ("draws", flip, "draws(3)", 48, Some("3 variants of each of 16 images are encoded")),
        ("none", flip, "none", 16, Some("Priors do not see the data set's augmentation")),
        ("way", flip, "on_the_way", 16, Some("each of 20 steps encodes 4 anew")),
    ] {
        let experiment = format!("tiny.ron --runs {name} {one} {data} --set prior_training.augmentation={asked}");
        let plan = lab.run(&format!("plan {experiment}")).unwrap();
        assert_eq!(plan.code, Some(0), "{name}: {}", plan.err);
        match told {
            Some(told) => assert!(plan.out.contains(told), "{name}: {}", plan.out),
            None => assert!(!plan.out.contains("Priors"), "{name}: {}", plan.out),
        }
        let said = lab.run(&format!("sweep --quiet --out out-{name} {experiment}")).unwrap();
        assert_eq!(said.code, Some(0), "{name}: {}", said.err);
        assert_eq!(encoded(&lab, name), images, "{name}");
    }
}
