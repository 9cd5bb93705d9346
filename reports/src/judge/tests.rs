//! Comparisons, effects and interactions with known answers.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use crate::measure::Index;
use crate::origin::{Environment, Origin};
use crate::results::{Results, Status};
use std::collections::BTreeMap;

/// t(0.975) of Student's distribution with 1, 2 and 4 degrees of freedom, from printed tables.
const T: [f64; 3] = [12.7062, 4.3027, 2.7764];

/// A finished trial of depth, codebook size and seed, with readings of plain measures.
fn trial(depth: i64, codebook: i64, seed: u64, readings: &[(&str, f64)]) -> Trial {
    Trial {
        id: format!("{depth}-{codebook}-{seed}"),
        axes: BTreeMap::from([("q.depth".to_owned(), depth.into()), ("q.codebook".to_owned(), codebook.into())]),
        seed: Some(seed),
        status: Status::Done,
        readings: readings.iter().map(|(measure, value)| crate::Reading::new(*measure, [], *value)).collect(),
        ..Trial::default()
    }
}

/// Depths 1 and 4, codebooks 64 and 256.
fn results(trials: Vec<Trial>) -> Results {
    let axis = |path: &str, values: [i64; 2]| Axis {
        path: path.to_owned(),
        label: String::new(),
        values: values.map(Value::from).into(),
    };
    Results { axes: vec![axis("q.depth", [1, 4]), axis("q.codebook", [64, 256])], trials, ..Results::default() }
}

/// From depth 1 to 4; of a codebook size, or averaged over them.
fn deeper(metric: &str, codebook: Option<i64>) -> Comparison {
    Comparison {
        metric: Some(Quantity::plain(metric)),
        axis: "q.depth".to_owned(),
        from: 1_i64.into(),
        to: 4_i64.into(),
        fixed: codebook.map(|size| ("q.codebook".to_owned(), size.into())).into_iter().collect(),
    }
}

/// Trials whose only reading is the PSNR.
fn psnrs(values: &[(i64, i64, u64, f64)]) -> Results {
    results(
        values.iter().map(|&(depth, codebook, seed, psnr)| trial(depth, codebook, seed, &[("psnr", psnr)])).collect(),
    )
}

fn judge(results: &Results, comparison: &Comparison) -> Verdict {
    compare(&Study::new(results), comparison)
}

fn near(found: f64, wanted: f64) {
    assert!((found - wanted).abs() < 1e-3 * wanted.abs().max(1.0), "{found} is not {wanted}");
}

fn interval_is(estimate: &Estimate, mean: f64, half: f64) {
    let (low, high) = estimate.interval.unwrap();
    near(estimate.mean, mean);
    near((high + low) / 2.0, mean);
    near((high - low) / 2.0, half);
}

#[test]
fn differences_are_taken_within_a_seed() {
    // The seeds lie 10 dB apart, the differences are 1, 2 and 3: standard deviation 1.
    let results = psnrs(&[
        (1, 64, 0, 10.0),
        (4, 64, 0, 11.0),
        (1, 64, 1, 20.0),
        (4, 64, 1, 22.0),
        (1, 64, 2, 30.0),
        (4, 64, 2, 33.0),
    ]);
    let verdict = judge(&results, &deeper("psnr", Some(64)));
    let estimate = verdict.estimate.unwrap();
    interval_is(&estimate, 2.0, T[1] / 3.0_f64.sqrt());
    assert_eq!((estimate.n, verdict.method, verdict.finding), (3, Method::Paired, Finding::Unclear));
    assert_eq!((verdict.sides, verdict.pairs), (Some((20.0, 22.0)), (3, 0)));
}

#[test]
fn a_difference_is_better_or_worse_by_the_measures_better_side() {
    let mut all = Vec::new();
    for (seed, noise) in [(0, 0.0), (1, 0.01)] {
        all.push(trial(1, 64, seed, &[("psnr", 20.0), ("mse", 0.3), ("code_overlap", 0.2)]));
        all.push(trial(4, 64, seed, &[("psnr", 25.0 + noise), ("mse", 0.1 + noise), ("code_overlap", 0.8 + noise)]));
    }
    let results = results(all);
    // One degree of freedom: 12.7 x 0.005 is less than any of the differences.
    for (metric, finding) in [("psnr", Finding::Better), ("mse", Finding::Better), ("code_overlap", Finding::Differs)] {
        assert_eq!(judge(&results, &deeper(metric, Some(64))).finding, finding, "{metric}");
    }
    let back = Comparison { from: 4_i64.into(), to: 1_i64.into(), ..deeper("psnr", Some(64)) };
    let verdict = judge(&results, &back);
    assert_eq!(verdict.finding, Finding::Worse);
    interval_is(&verdict.estimate.unwrap(), -5.005, T[0] * 0.005);
}

