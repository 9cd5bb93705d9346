//! Folders of images, written here, and read back.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use image::{Rgb, RgbImage};
use rqlab_dataset_folder::{Folder, FolderConfig};
use rqlab_sdk::prelude::*;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

fn open(root: &Path, fields: &str) -> Result<Folder> {
    let config = FolderConfig::parse(&format!("folder(path: \"set\", {fields})"))?;
    Folder::new(config, &DatasetContext::new(root.to_owned()))
}

fn complaint(root: &Path, fields: &str) -> String {
    match open(root, fields) {
        Ok(_) => panic!("it opened"),
        Err(error) => error.to_string(),
    }
}

fn save(root: &Path, name: &str, image: &RgbImage) {
    let path = root.join("set").join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    image.save(path).unwrap();
}

/// An image whose red says how far right a pixel is.
fn ramp(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, _| Rgb([(x * 4) as u8, 7, 9]))
}

/// Two classes of forty PNG files.
fn two_classes() -> TempDir {
    let dir = TempDir::new().unwrap();
    for i in 0..40u8 {
        save(dir.path(), &format!("owl/{i:02}.png"), &RgbImage::from_pixel(8, 8, Rgb([i, 1, 0])));
        save(dir.path(), &format!("cat/{i:02}.png"), &RgbImage::from_pixel(8, 8, Rgb([i, 0, 1])));
    }
    dir
}

#[test]
fn classes_are_folders_in_order_and_pixels_lie_between_minus_one_and_one() {
    let dir = two_classes();
    let set = open(dir.path(), "test_fraction: 0.25").unwrap();
    assert_eq!(set.info().classes, ["cat", "owl"]);
    assert_eq!(set.info().image, [8, 8, 3]);
    assert_eq!(set.info().train + set.info().test, 80);
    for split in [Split::Train, Split::Test] {
        let indices: Vec<usize> = (0..set.info().len(split)).collect();
        let images = set.batch(split, &indices, None).unwrap();
        assert_eq!(images.pixels.shape(), [indices.len(), 8, 8, 3]);
        for (image, label) in images.pixels.as_slice().chunks_exact(192).zip(images.labels.as_slice()) {
            // Green marks owls, blue cats; 1 of 255 is -1 + 2/255.
            let (green, blue) = if *label == 1 { (2.0 / 255.0 - 1.0, -1.0) } else { (-1.0, 2.0 / 255.0 - 1.0) };
            assert!((image[1] - green).abs() < 1e-6 && (image[2] - blue).abs() < 1e-6);
        }
    }
}

#[test]
fn no_image_is_in_both_splits_and_a_new_file_moves_no_other() {
    let dir = two_classes();
    let reds = |set: &Folder, split: Split| -> Vec<(u32, i32)> {
        let indices: Vec<usize> = (0..set.info().len(split)).collect();
        let images = set.batch(split, &indices, None).unwrap();
        let red = |image: &[f32]| ((image[0] + 1.0) * 127.5).round() as i32;
        images.labels.as_slice().iter().copied().zip(images.pixels.as_slice().chunks_exact(192).map(red)).collect()
    };
    let before = open(dir.path(), "test_fraction: 0.3").unwrap();
    let (train, test) = (reds(&before, Split::Train), reds(&before, Split::Test));
    assert!(test.len() > 8 && test.len() < 48, "{}", test.len());
    assert!(train.iter().all(|image| !test.contains(image)));
    save(dir.path(), "owl/new.png", &RgbImage::from_pixel(8, 8, Rgb([99, 1, 0])));
    let after = open(dir.path(), "test_fraction: 0.3").unwrap();
    assert_ne!(after.info().digest, before.info().digest);
    assert!(test.iter().all(|image| reds(&after, Split::Test).contains(image)));
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
    save(dir.path(), "val/a/2.webp", &ramp(12, 9));
    assert_ne!(open(dir.path(), "").unwrap().info().digest, digest);
}

#[test]
fn the_short_side_is_scaled_and_the_middle_kept() {
    let dir = TempDir::new().unwrap();
    save(dir.path(), "train/a/0.png", &ramp(48, 16));
    save(dir.path(), "test/a/0.png", &ramp(32, 64));
    let set = open(dir.path(), "size: 16").unwrap();
    let image = set.batch(Split::Train, &[0], None).unwrap().pixels;
    // The middle sixteen of 48 columns begin at column 16.
    let reds: Vec<f32> = image.as_slice()[..48].iter().step_by(3).map(|x| (x + 1.0) * 127.5).collect();
    for (x, red) in reds.iter().enumerate() {
        assert!((red - 4.0 * (16 + x) as f32).abs() < 1e-3, "{reds:?}");
    }
    // Scaled by half: a column is the mean of two, red 8x + 2.
    let image = set.batch(Split::Test, &[0], None).unwrap().pixels;
    let reds: Vec<f32> = image.as_slice()[..48].iter().step_by(3).map(|x| (x + 1.0) * 127.5).collect();
    for (x, red) in reds.iter().enumerate().skip(2).take(12) {
        assert!((red - (8 * x + 2) as f32).abs() <= 1.0, "{reds:?}");
    }
}

