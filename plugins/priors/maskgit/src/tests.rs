//! Facts of masked priors: counts of masks, what a prediction sees, orders, learning.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use crate::masks::halton_order;
use crate::{MaskGit, MaskGitConfig, Masks, Schedule};
use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::Tape;
use rqlab_sdk::tensor::ops::optim::{AdamStep, adam};
use rqlab_sdk::tensor::ops::sampling::Draw;
use rqlab_sdk::testing::{PriorCase, prior};

fn level(map: [usize; 2], sizes: &[usize]) -> LevelInfo {
    let space = TokenSpace::Codes(CodeSpace { sizes: sizes.to_vec(), tables: vec![], shared: false });
    LevelInfo { height: map[0], width: map[1], channels: 5, space, scales: None }
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

fn model(config: &str, sizes: &[usize]) -> (MaskGit, Params) {
    let params = Params::new(3);
    let config = format!("maskgit(width: 12, heads: 3, layers: 2, iterations: 4, {config})");
    let config = MaskGitConfig::parse(&config).unwrap();
    (MaskGit::new(config, &context(level([2, 3], sizes), params.clone())).unwrap(), params)
}

fn codes(sizes: &[usize], images: usize, seed: u64) -> Codes {
    let column = |d: usize| {
        let data = Rng::new(seed, "codes", d as u64).below(images * 6, sizes[d] as u32);
        Codes::from_vec(data, &[images, 2, 3]).unwrap()
    };
    Codes::stack(&(0..sizes.len()).map(column).collect::<Vec<_>>()).unwrap()
}

fn classes(images: usize) -> Condition {
    let labels = (0..images as u32).map(|i| i % 3).collect();
    Condition::classes(Codes::from_vec(labels, &[images]).unwrap()).unwrap()
}

const TRUNKS: [&str; 3] = ["trunk: bert", "trunk: pre_norm", "trunk: u_vit"];

#[test]
fn it_keeps_the_contract_of_a_prior() {
    for trunk in TRUNKS {
        let text = format!("maskgit(width: 8, heads: 2, layers: 2, iterations: 3, init: published, {trunk})");
        let config = MaskGitConfig::parse(&text).unwrap();
        for case in [
            PriorCase::codes(&[3, 2]),
            PriorCase::codes(&[6]),
            PriorCase::codes(&[2, 2]).under(ConditionSpace::None),
            PriorCase::codes(&[4]).under(ConditionSpace::Text { vocabulary: 5, length: 3 }),
        ] {
            prior(&case, |cx| MaskGit::new(config.clone(), cx));
        }
    }
}

/// The counts that the published code gives for 32 positions in 8 steps.
#[test]
fn masked_positions_fall_as_published() {
    let counts = |schedule: Schedule| {
        let mut masked = 32;
        let next = |step| {
            masked = schedule.masked_after(step, 8, 32, masked);
            masked
        };
        (0..7).map(next).collect::<Vec<_>>()
    };
    assert_eq!(counts(Schedule::Arccos), [29, 26, 24, 21, 18, 14, 10]);
    assert_eq!(counts(Schedule::Cosine), [31, 29, 26, 22, 17, 12, 6]);
}

#[test]
fn training_masks_as_many_positions_as_the_schedule_says() {
    let (images, positions) = (4000, 16);
    let masks = Masks::random(Schedule::Cosine, images, positions, &Rng::new(1, "masks", 0)).unwrap();
    let counts: Vec<f32> = masks.masked.as_slice().chunks(positions).map(|image| image.iter().sum()).collect();
    assert!(counts.iter().all(|&count| (1.0..=16.0).contains(&count)));
    let mean = counts.iter().sum::<f32>() / (images * positions) as f32;
    // The mean of cos(pi u / 2) is 2 / pi.
    assert!((mean - 2.0 / std::f32::consts::PI).abs() < 0.02, "{mean}");
}

/// The code at a masked position changes nothing; one at a visible position changes the predictions of its image alone.
#[test]
fn a_masked_code_is_not_seen() {
    for (trunk, sizes) in TRUNKS.iter().zip([&[7][..], &[7, 5], &[4, 4, 4]]) {
        let (model, _) = model(trunk, sizes);
        let before = codes(sizes, 2, 1);
        let mut masked = vec![0.0; 12];
        masked[6..9].fill(1.0);
        let masks = Masks { masked: Tensor::from_vec(masked.clone(), &[2, 6, 1]).unwrap() };
        let logits = |codes: &Codes| model.logits(codes, &masks, &classes(2), &Mode::Eval).unwrap();
        let base = logits(&before);
        for place in 6..12 {
            let mut data = before.as_slice().to_vec();
            data[place * sizes.len()] = (data[place * sizes.len()] + 1) % sizes[0] as u32;
            let changed = logits(&Codes::from_vec(data, before.shape()).unwrap());
            for (a, b) in base.iter().zip(&changed) {
                let half = a.len() / 2;
                assert_eq!(a.as_slice()[..half], b.as_slice()[..half], "the other image");
                assert_eq!(a.as_slice()[half..] == b.as_slice()[half..], masked[place] == 1.0, "{trunk} {place}");
            }
        }
    }
}

#[test]
fn the_halton_order_names_each_cell_once_and_jumps() {
    for (height, width) in [(8, 8), (1, 5), (4, 6), (1, 1)] {
        let order = halton_order(height, width);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..height * width).collect::<Vec<_>>());
    }
    // Points (1/2, 1/3), (1/4, 2/3), (3/4, 1/9), (1/8, 4/9) of an 8 x 8 map.
    assert_eq!(halton_order(8, 8)[..4], [4 * 8 + 2, 2 * 8 + 5, 6 * 8, 8 + 3]);
}