#[test]
fn one_seed_is_an_observation() {
    let results = psnrs(&[(1, 64, 0, 20.0), (4, 64, 0, 26.0)]);
    let verdict = judge(&results, &deeper("psnr", Some(64)));
    assert_eq!(verdict.estimate, Some(Estimate { mean: 6.0, interval: None, n: 1 }));
    assert_eq!(
        (verdict.finding, verdict.finding_text()),
        (Finding::OneSeed, "one seed: an observation, not a finding")
    );
}

#[test]
fn cells_of_a_grid_are_no_repetitions() {
    // Within a seed the differences average to 2 and 3, however many cells they come from.
    let results = psnrs(&[
        (1, 64, 0, 10.0),
        (4, 64, 0, 11.0),
        (1, 256, 0, 10.0),
        (4, 256, 0, 13.0),
        (1, 64, 1, 10.0),
        (4, 64, 1, 12.0),
        (1, 256, 1, 10.0),
        (4, 256, 1, 14.0),
    ]);
    let verdict = judge(&results, &deeper("psnr", None));
    let estimate = verdict.estimate.unwrap();
    assert_eq!((estimate.n, verdict.averaged.as_slice()), (2, &["codebook".to_owned()][..]));
    interval_is(&estimate, 2.5, T[0] * 0.5);
}

#[test]
fn an_axis_that_is_held_selects_its_trials() {
    let results = psnrs(&[(1, 64, 0, 10.0), (4, 64, 0, 11.0), (1, 256, 0, 10.0), (4, 256, 0, 13.0)]);
    for (codebook, difference) in [(64, 1.0), (256, 3.0)] {
        let verdict = judge(&results, &deeper("psnr", Some(codebook)));
        assert_eq!(verdict.estimate.unwrap().mean, difference);
        assert!(verdict.averaged.is_empty());
        assert_eq!(verdict.subject, format!("depth 1 → 4 at codebook {codebook}"));
    }
}

#[test]
fn pairs_that_are_missing_are_counted() {
    let mut results = psnrs(&[
        (1, 64, 0, 10.0),
        (4, 64, 0, 11.0),
        (1, 64, 1, 10.0),
        (4, 64, 1, 13.0),
        (1, 64, 2, 10.0),
        (4, 64, 2, 90.0),
    ]);
    results.trials[5].status = Status::Failed;
    let verdict = judge(&results, &deeper("psnr", Some(64)));
    assert_eq!((verdict.estimate.unwrap().mean, verdict.pairs), (2.0, (3, 1)));
    assert!(verdict.sentence().ends_with("2 seeds, paired, 1 of 3 pairs missing."), "{}", verdict.sentence());
}

#[test]
fn a_cell_that_one_seed_lacks_is_left_out_of_all() {
    // Seed 1 lacks the larger codebook, whose difference in seed 0 is 100.
    let results = psnrs(&[
        (1, 64, 0, 10.0),
        (4, 64, 0, 11.0),
        (1, 256, 0, 10.0),
        (4, 256, 0, 110.0),
        (1, 64, 1, 10.0),
        (4, 64, 1, 12.0),
    ]);
    let verdict = judge(&results, &deeper("psnr", None));
    assert_eq!((verdict.estimate.unwrap().mean, verdict.pairs), (1.5, (3, 1)));
    assert!(verdict.averaged.is_empty(), "only one codebook is left: {:?}", verdict.averaged);
}

#[test]
fn a_measure_that_does_not_apply_is_not_missing() {
    // Of the two codebooks, one has a prior.
    let results = results(vec![
        trial(1, 64, 0, &[("psnr", 10.0), ("prior_bits_per_image", 100.0)]),
        trial(4, 64, 0, &[("psnr", 11.0), ("prior_bits_per_image", 90.0)]),
        trial(1, 256, 0, &[("psnr", 10.0)]),
        trial(4, 256, 0, &[("psnr", 11.0)]),
    ]);
    let verdict = judge(&results, &deeper("prior_bits_per_image", None));
    assert_eq!((verdict.estimate.unwrap().mean, verdict.pairs), (-10.0, (1, 0)));
}

