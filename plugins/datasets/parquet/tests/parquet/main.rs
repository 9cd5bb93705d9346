//! Parquet files in the hub's layout, written here, and read back; and CIFAR-10, where it is at hand.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking, skips in words"
)]

mod captions;
mod images;
mod labels;
mod layouts;

use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
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
    rqlab_dataset_parquet::open(config, &DatasetContext::new(dir.to_owned()))
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
    expect("path: \".\", test_fraction: 0.0", &["no test-*.parquet or validation-*.parquet", "train-00000", "`test`"]);
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
