//! Facts of the flat transformer: sizes, causality, caches, likelihood, learning.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod published;
mod text;
mod vectors;

use crate::{Ar, ArConfig};
use rqlab_sdk::nn::CodeSteps;
use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::Tape;
use rqlab_sdk::tensor::ops::optim::{AdamStep, adam};
use rqlab_sdk::tensor::ops::sampling::Draw;
use rqlab_sdk::testing::{PriorCase, code_prior};

const CLASSES: usize = 3;

fn level(map: [usize; 2], sizes: &[usize], shared: bool) -> LevelInfo {
    let channels = 5;
    let table = |k: usize, seed| Tensor::from_vec(Rng::new(seed, "codebook", 0).normal(k * channels), &[k, channels]);
    let seed = |d: usize| if shared { 0 } else { d as u64 };
    let tables = sizes.iter().enumerate().map(|(d, &k)| table(k, seed(d)).unwrap()).collect();
    let space = TokenSpace::Codes(CodeSpace { sizes: sizes.to_vec(), tables, shared });
    LevelInfo { height: map[0], width: map[1], channels, space, scales: None }
}

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

fn model(config: &str, sizes: &[usize], shared: bool) -> (Ar, Params) {
    let params = Params::new(3);
    let cx = context(params.clone(), level([2, 3], sizes, shared));
    let config = ArConfig::parse(&format!("ar(width: 12, heads: 3, {config})")).unwrap();
    let model = Ar::new(config, &cx).unwrap();
    move_modulations(&params);
    (model, params)
}

/// Gives maps to modulations numbers: they start at zero, where a block does nothing.
fn move_modulations(params: &Params) {
    for (name, var) in params.trained() {
        if name.contains("adaLN") {
            let shape = var.get().shape().to_vec();
            let draws = Rng::new(4, &name, 0).normal(shape.iter().product());
            var.set(&Tensor::from_vec(draws.into_iter().map(|x| 0.3 * x).collect(), &shape).unwrap()).unwrap();
        }
    }
}

/// For each code of a map of 6 positions, when it is predicted.
fn places(model: &Ar, depth: usize) -> Vec<usize> {
    let order = model.order().unwrap();
    let place = |code: usize| order.iter().position(|&position| position as usize == code / depth).unwrap();
    (0..6 * depth).map(|code| place(code) * depth + code % depth).collect()
}

/// Every way to wire it, with codebooks of one size and of several.
fn variants() -> Vec<(Ar, Params, Vec<usize>)> {
    let shallow = "layers: 2, init: published";
    let made = |extra: &str, sizes: &[usize], shared| {
        let (model, params) = model(&format!("{shallow}, {extra}"), sizes, shared);
        (model, params, sizes.to_vec())
    };
    vec![
        made("", &[7; 3], true),
        made("position: factored", &[7; 3], false),
        made("condition: none, embedding: codebook", &[7; 3], true),
        made("embedding: codebook, position: factored", &[7, 5, 6], false),
        made("", &[7, 5, 6], false),
        made("", &[7], true),
        made("block: llama, mlp_multiple: 8", &[7, 5, 6], false),
        made("block: llama, mlp_multiple: 8, embedding: codebook", &[7], true),
        made("block: rar, mlp_width: 20", &[7, 5, 6], false),
        made("block: rar, embedding: codebook, condition: none", &[7], true),
        made("order: spiral", &[7, 5, 6], false),
        made("order: random, position: factored", &[7; 2], true),
        made("order: zigzag, block: llama, mlp_multiple: 8", &[7, 5], false),
        made("order: random, block: llama, mlp_multiple: 8", &[7, 5], false),
        made("order: random, block: rar", &[7, 5], false),
    ]
}

fn classes(images: usize) -> Condition {
    let labels = (0..images).map(|i| (i % CLASSES) as u32).collect();
    Condition::classes(Codes::from_vec(labels, &[images]).unwrap()).unwrap()
}

fn codes(batch: &TokenBatch) -> &Codes {
    batch.tokens.codes().unwrap()
}