#[test]
fn sides_that_share_no_seed_are_compared_by_welch() {
    // Variance 1 on each side, three seeds each: 4 degrees of freedom, standard error sqrt(2/3).
    let results = psnrs(&[
        (1, 64, 0, 9.0),
        (1, 64, 1, 10.0),
        (1, 64, 2, 11.0),
        (4, 64, 3, 19.0),
        (4, 64, 4, 20.0),
        (4, 64, 5, 21.0),
    ]);
    let verdict = judge(&results, &deeper("psnr", Some(64)));
    assert_eq!(
        (verdict.method, verdict.finding, verdict.sides),
        (Method::Unpaired, Finding::Better, Some((10.0, 20.0)))
    );
    interval_is(&verdict.estimate.unwrap(), 10.0, T[2] * (2.0_f64 / 3.0).sqrt());
}

#[test]
fn cells_are_no_repetitions_without_pairs_either() {
    // Seeds' means are 9, 11 and 19, 21; the cells within them differ by 8, which is no variance between seeds.
    let mut values = Vec::new();
    for (depth, seed, mean) in [(1, 0, 9.0), (1, 1, 11.0), (4, 2, 19.0), (4, 3, 21.0)] {
        values.push((depth, 64, seed, mean - 4.0));
        values.push((depth, 256, seed, mean + 4.0));
    }
    let estimate = judge(&psnrs(&values), &deeper("psnr", None)).estimate.unwrap();
    // Variance 2 on each side, two seeds each: 2 degrees of freedom, standard error sqrt 2.
    assert_eq!(estimate.n, 2);
    interval_is(&estimate, 10.0, T[1] * 2.0_f64.sqrt());
}

#[test]
fn what_was_not_measured_on_both_sides_says_so() {
    let results = psnrs(&[(1, 64, 0, 10.0)]);
    for comparison in [
        deeper("psnr", Some(64)),
        deeper("ssim", None),
        Comparison { axis: "q.width".to_owned(), ..deeper("psnr", None) },
    ] {
        let verdict = judge(&results, &comparison);
        assert_eq!((verdict.finding, verdict.estimate), (Finding::NotMeasured, None));
        assert!(verdict.sentence().ends_with("was not measured on both sides."));
    }
}

#[test]
fn a_measure_is_compared_at_its_indices() {
    let mut results = results(vec![trial(1, 64, 0, &[]), trial(4, 64, 0, &[])]);
    for (trial, usage) in results.trials.iter_mut().zip([0.5, 0.75]) {
        let at = [Index::Depth(1), Index::Level(2)];
        trial.readings = vec![crate::Reading::new("usage", [], 0.1), crate::Reading::new("usage", at, usage)];
    }
    let metric = Quantity::new("usage", [Index::Level(2), Index::Depth(1)]);
    let verdict = judge(&results, &Comparison { metric: Some(metric), ..deeper("psnr", Some(64)) });
    assert_eq!(
        verdict.sentence(),
        "depth 1 → 4 at codebook 64: codebook usage (level 2, depth 1) +25 points, no interval: one seed, paired."
    );
}

#[test]
fn the_rates_are_those_of_the_pairs_that_were_compared() {
    let bits = |depth: i64, codebook: i64| (depth * codebook) as f64;
    let mut all = Vec::new();
    for (depth, codebook) in [(1, 64), (4, 64), (1, 256), (4, 256)] {
        let mut one = trial(depth, codebook, 0, &[("bits_per_image", bits(depth, codebook))]);
        if codebook == 64 {
            one.readings.push(crate::Reading::new("ssim", [], 0.1 * depth as f64));
        }
        all.push(one);
    }
    let results = results(all);
    assert_eq!(judge(&results, &deeper("ssim", None)).rates, Some((64.0, 256.0)));
    assert_eq!(judge(&results, &deeper("bits_per_image", None)).rates, None, "a rate has no rate of its own");
}

/// A pair of seed 0 whose stages were computed in two environments.
fn computed(metric: &str, before: &[(&str, Environment)], after: &[(&str, Environment)]) -> Results {
    let side = |depth, value, origins: &[(&str, Environment)]| Trial {
        origins: origins
            .iter()
            .map(|(stage, environment)| Origin { stage: (*stage).to_owned(), environment: environment.clone() })
            .collect(),
        ..trial(depth, 64, 0, &[(metric, value)])
    };
    results(vec![side(1, 10.0, before), side(4, 20.0, after)])
}

