//! Facts of next-scale prediction: what a scale sees, what it learns, and what is refused.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use crate::{NextScale, VarConfig};
use rqlab_sdk::optim::{Adam, AdamSettings};
use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::Tape;
use rqlab_sdk::tensor::ops::sampling::Draw;
use rqlab_sdk::testing::{PriorCase, prior};

const CHANNELS: usize = 3;
const VARIANTS: [&str; 4] = ["", ", normalize_attention: false", ", shared_modulation: true", ", condition: none"];

/// A tokenizer of several scales, whose codes add to all finer maps what their place and their table say.
fn level(maps: &[[usize; 2]], sizes: &[usize]) -> LevelInfo {
    let table = |(d, &k): (usize, &usize)| {
        Tensor::from_vec(Rng::new(1, "table", d as u64).normal(k * CHANNELS), &[k, CHANNELS])
    };
    let tables: Vec<Tensor> = sizes.iter().enumerate().map(|entry| table(entry).unwrap()).collect();
    let space = CodeSpace { sizes: sizes.to_vec(), tables: tables.clone(), shared: false };
    let maps = maps.to_vec();
    let known = Scales::planned(maps.clone());
    let scales = Scales::new(maps.clone(), move |tokens, scales| {
        let of_scale = |scale: usize| {
            let before = tokens.codes()?.slice(2, 0..known.positions(scale).start)?;
            let mut sum = tables[0].embedding(&before.column(0)?)?;
            for (d, table) in tables.iter().enumerate().skip(1) {
                sum = sum.add(&table.embedding(&before.column(d)?)?)?;
            }
            let places = (0..before.shape()[2]).map(|i| 0.3 * (i + 1) as f32).collect();
            let sum = sum.mul(&Tensor::from_vec(places, &[1, 1, before.shape()[2], 1])?)?.sum(&[2], true)?;
            let [height, width] = maps[scale];
            Ok(sum.broadcast_to(&[before.shape()[0], height, width, CHANNELS])?)
        };
        scales.map(of_scale).collect()
    });
    let width = scales.positions(scales.sizes().len() - 1).end;
    LevelInfo { height: 1, width, channels: CHANNELS, space: TokenSpace::Codes(space), scales: Some(scales) }
}

fn context(level: LevelInfo, params: Params) -> PriorContext {
    PriorContext {
        levels: vec![level],
        level: 0,
        condition: ConditionSpace::Classes(3),
        null_condition: true,
        params,
        components: Components::none(),
    }
}

fn config(more: &str) -> VarConfig {
    VarConfig::parse(&format!("var(width: 8, layers: 2, mlp_ratio: 2.0{more})")).unwrap()
}

/// All parameters away from where gates are nearly closed.
fn awake(params: &Params) {
    for (name, var) in params.trained() {
        let shape = var.get().shape().to_vec();
        let noise = Tensor::from_vec(Rng::new(5, &name, 0).normal(shape.iter().product()), &shape).unwrap();
        var.set(&var.get().detach().add(&noise.mul_scalar(0.2).unwrap()).unwrap()).unwrap();
    }
}

fn built(more: &str, level: LevelInfo) -> NextScale {
    let params = Params::new(3);
    let model = NextScale::new(config(more), &context(level, params.clone())).unwrap();
    awake(&params);
    model
}

fn classes(images: usize) -> Condition {
    let labels = (0..images as u32).map(|i| i % 3).collect();
    Condition::classes(Codes::from_vec(labels, &[images]).unwrap()).unwrap()
}

fn codes(level: &LevelInfo, images: usize, seed: u64) -> Codes {
    let count = images * level.positions();
    let column = |(d, &k): (usize, &usize)| {
        let data = Rng::new(seed, "codes", d as u64).below(count, k as u32);
        Codes::from_vec(data, &[images, 1, level.positions()]).unwrap()
    };
    Codes::stack(&level.sizes().iter().enumerate().map(column).collect::<Vec<_>>()).unwrap()
}

