#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use super::*;
use rqlab_sdk::tensor::Tape;

fn random(shape: &[usize], seed: u64) -> Tensor {
    Tensor::from_vec(Rng::new(seed, "test", 0).normal(shape.iter().product()), shape).unwrap()
}

fn rq(text: &str) -> (Rq, Params) {
    let params = Params::new(1);
    let latents = MapShape { height: 3, width: 5, channels: 6 };
    let cx = QuantizerContext { latents, params: params.clone(), components: Components::none() };
    (Rq::new(RqConfig::parse(text).unwrap(), &cx).unwrap(), params)
}

fn numbers(params: &Params) -> Vec<Vec<f32>> {
    params.state().values().map(Tensor::to_vec).collect()
}

fn count_sum(params: &Params, book: usize) -> f64 {
    let name = format!("codebooks.{book}.cluster_size_ema");
    params.state()[&name].as_slice().iter().map(|&n| f64::from(n)).sum()
}

/// A shared codebook is updated at every depth, so that its counts decay D times per step; separate ones once.
#[test]
fn counts_after_a_step_are_geometric_sums() {
    let x = random(&[2, 3, 5, 6], 2);
    for (text, depths) in [
        ("rq(depth: 4, codebook: 8, dead_codes: keep, initial_count: 0.0, decay: 0.9)", 4),
        ("rq(depth: 4, codebook: 8, dead_codes: keep, initial_count: 0.0, decay: 0.9, update: per_step)", 4),
        ("rq(depth: 4, codebook: 8, dead_codes: keep, initial_count: 0.0, decay: 0.9, shared: false)", 1),
        (
            "rq(depth: 4, codebook: 8, dead_codes: keep, initial_count: 0.0, decay: 0.9, shared: false, update: per_step)",
            1,
        ),
    ] {
        let (mut rq, params) = rq(text);
        rq.quantize_train(&x, &Rng::new(1, "step", 0)).unwrap();
        let wanted = 30.0 * (1.0 - 0.9f64.powi(depths));
        for book in 0..if depths == 4 { 1 } else { 4 } {
            assert!((count_sum(&params, book) - wanted).abs() < 1e-4, "{text}");
        }
    }
}

/// All vectors are alike, so that most codes never get one.
#[test]
fn codes_without_restarts_are_not_thrown_away() {
    let x = random(&[1, 1, 1, 6], 2).broadcast_to(&[2, 3, 5, 6]).unwrap();
    for shared in [true, false] {
        let (mut rq, params) = rq(&format!("rq(depth: 2, codebook: 64, shared: {shared}, dead_codes: keep)"));
        for step in 0..500 {
            rq.quantize_train(&x, &Rng::new(1, "step", step)).unwrap();
            let weight = params.state()["codebooks.0.weight"].clone();
            let largest = weight.as_slice().iter().fold(0.0, |largest: f32, x| largest.max(x.abs()));
            // 384 numbers from N(0, 1), and the means of vectors, lie within 5.
            assert!(largest < 5.0, "shared: {shared}, step {step}: {largest}");
        }
    }
}

#[test]
fn the_rule_of_the_update_matters_only_to_a_shared_codebook() {
    let x = random(&[2, 3, 5, 6], 2);
    for (shared, same) in [(true, false), (false, true)] {
        let after = |update: &str| {
            let (mut rq, params) = rq(&format!("rq(depth: 3, codebook: 8, shared: {shared}, update: {update})"));
            rq.quantize_train(&x, &Rng::new(1, "step", 0)).unwrap();
            numbers(&params)
        };
        assert_eq!(after("per_depth") == after("per_step"), same);
    }
}

#[test]
fn residuals_shrink_with_depth_and_sum_to_the_latents() {
    let x = random(&[40, 3, 5, 6], 3);
    let (mut rq, _) = rq("rq(depth: 4, codebook: 32)");
    for step in 0..20 {
        rq.quantize_train(&x, &Rng::new(1, "step", step)).unwrap();
    }
    let quantized = rq.quantize(&x).unwrap();
    let energies = quantized.residual_energy.to_vec();
    assert!(energies.windows(2).all(|pair| pair[1] < pair[0]) && energies[3] < 0.3, "{energies:?}");
    let codes = quantized.tokens.clone();
    for depth in 1..=4 {
        let energy = rq.embed(&codes, Some(depth)).unwrap().mse(&x).unwrap().item().unwrap();
        assert!((energy - energies[depth - 1]).abs() < 1e-5);
    }
    let whole = rq.embed(&codes, None).unwrap();
    assert_eq!(whole.to_vec(), quantized.latents.to_vec());
    let by_depth = rq.embed_by_depth(codes.codes().unwrap()).unwrap();
    assert_eq!(by_depth.shape(), [40, 3, 5, 4, 6]);
    let summed = by_depth.sum(&[3], false).unwrap();
    assert!(summed.mse(&whole).unwrap().item().unwrap() < 1e-10);
}