fn machine(change: impl FnOnce(&mut Environment)) -> Environment {
    let mut environment = Environment {
        program: "rqlab 0.1.0".to_owned(),
        processor: "Xeon".to_owned(),
        instructions: "AVX2".to_owned(),
        device: "cpu".to_owned(),
        precision: "f32".to_owned(),
        threads: 2,
        plugins: [("rq".to_owned(), "aaaa".to_owned())].into(),
        ..Environment::default()
    };
    change(&mut environment);
    environment
}

#[test]
fn equal_origins_need_no_words() {
    let here = [("tokenizer", machine(|_| ()))];
    for metric in ["psnr", "train_seconds"] {
        let verdict = judge(&computed(metric, &here, &here), &deeper(metric, Some(64)));
        assert!(verdict.caveats.is_empty(), "{:?}", verdict.caveats);
    }
}

#[test]
fn each_difference_of_origin_is_told_with_its_stages() {
    let changes: [(&str, fn(&mut Environment)); 7] = [
        ("device cpu → H100", |e| "H100".clone_into(&mut e.device)),
        ("instructions AVX2 → AVX-512", |e| "AVX-512".clone_into(&mut e.instructions)),
        ("precision f32 → bf16", |e| "bf16".clone_into(&mut e.precision)),
        ("program rqlab 0.1.0 → rqlab 0.1.0 at 0123", |e| e.commit = Some("0123".to_owned())),
        ("compiler  → rustc 2", |e| "rustc 2".clone_into(&mut e.compiler)),
        ("target  → arm", |e| "arm".clone_into(&mut e.target)),
        ("plugin rq aaaa → bbbb", |e| e.plugins = [("rq".to_owned(), "bbbb".to_owned())].into()),
    ];
    for (words, change) in changes {
        let before = [("tokenizer", machine(|_| ())), ("prior", machine(|_| ()))];
        let after = [("tokenizer", machine(change)), ("prior", machine(|_| ()))];
        let verdict = judge(&computed("psnr", &before, &after), &deeper("psnr", Some(64)));
        assert_eq!(verdict.caveats, [format!("The two sides were computed differently: {words} (tokenizer).")]);
        assert_eq!(verdict.finding, Finding::OneSeed, "other than a time, the measure still compares");
    }
}

#[test]
fn threads_and_processors_matter_to_times_alone() {
    let before = [("tokenizer", machine(|_| ()))];
    let after = [("tokenizer", machine(|e| (e.threads, e.processor) = (8, "Ryzen".to_owned())))];
    let quality = judge(&computed("psnr", &before, &after), &deeper("psnr", Some(64)));
    assert!(quality.caveats.is_empty(), "{:?}", quality.caveats);
    let time = judge(&computed("train_seconds", &before, &after), &deeper("train_seconds", Some(64)));
    assert_eq!(time.finding, Finding::Incomparable);
    assert_eq!(
        time.caveats,
        ["The two sides were computed on different machines: processor Xeon → Ryzen, threads 2 → 8 (tokenizer). A \
          difference in training time may be theirs."]
    );
}

#[test]
fn what_was_varied_is_no_difference_of_origin() {
    // One side has a prior, and so a stage and a plugin that the other lacks.
    let before = [("tokenizer", machine(|_| ()))];
    let after = [
        ("tokenizer", machine(|e| drop(e.plugins.insert("ar".to_owned(), "cccc".to_owned())))),
        ("prior", machine(|_| ())),
    ];
    assert!(judge(&computed("psnr", &before, &after), &deeper("psnr", Some(64))).caveats.is_empty());
}

#[test]
fn a_missing_origin_is_said_where_others_are_known() {
    let here = [("tokenizer", machine(|_| ()))];
    let half = judge(&computed("psnr", &here, &[]), &deeper("psnr", Some(64)));
    assert_eq!(half.caveats, ["Where 1 of the 2 compared trials were computed is not recorded."]);
    // The page says once that nothing is recorded; a time says it itself.
    assert!(judge(&computed("psnr", &[], &[]), &deeper("psnr", Some(64))).caveats.is_empty());
    let time = judge(&computed("train_seconds", &[], &[]), &deeper("train_seconds", Some(64)));
    assert_eq!(time.caveats, ["Where the compared trials were computed is not recorded."]);
}