#[test]
fn it_keeps_the_contract_of_a_prior() {
    let text = ConditionSpace::Text { vocabulary: 5, length: 3 };
    for (maps, sizes, condition) in [
        (&[[1, 1], [2, 2]][..], &[5][..], ConditionSpace::Classes(3)),
        (&[[1, 2], [2, 2]], &[2, 2], ConditionSpace::None),
        (&[[1, 1], [1, 2], [2, 2]], &[3], text),
    ] {
        for variant in VARIANTS {
            let case = PriorCase { levels: vec![level(maps, sizes)], condition };
            prior(&case, |cx| {
                let model = NextScale::new(config(variant), cx)?;
                awake(&cx.params);
                Ok(model)
            });
        }
    }
}

/// A code changes the predictions of finer scales, of its own image alone, and none of its own scale.
#[test]
fn a_scale_sees_the_coarser_ones_alone() {
    let level = level(&[[1, 1], [2, 2], [3, 2]], &[7]);
    let scales = level.scales.clone().unwrap();
    for variant in VARIANTS {
        let model = built(variant, level.clone());
        let before = codes(&level, 2, 1);
        let logits = |codes: &Codes| model.logits(codes, &classes(2), &Mode::Eval).unwrap()[0].to_vec();
        let base = logits(&before);
        for place in 0..level.positions() {
            let mut data = before.as_slice().to_vec();
            data[place] = (data[place] + 1) % 7;
            let changed = logits(&Codes::from_vec(data, before.shape()).unwrap());
            let own = (0..3).find(|&scale| scales.positions(scale).contains(&place)).unwrap();
            for (i, (a, b)) in base.chunks(7).zip(changed.chunks(7)).enumerate() {
                assert_eq!(a != b, i < 11 && i >= scales.positions(own).end, "{variant}: code {place}, logits {i}");
            }
        }
    }
}

#[test]
fn scales_predicted_one_by_one_are_those_of_the_whole() {
    let level = level(&[[1, 1], [2, 2], [3, 3]], &[7, 4]);
    let scales = level.scales.clone().unwrap();
    for variant in VARIANTS {
        let (model, codes) = (built(variant, level.clone()), codes(&level, 2, 1));
        let whole = model.logits(&codes, &classes(2), &Mode::Eval).unwrap();
        let seen = scales.before(&Tokens::Codes(codes), 1..3).unwrap();
        for cache in [true, false] {
            let mut state = model.begin(&classes(2), cache).unwrap();
            for (scale, seen) in std::iter::once(None).chain(seen.iter().map(Some)).enumerate() {
                for (logits, whole) in model.next(&mut state, seen).unwrap().iter().zip(&whole) {
                    let wanted = whole.slice(1, scales.positions(scale)).unwrap();
                    assert_eq!(logits.shape(), wanted.shape());
                    let pairs = logits.as_slice().iter().zip(wanted.as_slice());
                    assert!(pairs.fold(0.0f32, |m, (a, b)| m.max((a - b).abs())) < 1e-5, "{variant} {scale}");
                }
            }
        }
    }
}

/// A distribution with all its mass on the code is a hard target.
#[test]
fn soft_targets_of_one_code_are_hard_targets() {
    let level = level(&[[1, 1], [2, 2]], &[5, 4]);
    let model = built(", targets: soft, codes: stochastic, temperature: 0.25", level.clone());
    let wanted = TokenRequest { soft_targets: Some(0.25), stochastic_codes: Some(0.25), posterior_draws: false };
    assert_eq!((model.wants(), built("", level.clone()).wants()), (wanted, TokenRequest::default()));
    let codes = codes(&level, 3, 1);
    let targets = (0..2).map(|d| {
        let column = codes.column(d).unwrap();
        let one_hot = |&code: &u32| (0..level.sizes()[d]).map(move |k| if k == code as usize { 1.0 } else { 0.0 });
        let data = column.as_slice().iter().flat_map(one_hot).collect();
        Tensor::from_vec(data, &[3, 1, level.positions(), level.sizes()[d]]).unwrap()
    });
    let loss = |targets| {
        let batch = TokenBatch { tokens: Tokens::Codes(codes.clone()), targets, condition: classes(3), above: vec![] };
        model.loss(&batch, &Mode::Eval).unwrap().loss.item().unwrap()
    };
    let (soft, hard) = (loss(Targets::Soft(targets.collect())), loss(Targets::Hard));
    assert!((soft - hard).abs() < 1e-5, "{soft} {hard}");
}

