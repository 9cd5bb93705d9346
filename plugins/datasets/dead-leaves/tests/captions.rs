//! Captions are true of their pictures, and vary.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use rqlab_dataset_dead_leaves::{DeadLeaves, DeadLeavesConfig};
use rqlab_sdk::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

fn open(fields: &str) -> DeadLeaves {
    let config = DeadLeavesConfig::parse(&format!("dead_leaves({fields})")).unwrap();
    DeadLeaves::new(config, &DatasetContext::new(PathBuf::new())).unwrap()
}

#[test]
fn a_caption_is_of_the_grammar_and_names_its_attributes() {
    let set = open("size: 16");
    let attributes = &set.caption_info().unwrap().attributes;
    assert_eq!(attributes.iter().map(|a| a.name.as_str()).collect::<Vec<_>>(), ["shape", "palette", "texture", "size"]);
    let indices: Vec<usize> = (0..400).collect();
    let (captions, labels) = (set.captions(Split::Test, &indices).unwrap(), set.labels(Split::Test, &indices).unwrap());
    let values = set.attributes(Split::Test, &indices).unwrap();
    let mut first = [0; 2];
    for ((caption, label), values) in captions.iter().zip(labels.as_slice()).zip(values.as_slice().chunks(4)) {
        let words: Vec<&str> = values.iter().zip(attributes).map(|(v, a)| a.values[*v as usize].as_str()).collect();
        let [shape, palette, texture, size] = words[..] else { unreachable!() };
        assert_eq!(shape, set.info().classes[*label as usize]);
        let forms = [
            format!("{size} {texture} {shape} in {palette} colours"),
            format!("{shape} in {palette} colours, {size} and {texture}"),
        ];
        first[forms.iter().position(|form| form == caption).unwrap()] += 1;
    }
    assert!(first.iter().all(|count| *count > 150), "{first:?}");
}

/// Each word is frequent enough to be learnt, and no class has one palette or texture alone.
#[test]
fn words_vary_within_classes() {
    let set = open("size: 32");
    let indices: Vec<usize> = (0..1600).collect();
    let values = set.attributes(Split::Train, &indices).unwrap();
    let mut seen: BTreeMap<(usize, u32), usize> = BTreeMap::new();
    let mut of_class: BTreeMap<(u32, usize), BTreeSet<u32>> = BTreeMap::new();
    for row in values.as_slice().chunks(4) {
        for (attribute, &value) in row.iter().enumerate() {
            *seen.entry((attribute, value)).or_default() += 1;
            of_class.entry((row[0], attribute)).or_default().insert(value);
        }
    }
    for (attribute, size) in [(0, 8), (1, 10), (2, 7), (3, 3)] {
        for value in 0..size {
            let count = seen.get(&(attribute, value)).copied().unwrap_or(0);
            assert!(count >= 16, "{attribute} {value}: {count} of 1600, {seen:?}");
        }
    }
    for class in 0..8 {
        assert!([1, 2].iter().all(|attribute| of_class[&(class, *attribute)].len() > 1), "{of_class:?}");
    }
}

#[test]
fn large_leaves_leave_fewer_edges_than_small_ones() {
    let set = open("size: 32, grain: 0.0");
    let indices: Vec<usize> = (0..800).collect();
    let pixels = set.batch(Split::Train, &indices, None).unwrap().pixels;
    let sizes = set.attributes(Split::Train, &indices).unwrap().column(3).unwrap();
    let mut steps = [(0.0, 0); 3];
    for (image, &size) in pixels.as_slice().chunks(32 * 32 * 3).zip(sizes.as_slice()) {
        let rough: f32 = image.chunks(96).flat_map(|row| row.windows(4).map(|w| (w[3] - w[0]).abs())).sum();
        steps[size as usize].0 += rough;
        steps[size as usize].1 += 1;
    }
    let mean = steps.map(|(sum, count)| sum / count as f32);
    assert!(mean[0] > mean[1] && mean[1] > mean[2], "{mean:?}");
}

#[test]
fn a_caption_is_the_same_with_and_without_what_is_kept() {
    let (kept, made) = (open("size: 16, classes: 3"), open("size: 16, classes: 3, cache_mib: 0"));
    let indices = [5, 3, 5];
    kept.batch(Split::Train, &indices, None).unwrap();
    assert_eq!(kept.captions(Split::Train, &indices).unwrap(), made.captions(Split::Train, &indices).unwrap());
    rqlab_sdk::testing::dataset(&made);
}
