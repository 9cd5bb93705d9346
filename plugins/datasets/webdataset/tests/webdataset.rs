//! Shards written here, and read back.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use image::{ImageFormat, Rgb, RgbImage};
use rqlab_dataset_webdataset::{WebDataset, WebDatasetConfig};
use rqlab_sdk::prelude::*;
use std::fs::{self, File};
use std::io::{Cursor, Write};
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
    WebDataset::new(config, &DatasetContext::new(dir))
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
fn globs_and_lists_name_the_same_shards() {
    let dir = simple();
    let digest = |fields: &str| open(dir.path(), fields).unwrap().info().digest.clone();
    let wanted = digest(BOTH);
    assert_eq!(digest("path: \"train-*.tar\", test: \"tes?.tar\""), wanted);
    assert_eq!(digest("path: \"train-00{0,1,2,3}.tar\", test: \"test.tar\""), wanted);
}

#[test]
fn classes_come_from_a_field_of_json() {
    let dir = TempDir::new().unwrap();
    let write = |values: [&str; 6]| {
        let of = |(n, value): (usize, &str)| {
            let json = format!("{{\"id\": {n}, \"of\": {{\"kind\": {value}}}}}");
            [
                member(format!("{n}.json"), json),
                member(format!("{n}.png"), png(n as u8)),
                member(format!("{n}.txt"), "a"),
            ]
        };
        let members: Vec<_> = values.into_iter().enumerate().flat_map(of).collect();
        shard(&dir.path().join("a.tar"), &members);
    };
    let fields = "path: \"a.tar\", test_fraction: 0.5, label_field: \"of.kind\"";
    write(["\"owl\"", "\"cat\"", "\"cat\"", "\"owl\"", "\"owl\"", "\"cat\""]);
    let set = open(dir.path(), fields).unwrap();
    assert_eq!(set.info().classes, ["cat", "owl"]);
    assert_eq!(left_out(&set), [(6, ".txt, captions not used".to_owned())]);
    // One and a half of three are two; half of each class, whatever its size.
    assert_eq!(set.info().summary.per_class, [[1, 2], [1, 2]]);
    for split in [Split::Train, Split::Test] {
        for (red, class) in reds(&set, split).into_iter().zip(batch(&set, split).labels.as_slice()) {
            assert_eq!(*class, u32::from([0, 3, 4].contains(&red)), "{red}");
        }
    }
    write(["10", "9", "9", "10", "10", "9"]);
    assert_eq!(open(dir.path(), fields).unwrap().info().classes, ["9", "10"], "numbers by their size");
    write(["\"owl\"", "\"cat\"", "1.5", "null", "\"owl\"", "\"cat\""]);
    let error = complaint(dir.path(), fields);
    assert!(error.contains("a.tar: sample `2`: its `.json` has 1.5 for `of.kind`"), "{error}");
    assert!(error.contains("1 more") && error.contains("bad_files: skip"), "{error}");
    let error = complaint(dir.path(), "path: \"a.tar\", label_field: \"class\"");
    assert!(error.contains("has no field `class`; its fields: id, of"), "{error}");
}

#[test]
fn samples_without_labels_make_an_unlabelled_set() {
    let dir = TempDir::new().unwrap();
    let images: Vec<_> = (0..10).map(|n| member(format!("{n}.png"), png(n))).collect();
    shard(&dir.path().join("a.tar"), &images);
    let set = open(dir.path(), "path: \"a.tar\"").unwrap();
    assert_eq!((set.info().classes.len(), set.info().train, set.info().test), (0, 9, 1));
    assert!(set.info().summary.notes[0].contains("`.cls`"), "{:?}", set.info().summary.notes);
    let error = complaint(dir.path(), "path: \"a.tar\", label_member: \"cls\"");
    assert!(error.contains("sample `0`: it has no member `.cls`"), "{error}");

    let unlabelled = samples(0, 10, |_| "-1".to_owned());
    shard(&dir.path().join("b.tar"), &unlabelled);
    let error = complaint(dir.path(), "path: \"b.tar\"");
    assert!(error.contains("its class is -1, which marks images without one"), "{error}");
    let set = open(dir.path(), "path: \"b.tar\", label_member: \"\"").unwrap();
    assert_eq!((set.info().classes.len(), set.info().train), (0, 9));
}

