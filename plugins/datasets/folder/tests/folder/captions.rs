//! Texts beside images.

use crate::{complaint, left_out, open, two_classes};
use rqlab_sdk::prelude::*;
use std::fs;

#[test]
fn the_text_beside_an_image_is_its_caption() {
    let dir = two_classes();
    let write = |name: &str, text: &str| fs::write(dir.path().join("set").join(name), text).unwrap();
    write("cat/00.txt", "  a grey cat\n");
    write("owl/39.txt", "an owl \u{1F989}");
    write("owl/none.txt", "of no image");
    let plain = open(dir.path(), "").unwrap();
    assert!(plain.caption_info().is_none());
    assert_eq!(left_out(&plain), [(".txt", 3)]);
    assert!(plain.captions(Split::Train, &[0]).is_err());

    let set = open(dir.path(), "captions: true").unwrap();
    assert_eq!(left_out(&set), [(".txt", 1)]);
    let [train, test] = [Split::Train, Split::Test].map(|split| {
        let all: Vec<usize> = (0..set.info().len(split)).collect();
        set.captions(split, &all).unwrap()
    });
    let given: Vec<&String> = train.iter().chain(&test).filter(|caption| !caption.is_empty()).collect();
    assert_eq!(given.len(), 2);
    assert!(
        given.iter().any(|caption| *caption == "a grey cat")
            && given.iter().any(|caption| caption.starts_with("an owl"))
    );
    assert_eq!(set.caption_info().unwrap().missing.iter().sum::<usize>(), 78);
    assert!(set.info().summary.notes.contains(&"2 of 80 images have a caption".to_owned()));
    assert_ne!(set.info().digest, plain.info().digest);
    rqlab_sdk::testing::dataset(&set);
    write("cat/00.txt", "a black cat");
    assert_ne!(open(dir.path(), "captions: true").unwrap().info().digest, set.info().digest);
}

#[test]
fn what_is_no_text_is_named() {
    let dir = two_classes();
    fs::write(dir.path().join("set/cat/00.txt"), [0xff, 0xfe, 0x61]).unwrap();
    let message = complaint(dir.path(), "captions: true");
    assert!(message.contains("00.txt") && message.contains("UTF-8"), "{message}");
    fs::write(dir.path().join("set/cat/00.txt"), vec![b'a'; 70_000]).unwrap();
    assert!(complaint(dir.path(), "captions: true").contains("65536 bytes"));
}