fn batch(sizes: &[usize], images: usize, seed: u64) -> TokenBatch {
    let columns: Vec<Codes> = (0..sizes.len())
        .map(|d| {
            let data = Rng::new(seed, "codes", d as u64).below(images * 6, sizes[d] as u32);
            Codes::from_vec(data, &[images, 2, 3]).unwrap()
        })
        .collect();
    let tokens = Tokens::Codes(Codes::stack(&columns).unwrap());
    TokenBatch { tokens, targets: Targets::Hard, condition: classes(images), above: vec![] }
}

/// Logits by depth of every position, `[B T, K_d]`.
fn logits(model: &Ar, batch: &TokenBatch) -> Vec<Tensor> {
    model.logits(codes(batch), &batch.condition).unwrap()
}

fn request(images: usize, cache: bool) -> SampleRequest {
    let draw = vec![Draw { temperature: 0.9, top_k: Some(5), top_p: Some(0.9) }, Draw::default()];
    SampleRequest { draw, cache, ..SampleRequest::new(classes(images)) }
}

fn sampled(model: &Ar, request: &SampleRequest, seed: u64) -> Codes {
    model.sample(request, &Rng::new(seed, "sample", 0)).unwrap().codes().unwrap().clone()
}

#[test]
fn a_code_changes_the_logits_after_it_and_no_others() {
    for (model, _, sizes) in variants() {
        let depth = sizes.len();
        let (before, places) = (batch(&sizes, 2, 1), places(&model, depth));
        let base = logits(&model, &before);
        for place in 0..6 * depth {
            let mut data = codes(&before).as_slice().to_vec();
            // In the second image; the first must not notice.
            let code = &mut data[6 * depth + place];
            *code = (*code + 1) % sizes[place % depth] as u32;
            let tokens = Tokens::Codes(Codes::from_vec(data, before.tokens.shape()).unwrap());
            let changed = logits(&model, &TokenBatch { tokens, ..before.clone() });
            for (d, (a, b)) in base.iter().zip(&changed).enumerate() {
                for (row, (a, b)) in a.as_slice().chunks(sizes[d]).zip(b.as_slice().chunks(sizes[d])).enumerate() {
                    let after = row >= 6 && places[(row - 6) * depth + d] > places[place];
                    assert_eq!(a != b, after, "place {place}, row {row}, depth {d}");
                }
            }
        }
    }
}

#[test]
fn logits_with_cache_and_without_are_those_of_the_whole_map() {
    for (model, _, sizes) in variants() {
        let (batch, depth) = (batch(&sizes, 4, 2), sizes.len());
        let whole = logits(&model, &batch);
        let order = model.order().unwrap();
        for cache in [true, false] {
            let mut worst = 0.0f32;
            let (mut state, mut last) = (model.begin(&batch.condition, &[], cache).unwrap(), None);
            for n in 0..6 * depth {
                let (t, d) = (order[n / depth] as usize, n % depth);
                let logits = model.next(&mut state, last.as_ref()).unwrap();
                for (image, row) in logits.as_slice().chunks(sizes[d]).enumerate() {
                    let wanted = &whole[d].as_slice()[(image * 6 + t) * sizes[d]..][..sizes[d]];
                    worst = row.iter().zip(wanted).fold(worst, |m, (a, b)| m.max((a - b).abs()));
                }
                let code = |image: usize| codes(&batch).as_slice()[(image * 6 + t) * depth + d];
                last = Some(Codes::from_vec((0..4).map(code).collect(), &[4]).unwrap());
            }
            assert!(worst < 1e-5, "differ by {worst}");
        }
    }
}

#[test]
fn samples_are_equal_with_cache_and_without() {
    for (model, _, sizes) in variants() {
        let cached = sampled(&model, &request(9, true), 5);
        assert_eq!(cached.shape(), [9, 2, 3, sizes.len()]);
        assert_eq!(cached, sampled(&model, &request(9, false), 5));
        assert_ne!(cached, sampled(&model, &request(9, true), 6));
        assert!(sampled(&model, &request(0, true), 5).is_empty());
    }
}

