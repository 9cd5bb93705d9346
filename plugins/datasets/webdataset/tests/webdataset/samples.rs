//! Images and classes of samples.

use super::{batch, complaint, left_out, member, open, png, reds, samples, shard, simple};
use rqlab_sdk::prelude::*;
use tempfile::TempDir;

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
        (1, "hidden"),
        (1, "without extension"),
        (1, "damaged"),
        (1, "duplicate key"),
        (1, "several images"),
        (1, "without class"),
        (1, "without image"),
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

/// An object is not taken for a name.
#[test]
fn a_class_that_is_an_object_is_led_to_its_field() {
    let dir = TempDir::new().unwrap();
    shard(&dir.path().join("a.tar"), &samples(0, 8, |red| format!("{{\"label\": {}}}", red % 2)));
    let error = complaint(dir.path(), "path: \"a.tar\"");
    assert!(
        error.contains("`.cls` is a JSON object") && error.contains("label_member: \"cls\", label_field"),
        "{error}"
    );
    let set = open(dir.path(), "path: \"a.tar\", label_member: \"cls\", label_field: \"label\"").unwrap();
    assert_eq!(set.info().classes, ["0", "1"]);
}
