//! Folders of images, written here, and read back.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod captions;
mod files;
mod pixels;
mod splits;

use image::{ImageFormat, Rgb, RgbImage};
use rqlab_dataset_folder::{Folder, FolderConfig};
use rqlab_sdk::contracts::LeftOut;
use rqlab_sdk::prelude::*;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

fn open(root: &Path, fields: &str) -> Result<Folder> {
    let config = FolderConfig::parse(&format!("folder(path: \"set\", {fields})"))?;
    rqlab_dataset_folder::open(config, &DatasetContext::new(root))
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

/// Flat images `0.png`, `1.png`, .. in a folder.
fn flat(root: &Path, folder: &str, count: usize) {
    for i in 0..count {
        save(root, &format!("{folder}/{i}.png"), &RgbImage::from_pixel(8, 8, Rgb([i as u8, 1, 0])));
    }
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

/// What it has: classes, training images, test images.
fn counts(set: &Folder) -> (usize, usize, usize) {
    (set.info().classes.len(), set.info().train, set.info().test)
}

fn left_out(set: &Folder) -> Vec<(&str, usize)> {
    set.info().summary.left_out.iter().map(|LeftOut { reason, count, .. }| (reason.as_str(), *count)).collect()
}

/// The red of the first pixel of every image of a split.
fn reds(set: &Folder, split: Split) -> Vec<i32> {
    let indices: Vec<usize> = (0..set.info().len(split)).collect();
    let images = set.batch(split, &indices, None).unwrap();
    let size = images.pixels.len() / indices.len();
    images.pixels.as_slice().chunks_exact(size).map(|image| ((image[0] + 1.0) * 127.5).round() as i32).collect()
}

#[test]
fn classes_are_folders_in_order_and_pixels_lie_between_minus_one_and_one() {
    let dir = two_classes();
    let set = open(dir.path(), "test_fraction: 0.25").unwrap();
    assert_eq!(set.info().classes, ["cat", "owl"]);
    assert_eq!(set.info().image, [8, 8, 3]);
    assert_eq!(set.info().summary.per_class, [[30, 10], [30, 10]]);
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
fn it_keeps_the_contract_of_a_data_set() {
    let dir = two_classes();
    rqlab_sdk::testing::dataset(&open(dir.path(), "test_fraction: 0.25").unwrap());
    rqlab_sdk::testing::dataset(&open(dir.path(), "size: (6, 7), crop: random, flip: true, cache_mib: 0").unwrap());
    fs::create_dir_all(dir.path().join("set/bat")).unwrap();
    let image = image::DynamicImage::from(ramp(8, 8));
    image.save_with_format(dir.path().join("set/bat/a.webp"), ImageFormat::Bmp).unwrap();
    rqlab_sdk::testing::dataset(&open(dir.path(), "").unwrap());
}