#[test]
fn the_likelihood_sums_the_cross_entropies_and_the_loss_is_their_mean() {
    for (model, _, sizes) in variants() {
        let batch = batch(&sizes, 3, 4);
        let nats = model.likelihood(&batch).unwrap().unwrap();
        assert_eq!(nats.shape(), [3, sizes.len()]);
        let mut wanted = vec![0.0f64; 3 * sizes.len()];
        for (d, logits) in logits(&model, &batch).iter().enumerate() {
            for (row, logits) in logits.as_slice().chunks(sizes[d]).enumerate() {
                let code = codes(&batch).as_slice()[row * sizes.len() + d] as usize;
                let normaliser = logits.iter().map(|&x| f64::from(x).exp()).sum::<f64>().ln();
                wanted[row / 6 * sizes.len() + d] += normaliser - f64::from(logits[code]);
            }
        }
        for (a, b) in nats.as_slice().iter().zip(&wanted) {
            assert!((f64::from(*a) - b).abs() < 1e-4, "{a} {b}");
        }
        let loss = model.loss(&batch, &Mode::Eval).unwrap();
        let mean = wanted.iter().sum::<f64>() / (3 * 6 * sizes.len()) as f64;
        assert!((f64::from(loss.loss.item().unwrap()) - mean).abs() < 1e-5);
        let [("loss", by_depth)] = loss.terms.as_slice() else { panic!("{:?}", loss.terms) };
        assert_eq!(by_depth.shape(), [sizes.len()]);
        assert!((f64::from(by_depth.mean_all().unwrap().item().unwrap()) - mean).abs() < 1e-5);
    }
}

/// With guidance the drawn codes are those of `u + s (c - u)`: towards the condition, and with s = 0 without it.
#[test]
fn guidance_mixes_predictions_with_and_without_the_class() {
    let (model, _) = model("layers: 2, init: published", &[7; 3], true);
    let guided = |scale, condition| {
        let guidance = Guidance { scale, schedule: GuidanceSchedule::Constant };
        sampled(&model, &SampleRequest { guidance, draw: vec![], condition, ..request(6, true) }, 5)
    };
    let plain = guided(1.0, classes(6));
    assert_ne!(guided(3.0, classes(6)), plain);
    assert_eq!(guided(0.0, classes(6)), guided(1.0, classes(6).null().unwrap()));
}

/// A distribution with all its mass on the code is a hard target.
#[test]
fn soft_targets_of_one_code_are_hard_targets() {
    for (model, _, sizes) in variants() {
        let hard = batch(&sizes, 2, 7);
        let targets = (0..sizes.len()).map(|d| {
            let column = codes(&hard).column(d).unwrap();
            let one_hot = |&code: &u32| (0..sizes[d]).map(move |k| if k == code as usize { 1.0 } else { 0.0 });
            Tensor::from_vec(column.as_slice().iter().flat_map(one_hot).collect(), &[2, 2, 3, sizes[d]]).unwrap()
        });
        let soft = TokenBatch { targets: Targets::Soft(targets.collect()), ..hard.clone() };
        let loss = |batch| model.loss(batch, &Mode::Eval).unwrap().loss.item().unwrap();
        assert!((loss(&hard) - loss(&soft)).abs() < 1e-5);
    }
}

#[test]
fn gradients_reach_every_parameter() {
    for (model, params, sizes) in variants() {
        let tape = Tape::start().unwrap();
        let loss = model.loss(&batch(&sizes, 4, 8), &Mode::Train(Rng::new(0, "train", 0))).unwrap().loss;
        let mut gradients = tape.backward(&loss).unwrap();
        for (name, var) in params.trained() {
            let gradient = gradients.take(&var.get()).unwrap_or_else(|| panic!("none for {name}"));
            assert!(gradient.as_slice().iter().any(|g| *g != 0.0), "zero for {name}");
            assert!(gradient.as_slice().iter().all(|g| g.is_finite()), "not finite for {name}");
        }
    }
}