#[test]
fn evaluation_never_changes_a_codebook() {
    let x = random(&[4, 3, 5, 6], 4);
    for text in ["rq(depth: 3, codebook: 8)", "rq(depth: 3, codebook: 8, shared: false, update: per_step)"] {
        let (mut rq, params) = rq(text);
        rq.quantize_train(&x, &Rng::new(1, "step", 0)).unwrap();
        let before = numbers(&params);
        let first = rq.quantize(&x).unwrap();
        let request = TokenRequest { stochastic_codes: Some(0.5), ..TokenRequest::default() };
        rq.tokens(&x, &request, &Rng::new(1, "draw", 0)).unwrap();
        let second = rq.quantize(&x).unwrap();
        assert_eq!(numbers(&params), before);
        assert_eq!(first.tokens.codes().unwrap(), second.tokens.codes().unwrap());
        assert!(second.events.is_empty());
        rq.quantize_train(&x, &Rng::new(1, "step", 1)).unwrap();
        assert_ne!(numbers(&params), before);
    }
}

#[test]
fn equal_seeds_give_equal_training_and_restarts_use_vectors_of_the_batch() {
    let x = random(&[10, 3, 5, 6], 5);
    let train = |seed| {
        let (mut rq, params) = rq("rq(depth: 2, codebook: 64, shared: false, decay: 0.99, dead_below: 1.0)");
        let quantized = rq.quantize_train(&x, &Rng::new(seed, "step", 0)).unwrap();
        let events = quantized.events.iter().map(|(name, count)| (*name, count.item().unwrap()));
        (events.collect::<Vec<_>>(), numbers(&params))
    };
    assert_eq!(train(1), train(1));
    assert_ne!(train(1).1, train(2).1);
    // Of 150 vectors no code gets the 100 that it takes to reach a count of 1 in one step.
    assert_eq!(train(1).0, [("restarted_codes", 128.0), ("dead_codes", 128.0)]);
    let (mut rq, params) = rq("rq(depth: 1, codebook: 64, decay: 0.99, dead_below: 1.0)");
    rq.quantize_train(&x, &Rng::new(1, "step", 0)).unwrap();
    let restarted = params.state()["codebooks.0.embed_ema"].clone();
    assert!(restarted.as_slice().chunks(6).all(|row| x.as_slice().chunks(6).any(|v| v == row)));
}

/// Commitment is `mean_d |x - sg(z_d)|²`: with the codes held, its slope along a direction is that of finite differences.
#[test]
fn the_commitment_gradient_agrees_with_finite_differences() {
    for (commitment, scale) in [("mean", 1.0 / 3.0), ("sum", 1.0)] {
        let (rq, _) = rq(&format!("rq(depth: 3, codebook: 8, beta: 0.7, commitment: {commitment})"));
        let x = random(&[2, 3, 5, 6], 6).leaf();
        let tape = Tape::start().unwrap();
        let nearest = |_: usize, x: &Tensor, book: &EmaCodebook| book.nearest(x);
        let assigned = rq.assign(&x, 3, nearest, |_, _, _| Ok(())).unwrap();
        let quantized = rq.assemble(&x, &assigned).unwrap();
        let gradient = tape.backward(&quantized.loss).unwrap().take(&x).unwrap();
        let energy: f32 = quantized.residual_energy.as_slice().iter().sum();
        assert!((quantized.loss.item().unwrap() - 0.7 * scale * energy).abs() < 1e-5);
        let direction = random(&[2, 3, 5, 6], 7);
        let at = |t: f32| {
            let moved = x.detach().add(&direction.mul_scalar(t).unwrap()).unwrap();
            f64::from(rq.assemble(&moved, &assigned).unwrap().loss.item().unwrap())
        };
        let wanted = (at(0.1) - at(-0.1)) / 0.2;
        let got: f64 = gradient.as_slice().iter().zip(direction.as_slice()).map(|(g, d)| f64::from(g * d)).sum();
        assert!((got - wanted).abs() < 1e-4 * wanted.abs().max(1.0), "{got} {wanted}");
    }
}