#[test]
fn what_cannot_be_used_is_named_or_counted() {
    let dir = simple();
    let class = |red: u8| (red % 2).to_string();
    let mut members = samples(40, 4, class);
    members.extend([
        member("lonely.cls", "1"),
        member("nameless.png", png(50)),
        member("twice.png", png(51)),
        member("twice.cls", "0"),
        member("twice.png", png(52)),
        member("pair.seg.png", png(53)),
        member("pair.jpg", png(54)),
        member("pair.cls", "0"),
        member("broken.png", &png(55)[..60]),
        member("broken.cls", "1"),
        member("._0040.png", "resource fork"),
        member("README", "text"),
    ]);
    shard(&dir.path().join("bad.tar"), &members);
    let fields = |more: &str| format!("path: \"train-000.tar\", test: \"bad.tar\"{more}");
    let error = complaint(dir.path(), &fields(""));
    assert!(error.contains("bad.tar: sample `lonely`: none of its members is an image (4 more"), "{error}");
    let set = open(dir.path(), &fields(", bad_files: skip")).unwrap();
    assert_eq!(reds(&set, Split::Test), [40, 41, 42, 43]);
    let reasons: Vec<(usize, &str)> =
        set.info().summary.left_out.iter().map(|o| (o.count, o.reason.as_str())).collect();
    let wanted = [
        (1, "damaged"),
        (1, "duplicate key"),
        (1, "several images"),
        (1, "without class"),
        (1, "without image"),
        (1, "hidden"),
        (1, "without extension"),
    ];
    assert_eq!(reasons, wanted);
}

#[test]
fn of_several_images_in_a_sample_one_is_chosen() {
    let dir = TempDir::new().unwrap();
    let of = |n: u8| [member(format!("{n}.in.png"), png(n)), member(format!("{n}.seg.png"), png(n + 100))];
    shard(&dir.path().join("a.tar"), &(0..4).flat_map(of).collect::<Vec<_>>());
    let error = complaint(dir.path(), "path: \"a.tar\"");
    assert!(error.contains("`.in.png` and `.seg.png`") && error.contains("image_member: \"in.png\""), "{error}");
    let set = open(dir.path(), "path: \"a.tar\", image_member: \"seg.png\", test_fraction: 0.5").unwrap();
    let mut all = [reds(&set, Split::Train), reds(&set, Split::Test)].concat();
    all.sort_unstable();
    assert_eq!(all, [100, 101, 102, 103]);
    assert_eq!(left_out(&set), [(4, ".in.png".to_owned())]);
}