/// Every order fills in every position, and never changes one that it has kept.
#[test]
fn what_is_kept_stays() {
    for order in ["confidence", "halton", "rolled_halton", "random"] {
        for proposals in ["categorical", "gumbel"] {
            let (model, _) = model(&format!("order: {order}, proposals: {proposals}"), &[7, 5]);
            let request = SampleRequest::new(classes(3));
            let rng = Rng::new(5, "sample", 0);
            let mut canvas = model.canvas(3, &rng);
            let mut last = canvas.clone();
            for step in 0..4 {
                let noise = model.noise(3, step, &rng);
                model.step(&mut canvas, &request, step, &noise).unwrap();
                let open = |canvas: &crate::Canvas| canvas.masked().iter().filter(|&&masked| masked).count();
                assert!(open(&canvas) < open(&last), "{order}: step {step}");
                for (row, masked) in last.masked().iter().enumerate() {
                    let same = canvas.codes()[2 * row..][..2] == last.codes()[2 * row..][..2];
                    assert!(*masked || (same && !canvas.masked()[row]));
                }
                last = canvas.clone();
            }
            assert!(canvas.masked().iter().all(|masked| !masked));
        }
    }
}

#[test]
fn training_on_one_pattern_makes_it_the_greedy_sample() {
    let (model, params) = model("label_smoothing: 0.0", &[7, 5]);
    let codes = codes(&[7, 5], 3, 10);
    let tokens = Tokens::Codes(codes.clone());
    let batch = TokenBatch { tokens, targets: Targets::Hard, condition: classes(3), above: vec![] };
    let zeros = |var: &Var| Var::buffer(&Tensor::zeros(var.get().shape()));
    let state: Vec<_> = params.trained().into_iter().map(|(_, var)| (zeros(&var), zeros(&var), var)).collect();
    for step in 1..=200 {
        let tape = Tape::start().unwrap();
        let loss = model.loss(&batch, &Mode::Train(Rng::new(1, "train", step))).unwrap().loss;
        let mut gradients = tape.backward(&loss).unwrap();
        let how = AdamStep { lr: 1e-2, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.0, l2: 0.0, step };
        for (m, v, var) in &state {
            adam(var, &gradients.take(&var.get()).unwrap(), m, v, 1.0, &how).unwrap();
        }
    }
    let draw = vec![Draw { top_k: Some(1), ..Draw::default() }];
    let sampled =
        model.sample(&SampleRequest { draw, ..SampleRequest::new(classes(3)) }, &Rng::new(0, "s", 0)).unwrap();
    assert_eq!(sampled.codes().unwrap(), &codes);
}

#[test]
fn what_cannot_be_is_refused() {
    let build = |config: &str, level: LevelInfo| {
        let config = MaskGitConfig::parse(config).unwrap();
        MaskGit::new(config, &context(level, Params::dry())).unwrap_err().to_string()
    };
    let codes = || level([2, 3], &[7]);
    assert!(build("p(width: 10, heads: 4, iterations: 2)", codes()).contains("`heads`"));
    assert!(build("p(iterations: 7)", codes()).contains("`iterations`"));
    assert!(build("p(iterations: 2, layers: 3, trunk: u_vit)", codes()).contains("`layers`"));
    let vectors = LevelInfo { space: TokenSpace::Vectors { channels: 5 }, ..codes() };
    assert!(build("p(iterations: 2)", vectors).contains("vectors"));
    let complaint = MaskGitConfig::parse("p(iterations: 0)").unwrap_err().to_string();
    assert!(complaint.contains("iterations"), "{complaint}");
}
