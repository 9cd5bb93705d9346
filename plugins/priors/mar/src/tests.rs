//! Facts of the eight cells: what they promise, what they learn, and what is refused.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use crate::{Mar, MarConfig};
use rqlab_sdk::optim::{Adam, AdamSettings};
use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::Tape;
use rqlab_sdk::tensor::ops::sampling::Draw;
use rqlab_sdk::testing::{PriorCase, prior};

const CLASSES: usize = 3;
const SMALL: &str =
    "width: 12, heads: 2, encoder_layers: 1, decoder_layers: 1, buffer: 2, head_width: 12, head_layers: 1";
const CELLS: [&str; 4] = ["ar", "random_causal", "mar_one", "mar"];

fn context(params: Params, level: LevelInfo) -> PriorContext {
    PriorContext {
        levels: vec![level],
        level: 0,
        condition: ConditionSpace::Classes(CLASSES),
        null_condition: true,
        params,
        components: Components::none(),
    }
}

fn vectors(side: usize, channels: usize) -> LevelInfo {
    LevelInfo { height: side, width: side, channels, space: TokenSpace::Vectors { channels }, scales: None }
}

fn codes(sizes: &[usize]) -> LevelInfo {
    let table =
        |(d, &k): (usize, &usize)| Tensor::from_vec(Rng::new(1, "codebook", d as u64).normal(k * 5), &[k, 5]).unwrap();
    let tables = sizes.iter().enumerate().map(table).collect();
    let space = TokenSpace::Codes(CodeSpace { sizes: sizes.to_vec(), tables, shared: false });
    LevelInfo { height: 2, width: 3, channels: 5, space, scales: None }
}

fn config(text: &str) -> MarConfig {
    MarConfig::parse(&format!("mar({SMALL}, {text})")).unwrap()
}

fn classes(images: usize) -> Condition {
    let labels = (0..images).map(|i| (i % CLASSES) as u32).collect();
    Condition::classes(Codes::from_vec(labels, &[images]).unwrap()).unwrap()
}

/// All parameters away from zero, where the published start has many.
fn awake(params: &Params) {
    for (name, var) in params.trained() {
        let shape = var.get().shape().to_vec();
        let noise = Tensor::from_vec(Rng::new(5, &name, 0).normal(shape.iter().product()), &shape).unwrap();
        var.set(&var.get().detach().add(&noise.mul_scalar(0.1).unwrap()).unwrap()).unwrap();
    }
}

#[test]
fn every_cell_keeps_the_contract_of_a_prior_of_codes() {
    for cell in CELLS {
        for modulation in ["start", "modulation"] {
            let config = config(&format!("preset: {cell}_crossent, causal_condition: {modulation}, iterations: 2"));
            let build = |cx: &PriorContext| {
                let model = Mar::new(config.clone(), cx)?;
                awake(&cx.params);
                Ok(model)
            };
            prior(&PriorCase::codes(&[6]), build);
            prior(&PriorCase::codes(&[4]).under(ConditionSpace::None), build);
        }
    }
}

#[test]
fn every_cell_keeps_the_contract_of_a_prior_of_vectors() {
    for cell in CELLS {
        for modulation in ["start", "modulation"] {
            let config = config(&format!(
                "preset: {cell}_diffloss, loss: flow, causal_condition: {modulation}, sampling_steps: 3, iterations: 2"
            ));
            let build = |cx: &PriorContext| {
                let model = Mar::new(config.clone(), cx)?;
                awake(&cx.params);
                Ok(model)
            };
            prior(&PriorCase::vectors(3), build);
            // Also as the embeddings of codes, several of a position.
            prior(&PriorCase::codes(&[3, 2]), build);
        }
    }
    let wider = "decoder_width: 20, decoder_heads: 5, iterations: 2";
    prior(&PriorCase::vectors(3), |cx| Mar::new(config(&format!("loss: flow, sampling_steps: 3, {wider}")), cx));
    prior(&PriorCase::codes(&[6]), |cx| Mar::new(config(&format!("preset: mar_crossent, {wider}")), cx));
    let text = ConditionSpace::Text { vocabulary: 7, length: 3 };
    prior(&PriorCase::vectors(3).under(text), |cx| Mar::new(config("loss: flow, sampling_steps: 2"), cx));
    for causal in ["preset: ar_crossent", "preset: random_causal_diffloss, causal_condition: start, sampling_steps: 2"]
    {
        prior(&PriorCase::codes(&[3]).under(text), |cx| Mar::new(config(causal), cx));
    }
}

