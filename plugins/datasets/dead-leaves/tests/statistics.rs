//! What the model promises: the statistics of natural images, and images that are functions of (seed, split, index).
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use rqlab_dataset_dead_leaves::{DeadLeaves, DeadLeavesConfig};
use rqlab_sdk::prelude::*;
use std::f64::consts::TAU;
use std::path::PathBuf;

fn open(fields: &str) -> DeadLeaves {
    let config = DeadLeavesConfig::parse(&format!("dead_leaves({fields})")).unwrap();
    DeadLeaves::new(config, &DatasetContext::new(PathBuf::new())).unwrap()
}

fn pixels(set: &DeadLeaves, split: Split, indices: &[usize]) -> Vec<f32> {
    set.batch(split, indices, None).unwrap().pixels.to_vec()
}

/// Brightness of `count` images of `size` pixels a side, without grain.
fn brightness(size: usize, count: usize, fields: &str) -> Vec<Vec<f64>> {
    let set = open(&format!("size: {size}, grain: 0.0, {fields}"));
    let all = pixels(&set, Split::Train, &(0..count).collect::<Vec<_>>());
    let grey = |pixel: &[f32]| pixel.iter().map(|x| f64::from(*x)).sum::<f64>() / 3.0;
    all.chunks_exact(size * size * 3).map(|image| image.chunks_exact(3).map(grey).collect()).collect()
}

/// Mean power of the brightness over images at frequency (`fx`, `fy`), in periods an image, by the definition; a Hann
/// window keeps the borders from leaking into high frequencies.
fn power(images: &[Vec<f64>], size: usize, fx: usize, fy: usize) -> f64 {
    let window = |i: usize| 0.5 - 0.5 * (TAU * (i as f64 + 0.5) / size as f64).cos();
    let mut power = 0.0;
    for image in images {
        let mean = image.iter().sum::<f64>() / image.len() as f64;
        let (mut re, mut im) = (0.0, 0.0);
        for (i, value) in image.iter().enumerate() {
            let (y, x) = (i / size, i % size);
            let (sin, cos) = (TAU * (fx * x + fy * y) as f64 / size as f64).sin_cos();
            let value = (value - mean) * window(x) * window(y);
            re += value * cos;
            im += value * sin;
        }
        power += re * re + im * im;
    }
    power / images.len() as f64
}

/// The exponent of the power over frequencies of four to 32 periods an image: the slope of the line through its
/// logarithms.
fn spectral_slope(fields: &str) -> f64 {
    let size = 128;
    let images = brightness(size, 96, fields);
    let level = |f: usize| {
        let (near, diagonal) = ((f as f64 * 0.8).round() as usize, (f as f64 * 0.6).round() as usize);
        let places = [(f, 0), (0, f), (near, diagonal), (diagonal, near)];
        (places.iter().map(|&(x, y)| power(&images, size, x, y)).sum::<f64>() / places.len() as f64).ln()
    };
    let points: Vec<(f64, f64)> = [4usize, 8, 16, 32].iter().map(|&f| ((f as f64).ln(), level(f))).collect();
    let n = points.len() as f64;
    let (mx, my) = (points.iter().map(|p| p.0).sum::<f64>() / n, points.iter().map(|p| p.1).sum::<f64>() / n);
    let covariance = points.iter().map(|(x, y)| (x - mx) * (y - my)).sum::<f64>();
    covariance / points.iter().map(|(x, _)| (x - mx).powi(2)).sum::<f64>()
}

#[test]
fn power_falls_as_the_square_of_frequency_with_sizes_of_all_scales() {
    // Natural images: an exponent of 2, give or take 0.4 (Field 1987; Ruderman 1994; van der Schaaf and van Hateren
    // 1996). Sizes must reach below the smallest period that is looked at.
    let slope = spectral_slope("r_min: 0.01");
    assert!((-2.4..=-1.6).contains(&slope), "slope {slope}");
}

#[test]
fn power_falls_no_faster_than_that_of_lone_edges() {
    // Beyond the smallest size only straight edges are left, whose power falls as 1/f^3: the default lies between.
    let slope = spectral_slope("");
    assert!((-3.0..=-2.0).contains(&slope), "slope {slope}");
}

#[test]
fn differences_between_neighbours_have_heavy_tails() {
    let size = 128;
    let mut differences = Vec::new();
    for image in brightness(size, 64, "") {
        for row in image.chunks_exact(size) {
            differences.extend(row.windows(2).map(|pair| pair[1] - pair[0]));
        }
    }
    let moment = |k: i32| differences.iter().map(|d| d.powi(k)).sum::<f64>() / differences.len() as f64;
    let kurtosis = moment(4) / moment(2).powi(2);
    // A Gaussian has 3; natural images have 10 and more (Huang and Mumford 1999).
    assert!(kurtosis > 8.0, "kurtosis {kurtosis}");
}

