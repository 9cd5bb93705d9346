//! Tar files: their names, their members, and what is wrong with them.

use super::{BOTH, complaint, left_out, member, open, png, reds, samples, shard, simple};
use image::{ImageFormat, RgbImage};
use rqlab_sdk::prelude::*;
use std::fs::{self, File};
use std::io::{Cursor, Write};
use tar::{Builder, Header};
use tempfile::TempDir;

#[test]
fn globs_and_lists_name_the_same_shards() {
    let dir = simple();
    let digest = |fields: &str| open(dir.path(), fields).unwrap().info().digest.clone();
    let wanted = digest(BOTH);
    assert_eq!(digest("path: \"train-*.tar\", test: \"tes?.tar\""), wanted);
    assert_eq!(digest("path: \"train-00{0,1,2,3}.tar\", test: \"test.tar\""), wanted);
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

/// Shards can be planned with before they are fetched.
#[test]
fn what_is_expected_can_be_planned_with_and_is_checked() {
    let dir = simple();
    for path in ["nowhere/{000..127}.tar", "nowhere/*.tar"] {
        let fields = format!("path: \"{path}\", size: 64, expect: (10, 500, 50)");
        let set = open(dir.path(), &fields).unwrap();
        assert_eq!((set.info().classes.len(), set.info().train, set.info().test), (10, 500, 50));
        assert_eq!(set.info().image, [64, 64, 3]);
        assert!(set.absent().unwrap().contains("nowhere"), "{path}");
        assert!(set.batch(Split::Train, &[0], None).is_err());
        assert!(complaint(dir.path(), &fields.replace("size: 64, ", "")).contains("nowhere"));
    }
    let set = open(dir.path(), BOTH).unwrap();
    let [classes, train, test] = [set.info().classes.len(), set.info().train, set.info().test];
    let expect = |test: usize| format!("{BOTH}, expect: ({classes}, {train}, {test})");
    assert_eq!(open(dir.path(), &expect(test)).unwrap().absent(), None);
    let complaint = complaint(dir.path(), &expect(test + 1));
    assert!(complaint.contains(&format!("and {test} test images, where `expect` asks for")), "{complaint}");
}

/// Only what the user writes is a pattern, and not the name of the folder that the experiment lies in.
#[test]
fn a_folder_may_have_a_name_that_looks_like_a_pattern() {
    let dir = simple();
    let odd = dir.path().join("a[1]*");
    fs::create_dir(&odd).unwrap();
    for entry in fs::read_dir(dir.path()).unwrap().flatten() {
        if entry.path() != odd {
            fs::rename(entry.path(), odd.join(entry.file_name())).unwrap();
        }
    }
    let set = open(&odd, "path: \"train-*.tar\", test: \"t?st.tar\"").unwrap();
    assert_eq!((set.info().train, set.info().test), (20, 6));
}

/// GNU tar writes holes in two ways; the bytes of neither are those of the file.
#[test]
fn files_with_holes_are_left_out() {
    let dir = simple();
    let mut builder = Builder::new(File::create(dir.path().join("holes.tar")).unwrap());
    builder.append_pax_extensions([("GNU.sparse.major", &b"1"[..]), ("GNU.sparse.name", b"9.png")]).unwrap();
    let mut header = Header::new_ustar();
    header.set_path("GNUSparseFile.1/9.png").unwrap();
    header.set_size(512);
    header.set_cksum();
    builder.append(&header, &[b'0'; 512][..]).unwrap();
    for (name, bytes) in samples(0, 4, |red| (red % 2).to_string()) {
        let mut header = Header::new_gnu();
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, name, bytes.as_slice()).unwrap();
    }
    builder.finish().unwrap();
    drop(builder);
    let set = open(dir.path(), "path: \"holes.tar\", test: \"test.tar\"").unwrap();
    assert_eq!((set.info().train, left_out(&set)), (4, vec![(1, "a sparse file".to_owned())]));
}

/// Nothing of a file that is no tar file is repeated.
#[test]
fn what_is_no_shard_is_named_in_plain_words() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("noise.tar"), [b'\x9d'; 2048]).unwrap();
    let error = complaint(dir.path(), "path: \"noise.tar\"");
    assert!(error.contains("noise.tar: the shard is damaged: no member of a tar file begins at byte 0"), "{error}");
    fs::write(dir.path().join("zeros.tar"), [0; 10240]).unwrap();
    let error = complaint(dir.path(), "path: \"zeros.tar\", size: 8");
    assert!(error.contains("zeros.tar: there is no image that can be used"), "{error}");
    #[cfg(unix)]
    {
        let fifo = dir.path().join("fifo.tar");
        assert!(std::process::Command::new("mkfifo").arg(fifo).status().unwrap().success());
        assert!(complaint(dir.path(), "path: \"fifo.tar\"").contains("fifo.tar: this is no plain file"));
    }
}
