//! Each kind on a known bad case and a known good one.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use crate::measure::{Index, Reading};
use crate::results::{Curve, Example, Image, Results, Status, Trial};
use crate::setup::{CodeSizes, Fact, LABELS, Sizes};

/// A finished trial of which nothing is to be said: 64 codes at one depth on 8 x 8 positions, 500 images measured.
fn sound() -> Trial {
    let level = CodeSizes { positions: 64, codebooks: vec![64], shared: false };
    let sizes = Sizes {
        classes: Some(4),
        test_images: Some(500),
        measured_images: Some(500),
        steps: Some(400),
        levels: vec![level],
        ..Sizes::default()
    };
    let depth = [Index::Depth(1)];
    Trial {
        id: "aaaaaaaa".to_owned(),
        seed: Some(0),
        status: Status::Done,
        readings: vec![
            Reading::new("perplexity", depth.clone(), 50.0),
            Reading::new("usage", depth.clone(), 1.0),
            Reading::new("usage", [], 1.0),
            Reading::new("classifier_accuracy", [], 0.9),
            Reading::new("bits_per_image", [], 384.0),
            Reading::new("entropy_bits_per_image", [], 360.0),
            Reading::new("prior_bits_per_image", [], 300.0),
        ],
        curves: vec![
            curve("tokenizer", "loss", &[], &[1.0, 0.5, 0.2]),
            curve("tokenizer", "restarted_codes", &depth, &[64.0, 4.0, 0.5, 0.5]),
            curve("prior", "validation_loss", &[], &[4.0, 3.0, 2.9]),
        ],
        sizes,
        examples: [0, 200].map(|grey| example(grey, grey)).into(),
        ..Trial::default()
    }
}

fn curve(stage: &str, measure: &str, at: &[Index], values: &[f64]) -> Curve {
    let steps = (1..=values.len() as u64).map(|step| 100 * step).collect();
    Curve { stage: stage.to_owned(), measure: measure.to_owned(), at: at.to_vec(), steps, values: values.to_vec() }
}

fn example(grey: u8, reconstruction: u8) -> Example {
    let image = |grey| Image::new(2, 2, vec![grey; 12]).unwrap();
    Example { original: image(grey), reconstructions: vec![image(reconstruction)], ..Example::default() }
}

/// What is said of a configuration of three seeds that are all as `trial`.
fn said(trial: &Trial) -> Vec<String> {
    let seeds = [0, 1, 2].map(|seed| Trial { seed: Some(seed), ..trial.clone() });
    let results = Results { trials: seeds.into(), ..Results::default() };
    crate::warnings(&results)
}

/// What is said of the sound trial after a change: one line, which holds these words.
fn expect(change: impl FnOnce(&mut Trial), words: &[&str]) {
    let mut trial = sound();
    change(&mut trial);
    let said = said(&trial);
    assert_eq!(said.len(), 1, "{said:?}");
    for word in words {
        assert!(said[0].contains(word), "{word} in {said:?}");
    }
}

fn put(trial: &mut Trial, measure: &str, value: f64) {
    trial.readings.iter_mut().filter(|reading| reading.measure == measure).for_each(|reading| reading.value = value);
}

fn draw(trial: &mut Trial, measure: &str, values: &[f64]) {
    for curve in trial.curves.iter_mut().filter(|curve| curve.measure == measure) {
        curve.steps = (1..=values.len() as u64).map(|step| 100 * step).collect();
        curve.values = values.to_vec();
    }
}

#[test]
fn of_a_sound_trial_nothing_is_said() {
    assert_eq!(said(&sound()), [""; 0]);
    // Nor of results that say little.
    assert_eq!(said(&Trial { status: Status::Done, ..Trial::default() }), [""; 0]);
}

