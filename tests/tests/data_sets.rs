//! The same image files give the same batches, whichever data set reads them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use image::{ImageFormat, Rgb, RgbImage};
use rqlab_dataset_folder::{self as folders, FolderConfig};
use rqlab_dataset_webdataset::{self as webdataset, WebDatasetConfig};
use rqlab_sdk::prelude::*;
use std::fs::{self, File};
use std::io::Cursor;
use std::path::Path;

/// An image that is not square, another one for each `red`.
fn jpeg(red: u8) -> Vec<u8> {
    let image = RgbImage::from_fn(39, 27, |x, y| Rgb([red, (7 * x + y * y) as u8, (9 * y) as u8]));
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Jpeg).unwrap();
    bytes.into_inner()
}

/// Writes eight training and four test images, in turn of two classes, as files in folders and as members of shards.
fn write(place: &Path) {
    for (split, first, count) in [("train", 0, 8), ("test", 50, 4)] {
        let mut shard = tar::Builder::new(File::create(place.join(format!("{split}.tar"))).unwrap());
        let mut add = |name: String, bytes: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            shard.append_data(&mut header, name, bytes).unwrap();
        };
        // A folder's images come class by class.
        for (class, name) in ["ant", "bee"].into_iter().enumerate() {
            let folder = place.join("folder").join(split).join(name);
            fs::create_dir_all(&folder).unwrap();
            for red in (first..first + count).filter(|red| *red as usize % 2 == class) {
                fs::write(folder.join(format!("{red:04}.jpg")), jpeg(red)).unwrap();
                add(format!("{name}/{red:04}.jpg"), &jpeg(red));
                add(format!("{name}/{red:04}.cls"), class.to_string().as_bytes());
            }
        }
        shard.finish().unwrap();
    }
}

#[test]
fn shards_give_the_batches_of_folders() {
    let place = tempfile::tempdir().unwrap();
    write(place.path());
    let context = DatasetContext::new(place.path());
    for options in ["", "size: 12, crop: random, flip: true", "size: (16, 9), channels: 1"] {
        let config =
            format!("webdataset(path: \"train.tar\", test: \"test.tar\", class_names: [\"ant\", \"bee\"], {options})");
        let shards = webdataset::open(WebDatasetConfig::parse(&config).unwrap(), &context).unwrap();
        let config = format!("folder(path: \"folder\", {options})");
        let folder = folders::open(FolderConfig::parse(&config).unwrap(), &context).unwrap();
        let (a, b) = (shards.info(), folder.info());
        assert_eq!((&a.classes, a.image, a.train, a.test), (&b.classes, b.image, b.train, b.test));
        assert_eq!(a.summary.per_class, b.summary.per_class);
        for augment in [None, Some(Rng::new(1, "augment", 4))] {
            for split in [Split::Train, Split::Test] {
                let batch = |data: &dyn Dataset| data.batch(split, &[3, 0, 2, 1], augment.as_ref()).unwrap();
                let (a, b) = (batch(&shards), batch(&folder));
                assert_eq!(a.pixels.to_vec(), b.pixels.to_vec(), "{options}");
                assert_eq!(a.labels.as_slice(), b.labels.as_slice());
            }
        }
    }
}