/// Every cell, with the loss of diffusion: what is predicted follows from what came before, cached or not.
#[test]
fn samples_are_equal_with_cache_and_without() {
    for preset in ["ar_diffloss", "random_causal_diffloss"] {
        for modulation in ["start", "modulation"] {
            let params = Params::new(3);
            let config = config(&format!("preset: {preset}, causal_condition: {modulation}, sampling_steps: 4"));
            let model = Mar::new(config, &context(params.clone(), vectors(3, 4))).unwrap();
            awake(&params);
            let guidance = Guidance { scale: 2.0, schedule: GuidanceSchedule::Linear };
            let request = |cache| SampleRequest { cache, guidance, ..SampleRequest::new(classes(4)) };
            let sample =
                |cache| model.sample(&request(cache), &Rng::new(0, "s", 0)).unwrap().vectors().unwrap().to_vec();
            let (cached, anew) = (sample(true), sample(false));
            let size = cached.iter().fold(1.0f32, |m, x| m.max(x.abs()));
            assert!(cached.iter().zip(&anew).all(|(a, b)| (a - b).abs() < 1e-3 * size), "{preset} {modulation}");
        }
    }
}

/// Each class has a map of its own: after training, samples of a class are near its map, in every cell.
#[test]
fn training_on_one_map_per_class_makes_samples_of_it() {
    let level = vectors(2, 4);
    let maps = Tensor::from_vec(Rng::new(9, "maps", 0).normal(CLASSES * 16), &[CLASSES, 2, 2, 4]).unwrap();
    for preset in CELLS {
        let params = Params::new(3);
        let text = format!("preset: {preset}_diffloss, loss: flow, sampling_steps: 10, noise_draws: 16, iterations: 2");
        let sizes =
            "width: 32, heads: 2, encoder_layers: 1, decoder_layers: 1, buffer: 2, head_width: 64, head_layers: 2";
        let config = MarConfig::parse(&format!("mar({sizes}, {text}, least_masked: 0.1)")).unwrap();
        let model = Mar::new(config, &context(params.clone(), level.clone())).unwrap();
        let batch = TokenBatch {
            tokens: Tokens::Vectors(maps.clone()),
            targets: Targets::Hard,
            condition: classes(CLASSES),
            above: vec![],
        };
        let mut optimizer = Adam::new(params.trained(), AdamSettings::default()).unwrap();
        for step in 0..300 {
            let tape = Tape::start().unwrap();
            let loss = model.loss(&batch, &Mode::Train(Rng::new(0, "train", step))).unwrap().loss;
            optimizer.step(&mut tape.backward(&loss).unwrap(), 3e-3, Some(3.0)).unwrap();
        }
        let samples = model.sample(&SampleRequest::new(classes(CLASSES)), &Rng::new(0, "sample", 0)).unwrap();
        let error = samples.vectors().unwrap().mse(&maps).unwrap().item().unwrap();
        // Of another class's map it would be 2.
        assert!(error < 0.3, "{preset}: {error}");
    }
}