#[test]
fn a_shard_that_is_cut_short_is_named() {
    let dir = simple();
    let path = dir.path().join("train-002.tar");
    let whole = fs::read(&path).unwrap();
    // Each member is a block of header and its bytes, in whole blocks.
    let image = 512 * png(10).len().div_ceil(512) + 512;
    let sample = image + 1024;
    for (length, left, what) in [
        (2 * sample + 512 + 40, 2, "ends within `0012.png`"),
        (2 * sample + 100, 2, "ends within a member's header"),
        (3 * sample, 3, "lacks the block of zeros"),
    ] {
        fs::write(&path, &whole[..length]).unwrap();
        let error = complaint(dir.path(), BOTH);
        assert!(error.contains("train-002.tar: the shard") && error.contains(what), "{error}");
        let set = open(dir.path(), &format!("{BOTH}, bad_files: skip")).unwrap();
        assert_eq!(set.info().train, 15 + left, "{length}");
        assert!(left_out(&set).contains(&(1, "cut short".to_owned())), "{:?}", left_out(&set));
    }
    fs::write(&path, []).unwrap();
    assert!(complaint(dir.path(), BOTH).contains("train-002.tar"), "an empty file");
    // A header that says it has 2^63 bytes more.
    let mut hostile = whole;
    let size = &mut hostile[124..136];
    size.copy_from_slice(&[0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    let sum: u32 = (0..512).map(|i| if (148..156).contains(&i) { 32 } else { u32::from(hostile[i]) }).sum();
    hostile[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    fs::write(&path, &hostile).unwrap();
    let error = complaint(dir.path(), BOTH);
    assert!(error.contains("train-002.tar") && error.contains("ends within `0010.png`"), "{error}");
}

#[test]
fn long_names_and_pax_headers_are_read() {
    let dir = TempDir::new().unwrap();
    let long = "d".repeat(90) + "/" + &"k".repeat(120);
    let mut builder = Builder::new(File::create(dir.path().join("a.tar")).unwrap());
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = Header::new_gnu();
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, name, bytes).unwrap();
    };
    for n in 0..4 {
        add(&format!("{long}{n}.png"), &png(n));
        add(&format!("{long}{n}.cls"), b"0");
    }
    for n in 4..8 {
        for (ending, bytes) in [("png", png(n)), ("cls", b"1".to_vec())] {
            let name = format!("{long}{n}.{ending}");
            builder.append_pax_extensions([("path", name.as_bytes())]).unwrap();
            let mut header = Header::new_ustar();
            header.set_path("short").unwrap();
            header.set_size(bytes.len() as u64);
            header.set_cksum();
            builder.append(&header, bytes.as_slice()).unwrap();
        }
    }
    builder.finish().unwrap();
    drop(builder);
    let set = open(dir.path(), "path: \"a.tar\", test_fraction: 0.25").unwrap();
    assert_eq!(set.info().summary.per_class, [[3, 1], [3, 1]]);
    let mut all = [reds(&set, Split::Train), reds(&set, Split::Test)].concat();
    all.sort_unstable();
    assert_eq!(all, (0..8).collect::<Vec<_>>());
}

#[test]
fn what_is_asked_for_wrongly_is_answered() {
    let dir = simple();
    let expect = |fields: &str, parts: &[&str]| {
        let error = complaint(dir.path(), fields);
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    };
    expect("path: \"train-{000..009}.tar\"", &["train-004.tar", "6 of 10 shards"]);
    expect("path: \"train-{000..003.tar\"", &["`path`", "does not close"]);
    expect("path: \"other-*.tar\"", &["other-*.tar", "no file"]);
    expect("path: \"https://there/{0..3}.tar\"", &["`path`", "fetch"]);
    expect("path: \"{train-000,train-000}.tar\"", &["train-000.tar", "twice"]);
    expect("path: \"train-*.tar\", test: \"train-001.tar\"", &["`test`", "train-001.tar"]);
    expect("path: \".\"", &["is a folder", "*.tar"]);
    expect("path: \"train-000.tar\", test: \"test.tar\", class_names: [\"a\", \"b\"]", &["class is 2", "2 names"]);
    let mut gzip = File::create(dir.path().join("a.tar.gz")).unwrap();
    gzip.write_all(&[0x1f, 0x8b, 8, 0]).unwrap();
    expect("path: \"a.tar.gz\"", &["a.tar.gz", "compressed (gzip)", "unpack"]);
    fs::write(dir.path().join("text.tar"), "no tar file at all, but long enough for a header".repeat(40)).unwrap();
    expect("path: \"text.tar\"", &["text.tar", "damaged"]);
    let mut other = samples(0, 2, |_| "0".to_owned());
    other.push(member("big.png", {
        let mut bytes = Cursor::new(Vec::new());
        RgbImage::new(4, 4).write_to(&mut bytes, ImageFormat::Png).unwrap();
        bytes.into_inner()
    }));
    other.push(member("big.cls", "0"));
    shard(&dir.path().join("sizes.tar"), &other);
    expect("path: \"sizes.tar\"", &["sizes.tar: sample `big`", "4 x 4", "`size`"]);
}

#[test]
fn a_shard_that_changed_is_looked_up_again() {
    let dir = simple();
    let set = open(dir.path(), BOTH).unwrap();
    let path = dir.path().join("train-001.tar");
    shard(&path, &samples(60, 5, |_| "0".to_owned()));
    let changed = open(dir.path(), BOTH).unwrap();
    assert_eq!(reds(&changed, Split::Train)[5..10], [60, 61, 62, 63, 64]);
    assert_ne!(changed.info().digest, set.info().digest);
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