#[test]
fn an_image_is_a_function_of_seed_split_and_index() {
    let (a, b) = (open(""), open("cache_mib: 0, train: 100"));
    let mixed = pixels(&a, Split::Train, &[3, 77, 3]);
    let image = mixed.len() / 3;
    assert_eq!(mixed[..image], mixed[2 * image..]);
    assert_eq!(mixed[image..2 * image], pixels(&b, Split::Train, &[77]));
    assert_eq!(pixels(&a, Split::Train, &[77]), pixels(&a, Split::Train, &[77]));
    assert_ne!(pixels(&a, Split::Train, &[77]), pixels(&a, Split::Test, &[77]));
    assert_ne!(pixels(&a, Split::Train, &[77]), pixels(&open("seed: 1"), Split::Train, &[77]));
    let digest = |set: &DeadLeaves| set.info().digest.clone();
    assert_eq!(digest(&a), digest(&open("flip: true, cache_mib: 3")));
    assert_ne!(digest(&a), digest(&b));
}

#[test]
fn classes_are_equally_frequent() {
    let set = open("classes: 5, train: 1003");
    assert_eq!(set.info().classes.len(), 5);
    let labels = set.batch(Split::Train, &(0..1003).collect::<Vec<_>>(), None).unwrap().labels;
    for class in 0..5 {
        let count = labels.as_slice().iter().filter(|label| **label == class).count();
        assert!((200..=201).contains(&count), "class {class}: {count}");
    }
}

#[test]
fn every_size_gives_covered_images_in_range() {
    for size in [8, 9, 31, 32, 63, 64, 65, 127, 200, 512] {
        let set = open(&format!("size: {size}"));
        let images = set.batch(Split::Test, &[0, 1, 2, 3, 4, 5, 6, 7], None).unwrap().pixels;
        assert_eq!(images.shape(), [8, size, size, 3]);
        for image in images.as_slice().chunks_exact(size * size * 3) {
            assert!(image.iter().all(|x| (-1.0..=1.0).contains(x)));
            let mean = image.iter().sum::<f32>() / image.len() as f32;
            let deviation = (image.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / image.len() as f32).sqrt();
            assert!(deviation > 0.08, "size {size}: deviation {deviation}");
        }
    }
}

#[test]
fn extreme_laws_end_too() {
    for fields in ["r_min: 0.005, r_max: 0.05, alpha: 5.0, size: 16", "r_min: 0.2, r_max: 2.0, alpha: 1.5"] {
        let set = open(fields);
        pixels(&set, Split::Train, &(0..16).collect::<Vec<_>>());
    }
    let config = DeadLeavesConfig::parse("dead_leaves(r_min: 0.2, r_max: 0.1)").unwrap();
    assert!(DeadLeaves::new(config, &DatasetContext::new(PathBuf::new())).is_err());
}

#[test]
fn the_average_color_does_not_tell_the_classes() {
    // The nearest mean color, learnt on one half and asked about the other, is right more often than by chance (1/8),
    // since classes prefer palettes, and far from always.
    let set = open("");
    let count = 1600;
    let images = pixels(&set, Split::Train, &(0..count).collect::<Vec<_>>());
    let mean = |image: &[f32]| -> [f32; 3] {
        std::array::from_fn(|c| image.iter().skip(c).step_by(3).sum::<f32>() / (image.len() / 3) as f32)
    };
    let colors: Vec<[f32; 3]> = images.chunks_exact(images.len() / count).map(mean).collect();
    let mut centers = [[0.0; 3]; 8];
    for (i, color) in colors[..count / 2].iter().enumerate() {
        (0..3).for_each(|c| centers[i % 8][c] += color[c] / (count / 16) as f32);
    }
    let distance = |a: &[f32; 3], b: &[f32; 3]| (0..3).map(|c| (a[c] - b[c]).powi(2)).sum::<f32>();
    let right = colors[count / 2..].iter().enumerate().filter(|(i, color)| {
        let nearest = (0..8).min_by(|a, b| distance(&centers[*a], color).total_cmp(&distance(&centers[*b], color)));
        nearest == Some(i % 8)
    });
    let accuracy = right.count() as f64 / (count / 2) as f64;
    assert!((0.2..0.65).contains(&accuracy), "accuracy {accuracy}");
}

#[test]
fn mirroring_is_drawn_from_the_stream() {
    let set = open("flip: true, size: 16");
    let rng = Rng::new(9, "augment", 2);
    let once = pixels(&set, Split::Train, &[4]);
    let images = set.batch(Split::Train, &[4; 200], Some(&rng)).unwrap().pixels.to_vec();
    let mirror = |image: &[f32]| -> Vec<f32> {
        image
            .chunks_exact(48)
            .flat_map(|row| row.chunks_exact(3).rev().flatten().copied().collect::<Vec<_>>())
            .collect()
    };
    let mut mirrored = 0;
    for image in images.chunks_exact(once.len()) {
        mirrored += usize::from(image == mirror(&once));
        assert!(image == once || image == mirror(&once));
    }
    assert!((65..=135).contains(&mirrored), "{mirrored}");
}

#[test]
fn it_keeps_the_contract_of_a_data_set() {
    rqlab_sdk::testing::dataset(&open("size: 16, train: 5, test: 3"));
    rqlab_sdk::testing::dataset(&open("size: 16, train: 5, test: 3, flip: true, cache_mib: 0"));
}