#[test]
fn a_measure_does_not_compare_across_the_part_that_it_needs() {
    let bits = [("prior_bits_per_image", 90.0), ("psnr", 20.0)];
    let mut results = results(vec![trial(1, 64, 0, &bits), trial(4, 64, 0, &bits)]);
    for (trial, tokenizer) in results.trials.iter_mut().zip(["aa", "bb"]) {
        let parts = [("dataset", "dd"), ("tokenizer", tokenizer)];
        trial.parts = parts.map(|(part, digest)| (part.to_owned(), digest.to_owned())).into();
    }
    let verdict = judge(&results, &deeper("prior_bits_per_image", None));
    assert_eq!(verdict.finding, Finding::Incomparable);
    assert_eq!(
        verdict.caveats,
        ["Prior bits per image compares within one tokenizer only, and the two sides have different tokenizers."]
    );
    assert!(judge(&results, &deeper("psnr", None)).caveats.is_empty(), "PSNR asks for one data set alone");
    results.trials[1].parts.insert("dataset".to_owned(), "ee".to_owned());
    assert_eq!(judge(&results, &deeper("psnr", None)).finding, Finding::Incomparable);
}

#[test]
fn rates_of_codes_and_of_vectors_are_not_set_side_by_side_in_silence() {
    let results = results(vec![
        trial(1, 64, 0, &[("psnr", 20.0), ("bits_per_image", 384.0)]),
        trial(4, 64, 0, &[("psnr", 22.0), ("kl_bits_per_image", 384.0)]),
    ]);
    let verdict = judge(&results, &deeper("psnr", None));
    assert_eq!(verdict.rates, None);
    assert!(verdict.caveats[0].starts_with("One side's rate is the nominal bits of codes"), "{:?}", verdict.caveats);
}

#[test]
fn a_main_effect_averages_complete_blocks() {
    // Seed 1 lacks depth 4 of the larger codebook, so that only the smaller one makes blocks in both seeds.
    let results = psnrs(&[
        (1, 64, 0, 10.0),
        (4, 64, 0, 14.0),
        (1, 256, 0, 50.0),
        (4, 256, 0, 90.0),
        (1, 64, 1, 20.0),
        (4, 64, 1, 26.0),
        (1, 256, 1, 50.0),
    ]);
    let study = Study::new(&results);
    let effect = effect(&study, 0).unwrap();
    assert_eq!(effect.blocks, 1);
    // Means 15 and 20; deviations from the block's mean are -2, -3 and 2, 3: standard error 0.5.
    for (level, mean) in effect.levels.iter().zip([15.0, 20.0]) {
        interval_is(level, mean, T[0] * 0.5);
    }
}

#[test]
fn effects_that_add_up_have_no_interaction() {
    let additive = psnrs(&[(1, 64, 0, 10.0), (4, 64, 0, 14.0), (1, 256, 0, 11.0), (4, 256, 0, 15.0)]);
    let study = Study::new(&additive);
    let found = interaction(&study, 0, 1);
    assert_eq!(found.contrast.unwrap().mean, 0.0);
    let cells: Vec<f64> = found.cells.iter().flatten().map(|cell| cell.unwrap().mean).collect();
    assert_eq!(cells, [10.0, 14.0, 11.0, 15.0]);
    // Four times the depth buys 4 dB at the smaller codebook and 9 dB at the larger one.
    let together = psnrs(&[(1, 64, 0, 10.0), (4, 64, 0, 14.0), (1, 256, 0, 11.0), (4, 256, 0, 20.0)]);
    assert_eq!(interaction(&Study::new(&together), 0, 1).contrast.unwrap().mean, 5.0);
}

#[test]
fn samples_are_set_against_shuffled_codes_of_the_same_trial() {
    let frechets = |sample: f64| [("sample_frechet", sample), ("shuffled_frechet", 60.0)];
    let results = results(vec![trial(1, 64, 0, &frechets(10.0)), trial(1, 64, 1, &frechets(12.0))]);
    let verdict = verdicts(&Study::new(&results)).pop().unwrap();
    interval_is(&verdict.estimate.unwrap(), -49.0, T[0]);
    assert_eq!((verdict.finding, verdict.sides), (Finding::Better, Some((60.0, 11.0))));
}

#[test]
fn without_a_question_each_axis_is_judged_from_its_first_value_to_its_last() {
    let results = psnrs(&[(1, 64, 0, 10.0), (4, 64, 0, 14.0), (1, 256, 0, 11.0), (4, 256, 0, 15.0)]);
    let found: Vec<(String, f64)> =
        verdicts(&Study::new(&results)).into_iter().map(|v| (v.subject, v.estimate.unwrap().mean)).collect();
    assert_eq!(found, [("depth 1 → 4".to_owned(), 4.0), ("codebook 64 → 256".to_owned(), 1.0)]);
}