#[test]
fn a_codebook_that_collapsed_is_told_with_its_perplexity() {
    expect(
        |trial| put(trial, "perplexity", 1.0),
        &["perplexity 1.0 of 64 codes at depth 1", "collapsed", "seed 0", "3 of 3 seeds"],
    );
    expect(|trial| put(trial, "perplexity", 3.0), &["perplexity 3.0 of 64 codes", "3 equally frequent codes"]);
    // Two codes of two are no collapse; of a codebook of unknown size one code is.
    let mut trial = sound();
    trial.sizes.levels[0].codebooks = vec![2];
    draw(&mut trial, "restarted_codes", &[0.0]);
    put(&mut trial, "perplexity", 1.2);
    assert_eq!(said(&trial), [""; 0]);
    trial.sizes.levels.clear();
    assert!(said(&trial)[0].contains("perplexity 1.2 at depth 1"));
}

#[test]
fn codes_that_a_prior_knows_before_the_image_is_seen_are_told() {
    // 64 positions of 6 bits.
    let bits =
        |value: f64| move |trial: &mut Trial| trial.readings.push(Reading::new("prior_bits", [Index::Depth(1)], value));
    expect(bits(0.0), &["0 of 384 bits for the codes at depth 1", "whatever the image is", "3 of 3 seeds"]);
    let mut trial = sound();
    bits(4.0)(&mut trial);
    assert_eq!(said(&trial), [""; 0]);
}

#[test]
fn the_ceiling_of_usage_is_told_where_tokens_are_few() {
    // 4 images of 64 positions: 256 tokens for 1024 codes.
    let few = |images: usize| {
        move |trial: &mut Trial| {
            trial.sizes.levels[0].codebooks = vec![1024];
            (trial.sizes.measured_images, trial.sizes.test_images) = (Some(images), Some(images));
            put(trial, "perplexity", 200.0);
        }
    };
    expect(few(4), &["256 tokens measure the use of 1024 codes", "cannot exceed 25%", "22%", "evaluation.images"]);
    expect(few(16), &["1024 tokens", "would be 63%"]);
    let mut enough = sound();
    few(64)(&mut enough);
    assert_eq!(said(&enough), [""; 0]);
}

#[test]
fn a_classifier_near_chance_is_told_by_the_mixture_of_classes() {
    expect(|trial| put(trial, "classifier_accuracy", 0.3), &["30.0%", "chance", "25.0% of 4 classes"]);
    let unequal = |accuracy: f64| {
        let mut trial = sound();
        trial.sizes.classes = Some(2);
        trial.sizes.test_by_class = vec![180, 20];
        put(&mut trial, "classifier_accuracy", accuracy);
        said(&trial)
    };
    // Nine of ten are right without looking.
    assert!(unequal(0.9)[0].contains("always naming the largest class (90.0%"), "{:?}", unequal(0.9));
    assert!(
        unequal(0.97)[0].contains("20 to 180 images in a class") && unequal(0.97).len() == 1,
        "{:?}",
        unequal(0.97)
    );
    let mut even = sound();
    even.sizes.test_by_class = vec![130, 120, 130, 120];
    assert_eq!(said(&even), [""; 0]);
}

#[test]
fn a_prior_that_codes_worse_than_none_is_told() {
    expect(|trial| put(trial, "prior_bits_per_image", 400.0), &["400 bits", "384 as they are"]);
    expect(|trial| put(trial, "prior_bits_per_image", 370.0), &["370 bits", "360 that the codes' frequencies"]);
    // With few tokens the entropy of frequencies is too low to compare with.
    let mut few = sound();
    put(&mut few, "prior_bits_per_image", 370.0);
    (few.sizes.measured_images, few.sizes.test_images) = (Some(10), Some(10));
    assert_eq!(said(&few), [""; 0]);
}

#[test]
fn a_rising_validation_curve_is_told_with_its_lowest_point() {
    expect(
        |trial| draw(trial, "validation_loss", &[4.0, 2.0, 2.5, 3.0]),
        &["the prior's validation loss rises from 2 at step 200 to 3 at step 400", "overfits"],
    );
    let mut noisy = sound();
    draw(&mut noisy, "validation_loss", &[4.0, 2.0, 2.03]);
    assert_eq!(said(&noisy), [""; 0]);
}

