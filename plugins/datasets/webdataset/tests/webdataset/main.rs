//! Shards written here, and read back.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod captions;
mod samples;
mod shards;

use image::{ImageFormat, Rgb, RgbImage};
use rqlab_dataset_webdataset::{WebDataset, WebDatasetConfig};
use rqlab_sdk::prelude::*;
use std::fs::{self, File};
use std::io::Cursor;
use std::path::Path;
use tar::{Builder, Header};
use tempfile::TempDir;

/// An image whose red is `red`, of a size that is not square.
fn png(red: u8) -> Vec<u8> {
    let image = RgbImage::from_fn(9, 7, |x, y| Rgb([red, 20 * x as u8, 30 * y as u8]));
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// Writes a shard with these members.
fn shard(path: &Path, members: &[(String, Vec<u8>)]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut builder = Builder::new(File::create(path).unwrap());
    for (name, bytes) in members {
        let mut header = Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, bytes.as_slice()).unwrap();
    }
    builder.finish().unwrap();
}

fn member(name: impl Into<String>, bytes: impl AsRef<[u8]>) -> (String, Vec<u8>) {
    (name.into(), bytes.as_ref().to_vec())
}

/// Samples with reds from `first` on, and the classes that `class` gives them.
fn samples(first: u8, count: u8, class: impl Fn(u8) -> String) -> Vec<(String, Vec<u8>)> {
    let of = |red: u8| [member(format!("{red:04}.png"), png(red)), member(format!("{red:04}.cls"), class(red))];
    (first..first + count).flat_map(of).collect()
}

/// Four training shards of five samples each, of classes 0, 1, 2 in turn, and a test shard of six.
fn simple() -> TempDir {
    let dir = TempDir::new().unwrap();
    let class = |red: u8| format!("{}\n", red % 3);
    for n in 0..4 {
        shard(&dir.path().join(format!("train-{n:03}.tar")), &samples(5 * n, 5, class));
    }
    shard(&dir.path().join("test.tar"), &samples(100, 6, class));
    dir
}

const BOTH: &str = "path: \"train-{000..003}.tar\", test: \"test.tar\"";

fn open(dir: &Path, fields: &str) -> Result<WebDataset> {
    let config = WebDatasetConfig::parse(&format!("webdataset({fields})"))?;
    rqlab_dataset_webdataset::open(config, &DatasetContext::new(dir))
}

fn complaint(dir: &Path, fields: &str) -> String {
    match open(dir, fields) {
        Ok(_) => panic!("it opened"),
        Err(error) => error.to_string(),
    }
}

fn batch(set: &WebDataset, split: Split) -> Images {
    set.batch(split, &(0..set.info().len(split)).collect::<Vec<_>>(), None).unwrap()
}

/// The first red of each image of a split.
fn reds(set: &WebDataset, split: Split) -> Vec<i32> {
    let pixels = batch(set, split).pixels;
    let size = pixels.len() / pixels.shape()[0];
    pixels.as_slice().iter().step_by(size).map(|x| ((x + 1.0) * 127.5).round() as i32).collect()
}

/// What is left out: how many, and why.
fn left_out(set: &WebDataset) -> Vec<(usize, String)> {
    set.info().summary.left_out.iter().map(|out| (out.count, out.reason.clone())).collect()
}

#[test]
fn shards_are_one_sequence_of_labelled_images() {
    let dir = simple();
    let set = open(dir.path(), BOTH).unwrap();
    let info = set.info();
    assert_eq!((info.image, info.train, info.test), ([7, 9, 3], 20, 6));
    assert_eq!(info.classes, ["0", "1", "2"]);
    assert_eq!(info.summary.per_class, [[7, 2], [7, 2], [6, 2]]);
    assert_eq!(reds(&set, Split::Train), (0..20).collect::<Vec<_>>());
    assert_eq!(reds(&set, Split::Test), (100..106).collect::<Vec<_>>());
    assert_eq!(batch(&set, Split::Test).labels.as_slice(), [1, 2, 0, 1, 2, 0]);
    let some = set.batch(Split::Train, &[17, 3, 17], None).unwrap();
    assert_eq!(some.labels.as_slice(), [2, 0, 2]);
}

#[test]
fn in_sequence_every_epoch_sees_every_image_once() {
    let dir = simple();
    let random = open(dir.path(), BOTH).unwrap();
    assert_eq!(random.epoch_order(&Rng::new(0, "order", 0)), None);
    let set = open(dir.path(), &format!("{BOTH}, read: sequential, shuffle_buffer: 1")).unwrap();
    for epoch in 0..4 {
        let order = set.epoch_order(&Rng::new(0, "order", epoch)).unwrap();
        // A buffer of one image leaves shards whole.
        let mut shards: Vec<&[usize]> = order.chunks(5).collect();
        shards.sort_unstable();
        assert_eq!(shards.concat(), (0..20).collect::<Vec<_>>(), "epoch {epoch}");
    }
}

#[test]
fn it_keeps_the_contract_of_a_data_set() {
    let dir = simple();
    rqlab_sdk::testing::dataset(&open(dir.path(), BOTH).unwrap());
    let fields = "path: \"train-*.tar\", size: 4, crop: random, flip: true, read: sequential, shuffle_buffer: 3";
    rqlab_sdk::testing::dataset(&open(dir.path(), fields).unwrap());
}
