//! Two reports side by side, with known answers.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may fail loudly")]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use rqlab_reports::{
    Axis, Change, Changes, Environment, Movement, Origin, Quantity, Reading, Results, Status, Trial, compare, quantity,
    read, write,
};

/// A report of one configuration for each depth, with a value for each seed, and quantity by the name of its column.
fn report(depths: &[i64], seeds: &[u64], values: impl Fn(i64, u64) -> Vec<(String, f64)>) -> Results {
    let trial = |depth: i64, seed: u64| Trial {
        id: format!("{depth}-{seed}"),
        axes: BTreeMap::from([("quantizer.depth".to_owned(), depth.into())]),
        seed: Some(seed),
        status: Status::Done,
        configuration: format!("c{depth}"),
        readings: values(depth, seed).into_iter().map(|(name, value)| reading(&name, value)).collect(),
        ..Trial::default()
    };
    let values = depths.iter().map(|&depth| depth.into()).collect();
    Results {
        name: "r".to_owned(),
        axes: vec![Axis { path: "quantizer.depth".to_owned(), label: String::new(), values }],
        trials: depths
            .iter()
            .flat_map(|&depth| seeds.iter().map(move |&seed| (depth, seed)))
            .map(|(d, s)| trial(d, s))
            .collect(),
        ..Results::default()
    }
}

/// A report of one configuration with one quantity.
fn one(name: &str, values: &[(u64, f64)]) -> Results {
    let seeds: Vec<u64> = values.iter().map(|(seed, _)| *seed).collect();
    report(&[1], &seeds, |_, seed| vec![(name.to_owned(), values.iter().find(|(other, _)| *other == seed).unwrap().1)])
}

fn reading(name: &str, value: f64) -> Reading {
    let Quantity { measure, at } = quantity(name).unwrap_or_else(|_| Quantity::plain(name));
    Reading { measure, at, value }
}

fn only(changes: &Changes) -> &Change {
    assert_eq!(changes.numbers.len(), 1);
    &changes.numbers[0]
}

/// Normal numbers from a linear congruential generator (Knuth's MMIX constants), as sums of twelve uniform ones.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f64 {
        let mut uniform = || {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 11) as f64 / (1_u64 << 53) as f64
        };
        (0..12).map(|_| uniform()).sum::<f64>() - 6.0
    }
}

/// Two reports of 200 numbers over eight seeds that differ by noise alone, but for a shift of one of them.
fn noisy(start: u64, shift: f64) -> (Results, Results) {
    let mut noise = Noise(start);
    let mut side = |shift: f64| {
        let mut drawn: BTreeMap<(u64, usize), f64> = BTreeMap::new();
        for key in (0..8).flat_map(|seed| (0..200).map(move |number| (seed, number))) {
            drawn.insert(key, 10.0 + noise.next() + if key.1 == 77 { shift } else { 0.0 });
        }
        report(&[1], &(0..8).collect::<Vec<_>>(), |_, seed| {
            (0..200).map(|number| (format!("number{number}x"), drawn[&(seed, number)])).collect()
        })
    };
    (side(0.0), side(shift))
}

#[test]
fn noise_gives_no_alarm_and_a_planted_shift_is_found_alone() {
    for start in 1..=5 {
        let (before, after) = noisy(start, 0.0);
        let changes = compare(&before, &after, None);
        assert_eq!((changes.compared(), changes.is_moved()), (200, false), "start {start}");
        let (before, after) = noisy(start, 5.0 * 2.0_f64.sqrt());
        let changes = compare(&before, &after, None);
        let moved: Vec<&Change> = changes.numbers.iter().filter(|change| change.movement.is_moved()).collect();
        assert_eq!(moved.len(), 1, "start {start}");
        assert_eq!((moved[0].quantity.as_str(), moved[0].movement), ("number77x", Movement::Moved));
        // It stands first.
        assert_eq!(changes.numbers[0].quantity, "number77x");
    }
}

#[test]
fn seeds_are_paired_and_the_way_is_the_registrys() {
    // Seeds differ by far more than the two sides do within each.
    let before = one("psnr", &[(0, 10.0), (1, 20.0), (2, 30.0)]);
    let after = one("psnr", &[(2, 30.9), (0, 11.0), (1, 21.1)]);
    let changes = compare(&before, &after, None);
    let found = only(&changes);
    assert_eq!((found.movement, found.paired, found.better, found.seeds), (Movement::Moved, true, Some(true), 3));
    // Differences 1.0, 1.1, 0.9: half width 4.3027 x 0.1 / sqrt 3.
    let (low, high) = found.interval.unwrap();
    assert!((low - (1.0 - 0.248_41)).abs() < 1e-4 && (high - (1.0 + 0.248_41)).abs() < 1e-4, "{low} {high}");
    assert!((found.effect.unwrap() - 10.0).abs() < 1e-6);
    assert_eq!(only(&compare(&after, &before, None)).better, Some(false));
    let (less, more) = (one("mse", &[(0, 1.0), (1, 2.0), (2, 3.0)]), one("mse", &[(0, 2.0), (1, 3.1), (2, 3.9)]));
    assert_eq!(only(&compare(&less, &more, None)).better, Some(false));
}