#[test]
fn codes_that_never_settle_are_told() {
    expect(|trial| draw(trial, "restarted_codes", &[64.0, 60.0, 40.0, 32.0]), &["32 of 64 codes at depth 1 restart"]);
    // A codebook that three depths share restarts at each of them: no more than all of it, three times.
    let shared = |restarted: f64| {
        move |trial: &mut Trial| {
            trial.sizes.levels[0] = CodeSizes { positions: 64, codebooks: vec![64; 3], shared: true };
            let curve = trial.curves.iter_mut().find(|curve| curve.measure == "restarted_codes").unwrap();
            curve.at.clear();
            draw(trial, "restarted_codes", &[restarted]);
        }
    };
    expect(shared(96.0), &["96 of 192 codes (one codebook at 3 depths) restart"]);
    let mut few = sound();
    shared(9.0)(&mut few);
    assert_eq!(said(&few), [""; 0]);
}

#[test]
fn a_tokenizer_that_learned_nothing_is_told() {
    expect(|trial| trial.sizes.steps = Some(0), &["not trained (0 steps)"]);
    expect(|trial| draw(trial, "loss", &[0.5, 0.7, 0.9]), &["did not fall: 0.5000 at first, 0.9000 at the end"]);
    expect(|trial| draw(trial, "loss", &[0.5, f64::NAN]), &["did not fall"]);
    // What a quantizer adds to the loss begins late: pixels say whether anything was learned.
    let mut late = sound();
    draw(&mut late, "loss", &[0.5, 0.1, 70.0]);
    late.curves.push(curve("tokenizer", "mse", &[], &[0.5, 0.1, 0.05]));
    assert_eq!(said(&late), [""; 0]);
    let rising = |trial: &mut Trial| trial.curves.push(curve("tokenizer", "l1", &[], &[0.5, 0.7]));
    expect(rising, &["the tokenizer's l1 did not fall"]);
    // Both pictures become the same grey, further off than the other picture is.
    expect(
        |trial| trial.examples = vec![example(0, 255), example(200, 0)],
        &["no better than the mean of the other pictures"],
    );
}

#[test]
fn few_seeds_are_told_once() {
    let results = |seeds: u64| Results {
        trials: (0..seeds).map(|seed| Trial { seed: Some(seed), ..sound() }).collect(),
        ..Results::default()
    };
    let said = |results: &Results| crate::warnings(results);
    assert!(said(&results(1))[0].starts_with("One seed, fewer than 3"), "{:?}", said(&results(1)));
    assert!(said(&results(2))[0].starts_with("2 seeds"));
    assert_eq!(said(&results(3)), [""; 0]);
}

#[test]
fn a_small_part_of_the_test_images_is_told() {
    expect(|trial| trial.sizes.test_images = Some(10_000), &["500 of 10,000 test images"]);
    let mut most = sound();
    most.sizes.test_images = Some(600);
    assert_eq!(said(&most), [""; 0]);
}

#[test]
fn what_holds_of_many_is_said_once_with_their_number() {
    let axis = crate::results::Axis {
        path: "quantizer.beta".to_owned(),
        values: (0..9_i64).map(Into::into).collect(),
        ..Default::default()
    };
    let trials = (0..9_i64).flat_map(|beta| {
        [0, 1, 2].map(|seed| {
            let mut trial = Trial { seed: Some(seed), id: format!("{beta}{seed}"), ..sound() };
            trial.axes.insert("quantizer.beta".to_owned(), beta.into());
            // One kind in equal words, another in words of each one's own.
            trial.sizes.steps = Some(0);
            put(&mut trial, "prior_bits_per_image", 400.0 + beta as f64);
            trial
        })
    });
    let results = Results { axes: vec![axis], trials: trials.collect(), ..Results::default() };
    let said: Vec<String> = crate::warnings(&results);
    assert_eq!(said.len(), 1 + super::MOST, "{said:?}");
    assert!(
        said[0].starts_with("beta 0, seed 0; beta 1, seed 0; and 7 more: the tokenizer was not trained"),
        "{}",
        said[0]
    );
    assert!(said[super::MOST].ends_with("; and 3 more of this kind."), "{}", said[super::MOST]);
}

