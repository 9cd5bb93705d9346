//! Which files are read, and what is said of the others.

use super::{complaint, counts, flat, left_out, open, ramp, reds, save, two_classes};
use image::{GrayImage, Rgb, RgbImage};
use rqlab_dataset_folder::FolderConfig;
use rqlab_sdk::contracts::Progress;
use rqlab_sdk::prelude::*;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;

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
    assert_eq!(left_out(&set), [("broken links", 1), ("links to folders that they lie in", 1)]);
}

/// However links lead, an image comes once for each way to it that never comes back to where it was.
#[cfg(unix)]
#[test]
fn links_in_circles_give_no_image_twice() {
    use std::os::unix::fs::symlink;
    let dir = two_classes();
    let set = dir.path().join("set");
    flat(dir.path(), "cat/young", 5);
    flat(dir.path(), "owl/old", 3);
    for (target, link) in [
        (".", "cat/young/here"),
        ("..", "cat/young/up"),
        ("../..", "owl/old/root"),
        ("../../owl/old", "cat/young/aside"),
        ("../../cat/young", "owl/old/back"),
        (".", "set"),
    ] {
        symlink(target, set.join(link)).unwrap();
    }
    let read = open(dir.path(), "nested: true").unwrap();
    assert_eq!(counts(&read), (2, 2 * (48 - 5), 10));
    let circles = ("links to folders that they lie in", 9);
    assert_eq!(left_out(&read).last(), Some(&circles));
    let flat = open(dir.path(), "").unwrap();
    assert_eq!(counts(&flat), (2, 72, 8));
    assert_eq!(left_out(&flat)[0], ("in folders within class folders", 16));
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
    rqlab_dataset_folder::open(config, &context).unwrap();
    assert_eq!(told.load(Ordering::Relaxed), 80);
}