/// With weights of deviation 0.02 the first predictions are nearly uniform.
#[test]
fn the_loss_starts_at_ln_k() {
    let (model, _) = model("layers: 6, init: gpt", &[64; 3], true);
    let loss = model.loss(&batch(&[64; 3], 8, 9), &Mode::Eval).unwrap().loss.item().unwrap();
    assert!((loss - 64f32.ln()).abs() < 0.05, "{loss}");
}

#[test]
fn training_on_one_pattern_makes_it_likely() {
    let (model, params) = model("layers: 2, dropout: 0.1", &[7; 3], true);
    let pattern = batch(&[7; 3], 3, 10);
    let state: Vec<_> = params
        .trained()
        .into_iter()
        .map(|(_, var)| {
            let zeros = Tensor::zeros(var.get().shape());
            (var, Var::buffer(&zeros), Var::buffer(&zeros))
        })
        .collect();
    let nats = |model: &Ar| model.likelihood(&pattern).unwrap().unwrap().as_slice().iter().sum::<f32>();
    let before = nats(&model);
    for step in 1..=150 {
        let tape = Tape::start().unwrap();
        let loss = model.loss(&pattern, &Mode::Train(Rng::new(1, "train", step))).unwrap().loss;
        let mut gradients = tape.backward(&loss).unwrap();
        let how = AdamStep { lr: 1e-2, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.0, l2: 0.0, step };
        for (var, m, v) in &state {
            adam(var, &gradients.take(&var.get()).unwrap(), m, v, 1.0, &how).unwrap();
        }
    }
    let after = nats(&model);
    assert!(after < 0.2 * before, "{before} -> {after}");
    // The most likely codes under each label are then the pattern's.
    let greedy = SampleRequest { draw: vec![Draw { top_k: Some(1), ..Draw::default() }], ..request(3, true) };
    assert_eq!(&sampled(&model, &greedy, 0), codes(&pattern));
}

#[test]
fn what_it_wants_follows_from_the_configuration() {
    assert_eq!(model("", &[7; 2], true).0.wants(), TokenRequest::default());
    let (model, _) = model("targets: soft, codes: stochastic, temperature: 0.25", &[7; 2], true);
    let wanted = TokenRequest { soft_targets: Some(0.25), stochastic_codes: Some(0.25), posterior_draws: false };
    assert_eq!(model.wants(), wanted);
}

#[test]
fn what_cannot_be_is_refused() {
    let build =
        |config: &str, cx: &PriorContext| Ar::new(ArConfig::parse(config).unwrap(), cx).unwrap_err().to_string();
    let cx = context(Params::dry(), level([2, 3], &[7; 2], true));
    assert!(build("p(width: 10, heads: 4)", &cx).contains("`heads`"));
    assert!(
        build("p(width: 12, heads: 2, block: llama)", &context(Params::dry(), level([2, 3], &[7; 2], true)))
            .contains("`heads`")
    );
    assert!(
        build("p(block: llama, position: factored)", &context(Params::dry(), level([2, 3], &[7; 2], true)))
            .contains("`position`")
    );
    assert!(
        build("p(block: llama, attention_dropout: 0.1)", &context(Params::dry(), level([2, 3], &[7; 2], true)))
            .contains("`attention_dropout`")
    );
    for (config, field) in [
        ("p(anneal: (0.5, 0.25))", "`anneal`"),
        ("p(mlp_width: 8)", "`mlp_width`"),
        ("p(position_rows: 11)", "`position_rows`"),
        ("p(block: rar, classifier_bias: false)", "`classifier_bias`"),
        ("p(condition_rows: codes)", "null condition"),
        ("p(block: rar, position: factored)", "`position`"),
        ("p(block: rar, embedding_dropout: 0.1)", "`embedding_dropout`"),
        ("p(block: rar, width: 10, heads: 4)", "`heads`"),
    ] {
        let refused = build(config, &context(Params::dry(), level([2, 3], &[7; 2], true)));
        assert!(refused.contains(field), "{refused}");
    }
    let lower = PriorContext { levels: vec![cx.levels[0].clone(); 2], level: 1, ..cx.clone() };
    assert!(build("p", &lower).contains("levels above"));
    let vectors = LevelInfo { space: TokenSpace::Vectors { channels: 5 }, ..cx.levels[0].clone() };
    assert!(build("p", &PriorContext { levels: vec![vectors], ..cx.clone() }).contains("vectors"));

    let (model, _) = model("", &[7; 2], true);
    let good = batch(&[7; 2], 2, 1);
    let too_large = Tokens::Codes(Codes::from_vec(vec![7; 24], &[2, 2, 3, 2]).unwrap());
    assert!(model.loss(&TokenBatch { tokens: too_large, ..good.clone() }, &Mode::Eval).is_err());
    let label = Codes::from_vec(vec![0, CLASSES as u32], &[2]).unwrap();
    let condition = Condition::classes(label).unwrap();
    assert!(model.loss(&TokenBatch { condition, ..good.clone() }, &Mode::Eval).is_err());
    let odd = batch(&[7; 3], 2, 1);
    assert!(model.loss(&odd, &Mode::Eval).unwrap_err().to_string().contains("[2, 2, 3, 3]"));
}

