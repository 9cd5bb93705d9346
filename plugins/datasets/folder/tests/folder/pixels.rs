//! What becomes of an image.

use super::{complaint, open, ramp, save, two_classes};
use image::{GrayImage, Luma, Rgb, RgbImage, Rgba, RgbaImage};
use rqlab_dataset_folder::Folder;
use rqlab_sdk::prelude::*;
use std::fs;
use tempfile::TempDir;

#[test]
fn grey_sets_have_one_channel_unless_asked_for_three() {
    let dir = TempDir::new().unwrap();
    fs::create_dir_all(dir.path().join("set/a")).unwrap();
    for i in 0..10u8 {
        GrayImage::from_pixel(8, 8, Luma([i * 20])).save(dir.path().join(format!("set/a/{i}.png"))).unwrap();
    }
    let set = open(dir.path(), "").unwrap();
    assert_eq!(set.info().image, [8, 8, 1]);
    rqlab_sdk::testing::dataset(&open(dir.path(), "test_fraction: 0.3").unwrap());
    assert_eq!(open(dir.path(), "channels: 3").unwrap().info().image, [8, 8, 3]);
    assert!(complaint(dir.path(), "channels: 2").contains("1 channel or 3"));
    save(dir.path(), "a/colour.png", &RgbImage::from_pixel(8, 8, Rgb([200, 100, 50])));
    let set = open(dir.path(), "").unwrap();
    assert_eq!(set.info().image, [8, 8, 3]);
    assert!(set.info().summary.preparation[0].contains("10 images of shades of grey"));
    assert_eq!(open(dir.path(), "channels: 1").unwrap().info().image, [8, 8, 1]);
}

#[test]
fn hidden_colours_of_transparent_pixels_do_not_show() {
    let sets: Vec<Vec<f32>> = [[9, 200, 31], [255, 255, 255]]
        .into_iter()
        .map(|[r, g, b]| {
            let dir = TempDir::new().unwrap();
            fs::create_dir_all(dir.path().join("set/a")).unwrap();
            for i in 0..4u32 {
                let inside = |x: u32, y: u32| (2..6).contains(&x) && (2..6).contains(&y);
                let pixel = |x, y| if inside(x, y) { Rgba([60, 60, 60, 255]) } else { Rgba([r, g, b, 0]) };
                RgbaImage::from_fn(8, 8, pixel).save(dir.path().join(format!("set/a/{i}.png"))).unwrap();
            }
            let set = open(dir.path(), "background: (0, 0, 255)").unwrap();
            let facts = &set.info().summary.preparation;
            assert!(facts[0].contains("4 images composited on (0, 0, 255)"), "{facts:?}");
            set.batch(Split::Train, &[0], None).unwrap().pixels.to_vec()
        })
        .collect();
    assert_eq!(sets[0], sets[1]);
    assert_eq!(sets[0][..3], [-1.0, -1.0, 1.0]);
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
    assert_eq!(set.info().summary.augmentation, ["a window that lies anywhere", "mirrored at random"]);
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

/// Of an image that is far from square a window is cut before it is scaled: any one, too.
#[test]
fn random_windows_of_a_thin_image_come_from_all_of_it() {
    let dir = TempDir::new().unwrap();
    save(dir.path(), "train/a/0.png", &RgbImage::from_fn(2, 4000, |_, y| Rgb([(y / 16) as u8, 0, 0])));
    save(dir.path(), "test/a/0.png", &ramp(16, 16));
    let set = open(dir.path(), "size: 16, crop: random").unwrap();
    let rng = Rng::new(3, "augment", 0);
    let images = set.batch(Split::Train, &[0; 200], Some(&rng)).unwrap().pixels.to_vec();
    let mut places: Vec<i32> = images.chunks_exact(768).map(|image| ((image[0] + 1.0) * 127.5) as i32).collect();
    places.sort_unstable();
    assert!(places[0] < 20 && places[199] > 230, "{places:?}");
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
