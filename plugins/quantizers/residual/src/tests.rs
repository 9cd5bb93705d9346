#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use rqlab_sdk::tensor::Tape;
use rqlab_sdk::testing::toys::ToyQuantizers;

const LATENTS: MapShape = MapShape { height: 3, width: 2, channels: 6 };

fn with_toys(cx: &QuantizerContext) -> QuantizerContext {
    QuantizerContext { components: Components::new(ToyQuantizers), ..cx.clone() }
}

fn residual(text: &str) -> (Residual, Params) {
    let params = Params::new(1);
    let cx = QuantizerContext { latents: LATENTS, params: params.clone(), components: Components::none() };
    (Residual::new(ResidualConfig::parse(text).unwrap(), &with_toys(&cx)).unwrap(), params)
}

fn random(seed: u64) -> Tensor {
    Tensor::from_vec(Rng::new(seed, "test", 0).normal(72), &[2, 3, 2, 6]).unwrap()
}

#[test]
fn every_variant_keeps_the_contract_of_a_quantizer() {
    for text in [
        "residual(of: toy_codes, depth: 3)",
        "residual(of: toy_codes(codebook: 5), depth: 2, shared: true, losses: sum, estimator: rotation)",
        "residual(of: toy_codes, depth: 2, code_dim: 3, soft_clamp: 2.0, estimator: straight_through)",
        "residual(of: toy_codes, depth: 3, quantizer_dropout: true, dropout_cutoff: 1)",
    ] {
        let config = ResidualConfig::parse(text).unwrap();
        rqlab_sdk::testing::quantizer(LATENTS, |cx| Residual::new(config.clone(), &with_toys(cx)));
    }
}

/// Each depth takes the nearest code to what is left: by hand.
#[test]
fn a_depth_quantizes_what_those_before_it_leave() {
    let (residual, params) = residual("residual(of: toy_codes, depth: 2)");
    let x = random(2);
    let codes = residual.quantize(&x).unwrap().tokens.codes().unwrap().to_owned();
    let state = params.state();
    for (x, stack) in x.as_slice().chunks(6).zip(codes.as_slice().chunks(2)) {
        let mut left = x.to_vec();
        for (depth, &code) in stack.iter().enumerate() {
            let book = state[&format!("of.{depth}.codebook")].to_vec();
            let distance = |e: &[f32]| left.iter().zip(e).map(|(x, e)| (x - e) * (x - e)).sum::<f32>();
            let nearest = book.chunks(6).map(distance).fold(f32::INFINITY, f32::min);
            let own = &book[6 * code as usize..6 * code as usize + 6];
            assert!((distance(own) - nearest).abs() < 1e-5);
            left = left.iter().zip(own).map(|(x, e)| x - e).collect();
        }
    }
}

/// By the estimators of the depths a gradient passes D times, by one for the sum once.
#[test]
fn gradients_pass_each_depth_or_once() {
    let (x, g) = (random(3).leaf(), random(4));
    for (text, times) in [("", 3.0), (", estimator: straight_through", 1.0)] {
        let (residual, _) = residual(&format!("residual(of: toy_codes, depth: 3{text})"));
        let tape = Tape::start().unwrap();
        let quantized = residual.quantize(&x).unwrap();
        let gradient = tape.backward(&quantized.latents.mul(&g).unwrap().sum_all().unwrap()).unwrap().take(&x).unwrap();
        for (got, g) in gradient.as_slice().iter().zip(g.as_slice()) {
            assert!((got - times * g).abs() < 1e-5, "{got} {g}");
        }
    }
}

/// What was dropped adds nothing, and trains no quantizer: neither latents nor losses have gradients there.
#[test]
fn dropped_depths_add_nothing_and_train_nothing() {
    let x = random(6);
    let mut seen = std::collections::BTreeSet::new();
    for step in 0..40 {
        let (mut residual, params) =
            residual("residual(of: toy_codes, depth: 4, quantizer_dropout: true, dropout_cutoff: 1)");
        let tape = Tape::start().unwrap();
        let quantized = residual.quantize_train(&x, &Rng::new(1, "step", step)).unwrap();
        let mut gradients = tape.backward(&quantized.loss).unwrap();
        let trains: Vec<bool> = params
            .trained()
            .iter()
            .map(|(_, var)| gradients.take(&var.get()).is_some_and(|g| g.as_slice().iter().any(|g| *g != 0.0)))
            .collect();
        let kept = trains.iter().filter(|trains| **trains).count();
        assert!(trains[..kept].iter().all(|trains| *trains), "{trains:?}");
        let left = quantized.latents.mse(&x).unwrap().item().unwrap();
        let energies = quantized.residual_energy.to_vec();
        assert!((left - energies[kept - 1]).abs() < 1e-5, "{left} {energies:?} {kept}");
        assert_eq!(quantized.tokens.shape(), [2, 3, 2, 4]);
        seen.insert(kept);
    }
    assert_eq!(seen, [2, 3, 4].into());
    let cx = QuantizerContext { latents: LATENTS, params: Params::dry(), components: Components::none() };
    let config = ResidualConfig::parse("residual(of: toy_codes, depth: 2, quantizer_dropout: true, dropout_cutoff: 2)");
    let refused = Residual::new(config.unwrap(), &with_toys(&cx)).unwrap_err().to_string();
    assert!(refused.starts_with("`dropout_cutoff`") && refused.contains("no depth 2"), "{refused}");
}

#[test]
fn energies_are_of_the_first_depths() {
    let (residual, _) = residual("residual(of: toy_codes(codebook: 64), depth: 3)");
    let x = random(5);
    let quantized = residual.quantize(&x).unwrap();
    for (depth, energy) in quantized.residual_energy.to_vec().into_iter().enumerate() {
        let partial = residual.embed(&quantized.tokens, Some(depth + 1)).unwrap();
        assert!((partial.mse(&x).unwrap().item().unwrap() - energy).abs() < 1e-5);
    }
}

#[test]
fn a_shared_quantizer_shares_its_codebook() {
    let (shared, params) = residual("residual(of: toy_codes, depth: 3, shared: true)");
    assert_eq!(params.state().into_keys().collect::<Vec<_>>(), ["of.codebook"]);
    assert_eq!(shared.activations(), 3 * 6 * 8, "those of the held one at each depth");
    let (level, own) = (shared.level(), residual("residual(of: toy_codes, depth: 3)").0.level());
    assert!(level.codes().unwrap().shared && !own.codes().unwrap().shared);
    assert_eq!((level.sizes(), level.nominal_bits()), (&[8, 8, 8][..], Some(54.0)));
}