#[test]
fn a_busy_machine_is_told_with_its_load() {
    let loaded = |load: f64| {
        let mut trial = sound();
        trial.readings.push(Reading::new("other_load", [], load));
        said(&trial)
    };
    assert!(loaded(0.45)[0].contains("45% of the processors"), "{:?}", loaded(0.45));
    assert_eq!(loaded(0.05), [""; 0]);
}

#[test]
fn mixtures_of_labels_that_differ_are_told() {
    let mixed = |mixtures: [&str; 3]| {
        let trial =
            |(seed, text): (u64, &str)| Trial { seed: Some(seed), setup: vec![Fact::new(LABELS, text)], ..sound() };
        let results = Results { trials: (0..).zip(mixtures).map(trial).collect(), ..Results::default() };
        crate::warnings(&results)
    };
    let said = mixed(["as the data", "equally often", "as the data"]);
    assert!(said.len() == 1 && said[0].contains("(as the data; equally often)"), "{said:?}");
    assert_eq!(mixed(["as the data"; 3]), [""; 0]);
}

#[test]
fn codes_far_outside_the_latents_are_told() {
    let farthest = |norm: f64| {
        move |trial: &mut Trial| trial.readings.push(Reading::new("largest_code_norm", [Index::Depth(1)], norm))
    };
    expect(farthest(1.2e5), &["the farthest code at depth 1 has 120,000 times the norm of the codes that images use"]);
    let mut near = sound();
    farthest(15.0)(&mut near);
    assert_eq!(said(&near), [""; 0]);
}

#[test]
fn a_tokenizer_that_is_measured_with_what_it_was_trained_on_is_told() {
    let of = |features: &str| {
        let mut trial = sound();
        trial.settings.insert("objective[2].features".to_owned(), features.to_owned());
        said(&trial)
    };
    assert!(of("lab")[0].contains("trained on features of the classifier"), "{:?}", of("lab"));
    assert_eq!(of("lpips"), [""; 0]);
}

#[test]
fn a_critic_that_has_won_or_died_is_told() {
    let with = |curves: &[(&str, &[f64])]| {
        let mut trial = sound();
        trial.curves.extend(curves.iter().map(|(measure, values)| curve("tokenizer", measure, &[], values)));
        said(&trial)
    };
    let won = with(&[("critic_loss", &[2.0, 0.4, 0.001, 0.001])]);
    assert!(won[0].contains("the critic has won (its loss fell from 2 to"), "{won:?}");
    let died = with(&[("patch_gan_discriminator_loss", &[1.386, 1.386, 1.386, 1.386])]);
    assert!(died[0].contains("does not tell real from decoded images (its loss stays at 1.386)"), "{died:?}");
    // Logits say it better than the loss, whose scale is the objective's.
    let logits = |real: f64, fake: f64| {
        with(&[("critic_loss", &[2.0, 1.0, 0.9, 0.9]), ("real_logits", &[0.0, real]), ("fake_logits", &[0.0, fake])])
    };
    assert!(logits(5.0, -6.0)[0].contains("has won (its logits are 5 for real images and \u{2212}6 for decoded ones"));
    assert!(logits(0.5, 0.5)[0].contains("does not tell real from decoded"));
    assert_eq!(logits(0.6, -0.4), [""; 0]);
    // Beyond 1 the hinge has no gradient, and a cross-entropy still has.
    let with_loss = |loss: &str| {
        let mut trial = sound();
        trial.settings.insert("objective[1].loss".to_owned(), loss.to_owned());
        for (measure, value) in [("real_logits", 1.5), ("fake_logits", -1.2)] {
            trial.curves.push(curve("tokenizer", measure, &[], &[0.0, value]));
        }
        said(&trial)
    };
    assert!(with_loss("hinge")[0].contains("the critic has won"), "{:?}", with_loss("hinge"));
    assert_eq!([with_loss("vanilla"), with_loss("non_saturating")], [vec![""; 0], vec![]]);
    assert_eq!(with(&[("critic_loss", &[2.0, 1.5, 1.2, 1.3])]), [""; 0]);
}