/// Straight through once, the gradient passes unchanged; at every depth, D times.
#[test]
fn estimators_scale_the_gradient() {
    let (x, g) = (random(&[2, 3, 5, 6], 8).leaf(), random(&[2, 3, 5, 6], 9));
    for (how, times) in [
        ("straight_through, estimator_per_depth: false", 1.0),
        ("straight_through, estimator_per_depth: true", 3.0),
        ("rotation, estimator_per_depth: true", 0.0),
        ("rotation", 0.0),
    ] {
        let (rq, _) = rq(&format!("rq(depth: 3, codebook: 8, estimator: {how})"));
        let tape = Tape::start().unwrap();
        let quantized = rq.quantize(&x).unwrap();
        let gradient = tape.backward(&quantized.latents.mul(&g).unwrap().sum_all().unwrap()).unwrap().take(&x).unwrap();
        let whole = rq.embed(&quantized.tokens, None).unwrap();
        assert!(quantized.latents.mse(&whole).unwrap().item().unwrap() < 1e-10);
        if times > 0.0 {
            let wanted: Vec<f32> = g.as_slice().iter().map(|g| g * times).collect();
            assert_eq!(gradient.to_vec(), wanted);
        } else {
            assert_ne!(gradient.to_vec(), g.to_vec());
        }
    }
}

#[test]
fn soft_codes_sharpen_to_the_nearest() {
    let x = random(&[4, 3, 5, 6], 10);
    for text in ["rq(depth: 3, codebook: 8)", "rq(depth: 3, codebooks: [8, 4, 2], shared: false)"] {
        let (rq, _) = rq(text);
        let tokens = |stochastic_codes, soft_targets| {
            let request = TokenRequest { stochastic_codes, soft_targets, ..TokenRequest::default() };
            rq.tokens(&x, &request, &Rng::new(1, "draw", 0))
        };
        let nearest = rq.quantize(&x).unwrap().tokens;
        for drawn in [None, Some(1e-5)] {
            let (codes, targets) = tokens(drawn, Some(1e-5)).unwrap();
            assert_eq!(codes.codes().unwrap(), nearest.codes().unwrap());
            let Targets::Soft(targets) = targets else { panic!("soft targets were asked for") };
            for (target, size) in targets.iter().zip(rq.level().sizes()) {
                assert_eq!(target.shape(), [4, 3, 5, *size]);
            }
        }
        let (drawn, targets) = tokens(Some(100.0), None).unwrap();
        assert!(matches!(targets, Targets::Hard));
        assert_ne!(drawn.codes().unwrap(), nearest.codes().unwrap());
        assert!(tokens(None, Some(-1.0)).is_err());
    }
}

#[test]
fn a_level_has_the_codebooks_as_they_are_and_none_in_a_plan() {
    let (rq, params) = rq("rq(depth: 2, codebooks: [8, 4], shared: false)");
    let level = rq.level();
    assert_eq!((level.token_shape(7), level.channels), ([7, 3, 5, 2], 6));
    let tables = &level.codes().unwrap().tables;
    for (depth, table) in tables.iter().enumerate() {
        assert_eq!(table.to_vec(), params.state()[&format!("codebooks.{depth}.weight")].to_vec());
    }
    let latents = MapShape { height: 1, width: 1, channels: 1 };
    let cx = QuantizerContext { latents, params: Params::dry(), components: Components::none() };
    let dry = Rq::new(RqConfig::parse("rq").unwrap(), &cx).unwrap();
    assert!(dry.level().codes().unwrap().tables.is_empty());
}

#[test]
fn lists_must_fit() {
    let build = |text: &str| {
        let latents = MapShape { height: 1, width: 1, channels: 1 };
        let cx = QuantizerContext { latents, params: Params::dry(), components: Components::none() };
        Rq::new(RqConfig::parse(text).unwrap(), &cx)
    };
    let complaint = |text: &str| build(text).unwrap_err().to_string();
    assert!(complaint("rq(depth: 2, codebooks: [8, 8, 8])").contains("3 entries for depth 2"));
    assert!(complaint("rq(depth: 2, codebooks: [8, 4])").contains("shared: false"));
    assert!(complaint("rq(depth: 2, decays: [0.9, 0.8])").contains("shared: false"));
    let rq = build("rq(depth: 2, codebooks: [8, 4], decays: [0.9, 0.8], shared: false)").unwrap();
    assert_eq!(rq.level().nominal_bits(), Some(5.0));
    for text in ["rq(depth: 0)", "rq(codebook: 1)", "rq(codebooks: [4, 1])", "rq(decay: 1.0)", "rq(depht: 1)"] {
        assert!(RqConfig::parse(text).is_err(), "{text}");
    }
}