#[test]
fn the_variational_bound_falls_with_training() {
    let params = Params::new(3);
    let model = Mar::new(config("preset: mar_diffloss"), &context(params.clone(), vectors(2, 4))).unwrap();
    let tokens = Tensor::from_vec(Rng::new(9, "tokens", 0).normal(4 * 16), &[4, 2, 2, 4]).unwrap();
    let tokens = Tokens::Vectors(tokens.mul_scalar(0.1).unwrap());
    let batch = TokenBatch { tokens, targets: Targets::Hard, condition: classes(4), above: vec![] };
    let bound = || {
        let bound = model.bound(&batch, &Rng::new(0, "bound", 0)).unwrap().unwrap();
        let Bound::Vectors(nats) = bound else { panic!("vectors are what it draws") };
        assert_eq!(nats.shape(), [4, 1]);
        nats.mean_all().unwrap().item().unwrap()
    };
    let before = bound();
    let mut optimizer = Adam::new(params.trained(), AdamSettings::default()).unwrap();
    for step in 0..200 {
        let tape = Tape::start().unwrap();
        let loss = model.loss(&batch, &Mode::Train(Rng::new(0, "train", step))).unwrap();
        assert_eq!(loss.terms.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["mse", "bound"]);
        optimizer.step(&mut tape.backward(&loss.loss).unwrap(), 3e-3, Some(3.0)).unwrap();
    }
    assert!(bound() < before, "{} {before}", bound());
}

/// The peer benchmark's sizes, as counted by its own implementation.
#[test]
fn the_parameter_counts_are_those_of_the_other_implementation() {
    let count = |text: &str, null: bool| {
        let params = Params::dry();
        let cx = PriorContext {
            condition: ConditionSpace::Classes(10),
            null_condition: null,
            ..context(params.clone(), vectors(8, 16))
        };
        Mar::new(MarConfig::parse(text).unwrap(), &cx).unwrap();
        params.count()
    };
    let small = "mar(width: 256, heads: 8, encoder_layers: 4, decoder_layers: 4, buffer: 16, head_width: 256, sampling_steps: 25)";
    assert_eq!(count(small, true), 7_780_128);
    let causal =
        "mar(preset: ar_diffloss, width: 256, heads: 8, encoder_layers: 4, decoder_layers: 4, head_width: 256)";
    assert_eq!(count(causal, false), 7_671_840);
}

#[test]
fn what_cannot_be_is_refused() {
    let refused =
        |text: &str, level: LevelInfo| Mar::new(config(text), &context(Params::dry(), level)).unwrap_err().to_string();
    assert!(refused("preset: mar_crossent", vectors(2, 4)).contains("diffusion"));
    assert!(refused("preset: ar_crossent", codes(&[7; 2])).contains("rq_transformer"));
    assert!(refused("attention: causal, tokens_per_step: many", vectors(2, 4)).contains("bidirectional"));
    assert!(refused("iterations: 5", vectors(2, 4)).contains("5 steps for 4 tokens"));
    assert!(refused("sampling_steps: 1001", vectors(2, 4)).contains("sampling_steps"));
    assert!(refused("patch: 2", vectors(3, 4)).contains("tile"));
    assert!(refused("patch: 2", codes(&[7])).contains("squares"));
    assert!(MarConfig::parse("mar(iterations: 0)").is_err());
    assert!(
        MarConfig::parse("mar(heads: 5)")
            .map(|c| Mar::new(c, &context(Params::dry(), vectors(2, 4))))
            .unwrap()
            .is_err()
    );
    let model = Mar::new(config("loss: flow, patch: 2"), &context(Params::new(0), vectors(4, 2))).unwrap();
    for draw in [Draw { top_k: Some(3), ..Draw::default() }, Draw { top_p: Some(0.9), ..Draw::default() }] {
        let request = SampleRequest { draw: vec![draw], ..SampleRequest::new(classes(2)) };
        assert!(model.sample(&request, &Rng::new(0, "s", 0)).unwrap_err().to_string().contains("`top_k` and `top_p`"));
    }
    assert_eq!(model.sample(&SampleRequest::new(classes(2)), &Rng::new(0, "s", 0)).unwrap().shape(), [2, 4, 4, 2]);
}