#[test]
fn no_verdict_is_drawn_from_what_a_warning_spoils() {
    let axis = crate::results::Axis {
        path: "quantizer.beta".to_owned(),
        values: vec![1_i64.into(), 2_i64.into()],
        ..Default::default()
    };
    let judged = |measure: &str, spoil: &dyn Fn(&mut Trial)| {
        let trials = [1_i64, 2].into_iter().flat_map(|beta| {
            [0, 1, 2, 3].map(|seed| {
                let mut trial = Trial { seed: Some(seed), id: format!("{beta}{seed}"), ..sound() };
                trial.axes.insert("quantizer.beta".to_owned(), beta.into());
                let value = 100.0 * beta as f64 + seed as f64;
                let of = crate::quantity(measure).unwrap();
                trial.readings.retain(|reading| reading.measure != measure);
                trial.readings.push(Reading::new(of.measure, of.at, value));
                if beta == 2 && seed == 0 {
                    spoil(&mut trial);
                }
                trial
            })
        });
        let headline = crate::quantity(measure).ok();
        let results = Results { axes: vec![axis.clone()], trials: trials.collect(), headline, ..Results::default() };
        crate::verdicts(&results).remove(0)
    };
    let collapse = |trial: &mut Trial| put(trial, "perplexity", 1.0);
    for measure in ["psnr", "entropy_bits_per_image", "prior_bits_per_image", "sample_frechet"] {
        let verdict = judged(measure, &collapse);
        assert!(verdict.contains("and no verdict. Caution: A codebook has collapsed: beta 2."), "{verdict}");
        assert!(!judged(measure, &|_| ()).contains("no verdict"), "{measure}");
    }
    // How codes are used is what a collapse is, and parameters are counted.
    for measure in ["usage", "parameters"] {
        assert!(!judged(measure, &collapse).contains("no verdict"), "{measure}");
    }
    let overfit = |trial: &mut Trial| draw(trial, "validation_loss", &[4.0, 2.0, 3.0]);
    assert!(judged("prior_bits_per_image", &overfit).contains("and no verdict. Caution: A prior overfits: beta 2."));
    assert!(!judged("psnr", &overfit).contains("no verdict"));
    let guessing = |trial: &mut Trial| put(trial, "classifier_accuracy", 0.25);
    assert!(judged("recon_frechet", &guessing).contains("The feature classifier knows little: beta 2."));
    let near = |features: f64| {
        move |trial: &mut Trial| {
            trial.readings.push(Reading::new("near_training", [], features));
            trial.readings.push(Reading::new("near_training_pixels", [], 0.3));
        }
    };
    assert!(judged("sample_frechet", &near(0.3)).contains("no verdict"));
    let smooth = judged("sample_frechet", &near(0.01));
    assert!(smooth.contains("Samples are near training images") && !smooth.contains("no verdict"), "{smooth}");
    let busy = |trial: &mut Trial| trial.readings.push(Reading::new("other_load", [], 0.5));
    let speed = judged("decode_images_per_second_b1", &busy);
    assert!(speed.contains("and no verdict. Caution: ") && speed.contains("The machine was busy: beta 2."), "{speed}");
}

#[test]
fn a_prior_that_repeats_its_training_images_is_told() {
    let near = |features: f64, pixels: f64| {
        let mut trial = sound();
        trial.readings.push(Reading::new("near_training", [], features));
        trial.readings.push(Reading::new("near_training_pixels", [], pixels));
        said(&trial)
    };
    assert!(
        near(0.62, 0.05)[0].contains("62% of the samples are as near to a training image"),
        "{:?}",
        near(0.62, 0.05)
    );
    // Copies may show in pixels alone, and so may smooth samples.
    let smooth = near(0.01, 0.3);
    assert!(smooth[0].contains("in pixels, 30% of the samples are as near to a training image"), "{smooth:?}");
    assert!(smooth[0].contains("features 1% of the samples are"), "{smooth:?}");
    assert_eq!(near(0.08, 0.04), [""; 0]);
}