#[test]
fn augmentation_mirrors_half_and_crops_anywhere_only_when_asked() {
    let dir = TempDir::new().unwrap();
    save(dir.path(), "train/a/0.png", &ramp(48, 16));
    save(dir.path(), "test/a/0.png", &ramp(48, 16));
    let set = open(dir.path(), "size: 16, flip: true, crop: random").unwrap();
    let rng = Rng::new(1, "augment", 0);
    let images = set.batch(Split::Train, &[0; 400], Some(&rng)).unwrap().pixels;
    let mut starts = Vec::new();
    let mut mirrored = 0;
    for image in images.as_slice().chunks_exact(16 * 16 * 3) {
        let (first, last) = ((image[0] + 1.0) * 127.5 / 4.0, (image[45] + 1.0) * 127.5 / 4.0);
        assert!(((first - last).abs() - 15.0).abs() < 1e-3);
        mirrored += usize::from(first > last);
        starts.push(first.min(last).round() as usize);
    }
    // 400 throws of a coin: five standard deviations are 50.
    assert!((150..=250).contains(&mirrored), "{mirrored}");
    starts.sort_unstable();
    starts.dedup();
    assert_eq!((starts[0], starts[starts.len() - 1]), (0, 32));
    let plain = set.batch(Split::Train, &[0, 0], None).unwrap().pixels.to_vec();
    assert_eq!(plain[..768], plain[768..]);
    assert!((plain[0] - (64.0 / 127.5 - 1.0)).abs() < 1e-6);
}

#[test]
fn without_memory_the_pixels_are_the_same() {
    let dir = two_classes();
    let (large, none) = (open(dir.path(), "").unwrap(), open(dir.path(), "cache_mib: 0").unwrap());
    for _ in 0..2 {
        let batch = |set: &Folder| set.batch(Split::Train, &[5, 0, 5, 31], None).unwrap().pixels.to_vec();
        assert_eq!(batch(&large), batch(&none));
    }
}

#[test]
fn complaints_name_the_file() {
    let dir = TempDir::new().unwrap();
    assert!(complaint(dir.path(), "").contains("set: "));
    fs::create_dir(dir.path().join("set")).unwrap();
    assert!(complaint(dir.path(), "").contains("has no folders"));
    fs::create_dir(dir.path().join("set/a")).unwrap();
    fs::write(dir.path().join("set/a/notes.txt"), "x").unwrap();
    fs::write(dir.path().join("set/a/.hidden.png"), "x").unwrap();
    let empty = complaint(dir.path(), "");
    assert!(empty.contains("set/a: no .jpg, .jpeg, .png or .webp among its 1 files"), "{empty}");
    for i in 0..20 {
        save(dir.path(), &format!("a/{i}.png"), &ramp(8, 8));
    }
    assert!(
        complaint(dir.path(), "test_fraction: 0.0").contains("no image for the test split; change `test_fraction`")
    );
    let set = open(dir.path(), "test_fraction: 0.5").unwrap();
    assert_eq!(set.ignored(), 1);

    save(dir.path(), "a/odd.png", &ramp(9, 8));
    fs::write(dir.path().join("set/a/torn.jpg"), b"\xff\xd8\xff\xe0 torn").unwrap();
    let all = |fields: &str| -> Vec<String> {
        let set = open(dir.path(), fields).unwrap();
        let each = |split: Split| (0..set.info().len(split)).map(move |i| (split, i));
        let images = each(Split::Train).chain(each(Split::Test));
        images.filter_map(|(split, i)| Some(set.batch(split, &[i], None).err()?.to_string())).collect()
    };
    let errors = all("test_fraction: 0.5");
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(
        errors.iter().any(|e| e.contains("odd.png: an image of 8 x 9 pixels") && e.contains("8 x 8")),
        "{errors:?}"
    );
    assert!(errors.iter().any(|e| e.contains("torn.jpg: the image is damaged")), "{errors:?}");
}

#[cfg(unix)]
#[test]
fn links_are_followed() {
    let dir = two_classes();
    let elsewhere = TempDir::new().unwrap();
    save(elsewhere.path(), "eel/0.png", &ramp(8, 8));
    std::os::unix::fs::symlink(elsewhere.path().join("set/eel"), dir.path().join("set/eel")).unwrap();
    assert_eq!(open(dir.path(), "").unwrap().info().classes, ["cat", "eel", "owl"]);
}

/// ImageNet's sizes are known without ImageNet.
#[test]
fn what_is_expected_can_be_planned_with_and_is_checked() {
    let dir = two_classes();
    let nowhere = dir.path().join("nowhere");
    let set = open(&nowhere, "size: 64, expect: (10, 500, 50)").unwrap();
    assert_eq!((set.info().classes.len(), set.info().train, set.info().test), (10, 500, 50));
    assert_eq!(set.info().image, [64, 64, 3]);
    assert!(set.absent().unwrap().contains("nowhere"));
    assert!(set.batch(Split::Train, &[0], None).is_err());
    assert!(open(&nowhere, "size: 64").is_err());

    let found = open(dir.path(), "size: 8, test_fraction: 0.25").unwrap();
    let (train, test) = (found.info().train, found.info().test);
    let asked = format!("size: 8, test_fraction: 0.25, expect: (2, {train}, {test})");
    assert_eq!(open(dir.path(), &asked).unwrap().absent(), None);
    let complaint = complaint(dir.path(), "size: 8, test_fraction: 0.25, expect: (3, 60, 20)");
    assert!(complaint.contains("2 classes") && complaint.contains("asks for 3 classes"), "{complaint}");
}

#[test]
fn it_keeps_the_contract_of_a_data_set() {
    let dir = two_classes();
    rqlab_sdk::testing::dataset(&open(dir.path(), "test_fraction: 0.25").unwrap());
    rqlab_sdk::testing::dataset(&open(dir.path(), "size: 6, crop: random, flip: true, cache_mib: 0").unwrap());
}