#[test]
fn codes_that_do_not_fit_are_refused() {
    let (rq, _) = rq("rq(depth: 2, codebook: 8)");
    let codes = |data: Vec<u32>, depth: usize| Tokens::Codes(Codes::from_vec(data, &[1, depth]).unwrap());
    assert!(rq.embed(&codes(vec![0, 8], 2), None).is_err());
    assert!(rq.embed(&codes(vec![0, 0, 0], 3), None).is_err());
    assert!(rq.embed(&codes(vec![0, 0], 2), Some(3)).is_err());
    assert!(rq.embed(&codes(vec![0, 0], 2), Some(0)).is_err());
    assert!(rq.embed(&Tokens::Vectors(Tensor::zeros(&[1, 2])), None).is_err());
    assert!(rq.quantize(&Tensor::zeros(&[2, 3, 5, 7])).is_err());
}

/// Of 30 vectors each, the better the wider the beam, and never worse than the nearest code at each depth.
#[test]
fn a_beam_leaves_no_more_than_the_nearest_codes() {
    let x = random(&[30, 6], 11);
    let left = |beam: usize| {
        let (rq, _) = rq(&format!("rq(depth: 4, codebook: 16, eval_beam: {beam})"));
        let rest = x.sub(&rq.embed(&rq.quantize(&x).unwrap().tokens, None).unwrap()).unwrap().square().unwrap();
        rest.sum(&[1], false).unwrap().to_vec()
    };
    let (greedy, two, wide) = (left(1), left(2), left(64));
    for beam in [&two, &wide] {
        assert!(beam.iter().zip(&greedy).all(|(beam, greedy)| *beam <= greedy + 1e-4));
    }
    let sum = |left: &[f32]| left.iter().sum::<f32>();
    assert!(sum(&wide) < sum(&two) && sum(&two) < 0.99 * sum(&greedy), "{} {} {}", sum(&wide), sum(&two), sum(&greedy));
}

/// A beam as wide as all stacks finds the best of them.
#[test]
fn a_beam_of_everything_is_exhaustive_search() {
    let x = random(&[5, 6], 12);
    let (rq, params) = rq("rq(depth: 2, codebook: 6, eval_beam: 36)");
    let book = params.state()["codebooks.0.weight"].to_vec();
    let left = |x: &[f32], a: usize, b: usize| {
        let of = |k: usize, c: usize| book[6 * k + c];
        x.iter().enumerate().map(|(c, x)| (x - of(a, c) - of(b, c)).powi(2)).sum::<f32>()
    };
    let codes = rq.quantize(&x).unwrap().tokens.codes().unwrap().to_owned();
    for (x, stack) in x.as_slice().chunks(6).zip(codes.as_slice().chunks(2)) {
        let best = (0..36).map(|n| left(x, n / 6, n % 6)).fold(f32::INFINITY, f32::min);
        assert!((left(x, stack[0] as usize, stack[1] as usize) - best).abs() < 1e-5);
    }
}

/// What was dropped adds nothing, and its codebook stays.
#[test]
fn dropped_depths_add_nothing_and_move_nothing() {
    let x = random(&[8, 3, 5, 6], 13);
    let text = "rq(depth: 4, codebook: 8, shared: false, quantizer_dropout: true, dropout_cutoff: 1";
    let mut seen = std::collections::BTreeSet::new();
    for step in 0..40 {
        let (mut rq, params) = rq(&format!("{text})"));
        let before = params.state();
        let quantized = rq.quantize_train(&x, &Rng::new(1, "step", step)).unwrap();
        let after = params.state();
        let moved: Vec<bool> = (0..4)
            .map(|d| format!("codebooks.{d}.weight"))
            .map(|name| before[&name].to_vec() != after[&name].to_vec())
            .collect();
        let kept = moved.iter().filter(|moved| **moved).count();
        assert!(moved[..kept].iter().all(|moved| *moved), "{moved:?}");
        let left = quantized.latents.mse(&x).unwrap().item().unwrap();
        let energies = quantized.residual_energy.to_vec();
        assert!((left - energies[kept - 1]).abs() < 1e-5, "{left} {energies:?} {kept}");
        seen.insert(kept);
    }
    assert_eq!(seen, [2, 3, 4].into());
    let config = RqConfig::parse(&format!("{text}, dropout_multiple_of: 4)")).unwrap();
    assert!((0..20).all(|step| config.kept(&Rng::new(1, "step", step)) == 4));
}