#[test]
fn training_on_one_pattern_per_class_makes_it_the_greedy_sample() {
    let level = level(&[[1, 1], [2, 2], [3, 3]], &[7, 5]);
    let params = Params::new(3);
    let config = VarConfig::parse("var(width: 32, heads: 2, layers: 2, drop_path: 0.05)").unwrap();
    let model = NextScale::new(config, &context(level.clone(), params.clone())).unwrap();
    let codes = codes(&level, 3, 10);
    let tokens = Tokens::Codes(codes.clone());
    let batch = TokenBatch { tokens, targets: Targets::Hard, condition: classes(3), above: vec![] };
    let mut optimizer = Adam::new(params.trained(), AdamSettings::default()).unwrap();
    for step in 0..200 {
        let tape = Tape::start().unwrap();
        let loss = model.loss(&batch, &Mode::Train(Rng::new(1, "train", step))).unwrap().loss;
        optimizer.step(&mut tape.backward(&loss).unwrap(), 3e-3, Some(2.0)).unwrap();
    }
    let draw = vec![Draw { top_k: Some(1), ..Draw::default() }];
    let request = SampleRequest { draw, ..SampleRequest::new(classes(3)) };
    assert_eq!(model.sample(&request, &Rng::new(0, "s", 0)).unwrap().codes().unwrap(), &codes);
}

/// The published number of parameters of the smallest model, which its authors call 310M.
#[test]
fn var_d16_has_its_published_size() {
    let maps: Vec<[usize; 2]> = [1, 2, 3, 4, 5, 6, 8, 10, 13, 16].map(|side| [side; 2]).to_vec();
    let params = Params::dry();
    let space = TokenSpace::Codes(CodeSpace { sizes: vec![4096], tables: vec![], shared: false });
    let level = LevelInfo { height: 1, width: 680, channels: 32, space, scales: Some(Scales::planned(maps)) };
    let condition = ConditionSpace::Classes(1000);
    let cx = PriorContext { condition, ..context(level, params.clone()) };
    NextScale::new(VarConfig::parse("var(width: 1024, heads: 16, layers: 16)").unwrap(), &cx).unwrap();
    // Of a block: queries, keys, values and their two biases, temperatures, projection, perceptron, modulation.
    let w = 1024;
    let block = 3 * w * w + 2 * w + 16 + (w * w + w) + (8 * w * w + 5 * w) + (6 * w * w + 6 * w);
    let rest = 1001 * w + w + (32 * w + w) + 10 * w + 680 * w + (2 * w * w + 2 * w) + (w * 4096 + 4096);
    assert_eq!((params.count(), params.count() / 1_000_000), (16 * block + rest, 310));
}

#[test]
fn what_cannot_be_is_refused() {
    let refused = |more: &str, level: LevelInfo| {
        NextScale::new(config(more), &context(level, Params::dry())).unwrap_err().to_string()
    };
    let several = level(&[[1, 1], [2, 2]], &[7]);
    assert!(refused(", heads: 3", several.clone()).contains("`heads`"));
    for scales in [None, Some(Scales::planned(vec![[2, 2]]))] {
        let said = refused("", LevelInfo { scales, ..several.clone() });
        assert!(said.contains("of one scale") && said.contains("multi_scale"), "{said}");
    }
    let vectors = LevelInfo { space: TokenSpace::Vectors { channels: 3 }, ..several };
    assert!(refused("", vectors).contains("vectors"));
}
