//! Facts of PixelSNAIL: sizes, what sees what, conditions, caches, learning.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use crate::{PixelSnail, PixelSnailConfig};
use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::Tape;
use rqlab_sdk::tensor::ops::optim::{AdamStep, adam};
use rqlab_sdk::testing::{PriorCase, code_prior};

const SMALL: &str =
    "width: 16, heads: 2, blocks: 2, residual_blocks: 1, kernel: 3, condition_width: 6, condition_blocks: 1";

fn level(map: [usize; 2], sizes: &[usize]) -> LevelInfo {
    let space = CodeSpace { sizes: sizes.to_vec(), tables: vec![], shared: false };
    LevelInfo { height: map[0], width: map[1], channels: 4, space: TokenSpace::Codes(space), scales: None }
}

fn context(params: Params, levels: Vec<LevelInfo>, condition: ConditionSpace) -> PriorContext {
    let level = levels.len() - 1;
    PriorContext { levels, level, condition, null_condition: false, params, components: Components::none() }
}

fn model(config: &str, levels: Vec<LevelInfo>, condition: ConditionSpace) -> (PixelSnail, Params) {
    let params = Params::new(3);
    let config = PixelSnailConfig::parse(&format!("pixelsnail({config})")).unwrap();
    (PixelSnail::new(config, &context(params.clone(), levels, condition)).unwrap(), params)
}

fn codes(shape: &[usize], size: u32, seed: u64) -> Codes {
    Codes::from_vec(Rng::new(seed, "codes", 0).below(shape.iter().product(), size), shape).unwrap()
}

/// The peer benchmark's size, as counted by its own implementation, and the published ones.
#[test]
fn parameter_counts_are_those_of_other_implementations() {
    let count = |config: &str, levels: Vec<LevelInfo>| {
        let params = Params::dry();
        let cx = context(params.clone(), levels, ConditionSpace::None);
        PixelSnail::new(PixelSnailConfig::parse(config).unwrap(), &cx).unwrap();
        params.count()
    };
    assert_eq!(count("pixelsnail", vec![level([8, 8], &[512])]), 1_916_960);
    let published = "width: 256, blocks: 4, residual_blocks: 4, dropout: 0.1";
    assert_eq!(count(&format!("pixelsnail({published})"), vec![level([32, 32], &[512])]), 84_873_280);
    let bottom = format!("pixelsnail({published}, attention: false, condition_width: 256)");
    assert_eq!(count(&bottom, vec![level([32, 32], &[512]), level([64, 64], &[512])]), 89_762_816);
}

/// With attention every position notices a code that comes after the one below it, which sees it first or second; without, none
/// does that no kernel reaches. No earlier position does, nor does the code's own, nor another image.
#[test]
fn a_code_changes_later_logits_alone() {
    let [height, width] = [5, 6];
    for attention in [true, false] {
        let shape = [2, height, width, 1];
        let one = "width: 16, heads: 2, blocks: 1, residual_blocks: 1, kernel: 3, output_blocks: 1";
        let (model, _) =
            model(&format!("{one}, attention: {attention}"), vec![level([height, width], &[7])], ConditionSpace::None);
        let before = codes(&shape, 7, 1);
        let condition = Condition::none(2).unwrap();
        let logits = |codes: &Codes| model.logits(codes, &condition, &[], &Mode::Eval).unwrap().to_vec();
        let base = logits(&before);
        for at in 0..height * width {
            let mut data = before.as_slice().to_vec();
            data[height * width + at] = (data[height * width + at] + 1) % 7;
            let after = logits(&Codes::from_vec(data, &shape).unwrap());
            for (row, (a, b)) in base.chunks(7).zip(after.chunks(7)).enumerate() {
                let Some(place) = row.checked_sub(height * width) else {
                    assert_eq!(a, b);
                    continue;
                };
                // The stem looks 1 row up, the two convolutions of a block 2 rows each, a column more to the sides each time.
                let rows = place / width - at.min(place) / width;
                let seen = if attention { place > at } else { place > at && rows <= 5 };
                assert!(seen || a == b, "code {at}, position {place}");
                if attention && place > at + width {
                    assert_ne!(a, b, "code {at}, position {place}");
                }
            }
        }
    }
}