/// Killed after the first step, the second is that of an unbroken run.
#[test]
fn codebooks_that_start_from_data_do_so_once() {
    let x = random(&[20, 3, 5, 6], 14);
    let text = "rq(depth: 2, codebook: 16, shared: false, init: kmeans, dead_codes: keep)";
    let step = |rq: &mut Rq, step| rq.quantize_train(&x, &Rng::new(1, "step", step)).unwrap();
    let (mut unbroken, all) = rq(text);
    let energies = step(&mut unbroken, 0).residual_energy.to_vec();
    let (plain, _) = rq("rq(depth: 2, codebook: 16, shared: false, init: kaiming)");
    assert!(plain.quantize(&x).unwrap().residual_energy.to_vec().iter().zip(&energies).all(|(a, b)| a > b));
    let (mut resumed, state) = rq(text);
    state.load(&all.state()).unwrap();
    step(&mut unbroken, 1);
    step(&mut resumed, 1);
    assert_eq!(numbers(&state), numbers(&all));
}

#[test]
fn a_small_code_dimension_is_reached_and_left_by_linear_maps() {
    let (rq, params) = rq("rq(depth: 3, codebook: 8, code_dim: 2)");
    assert_eq!(params.trained().len(), 4);
    let quantized = rq.quantize(&random(&[2, 3, 5, 6], 15)).unwrap();
    // The tables add up to the latents, but for the constant of the map back.
    let level = rq.level();
    let codes = quantized.tokens.codes().unwrap();
    let tables = level.codes().unwrap().tables.iter().enumerate();
    let rows: Vec<Tensor> = tables.map(|(d, t)| t.embedding(&codes.column(d).unwrap()).unwrap()).collect();
    let sum = rows.iter().skip(1).fold(rows[0].clone(), |sum, row| sum.add(row).unwrap());
    let rest = quantized.latents.sub(&sum).unwrap();
    let first = rest.as_slice()[..6].to_vec();
    assert!(rest.as_slice().chunks(6).all(|row| row.iter().zip(&first).all(|(a, b)| (a - b).abs() < 1e-5)));
}

#[test]
fn contradictions_are_refused_with_a_remedy() {
    let refused = |text: &str| {
        let latents = MapShape { height: 1, width: 1, channels: 1 };
        let cx = QuantizerContext { latents, params: Params::dry(), components: Components::none() };
        Rq::new(RqConfig::parse(text).unwrap(), &cx).unwrap_err().to_string()
    };
    assert!(refused("rq(train_beam: 2)").contains("`update: per_step`"));
    assert!(refused("rq(train_beam: 2, shared: false, stochastic_codes: 1.0)").contains("`stochastic_codes`"));
    assert!(refused("rq(depth: 2, quantizer_dropout: true, dropout_cutoff: 2)").contains("no depth 2"));
}

#[test]
fn every_variant_keeps_the_contract_of_a_quantizer() {
    let latents = MapShape { height: 3, width: 2, channels: 6 };
    for text in [
        "rq(depth: 3, codebook: 8)",
        "rq(depth: 2, codebooks: [8, 4], shared: false, update: per_step)",
        "rq(depth: 3, codebook: 8, estimator_per_depth: true, commitment: sum, dead_codes: keep)",
        "rq(depth: 2, codebook: 8, estimator: rotation, estimator_per_depth: true, init: kaiming, initial_count: 1.0)",
        "rq(depth: 3, codebook: 8, estimator: rotation, stochastic_codes: 0.5, eval_beam: 3, dead_codes: threshold)",
        "rq(depth: 3, codebook: 8, update: per_step, eval_beam: 2, train_beam: 4, quantizer_dropout: true)",
        "rq(depth: 2, codebook: 8, code_dim: 3, init: kmeans, shared: false)",
    ] {
        let config = RqConfig::parse(text).unwrap();
        rqlab_sdk::testing::quantizer(latents, |cx| Rq::new(config.clone(), cx));
    }
}
