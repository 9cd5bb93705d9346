//! Folders of images, written here, and read back.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use image::{GrayImage, ImageFormat, Luma, Rgb, RgbImage, Rgba, RgbaImage};
use rqlab_dataset_folder::{Folder, FolderConfig};
use rqlab_sdk::contracts::{LeftOut, Progress};
use rqlab_sdk::prelude::*;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;

fn open(root: &Path, fields: &str) -> Result<Folder> {
    let config = FolderConfig::parse(&format!("folder(path: \"set\", {fields})"))?;
    Folder::new(config, &DatasetContext::new(root))
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
fn what_is_left_out_is_counted_by_reason() {
    let dir = TempDir::new().unwrap();
    flat(dir.path(), "a", 30);
    flat(dir.path(), "b", 3);
    flat(dir.path(), "b/in", 30);
    for i in 0..27 {
        fs::write(dir.path().join(format!("set/b/{i}.SVG")), "<svg/>").unwrap();
    }
    fs::write(dir.path().join("set/b/README"), "no").unwrap();
    fs::write(dir.path().join("set/b/.hidden"), "no").unwrap();
    save(dir.path(), "lost.png", &ramp(8, 8));
    let set = open(dir.path(), "expect: (2, 29, 4)").unwrap();
    assert_eq!(set.info().summary.per_class, [[27, 3], [2, 1]]);
    let right = [
        (".svg", 27),
        ("in folders within class folders", 30),
        ("outside the class folders", 1),
        ("without an ending", 1),
    ];
    assert_eq!(left_out(&set), right);
    let example = &set.info().summary.left_out[0].example;
    assert!(example.ends_with("set/b/0.SVG"), "{example}");
}

#[test]
fn more_formats_are_read() {
    let dir = TempDir::new().unwrap();
    for ending in ["bmp", "gif", "tif", "TIFF", "ppm", "jpeg", "JPG", "webp"] {
        save(dir.path(), &format!("a/{ending}.{ending}"), &RgbImage::from_pixel(8, 8, Rgb([90, 90, 90])));
    }
    // What a browser saves of a JPEG.
    fs::rename(dir.path().join("set/a/jpeg.jpeg"), dir.path().join("set/a/jpeg.jfif")).unwrap();
    let set = open(dir.path(), "").unwrap();
    assert_eq!(counts(&set), (1, 7, 1));
    for red in reds(&set, Split::Train) {
        assert!((88..=92).contains(&red), "{red}");
    }
}

#[test]
fn bad_files_are_refused_in_the_plan_or_left_out_and_counted() {
    let dir = TempDir::new().unwrap();
    for class in ["a", "b"] {
        flat(dir.path(), &format!("train/{class}"), 10);
        flat(dir.path(), &format!("test/{class}"), 4);
    }
    let digest = open(dir.path(), "bad_files: skip").unwrap().info().digest.clone();
    assert_eq!(open(dir.path(), "").unwrap().info().digest, digest);

    let set = dir.path().join("set");
    let whole = fs::read(set.join("test/b/3.png")).unwrap();
    fs::write(set.join("test/b/cut.png"), &whole[..40]).unwrap();
    fs::write(set.join("train/a/none.jpg"), "").unwrap();
    fs::write(set.join("train/a/text.webp"), "not an image").unwrap();
    let error = complaint(dir.path(), "");
    assert!(error.contains("test/b/cut.png: the image is damaged: the file ends before its image does"), "{error}");
    assert!(error.contains("2 more cannot be used") && error.contains("`bad_files: skip`"), "{error}");

    let skipped = open(dir.path(), "bad_files: skip, expect: (2, 20, 8)").unwrap();
    assert_eq!(counts(&skipped), (2, 20, 8));
    assert_eq!(left_out(&skipped), [("damaged", 1), ("empty", 1), ("of no known format", 1)]);
    // Of what is left: as if the others had never been there.
    assert_eq!(skipped.info().digest, digest);

    // What only decoding shows: a bit of the compressed pixels.
    let mut flipped = whole.clone();
    let data = flipped.windows(4).position(|name| name == b"IDAT").unwrap();
    flipped[data + 8] ^= 4;
    fs::write(set.join("test/b/flipped.png"), &flipped).unwrap();
    for name in ["test/b/cut.png", "train/a/none.jpg", "train/a/text.webp"] {
        fs::remove_file(set.join(name)).unwrap();
    }
    let skipped = open(dir.path(), "bad_files: skip").unwrap();
    assert_eq!((left_out(&skipped), &skipped.info().digest), (vec![("damaged", 1)], &digest));
    let refused = open(dir.path(), "").unwrap();
    let all: Vec<usize> = (0..refused.info().test).collect();
    let error = refused.batch(Split::Test, &all, None).unwrap_err().to_string();
    assert!(error.contains("flipped.png: the image is damaged") && error.contains("bad_files: skip"), "{error}");
}

#[test]
fn images_of_several_sizes_are_told_of_when_the_set_is_opened() {
    let dir = TempDir::new().unwrap();
    flat(dir.path(), "train/a", 9);
    flat(dir.path(), "test/a", 9);
    save(dir.path(), "test/a/odd.png", &ramp(10, 8));
    let error = complaint(dir.path(), "");
    assert!(error.contains("odd.png: an image of 8 x 10 pixels") && error.contains("18 of 19 are of 8 x 8"), "{error}");
    assert!(error.contains("give `size`"), "{error}");
    let set = open(dir.path(), "size: (8, 10)").unwrap();
    assert_eq!(set.info().image, [8, 10, 3]);
    let sizes = set.info().summary.sizes.unwrap();
    assert_eq!((sizes.height, sizes.width), ([8, 8], [8, 10]));
    // A picture that lies on its side is measured as it stands.
    assert_eq!(set.batch(Split::Train, &[0], None).unwrap().pixels.shape(), [1, 8, 10, 3]);
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

#[test]
fn complaints_name_the_place_and_say_what_is_there() {
    let dir = TempDir::new().unwrap();
    assert!(complaint(dir.path(), "").contains("set: "));
    fs::create_dir(dir.path().join("set")).unwrap();
    assert!(complaint(dir.path(), "").contains("set: has no folders; every class needs one"));
    fs::create_dir_all(dir.path().join("set/a/deep")).unwrap();
    fs::write(dir.path().join("set/a/notes.txt"), "x").unwrap();
    let empty = complaint(dir.path(), "");
    assert!(empty.contains("set: holds no images; what is there: 1 .txt"), "{empty}");
    for i in 0..20 {
        save(dir.path(), &format!("a/deep/{i}.png"), &ramp(8, 8));
    }
    let nested = complaint(dir.path(), "");
    assert!(nested.contains("20 lie in folders within") && nested.contains("`nested: true`"), "{nested}");
    assert_eq!(counts(&open(dir.path(), "nested: true").unwrap()), (1, 18, 2));
    let none = complaint(dir.path(), "nested: true, test_fraction: 0.0");
    assert!(none.contains("no image for the test split; change `test_fraction`"), "{none}");
}

#[test]
fn too_many_pixels_are_told_of_before_they_are_decoded() {
    let dir = TempDir::new().unwrap();
    flat(dir.path(), "a", 10);
    GrayImage::new(2000, 1001).save(dir.path().join("set/a/large.png")).unwrap();
    let error = complaint(dir.path(), "size: 16, max_megapixels: 2");
    assert!(
        error.contains("large.png: the image has 1001 x 2000 pixels") && error.contains("`max_megapixels`"),
        "{error}"
    );
    let set = open(dir.path(), "size: 16, max_megapixels: 2, bad_files: skip").unwrap();
    assert_eq!(left_out(&set), [("too large", 1)]);
    assert!(open(dir.path(), "size: 16").is_ok());
}

#[cfg(unix)]
#[test]
fn links_are_followed_and_broken_ones_counted() {
    use std::os::unix::fs::symlink;
    let dir = two_classes();
    let elsewhere = TempDir::new().unwrap();
    save(elsewhere.path(), "eel/0.png", &ramp(8, 8));
    symlink(elsewhere.path().join("set/eel"), dir.path().join("set/eel")).unwrap();
    symlink("nowhere.png", dir.path().join("set/cat/broken.png")).unwrap();
    // A folder within itself.
    symlink(".", dir.path().join("set/owl/again")).unwrap();
    let set = open(dir.path(), "").unwrap();
    assert_eq!(set.info().classes, ["cat", "eel", "owl"]);
    assert_eq!(left_out(&set)[0], ("broken links", 1));
}

#[cfg(unix)]
#[test]
fn a_class_whose_name_is_no_text_is_refused() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let dir = two_classes();
    let odd = dir.path().join("set").join(OsStr::from_bytes(b"\xff\xfe"));
    if fs::rename(dir.path().join("set/cat"), &odd).is_err() {
        return;
    }
    assert!(complaint(dir.path(), "").contains("not UTF-8"));
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

    assert_eq!(open(dir.path(), "size: 8, test_fraction: 0.25, expect: (2, 60, 20)").unwrap().absent(), None);
    let complaint = complaint(dir.path(), "size: 8, test_fraction: 0.25, expect: (3, 60, 20)");
    assert!(complaint.contains("2 classes") && complaint.contains("asks for 3 classes"), "{complaint}");
}

#[test]
fn whoever_waits_is_told_how_far_it_is() {
    let dir = two_classes();
    let told = Arc::new(AtomicUsize::new(0));
    let listener = told.clone();
    let progress = Progress::new(move |_, done, all| {
        assert_eq!(all, 80);
        listener.fetch_max(done, Ordering::Relaxed);
    });
    let config = FolderConfig::parse("folder(path: \"set\")").unwrap();
    let context = DatasetContext { progress, ..DatasetContext::new(dir.path()) };
    Folder::new(config, &context).unwrap();
    assert_eq!(told.load(Ordering::Relaxed), 80);
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