#[test]
fn a_class_and_the_levels_above_change_what_is_predicted() {
    let levels = || vec![level([1, 1], &[5]), level([2, 2], &[3, 4]), level([4, 4], &[7])];
    let (model, params) = model(SMALL, levels(), ConditionSpace::Classes(3));
    let batch = |class: u32, top: u64, middle: u64| TokenBatch {
        tokens: Tokens::Codes(codes(&[2, 4, 4, 1], 7, 1)),
        targets: Targets::Hard,
        condition: Condition::classes(Codes::from_vec(vec![class; 2], &[2]).unwrap()).unwrap(),
        above: vec![Tokens::Codes(codes(&[2, 1, 1, 1], 5, top)), Tokens::Codes(codes(&[2, 2, 2, 2], 3, middle))],
    };
    let nats = |batch: TokenBatch| model.likelihood(&batch).unwrap().unwrap().to_vec();
    let base = nats(batch(0, 2, 3));
    assert!(nats(batch(1, 2, 3)) != base && nats(batch(0, 5, 3)) != base && nats(batch(0, 2, 4)) != base);

    let tape = Tape::start().unwrap();
    let loss = model.loss(&batch(0, 2, 3), &Mode::Train(Rng::new(0, "train", 0))).unwrap().loss;
    let mut gradients = tape.backward(&loss).unwrap();
    for (name, var) in params.trained() {
        let gradient = gradients.take(&var.get()).unwrap_or_else(|| panic!("none for {name}"));
        assert!(gradient.as_slice().iter().all(|g| g.is_finite()), "not finite for {name}");
        assert!(gradient.as_slice().iter().any(|g| *g != 0.0), "zero for {name}");
    }
}

#[test]
fn training_on_one_pattern_makes_it_likely() {
    let (model, params) =
        model(&format!("{SMALL}, dropout: 0.1"), vec![level([3, 4], &[5])], ConditionSpace::Classes(2));
    let pattern = TokenBatch {
        tokens: Tokens::Codes(codes(&[2, 3, 4, 1], 5, 4)),
        targets: Targets::Hard,
        condition: Condition::classes(Codes::from_vec(vec![0, 1], &[2]).unwrap()).unwrap(),
        above: vec![],
    };
    let state: Vec<_> = params
        .trained()
        .into_iter()
        .map(|(_, var)| {
            let zeros = Tensor::zeros(var.get().shape());
            (var, Var::buffer(&zeros), Var::buffer(&zeros))
        })
        .collect();
    let nats = || model.likelihood(&pattern).unwrap().unwrap().as_slice().iter().sum::<f32>();
    let before = nats();
    for step in 1..=150 {
        let tape = Tape::start().unwrap();
        let loss = model.loss(&pattern, &Mode::Train(Rng::new(1, "train", step))).unwrap().loss;
        let mut gradients = tape.backward(&loss).unwrap();
        let how = AdamStep { lr: 1e-2, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.0, l2: 0.0, step };
        for (var, m, v) in &state {
            adam(var, &gradients.take(&var.get()).unwrap(), m, v, 1.0, &how).unwrap();
        }
    }
    assert!(nats() < 0.2 * before, "{before} -> {}", nats());
}

#[test]
fn what_cannot_be_is_refused() {
    let build = |config: &str, levels: Vec<LevelInfo>| {
        let cx = context(Params::dry(), levels, ConditionSpace::None);
        PixelSnail::new(PixelSnailConfig::parse(config).unwrap(), &cx).unwrap_err().to_string()
    };
    assert!(build("p(kernel: 4)", vec![level([2, 2], &[7])]).contains("`kernel`"));
    assert!(build("p(width: 24)", vec![level([2, 2], &[7])]).contains("`width`"));
    assert!(
        build("p(condition_kernel: 2)", vec![level([1, 1], &[7]), level([2, 2], &[7])]).contains("`condition_kernel`")
    );
    assert!(build("p", vec![level([2, 2], &[7, 7])]).contains("rq_transformer"));
    assert!(build("p", vec![level([2, 2], &[7]), level([3, 3], &[7])]).contains("2x2 is no such part of 3x3"));
    let vectors = LevelInfo { space: TokenSpace::Vectors { channels: 5 }, ..level([2, 2], &[7]) };
    assert!(build("p", vec![vectors]).contains("vectors"));

    let (model, _) = model(SMALL, vec![level([2, 2], &[7])], ConditionSpace::None);
    let condition = Condition::none(1).unwrap();
    let logits = |codes: &Codes| model.logits(codes, &condition, &[], &Mode::Eval);
    assert!(logits(&Codes::from_vec(vec![0, 1, 2, 7], &[1, 2, 2, 1]).unwrap()).is_err());
    assert!(logits(&Codes::from_vec(vec![0, 1, 2], &[1, 3, 1, 1]).unwrap()).is_err());
}

#[test]
fn it_keeps_the_contract_of_a_prior() {
    for text in [
        SMALL.to_owned(),
        format!("{SMALL}, attention: false"),
        "width: 4, heads: 1, blocks: 1, residual_blocks: 2, residual_width: 3, kernel: 5, output_blocks: 1".to_owned(),
    ] {
        let config = PixelSnailConfig::parse(&format!("pixelsnail({text})")).unwrap();
        for case in [
            PriorCase::codes(&[8]),
            PriorCase::codes(&[5]).below(PriorCase::codes(&[3, 2])),
            PriorCase::codes(&[3]).below(PriorCase::vectors(3)).under(ConditionSpace::None),
            PriorCase::codes(&[4]).under(ConditionSpace::Vectors { length: 2, channels: 4 }),
        ] {
            code_prior(&case, |cx| PixelSnail::new(config.clone(), cx));
        }
    }
}
