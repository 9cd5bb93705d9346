//! What becomes of an image, and of a row without one.

use super::{NAMES, Row, complaint, encode, open, png, reds, rows, simple, write};
use image::{ImageFormat, Luma, Rgb, RgbImage};
use parquet::basic::Compression;
use rqlab_sdk::prelude::*;
use tempfile::TempDir;

#[test]
fn every_codec_and_format_is_read() {
    for codec in [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(Default::default()),
        Compression::ZSTD(Default::default()),
        Compression::BROTLI(Default::default()),
    ] {
        let dir = TempDir::new().unwrap();
        let flat = RgbImage::from_pixel(16, 16, Rgb([80, 80, 80]));
        let grey = image::GrayImage::from_pixel(16, 16, Luma([80]));
        let images = [
            encode(flat.clone(), ImageFormat::Png),
            encode(flat.clone(), ImageFormat::Jpeg),
            encode(flat, ImageFormat::WebP),
            encode(grey, ImageFormat::Png),
        ];
        let images: Vec<Row> = images.into_iter().map(|image| (Some(image), Some(0))).collect();
        write(&dir.path().join("train-0.parquet"), &images, 10, &[], codec);
        write(&dir.path().join("validation-0.parquet"), &images, 10, &[], codec);
        let set = open(dir.path(), "path: \".\"").unwrap();
        let batch = set.batch(Split::Test, &[0, 1, 2, 3], None).unwrap();
        for x in batch.pixels.as_slice() {
            assert!((x - (80.0 / 127.5 - 1.0)).abs() < 0.02, "{codec}: {x}");
        }
        assert_eq!(set.info().classes, ["0"]);
    }
}

#[test]
fn sizes_are_brought_to_one_or_told_apart() {
    let dir = simple();
    let mut images = rows(0, 5);
    images[3].0 = Some(encode(RgbImage::from_pixel(8, 10, Rgb([3, 0, 0])), ImageFormat::Png));
    write(&dir.path().join("train-00001-of-00002.parquet"), &images, 2, &NAMES, Compression::SNAPPY);
    let error = complaint(dir.path(), "path: \".\"");
    for part in ["train-00001-of-00002.parquet: row 3", "10 x 8", "4 x 6", "`size`"] {
        assert!(error.contains(part), "{error}");
    }
    let set = open(dir.path(), "path: \".\", size: 5").unwrap();
    let batch = set.batch(Split::Train, &[27, 28], None).unwrap();
    assert_eq!(batch.pixels.shape(), [2, 5, 5, 3]);
    assert_eq!(reds(&batch), [2, 3]);
    let sizes = set.info().summary.sizes.unwrap();
    assert_eq!((sizes.height, sizes.width), ([4, 10], [6, 8]));
    assert_eq!(open(dir.path(), "path: \".\", size: (4, 7)").unwrap().info().image, [4, 7, 3]);
}

#[test]
fn flips_come_from_the_stream_alone() {
    let dir = TempDir::new().unwrap();
    let half = RgbImage::from_fn(4, 4, |x, _| Rgb([if x < 2 { 0 } else { 200 }, 0, 0]));
    let images = vec![(Some(encode(half, ImageFormat::Png)), Some(0))];
    write(&dir.path().join("train.parquet"), &images, 1, &[], Compression::SNAPPY);
    write(&dir.path().join("test.parquet"), &images, 1, &[], Compression::SNAPPY);
    let set = open(dir.path(), "path: \".\", flip: true").unwrap();
    let rng = Rng::new(5, "augment", 3);
    let batch = || reds(&set.batch(Split::Train, &[0; 400], Some(&rng)).unwrap());
    let mirrored = batch().iter().filter(|red| **red == 200).count();
    assert!((150..=250).contains(&mirrored), "{mirrored}");
    assert_eq!(batch(), batch());
    assert_eq!(reds(&set.batch(Split::Train, &[0; 8], None).unwrap()), [0; 8]);
    let plain = open(dir.path(), "path: \".\"").unwrap();
    assert_eq!(reds(&plain.batch(Split::Train, &[0; 8], Some(&rng)).unwrap()), [0; 8]);
}

