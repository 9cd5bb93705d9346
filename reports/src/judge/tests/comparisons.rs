//! Pairs, seeds and intervals of a comparison.

use super::*;
use crate::measure::Index;

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
    for (seed, noise) in [(0, 0.0), (1, 0.01), (2, 0.02)] {
        all.push(trial(1, 64, seed, &[("psnr", 20.0), ("mse", 0.3), ("code_overlap", 0.2)]));
        all.push(trial(4, 64, seed, &[("psnr", 25.0 + noise), ("mse", 0.1 + noise), ("code_overlap", 0.8 + noise)]));
    }
    let results = results(all);
    // Two degrees of freedom: 4.3 x 0.01 / sqrt 3 is less than any of the differences.
    for (metric, finding) in [("psnr", Finding::Better), ("mse", Finding::Better), ("code_overlap", Finding::Differs)] {
        assert_eq!(judge(&results, &deeper(metric, Some(64))).finding, finding, "{metric}");
    }
    let back = Comparison { from: 4_i64.into(), to: 1_i64.into(), ..deeper("psnr", Some(64)) };
    let verdict = judge(&results, &back);
    assert_eq!(verdict.finding, Finding::Worse);
    interval_is(&verdict.estimate.unwrap(), -5.01, T[1] * 0.01 / 3_f64.sqrt());
}

#[test]
fn one_seed_is_an_observation() {
    let results = psnrs(&[(1, 64, 0, 20.0), (4, 64, 0, 26.0)]);
    let verdict = judge(&results, &deeper("psnr", Some(64)));
    assert_eq!(verdict.estimate, Some(Estimate::bare(6.0, 1)));
    assert_eq!(
        (verdict.finding, verdict.finding_text()),
        (Finding::FewSeeds, "one seed: an observation, not a finding".to_owned())
    );
}