#[test]
fn other_seeds_are_judged_by_welch() {
    let before = one("psnr", &[(0, 1.0), (1, 2.0), (2, 3.0), (3, 4.0), (4, 5.0)]);
    let after = one("psnr", &[(5, 2.0), (6, 4.0), (7, 6.0), (8, 8.0), (9, 10.0)]);
    let changes = compare(&before, &after, None);
    let found = only(&changes);
    // The worked example: standard error sqrt 2.5, 5.882 degrees of freedom, t = 2.4589.
    let (low, high) = found.interval.unwrap();
    assert!(((high - low) / 2.0 - 2.4589 * 2.5_f64.sqrt()).abs() < 1e-3);
    assert_eq!((found.movement, found.paired, found.difference), (Movement::WithinNoise, false, Some(3.0)));
    assert!(!changes.is_moved());
}

#[test]
fn a_margin_leaves_small_moves_aside() {
    let before = one("psnr", &[(0, 10.0), (1, 20.0), (2, 30.0)]);
    let after = one("psnr", &[(0, 11.0), (1, 21.1), (2, 30.9)]);
    assert!(compare(&before, &after, Some(0.04)).is_moved());
    let changes = compare(&before, &after, Some(0.06));
    assert_eq!((only(&changes).movement, changes.is_moved()), (Movement::WithinMargin, false));
}

#[test]
fn few_seeds_tell_what_is_beyond_the_margin_only() {
    // PSNR's margin is 0.1 dB; perplexity has none.
    let of = |name, before, after, margin| {
        only(&compare(&one(name, &[(0, before)]), &one(name, &[(0, after)]), margin)).movement
    };
    assert_eq!(of("psnr", 20.0, 20.05, None), Movement::TooFewSeeds);
    assert_eq!(of("psnr", 20.0, 20.2, None), Movement::BeyondMargin);
    assert_eq!(of("psnr", 20.0, 20.0, None), Movement::Same);
    assert_eq!(of("psnr", 20.0, 20.2, Some(0.05)), Movement::WithinMargin);
    assert_eq!(of("perplexity", 20.0, 40.0, None), Movement::TooFewSeeds);
    assert_eq!(of("perplexity", 20.0, 40.0, Some(0.05)), Movement::BeyondMargin);
    // What is counted has no noise.
    assert_eq!(of("parameters", 1000.0, 1001.0, None), Movement::Changed);
}

/// Every trial, as computed by this program with these instructions on so many threads.
fn computed(mut results: Results, commit: &str, instructions: &str, threads: usize) -> Results {
    let environment = Environment {
        program: "rqlab 1".to_owned(),
        commit: Some(commit.to_owned()),
        processor: "P".to_owned(),
        instructions: instructions.to_owned(),
        threads,
        ..Environment::default()
    };
    for trial in &mut results.trials {
        trial.origins = vec![Origin { stage: "tokenizer".to_owned(), environment: environment.clone() }];
    }
    results
}

#[test]
fn equal_work_on_equal_machines_has_no_noise() {
    let (before, after) = (one("psnr", &[(0, 20.0)]), one("psnr", &[(0, 20.0001)]));
    let with = |after: &Results, commit: &str, instructions: &str| {
        let before = computed(before.clone(), "a", "AVX2", 2);
        only(&compare(&before, &computed(after.clone(), commit, instructions, 4), None)).movement
    };
    assert_eq!(with(&after, "b", "AVX2"), Movement::Changed);
    assert_eq!(with(&after, "b", "AVX-512"), Movement::TooFewSeeds);
    let mut other = after.clone();
    other.trials[0].configuration = "of other steps".to_owned();
    assert_eq!(with(&other, "b", "AVX2"), Movement::TooFewSeeds);
}

#[test]
fn timings_compare_on_one_machine_and_number_of_threads() {
    let values = [(0, 10.0), (1, 10.1), (2, 9.9)];
    let (before, after) = (one("train_seconds", &values), one("train_seconds", &values.map(|(s, v)| (s, 2.0 * v))));
    let moved = |threads| {
        let before = computed(before.clone(), "a", "AVX2", 2);
        compare(&before, &computed(after.clone(), "a", "AVX2", threads), None)
    };
    assert_eq!(only(&moved(2)).movement, Movement::Moved);
    let other = moved(4);
    assert_eq!((only(&other).movement, other.compared()), (Movement::Withheld, 0));
    assert!(only(&other).reason.as_ref().unwrap().contains("threads 2 → 4"), "{:?}", only(&other).reason);
    assert_eq!(only(&compare(&before, &after, None)).movement, Movement::Withheld);
}