#[test]
fn bad_rows_are_left_out_and_counted() {
    let dir = simple();
    let train = dir.path().join("train-00001-of-00002.parquet");
    let good = rows(25, 6);
    write(&train, &good, 4, &NAMES, Compression::SNAPPY);
    let clean = open(dir.path(), "path: \".\"").unwrap().info().clone();

    let mut flipped = png(9);
    let data = flipped.windows(4).position(|name| name == b"IDAT").unwrap();
    flipped[data + 8] ^= 4;
    let mut bad = good;
    bad.insert(1, (Some(png(1)[..40].to_vec()), Some(0)));
    bad.insert(3, (None, Some(0)));
    bad.insert(4, (Some(flipped), Some(0)));
    bad.insert(5, (Some(png(1)), Some(7)));
    bad.insert(6, (Some(png(1)), None));
    bad.push((Some(png(1)), Some(-1)));
    write(&train, &bad, 4, &NAMES, Compression::SNAPPY);
    assert!(complaint(dir.path(), "path: \".\"").contains("4 more cannot be used"));
    let set = open(dir.path(), "path: \".\", bad_files: skip").unwrap();
    let counts: Vec<(&str, usize)> =
        set.info().summary.left_out.iter().map(|out| (out.reason.as_str(), out.count)).collect();
    assert_eq!(counts, [("damaged", 2), ("of no class", 1), ("without a label", 2), ("without an image", 1)]);
    assert_eq!(
        reds(&set.batch(Split::Train, &[24, 25, 26, 27, 28, 29, 30], None).unwrap()),
        [24, 25, 26, 27, 28, 29, 30]
    );
    let info = set.info();
    assert_eq!((info.train, info.test, &info.digest), (clean.train, clean.test, &clean.digest));
    assert_eq!(info.summary.per_class, clean.summary.per_class);
    assert!(info.summary.left_out[0].unit == "row" && info.summary.left_out[0].example.contains("row 1"));
}

#[test]
fn images_stand_upright_on_a_stated_ground_and_grey_ones_have_one_channel() {
    use image::ImageEncoder;
    let dir = TempDir::new().unwrap();
    let set = |images: &[Vec<u8>], fields: &str| {
        let rows: Vec<Row> = images.iter().map(|image| (Some(image.clone()), Some(0))).collect();
        write(&dir.path().join("train.parquet"), &rows, 2, &["a"], Compression::SNAPPY);
        write(&dir.path().join("test.parquet"), &rows, 2, &["a"], Compression::SNAPPY);
        open(dir.path(), &format!("path: \".\", {fields}"))
    };
    // Orientation 6: what is stored on the left stands at the top.
    let mut turned = Vec::new();
    let mut encoder = image::codecs::png::PngEncoder::new(&mut turned);
    encoder.set_exif_metadata(b"II\x2a\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0".to_vec()).unwrap();
    let stored = RgbImage::from_fn(6, 4, |x, _| Rgb([if x < 3 { 200 } else { 0 }, 0, 0]));
    encoder.write_image(&stored, 6, 4, image::ExtendedColorType::Rgb8).unwrap();
    let upright = set(&[turned], "").unwrap();
    assert_eq!(upright.info().image, [6, 4, 3]);
    let pixels = upright.batch(Split::Train, &[0], None).unwrap().pixels;
    let red = |at: usize| ((pixels.as_slice()[at * 3] + 1.0) * 127.5).round() as i32;
    assert_eq!(((0..12).map(red).min(), (12..24).map(red).max()), (Some(200), Some(0)));
    assert!(upright.info().summary.preparation[0].contains("turned upright"));

    let clear = image::RgbaImage::from_pixel(6, 4, image::Rgba([7, 99, 200, 0]));
    let clear = set(&[encode(clear, ImageFormat::Png)], "background: (10, 20, 30)").unwrap();
    assert_eq!(reds(&clear.batch(Split::Test, &[0], None).unwrap()), [10]);

    let grey = || encode(image::GrayImage::from_pixel(6, 4, Luma([50])), ImageFormat::Png);
    assert_eq!(set(&[grey()], "").unwrap().info().image, [4, 6, 1]);
    assert_eq!(set(&[grey()], "channels: 3").unwrap().info().image, [4, 6, 3]);
    assert_eq!(set(&[grey(), png(3)], "").unwrap().info().image, [4, 6, 3]);

    let thin = encode(image::GrayImage::from_pixel(60_000, 1, Luma([50])), ImageFormat::Png);
    let thin = set(&[thin], "size: 512, crop: random").unwrap();
    assert_eq!(reds(&thin.batch(Split::Train, &[0], Some(&Rng::new(1, "crop", 0))).unwrap()), [50]);
    let large = encode(image::GrayImage::new(2000, 1001), ImageFormat::Png);
    let error = set(&[large], "size: 8, max_megapixels: 2").err().unwrap().to_string();
    assert!(error.contains("1001 x 2000 pixels") && error.contains("`max_megapixels`"), "{error}");
}