/// Random orders differ from image to image and from step to step in training, and there is one at evaluation.
#[test]
fn training_draws_orders_and_evaluation_has_one() {
    let (mut model, _) = model("layers: 1, order: annealed, anneal: (0.25, 0.75)", &[7; 2], true);
    let orders = |model: &Ar, mode: &Mode| {
        let orders = model.reading.orders(40, mode).unwrap();
        orders.positions(0..12).unwrap().as_slice().to_vec()
    };
    let train = |step| Mode::Train(Rng::new(0, "train", step));
    let raster: Vec<u32> = (0..40).flat_map(|_| 0..12).collect();
    let moved = |orders: &[u32]| orders.chunks(12).filter(|order| **order != raster[..12]).count();
    assert_eq!(orders(&model, &Mode::Eval), raster);
    assert!(moved(&orders(&model, &train(0))) >= 38);
    assert_ne!(orders(&model, &train(0)), orders(&model, &train(1)));
    model.begin_step(50, 100);
    assert!((8..32).contains(&moved(&orders(&model, &train(0)))));
    model.begin_step(75, 100);
    assert_eq!(orders(&model, &train(0)), raster);
    // A run that goes on from the middle draws what one from the beginning would.
    model.begin_step(10, 100);
    let gone_back = orders(&model, &train(10));
    model.begin_step(10, 100);
    assert_eq!(orders(&model, &train(10)), gone_back);
}

#[test]
fn it_keeps_the_contract_of_a_prior() {
    for text in [
        "ar(width: 8, heads: 2, layers: 1)",
        "ar(width: 8, heads: 2, layers: 1, embedding: codebook, position: factored)",
        "ar(width: 8, heads: 2, layers: 2, block: llama, mlp_multiple: 8)",
        "ar(width: 8, heads: 1, layers: 1, block: llama, mlp_multiple: 8, start_rotation: identity)",
        "ar(width: 8, heads: 2, layers: 1, block: rar, order: annealed)",
        "ar(width: 8, heads: 2, layers: 1, block: rar, order: random)",
        "ar(width: 8, heads: 2, layers: 1, order: spiral)",
        "ar(width: 8, heads: 2, layers: 1, block: llama, mlp_multiple: 8, order: random)",
    ] {
        let config = ArConfig::parse(text).unwrap();
        for case in [
            PriorCase::codes(&[3, 2]),
            PriorCase::codes(&[6]),
            PriorCase::codes(&[2, 2]).under(ConditionSpace::None),
            PriorCase::codes(&[2, 2]).under(ConditionSpace::Vectors { length: 1, channels: 4 }),
        ] {
            code_prior(&case, |cx| Ar::new(config.clone(), cx));
        }
        let text = PriorCase::codes(&[2, 2]).under(ConditionSpace::Text { vocabulary: 5, length: 3 });
        code_prior(&text, |cx| Ar::new(config.clone(), cx));
    }
}