#[test]
fn another_yardstick_is_withheld_with_its_reason() {
    let values = [(0, 10.0), (1, 10.1), (2, 9.9)];
    let with = |name: &str, part: &str, digest: &str| {
        let mut results = one(name, &values.map(|(s, v)| (s, if digest == "x" { v } else { v * 3.0 })));
        for trial in &mut results.trials {
            trial.parts.insert(part.to_owned(), digest.to_owned());
        }
        results
    };
    let of = |name, part| compare(&with(name, part, "x"), &with(name, part, "y"), None);
    for (name, part) in [("psnr", "dataset"), ("sample_frechet", "classifier"), ("prior_bits_per_image", "tokenizer")] {
        let changes = of(name, part);
        assert_eq!(only(&changes).movement, Movement::Withheld, "{name} {part}");
        assert!(only(&changes).reason.is_some() && !changes.is_moved());
    }
    assert_eq!(only(&of("psnr", "classifier")).movement, Movement::Moved);
}

#[test]
fn what_one_side_has_is_named() {
    let values = |depth: i64, seed: u64| vec![("psnr".to_owned(), 10.0 * depth as f64 + seed as f64)];
    let before = report(&[1, 2], &[0, 1, 2], values);
    let mut after = report(&[2, 4], &[0, 1, 2], values);
    let changes = compare(&before, &after, None);
    assert_eq!((changes.common, changes.is_moved()), (1, false));
    assert_eq!(changes.only_before, ["quantizer.depth 1"]);
    assert_eq!(changes.only_after, ["quantizer.depth 4"]);
    // A trial that failed on one side, and a measure that is not there any more.
    after.trials[0].status = Status::Failed;
    let changes = compare(&before, &after, None);
    assert_eq!((changes.unfinished.len(), changes.unfinished[0].after), (1, Status::Failed));
    assert!(changes.is_moved());
    let mut without = report(&[2], &[0, 1, 2], |_, _| vec![("ssim".to_owned(), 0.5)]);
    let changes = compare(&before, &without, None);
    let of = |name: &str| changes.numbers.iter().find(|change| change.quantity == name).unwrap().movement;
    assert_eq!((of("psnr"), of("ssim"), changes.is_moved()), (Movement::Gone, Movement::New, true));
    without.trials.clear();
    assert_eq!(compare(&before, &without, None).common, 0);
}

fn folder(name: &str) -> PathBuf {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&path);
    path
}

#[test]
fn a_record_says_what_the_results_say() {
    let before = computed(one("psnr", &[(0, 0.1 + 0.2), (1, 1e-17), (2, f64::NAN)]), "a", "AVX2", 2);
    let (out, again) = (folder("record"), folder("record-again"));
    let written = write(&before, &out).unwrap();
    write(&before, &again).unwrap();
    assert_eq!(fs::read(&written.record).unwrap(), fs::read(again.join("results.json")).unwrap());
    let found = read(&out).unwrap();
    let values = |of: &Results| of.trials.iter().map(|t| t.value(&Quantity::plain("psnr"))).collect::<Vec<_>>();
    assert_eq!(values(&found), [Some(0.1 + 0.2), Some(1e-17), None]);
    assert_eq!(found.axes, before.axes);
    assert_eq!(found.trials[0].origins, before.trials[0].origins);
    // Damage, and another version, are told.
    let text = fs::read_to_string(&written.record).unwrap();
    fs::write(&written.record, &text[..text.len() / 2]).unwrap();
    assert!(read(&out).unwrap_err().to_string().contains("results.json cannot be used"));
    fs::write(&written.record, text.replacen("\"format\": 1", "\"format\": 2", 1)).unwrap();
    assert!(read(&out).unwrap_err().to_string().contains("its format is 2"));
    assert!(read(&folder("nowhere")).unwrap_err().to_string().contains("cannot read"));
}

#[test]
fn equal_test_images_are_compared_one_by_one() {
    // Three seeds, four images: every image gains as much, and seeds hardly differ.
    let sides = |gain: f64, images: &str| {
        let mut results = one("psnr", &[(0, 20.0 + gain), (1, 20.0 + gain), (2, 20.0 + gain)]);
        for (seed, trial) in results.trials.iter_mut().enumerate() {
            let values = [10.0, 20.0, 20.0, 30.0].map(|psnr| psnr + gain + 0.001 * seed as f64 * gain);
            trial.per_image.insert("psnr".to_owned(), values.to_vec());
            trial.parts.insert("test images".to_owned(), images.to_owned());
        }
        results
    };
    let folder = folder("images");
    write(&sides(0.0, "a"), &folder).unwrap();
    let kept = read(&folder).unwrap();
    assert_eq!(kept.trials[0].per_image["psnr"], [10.0, 20.0, 20.0, 30.0]);
    let changes = compare(&kept, &sides(1.0, "a"), None);
    assert_eq!((only(&changes).images, only(&changes).movement), (Some(4), Movement::Moved));
    // Of other images nothing is said one by one.
    assert_eq!(only(&compare(&kept, &sides(1.0, "b"), None)).images, None);
}
