//! Members that are captions.

use crate::{BOTH, complaint, member, open, png, shard, simple};
use rqlab_sdk::prelude::*;
use tempfile::TempDir;

/// A shard of six samples, of which all but the last have a caption.
fn captioned(caption: impl Fn(u8) -> Vec<u8>) -> TempDir {
    let dir = TempDir::new().unwrap();
    let of = |red: u8| {
        let mut members = vec![member(format!("{red}.png"), png(red)), member(format!("{red}.cls"), "0")];
        if red < 5 {
            members.push(member(format!("{red}.txt"), caption(red)));
        }
        members
    };
    shard(&dir.path().join("all.tar"), &(0..6).flat_map(of).collect::<Vec<_>>());
    dir
}

const ALL: &str = "path: \"all.tar\", test_fraction: 0.4";

#[test]
fn a_text_member_is_the_caption_of_its_sample() {
    let dir = captioned(|red| format!("red {red}\n").into_bytes());
    let plain = open(dir.path(), ALL).unwrap();
    assert!(plain.caption_info().is_none());
    let set = open(dir.path(), &format!("{ALL}, captions: true")).unwrap();
    assert!(set.info().summary.left_out.is_empty(), "{:?}", set.info().summary.left_out);
    for split in [Split::Train, Split::Test] {
        let all: Vec<usize> = (0..set.info().len(split)).collect();
        let pixels = set.batch(split, &all, None).unwrap().pixels;
        let size = pixels.len() / all.len();
        for (image, caption) in pixels.as_slice().chunks(size).zip(set.captions(split, &all).unwrap()) {
            let red = ((image[0] + 1.0) * 127.5).round();
            assert_eq!(caption, if red < 5.0 { format!("red {red}") } else { String::new() });
        }
    }
    assert_eq!(set.caption_info().unwrap().missing.iter().sum::<usize>(), 1);
    assert_ne!(set.info().digest, plain.info().digest);
    rqlab_sdk::testing::dataset(&set);
    let without = open(simple().path(), &format!("{BOTH}, captions: true")).unwrap();
    assert_eq!(without.caption_info().unwrap().missing, [20, 6]);
}

#[test]
fn a_caption_that_is_no_text_makes_its_sample_unusable() {
    let dir = captioned(|red| if red == 2 { vec![0xff] } else { b"fine".to_vec() });
    let message = complaint(dir.path(), &format!("{ALL}, captions: true"));
    assert!(message.contains("sample `2`") && message.contains("UTF-8"), "{message}");
    let set = open(dir.path(), &format!("{ALL}, captions: true, bad_files: skip")).unwrap();
    assert_eq!(set.info().train + set.info().test, 5);
}
