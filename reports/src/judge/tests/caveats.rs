//! What is said of sides that were computed differently, or do not compare.

use super::*;
use crate::origin::{Environment, Origin};

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
    type Change = fn(&mut Environment);
    let changes: [(&str, Change); 7] = [
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
        assert_eq!(verdict.finding, Finding::FewSeeds, "other than a time, the measure still compares");
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
          difference in training time may come from the machines."]
    );
}

#[test]
fn speeds_are_of_where_they_were_timed() {
    let (here, there) = (machine(|_| ()), machine(|e| "Ryzen".clone_into(&mut e.processor)));
    let speed = "decode_images_per_second";
    let sides = |after: &[(&str, Environment)]| {
        let before = [("tokenizer", here.clone()), ("generation", here.clone())];
        judge(&computed(speed, &before, after), &deeper(speed, Some(64)))
    };
    let elsewhere = [("tokenizer", here.clone()), ("generation", there.clone())];
    assert_eq!(sides(&elsewhere).finding, Finding::Incomparable);
    // Timed again here, wherever samples were drawn, and wherever the tokenizer was trained.
    let again = [("tokenizer", there.clone()), ("generation", there), ("speed", here.clone())];
    let verdict = sides(&again);
    assert!(verdict.caveats.is_empty() && verdict.finding == Finding::FewSeeds, "{:?}", verdict.caveats);
    // Other measures are not of where speeds were timed.
    let drawn = [("generation", here.clone())];
    let timed = [("generation", here), ("speed", machine(|e| "H100".clone_into(&mut e.device)))];
    assert!(judge(&computed("psnr", &drawn, &timed), &deeper("psnr", Some(64))).caveats.is_empty());
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
    assert_eq!(half.caveats, ["Where 1 of the 2 compared trials was computed is not recorded."]);
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
    let other_data = judge(&results, &deeper("psnr", None));
    assert_eq!(other_data.finding, Finding::FewSeeds, "other training images are a question like any other");
    assert!(other_data.caveats[0].starts_with("The two sides have different data sets"), "{:?}", other_data.caveats);
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