#[test]
fn cells_of_a_grid_are_no_repetitions() {
    // Within a seed the differences average to 2, 3 and 4, however many cells they come from.
    let results = psnrs(&[
        (1, 64, 2, 10.0),
        (4, 64, 2, 13.0),
        (1, 256, 2, 10.0),
        (4, 256, 2, 15.0),
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
    assert_eq!((estimate.n, verdict.averaged.as_slice()), (3, &["codebook".to_owned()][..]));
    interval_is(&estimate, 3.0, T[1] / 3_f64.sqrt());
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
    // Seeds' means are 9, 10, 11 and 19, 20, 21; the cells within them differ by 8, which is no variance between seeds.
    let mut values = Vec::new();
    for (depth, first, middle) in [(1, 0, 10.0), (4, 3, 20.0)] {
        for (seed, mean) in (first..).zip([middle - 1.0, middle, middle + 1.0]) {
            values.push((depth, 64, seed, mean - 4.0));
            values.push((depth, 256, seed, mean + 4.0));
        }
    }
    let estimate = judge(&psnrs(&values), &deeper("psnr", None)).estimate.unwrap();
    // Variance 1 on each side, three seeds each: 4 degrees of freedom, standard error sqrt(2/3).
    assert_eq!(estimate.n, 3);
    interval_is(&estimate, 10.0, T[2] * (2.0_f64 / 3.0).sqrt());
}

#[test]
fn axes_that_move_together_are_paired_by_seed_and_named() {
    // Depth 1 has the smaller codebook and depth 4 the larger one: no cell has both depths.
    let mut results = psnrs(&[(1, 64, 0, 10.0), (1, 64, 1, 12.0), (4, 256, 0, 15.0), (4, 256, 1, 16.0)]);
    for trial in &mut results.trials {
        trial.settings = trial.axes.iter().map(|(path, value)| (path.clone(), value.to_string())).collect();
    }
    let verdict = judge(&results, &deeper("psnr", None));
    let estimate = verdict.estimate.unwrap();
    assert_eq!((estimate.n, estimate.mean, verdict.method), (2, 4.5, Method::Paired));
    assert_eq!(
        verdict.caveats,
        ["The two sides differ in more than depth: q.codebook (64 → 256). The difference may be theirs."]
    );
}

#[test]
fn a_setting_that_moves_with_the_axis_is_named() {
    let mut results = psnrs(&[(1, 64, 0, 10.0), (4, 64, 0, 15.0)]);
    for (trial, lr) in results.trials.iter_mut().zip(["0.001", "0.003"]) {
        trial.settings.insert("q.depth".to_owned(), "either".to_owned());
        trial.settings.insert("training.lr".to_owned(), lr.to_owned());
        trial.settings.insert("training.steps".to_owned(), "100".to_owned());
    }
    let caveats = judge(&results, &deeper("psnr", Some(64))).caveats;
    assert!(caveats[0].contains("more than depth: training.lr (0.001 → 0.003)."), "{caveats:?}");
    assert!(!caveats[0].contains("steps"), "{caveats:?}");
}

#[test]
fn a_case_is_what_it_sets_and_nothing_else() {
    let caveats = |case_paths: &[&str]| {
        let mut results = psnrs(&[(1, 64, 0, 10.0), (4, 64, 0, 15.0)]);
        results.axes[0].path = "case".to_owned();
        results.case_paths = case_paths.iter().map(|&path| path.to_owned()).collect();
        for (trial, (depth, lr)) in results.trials.iter_mut().zip([("1", "0.001"), ("4", "0.003")]) {
            let case = trial.axes.remove("q.depth").unwrap();
            trial.axes.insert("case".to_owned(), case);
            trial.settings.insert("quantizer.depth".to_owned(), depth.to_owned());
            trial.settings.insert("training.lr".to_owned(), lr.to_owned());
        }
        judge(&results, &Comparison { axis: "case".to_owned(), ..deeper("psnr", Some(64)) }).caveats
    };
    // The learning rate came by another way, such as `when`.
    let lr = "The two sides differ in more than case: training.lr (0.001 → 0.003). The difference may be theirs.";
    assert_eq!(caveats(&["quantizer.depth"]), [lr]);
    assert_eq!(caveats(&["quantizer"]), [lr]);
    assert_eq!(caveats(&["quantizer.depth", "training"]), <[&str; 0]>::default());
}

#[test]
fn a_prior_on_one_side_is_no_reason_for_a_difference_of_tokenizers() {
    let caveats_of = |measure: &str, reason: &str| {
        let mut results = results(vec![trial(1, 64, 0, &[(measure, 10.0)]), trial(4, 64, 0, &[(measure, 15.0)])]);
        for trial in &mut results.trials {
            trial.settings.insert("q.depth".to_owned(), "either".to_owned());
        }
        let settings = &mut results.trials[0].settings;
        for path in ["prior", "prior.width", "prior[0].width", "prior_training.lr", "evaluation.guidance", reason] {
            settings.insert(path.to_owned(), "3".to_owned());
        }
        judge(&results, &deeper(measure, Some(64))).caveats
    };
    for measure in ["psnr", "usage", "entropy_bits_per_image"] {
        assert_eq!(caveats_of(measure, "evaluation.speed"), <[&str; 0]>::default(), "{measure}");
        assert_eq!(
            caveats_of(measure, "tokenizer_training.lr"),
            ["The two sides differ in more than depth: tokenizer_training.lr (3 → –). The difference may be theirs."]
        );
    }
    // Of a prior that is there on one side alone, its settings say nothing more.
    let caveats = caveats_of("prior_bits_per_image", "tokenizer_training.lr");
    let differ = "evaluation.guidance (3 → –), prior (3 → –), prior_training.lr (3 → –), tokenizer_training.lr (3 → –)";
    assert!(caveats.iter().any(|caveat| caveat.contains(differ)), "{caveats:?}");
}

#[test]
fn what_is_averaged_over_on_both_sides_is_no_difference() {
    let mut results = psnrs(&[(1, 64, 0, 10.0), (4, 64, 0, 11.0), (1, 256, 0, 10.0), (4, 256, 0, 13.0)]);
    for trial in &mut results.trials {
        trial.settings = trial.axes.iter().map(|(path, value)| (path.clone(), value.to_string())).collect();
    }
    assert!(judge(&results, &deeper("psnr", None)).caveats.is_empty());
}

#[test]
fn distances_to_other_numbers_of_images_do_not_compare() {
    let mut results =
        results(vec![trial(1, 64, 0, &[("sample_frechet", 9.0)]), trial(4, 64, 0, &[("sample_frechet", 5.0)])]);
    for (trial, samples) in results.trials.iter_mut().zip(["500", "1000"]) {
        trial.settings.insert("evaluation.samples".to_owned(), samples.to_owned());
    }
    let verdict = judge(&results, &deeper("sample_frechet", None));
    assert_eq!(verdict.finding, Finding::Incomparable);
    assert!(
        verdict.caveats[0].contains("the number of samples, and the two sides have 500 and 1000"),
        "{:?}",
        verdict.caveats
    );
}

/// Three seeds whose differences in PSNR are these.
fn differences(found: [f64; 3]) -> Results {
    let of_seed = |(difference, seed): (f64, u64)| [(1, 64, seed, 20.0), (4, 64, seed, 20.0 + difference)];
    psnrs(&found.into_iter().zip(0..).flat_map(of_seed).collect::<Vec<_>>())
}

#[test]
fn a_difference_that_is_shown_to_be_small_is_called_equivalent() {
    // Mean 0.01, standard error 0.01 / sqrt 3: the 90% interval is 0.01 +- 2.92 x 0.0058, well within a tenth of a decibel.
    let verdict = judge(&differences([0.0, 0.01, 0.02]), &deeper("psnr", Some(64)));
    assert_eq!((verdict.finding, verdict.finding_text().as_str()), (Finding::Equivalent, "equivalent within 0.1 dB"));
}

#[test]
fn what_is_not_shown_says_how_many_seeds_would_show_it() {
    // Standard deviation 0.2: a difference of 0.1 is half of it, which 34 pairs show 4 times out of 5.
    let verdict = judge(&differences([-0.2, 0.0, 0.2]), &deeper("psnr", Some(64)));
    assert_eq!(verdict.finding, Finding::Unclear);
    assert!(verdict.finding_text().contains("about 34 seeds would show one of 0.1 dB"), "{}", verdict.finding_text());
}

#[test]
fn where_every_image_is_known_the_interval_is_over_images_too() {
    // Every seed gains 1 dB on average; the images gain -2, 1 and 4: t(0.975) with 2 degrees of freedom times 3 / sqrt 3.
    let mut results = differences([1.0, 1.0, 1.0]);
    for trial in &mut results.trials {
        let deeper = trial.axes["q.depth"] == Value::from(4_i64);
        trial.per_image.insert("psnr".to_owned(), if deeper { vec![18.0, 21.0, 24.0] } else { vec![20.0; 3] });
        trial.parts.insert("test images".to_owned(), "aa".to_owned());
    }
    let verdict = judge(&results, &deeper("psnr", Some(64)));
    interval_is(&verdict.estimate.unwrap(), 1.0, T[1] * 3_f64.sqrt());
    assert!(verdict.sentence().contains("3 seeds and 3 images, paired"), "{}", verdict.sentence());
    // Other images on one side: nothing is paired by image, and nothing is compared.
    results.trials[1].parts.insert("test images".to_owned(), "bb".to_owned());
    for (trial, dataset) in results.trials.iter_mut().zip(["cc", "dd"]) {
        trial.parts.insert("dataset".to_owned(), dataset.to_owned());
    }
    assert_eq!(judge(&results, &deeper("psnr", Some(64))).finding, Finding::Incomparable);
}

#[test]
fn two_seeds_have_no_interval() {
    let verdict = judge(
        &psnrs(&[(1, 64, 0, 10.0), (4, 64, 0, 15.0), (1, 64, 1, 10.0), (4, 64, 1, 15.1)]),
        &deeper("psnr", Some(64)),
    );
    assert_eq!(verdict.finding, Finding::FewSeeds);
    assert!(verdict.sentence().contains("no interval: 2 seeds"), "{}", verdict.sentence());
    assert!(verdict.finding_text().starts_with("2 seeds: too few"), "{}", verdict.finding_text());
}

#[test]
fn many_verdicts_are_corrected() {
    // Differences 0.9, 1.0 and 1.4: t = 1.1 / (0.2646 / sqrt 3) = 7.2, p = 0.019, which three verdicts make 0.056.
    let mut results = differences([0.9, 1.0, 1.4]);
    let alone = Comparison { fixed: Default::default(), ..deeper("psnr", Some(64)) };
    results.comparisons = vec![alone.clone()];
    assert_eq!(verdicts(&Study::new(&results))[0].finding, Finding::Better);
    results.comparisons = vec![alone.clone(), alone.clone(), alone];
    for verdict in verdicts(&Study::new(&results)) {
        assert_eq!(verdict.finding, Finding::Uncorrected);
        near(verdict.p.unwrap(), 0.0563);
    }
}

#[test]
fn trials_of_other_configurations_are_no_repetitions() {
    let mut results = psnrs(&[(1, 64, 0, 10.0), (1, 64, 1, 12.0)]);
    for (trial, configuration) in results.trials.iter_mut().zip(["aa", "bb"]) {
        trial.configuration = configuration.to_owned();
    }
    let study = Study::new(&results);
    assert_eq!(study.configurations.len(), 2, "equal words do not make them equal");
    assert!(study.differ_in_seed_alone());
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

#[test]
fn a_sentence_says_effect_interval_seeds_and_what_it_is_paid_with() {
    // Differences 4.0, 4.1 and 4.2: mean 4.1, half width 4.303 x 0.1 / sqrt 3 = 0.248.
    let mut results = psnrs(&[
        (1, 64, 0, 21.0),
        (4, 64, 0, 25.0),
        (1, 64, 1, 22.0),
        (4, 64, 1, 26.1),
        (1, 64, 2, 20.0),
        (4, 64, 2, 24.2),
    ]);
    for (trial, bits) in results.trials.iter_mut().zip([128.0, 512.0].into_iter().cycle()) {
        trial.readings.push(crate::Reading::new("bits_per_image", [], bits));
    }
    assert_eq!(
        judge(&results, &deeper("psnr", Some(64))).sentence(),
        "depth 1 → 4 at codebook 64: PSNR +4.10 dB, 95% CI [3.85, 4.35], 3 seeds, paired, at 128 → 512 bits per image."
    );
}

#[test]
fn flags_read_as_words() {
    let mut results = psnrs(&[(1, 64, 0, 21.0), (4, 64, 0, 25.0)]);
    results.axes.push(Axis {
        path: "q.shared".to_owned(),
        label: String::new(),
        values: vec![true.into(), false.into()],
    });
    let held = Comparison { fixed: [("q.shared".to_owned(), true.into())].into(), ..deeper("psnr", None) };
    assert_eq!(judge(&results, &held).subject, "depth 1 → 4, shared");
    let changed =
        Comparison { axis: "q.shared".to_owned(), from: false.into(), to: true.into(), ..deeper("psnr", Some(64)) };
    assert_eq!(judge(&results, &changed).subject, "not shared → shared at codebook 64");
}
