//! Parquet files in the hub's layout, written here, and read back; and CIFAR-10, where it is at hand.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking, skips in words"
)]

use image::{DynamicImage, ImageFormat, Luma, Rgb, RgbImage};
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use rqlab_dataset_parquet::{Parquet, ParquetConfig};
use rqlab_sdk::prelude::*;
use std::fs::{self, File};
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

type Row = (Option<Vec<u8>>, Option<i64>);

fn encode(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// A flat image whose red is `red`.
fn png(red: u8) -> Vec<u8> {
    encode(RgbImage::from_pixel(6, 4, Rgb([red, 10, 20])), ImageFormat::Png)
}

/// Writes rows in groups of `group`, with class names if there are any.
fn write(path: &Path, rows: &[Row], group: usize, names: &[&str], codec: Compression) {
    let schema = parse_message_type(
        "message schema {
            optional group img { optional binary bytes; optional binary path (UTF8); }
            optional int64 label;
        }",
    );
    let classes = names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(",");
    let text = format!(r#"{{"info":{{"features":{{"label":{{"names":[{classes}],"_type":"ClassLabel"}}}}}}}}"#);
    let pairs = (!names.is_empty()).then(|| vec![KeyValue::new("huggingface".to_owned(), text)]);
    let properties = WriterProperties::builder().set_compression(codec).set_key_value_metadata(pairs).build();
    let file = File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, Arc::new(schema.unwrap()), Arc::new(properties)).unwrap();
    for rows in rows.chunks(group) {
        let mut group = writer.next_row_group().unwrap();
        let levels: Vec<i16> = rows.iter().map(|(image, _)| if image.is_some() { 2 } else { 1 }).collect();
        let images: Vec<ByteArray> = rows.iter().filter_map(|(image, _)| Some(image.clone()?.into())).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&images, Some(&levels), None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&[], Some(&vec![1; rows.len()]), None).unwrap();
        column.close().unwrap();
        let levels: Vec<i16> = rows.iter().map(|(_, label)| i16::from(label.is_some())).collect();
        let labels: Vec<i64> = rows.iter().filter_map(|(_, label)| *label).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(&labels, Some(&levels), None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.close().unwrap();
}

/// Rows with reds from `first` on, and labels that count around three classes.
fn rows(first: u8, count: u8) -> Vec<Row> {
    (first..first + count).map(|red| (Some(png(red)), Some(i64::from(red % 3)))).collect()
}

const NAMES: [&str; 3] = ["ant", "bee", "cow"];

fn simple() -> TempDir {
    let dir = TempDir::new().unwrap();
    write(&dir.path().join("train-00000-of-00002.parquet"), &rows(0, 25), 10, &NAMES, Compression::SNAPPY);
    write(&dir.path().join("train-00001-of-00002.parquet"), &rows(25, 15), 4, &NAMES, Compression::UNCOMPRESSED);
    write(&dir.path().join("test-00000-of-00001.parquet"), &rows(100, 7), 3, &NAMES, Compression::SNAPPY);
    dir
}

fn open(dir: &Path, fields: &str) -> Result<Parquet> {
    let config = ParquetConfig::parse(&format!("parquet({fields})"))?;
    Parquet::new(config, &DatasetContext::new(dir.to_owned()))
}

fn complaint(dir: &Path, fields: &str) -> String {
    match open(dir, fields) {
        Ok(_) => panic!("it opened"),
        Err(error) => error.to_string(),
    }
}

/// The first red of each image of a batch.
fn reds(images: &Images) -> Vec<i32> {
    let size = images.pixels.len() / images.pixels.shape()[0];
    images.pixels.as_slice().chunks_exact(size).map(|image| ((image[0] + 1.0) * 127.5).round() as i32).collect()
}

#[test]
fn shards_and_row_groups_are_one_sequence() {
    let dir = simple();
    let set = open(dir.path(), "path: \".\"").unwrap();
    let info = set.info();
    assert_eq!((info.train, info.test, info.image), (40, 7, [4, 6, 3]));
    assert_eq!(info.classes, NAMES);
    let order = [39, 0, 24, 25, 9, 10, 0, 28, 29];
    let images = set.batch(Split::Train, &order, None).unwrap();
    assert_eq!(reds(&images), order.map(|i| i as i32));
    assert_eq!(images.labels.as_slice(), order.map(|i| i as u32 % 3));
    assert!((images.pixels.as_slice()[1] - (10.0 / 127.5 - 1.0)).abs() < 1e-6);
    assert_eq!(reds(&set.batch(Split::Test, &[6, 0], None).unwrap()), [106, 100]);
    assert!(set.batch(Split::Test, &[7], None).is_err());
}

#[test]
fn bounded_memory_gives_the_same_images() {
    let dir = TempDir::new().unwrap();
    // Noise does not compress: twelve groups of about 400 kB.
    let noise = |i: u32| {
        let bits = Rng::new(u64::from(i), "noise", 0).bits(256 * 256);
        let image = RgbImage::from_fn(256, 256, |x, y| {
            let [_, g, b, r] = bits[(y * 256 + x) as usize].to_le_bytes();
            Rgb([if (x, y) == (0, 0) { i as u8 } else { r }, g, b])
        });
        (Some(encode(image, ImageFormat::Png)), Some(0))
    };
    let images: Vec<Row> = (0..24).map(noise).collect();
    write(&dir.path().join("train.parquet"), &images, 2, &[], Compression::SNAPPY);
    write(&dir.path().join("test.parquet"), &images[..1], 1, &[], Compression::SNAPPY);
    let set = open(dir.path(), "path: \".\", cache_mib: 1").unwrap();
    for round in 0..3u64 {
        let order = Rng::new(round, "order", 0).permutation(24);
        let images = set.batch(Split::Train, &order, None).unwrap();
        assert_eq!(reds(&images), order.iter().map(|&i| i as i32).collect::<Vec<_>>());
    }
}

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
fn the_digest_follows_the_bytes_and_not_the_place() {
    let (here, there) = (simple(), simple());
    let digest = |dir: &TempDir, fields: &str| open(dir.path(), fields).unwrap().info().digest.clone();
    assert_eq!(digest(&here, "path: \".\""), digest(&there, "path: \".\", flip: true"));
    assert_ne!(digest(&here, "path: \".\""), digest(&here, "path: \".\", size: 8"));
    write(&there.path().join("test-00000-of-00001.parquet"), &rows(101, 7), 3, &NAMES, Compression::SNAPPY);
    assert_ne!(digest(&here, "path: \".\""), digest(&there, "path: \".\""));
}

#[test]
fn complaints_name_file_and_place() {
    let dir = simple();
    let train = dir.path().join("train-00001-of-00002.parquet");
    let expect = |fields: &str, parts: &[&str]| {
        let error = complaint(dir.path(), fields);
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    };
    expect("", &["`path`", "`train`"]);
    expect("path: \"nowhere\"", &["nowhere", "No such file"]);
    expect("path: \".\", image_column: \"photo\"", &["photo", "img.bytes, img.path, label", "train-00000"]);
    expect("path: \".\", label_column: \"kind\"", &["kind", "img.bytes, img.path, label"]);
    expect("path: \".\", label_column: \"img.path\"", &["img.path", "whole numbers"]);
    expect("path: \".\", test: [\"other.parquet\"]", &["other.parquet"]);

    let mut bad = rows(0, 6);
    bad[4].1 = Some(3);
    write(&train, &bad, 4, &NAMES, Compression::SNAPPY);
    expect("path: \".\"", &["train-00001", "row 4", "label 3", "0 to 2"]);
    bad[4].1 = Some(-1);
    write(&train, &bad, 4, &NAMES, Compression::SNAPPY);
    expect("path: \".\"", &["row 4", "label -1"]);
    bad[4].1 = None;
    write(&train, &bad, 4, &NAMES, Compression::SNAPPY);
    expect("path: \".\"", &["row 4", "`label`", "no value"]);

    for (row, image, parts) in [
        (1, Some(png(1)[..40].to_vec()), ["row 1, column `img.bytes`: the image is damaged", "`bad_files: skip`"]),
        (2, Some(b"hello".to_vec()), ["row 2, column `img.bytes`", "not JPEG, PNG, WebP"]),
        (5, None, ["row 5, column `img.bytes`: no value", "leaves such rows out"]),
    ] {
        let mut bad = rows(0, 6);
        bad[row].0 = image;
        write(&train, &bad, 4, &NAMES, Compression::SNAPPY);
        expect("path: \".\"", &parts);
    }

    write(&train, &[], 4, &NAMES, Compression::SNAPPY);
    expect("train: [\"train-00001-of-00002.parquet\"], path: \".\"", &["train-00001", "no rows"]);
    let whole = fs::read(dir.path().join("train-00000-of-00002.parquet")).unwrap();
    fs::write(&train, &whole[..whole.len() / 2]).unwrap();
    expect("path: \".\"", &["train-00001", "cannot be read as Parquet"]);
    fs::write(&train, "").unwrap();
    expect("path: \".\"", &["train-00001", "cannot be read as Parquet"]);
    fs::write(&train, &whole).unwrap();
    fs::remove_file(dir.path().join("test-00000-of-00001.parquet")).unwrap();
    expect("path: \".\"", &["no test-*.parquet or validation-*.parquet", "train-00000", "`test`"]);
}

/// Writes 6 training and 3 test rows to these places, from files of these names.
fn laid_out(train: &[&str], test: &[&str]) -> TempDir {
    let dir = TempDir::new().unwrap();
    for (files, first, count) in [(train, 0, 6), (test, 100, 3)] {
        for (at, file) in files.iter().enumerate() {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let each = count / files.len() as u8;
            write(&path, &rows(first + at as u8 * each, each), 2, &NAMES, Compression::SNAPPY);
        }
    }
    dir
}

#[test]
fn the_hubs_layouts_are_read() {
    for (train, test) in [
        (&["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"][..], &["test-00000-of-00001.parquet"][..]),
        (&["data/train-00000-of-00002-5a.parquet", "data/train-00001-of-00002-7b.parquet"], &["data/test.parquet"]),
        (&["default/train/0000.parquet", "default/train/0001.parquet"], &["default/test/0000.parquet"]),
        (&["plain_text/train-00000-of-00001.parquet"], &["plain_text/validation-00000-of-00001.parquet"]),
        (&["train/0000.parquet"], &["validation/0000.parquet"]),
        (&["data/Train/0000.parquet"], &["data/Dev/0000.parquet"]),
        (&["default/partial-train/0000.parquet"], &["default/partial-test/0000.parquet"]),
        (&["training.parquet"], &["holdout.parquet"]),
    ] {
        let dir = laid_out(train, test);
        let set = open(dir.path(), "path: \".\"").unwrap();
        let all = |split: Split, count: usize| reds(&set.batch(split, &(0..count).collect::<Vec<_>>(), None).unwrap());
        assert_eq!((set.info().train, set.info().test), (6, 3), "{train:?}");
        assert_eq!(all(Split::Train, 6), [0, 1, 2, 3, 4, 5], "{train:?}");
        assert_eq!(all(Split::Test, 3), [100, 101, 102], "{test:?}");
    }
}

#[test]
fn of_several_subsets_one_is_chosen_by_name() {
    let files = |split: &str| [format!("large/{split}/0000.parquet"), format!("small/{split}/0000.parquet")];
    let (train, test) = (files("train"), files("test"));
    let dir = laid_out(&[&train[0], &train[1]], &[&test[0], &test[1]]);
    let error = complaint(dir.path(), "path: \".\"");
    assert!(error.contains("2 subsets: `large`, `small`") && error.contains("subset: \"large\""), "{error}");
    let set = open(dir.path(), "path: \".\", subset: \"small\"").unwrap();
    assert_eq!((set.info().train, set.info().test), (3, 1));
    assert_eq!(reds(&set.batch(Split::Train, &[0], None).unwrap()), [3]);
    assert!(complaint(dir.path(), "path: \".\", subset: \"medium\"").contains("medium"));
}

#[test]
fn a_numbered_file_that_is_missing_is_named() {
    for (train, said) in [
        (&["train-00000-of-00003.parquet", "train-00002-of-00003.parquet"][..], "file 1 of the 3"),
        (&["default/train/0000.parquet", "default/train/0002.parquet"], "file 1 of the 3"),
        (
            &["train-00000-of-00002-a.parquet", "train-00000-of-00002-b.parquet"],
            "file 0 of the 2 numbered files is there 2",
        ),
        (&["train-00000-of-00001.parquet", "train-00000-of-00002.parquet"], "[1, 2]"),
    ] {
        let test = if train[0].starts_with("default") { "default/test/0000.parquet" } else { "test.parquet" };
        let dir = laid_out(train, &[test]);
        let error = complaint(dir.path(), "path: \".\"");
        assert!(error.contains(said) && error.contains("`train`"), "{error}");
    }
}

#[test]
fn an_unlabelled_test_split_gives_way_to_a_labelled_one() {
    let dir = laid_out(&["train.parquet"], &["validation.parquet"]);
    let without: Vec<Row> = rows(200, 4).into_iter().map(|(image, _)| (image, Some(-1))).collect();
    write(&dir.path().join("test.parquet"), &without, 2, &NAMES, Compression::SNAPPY);
    let set = open(dir.path(), "path: \".\"").unwrap();
    assert_eq!((set.info().test, reds(&set.batch(Split::Test, &[0], None).unwrap())), (3, vec![100]));

    let error = complaint(dir.path(), "path: \".\", test: [\"test.parquet\"]");
    assert!(error.contains("test.parquet: every label in column `label` is -1"), "{error}");
    let set = open(dir.path(), "path: \".\", label_column: \"\"").unwrap();
    assert_eq!((set.info().test, set.info().classes.len()), (4, 0), "without labels the test split is as good");

    fs::remove_file(dir.path().join("validation.parquet")).unwrap();
    let error = complaint(dir.path(), "path: \".\"");
    assert!(error.contains("every label") && error.contains("label_column: \"\""), "{error}");
}

/// A file's own list says what its labels mean.
#[test]
fn classes_are_matched_by_name_between_splits_and_files() {
    let dir = TempDir::new().unwrap();
    let animal = |red: u8, label: i64| (Some(png(red)), Some(label));
    let write = |name: &str, rows: &[Row], names: &[&str]| {
        write(&dir.path().join(name), rows, 2, names, Compression::SNAPPY);
    };
    write("train-0.parquet", &[animal(200, 0), animal(20, 1)], &["cat", "dog"]);
    write("train-1.parquet", &[animal(200, 2), animal(20, 0)], &["dog", "eel", "cat"]);
    write("test-0.parquet", &[animal(20, 0), animal(200, 1), animal(90, 2)], &["dog", "cat", "owl"]);
    let set = open(dir.path(), "path: \".\"").unwrap();
    assert_eq!(set.info().classes, ["cat", "dog", "eel", "owl"]);
    assert_eq!(set.info().summary.per_class, [[2, 1], [2, 1], [0, 0], [0, 1]]);
    let train = set.batch(Split::Train, &[0, 1, 2, 3], None).unwrap();
    assert_eq!((reds(&train), train.labels.as_slice()), (vec![200, 20, 200, 20], &[0, 1, 0, 1][..]));
    let test = set.batch(Split::Test, &[0, 1, 2], None).unwrap();
    assert_eq!((reds(&test), test.labels.as_slice()), (vec![20, 200, 90], &[1, 0, 3][..]));
    // Beyond the list of its own file, though others have longer ones.
    write("train-0.parquet", &[animal(200, 2), animal(20, 1)], &["cat", "dog"]);
    let error = complaint(dir.path(), "path: \".\"");
    assert!(error.contains("train-0.parquet: row 0, column `label`: label 2 is none of the 2 classes"), "{error}");
}

#[test]
fn files_of_no_split_are_counted() {
    let dir = simple();
    write(&dir.path().join("extra.parquet"), &rows(0, 3), 3, &NAMES, Compression::SNAPPY);
    let set = open(dir.path(), "path: \".\"").unwrap();
    let left_out = &set.info().summary.left_out[0];
    assert_eq!((left_out.unit.as_str(), left_out.reason.as_str(), left_out.count), ("file", "of no split", 1));
    assert!(left_out.example.ends_with("extra.parquet"));
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

#[test]
fn test_images_can_be_taken_from_the_training_split_by_class() {
    let dir = TempDir::new().unwrap();
    write(&dir.path().join("train-0.parquet"), &rows(0, 60), 7, &NAMES, Compression::SNAPPY);
    let set = open(dir.path(), "path: \".\", test_fraction: 0.1").unwrap();
    assert_eq!(set.info().summary.per_class, [[18, 2]; 3]);
    let all = |split: Split| {
        let indices: Vec<usize> = (0..set.info().len(split)).collect();
        let images = set.batch(split, &indices, None).unwrap();
        assert!(reds(&images).iter().zip(images.labels.as_slice()).all(|(red, label)| red % 3 == *label as i32));
        reds(&images)
    };
    let mut together = [all(Split::Train), all(Split::Test)].concat();
    together.sort_unstable();
    assert_eq!(together, (0..60).collect::<Vec<_>>());
    rqlab_sdk::testing::dataset(&set);
}

#[test]
fn files_without_a_column_of_labels_carry_none() {
    let dir = TempDir::new().unwrap();
    let schema = parse_message_type("message schema { optional group image { optional binary bytes; } }").unwrap();
    for name in ["train.parquet", "test.parquet"] {
        let file = File::create(dir.path().join(name)).unwrap();
        let properties = Arc::new(WriterProperties::builder().build());
        let mut writer = SerializedFileWriter::new(file, Arc::new(schema.clone()), properties).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let images: Vec<ByteArray> = (0..3).map(|red| png(red).into()).collect();
        column.typed::<ByteArrayType>().write_batch(&images, Some(&[2; 3]), None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();
    }
    let set = open(dir.path(), "path: \".\"").unwrap();
    assert!(set.info().classes.is_empty() && set.info().summary.notes[0].contains("`label_column`"));
    rqlab_sdk::testing::dataset(&set);
    // A split with labels beside one without.
    write(&dir.path().join("test.parquet"), &rows(0, 3), 3, &NAMES, Compression::SNAPPY);
    let error = complaint(dir.path(), "path: \".\"");
    assert!(
        error.contains("train.parquet: has no column of labels, and") && error.contains("`label_column`"),
        "{error}"
    );
}

#[test]
fn labels_may_be_left_out() {
    let dir = simple();
    let set = open(dir.path(), "path: \".\", label_column: \"\"").unwrap();
    assert!(set.info().classes.is_empty());
    assert_eq!(set.batch(Split::Train, &[1, 2], None).unwrap().labels.as_slice(), [0, 0]);
}

#[test]
fn cifar10_reads_as_published() {
    // Where the shipped experiment looks for it.
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../data/cifar10");
    let folder = std::env::var_os("RQLAB_CIFAR10").map_or(here, Into::into);
    if !folder.is_dir() {
        eprintln!("skipped: no CIFAR-10 in {} (RQLAB_CIFAR10 names another folder)", folder.display());
        return;
    }
    let set = open(&folder, "path: \".\"").unwrap();
    let info = set.info();
    assert_eq!((info.train, info.test, info.image), (50_000, 10_000, [32, 32, 3]));
    let names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];
    assert_eq!(info.classes, names);
    let all = set.batch(Split::Test, &(0..10_000).collect::<Vec<_>>(), None).unwrap();
    for class in 0..10 {
        assert_eq!(all.labels.as_slice().iter().filter(|label| **label == class).count(), 1000);
    }
    // The published channel means of the training images are 0.4914, 0.4822, 0.4465 of the range from 0 to 1; those of
    // the test images lie within 0.004.
    for (c, published) in [0.4914, 0.4822, 0.4465].into_iter().enumerate() {
        let sum: f64 = all.pixels.as_slice().iter().skip(c).step_by(3).map(|x| f64::from(*x)).sum();
        let mean = (sum / (10_000.0 * 1024.0) + 1.0) / 2.0;
        assert!((mean - published).abs() < 0.006, "channel {c}: {mean}");
    }
}

#[test]
fn it_keeps_the_contract_of_a_data_set() {
    let dir = simple();
    rqlab_sdk::testing::dataset(&open(dir.path(), "path: \".\"").unwrap());
    rqlab_sdk::testing::dataset(&open(dir.path(), "path: \".\", size: 4, flip: true, cache_mib: 0").unwrap());
}
