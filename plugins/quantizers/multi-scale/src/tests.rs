#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use rqlab_sdk::testing::toys::ToyQuantizers;

const LATENTS: MapShape = MapShape { height: 4, width: 4, channels: 3 };

fn with_toys(cx: &QuantizerContext) -> QuantizerContext {
    QuantizerContext { components: Components::new(ToyQuantizers), ..cx.clone() }
}

fn multi_scale(text: &str, latents: MapShape) -> Result<MultiScale> {
    let cx = QuantizerContext { latents, params: Params::new(1), components: Components::none() };
    MultiScale::new(MultiScaleConfig::parse(text).unwrap(), &with_toys(&cx))
}

fn random(seed: u64) -> Tensor {
    Tensor::from_vec(Rng::new(seed, "test", 0).normal(96), &[2, 4, 4, 3]).unwrap()
}

#[test]
fn every_variant_keeps_the_contract_of_a_quantizer() {
    for text in [
        "multi_scale(of: toy_codes, scales: [1, 2, 4])",
        "multi_scale(of: toy_codes, scales: [1, 3, 4], phi_ratio: 0.0, losses: inner)",
        "multi_scale(of: toy_codes, scales: [4], phis: 1, losses: both, estimator: rotation)",
        "multi_scale(of: toy_codes, scales: [1, 2, 4], quantizer_dropout: true)",
    ] {
        let config = MultiScaleConfig::parse(text).unwrap();
        rqlab_sdk::testing::quantizer(LATENTS, |cx| MultiScale::new(config.clone(), &with_toys(cx)));
    }
}

#[test]
fn tokens_are_one_row_from_coarse_to_fine() {
    let quantizer = multi_scale("multi_scale(of: toy_codes, scales: [1, 2, 4])", LATENTS).unwrap();
    let (level, quantized) = (quantizer.level(), quantizer.quantize(&random(2)).unwrap());
    let scales = level.scales.clone().unwrap();
    assert_eq!((level.token_shape(2), level.nominal_bits()), ([2, 1, 21, 1], Some(63.0)));
    assert_eq!(scales.sizes(), [[1, 1], [2, 2], [4, 4]]);
    assert_eq!(quantizer.activations(), 21 * 8, "those of the held one at each position of all scales");
    // What is seen before the second scale is the mean of what the first one adds; it needs the first code alone.
    let sums = quantizer.sums(&quantized.tokens, 3, None).unwrap();
    let seen = scales.before(&quantized.tokens, 1..3).unwrap();
    assert!(seen[1].mse(&sums[1]).unwrap().item().unwrap() < 1e-10);
    let seen = &seen[0];
    let whole = [seen.mean(&[1, 2], false).unwrap(), sums[0].mean(&[1, 2], false).unwrap()];
    assert!(whole[0].mse(&whole[1]).unwrap().item().unwrap() < 1e-10 && seen.shape() == [2, 2, 2, 3]);
    let first: Vec<u32> = quantized.tokens.codes().unwrap().as_slice().chunks(21).map(|row| row[0]).collect();
    let first = Tokens::Codes(Codes::from_vec(first, &[2, 1, 1, 1]).unwrap());
    assert_eq!(scales.before(&first, 1..2).unwrap()[0].to_vec(), seen.to_vec());
    assert!(scales.before(&first, 1..3).is_err());
    assert_eq!(sums[2].to_vec(), quantized.latents.to_vec());
}

/// With the codes held, the slope along a direction is that of finite differences: through bicubic maps and convolutions.
#[test]
fn gradients_reach_the_codes_of_every_scale() {
    let params = Params::new(1);
    let cx = QuantizerContext { latents: LATENTS, params: params.clone(), components: Components::none() };
    let config = MultiScaleConfig::parse("multi_scale(of: toy_codes, scales: [1, 2, 3, 4])").unwrap();
    let quantizer = MultiScale::new(config, &with_toys(&cx)).unwrap();
    let tokens = quantizer.quantize(&random(4)).unwrap().tokens;
    let loss = || quantizer.sums(&tokens, 4, None).unwrap()[2].mul(&random(5)).unwrap().sum_all().unwrap();
    for (name, var) in params.trained() {
        let (value, shape) = (var.get().detach(), var.get().shape().to_vec());
        let direction = Tensor::from_vec(Rng::new(6, &name, 0).normal(value.len()), &shape).unwrap();
        let tape = rqlab_sdk::tensor::Tape::start().unwrap();
        let gradient = tape.backward(&loss()).unwrap().take(&var.get());
        let at = |t: f32| {
            var.set(&value.add(&direction.mul_scalar(t).unwrap()).unwrap()).unwrap();
            loss().item().unwrap()
        };
        let wanted = (at(0.1) - at(-0.1)) / 0.2;
        var.set(&value).unwrap();
        let dot = |g: Tensor| g.as_slice().iter().zip(direction.as_slice()).map(|(g, d)| g * d).sum::<f32>();
        let got = gradient.map_or(0.0, dot);
        assert!((got - wanted).abs() < 2e-2 * wanted.abs().max(0.1), "{name}: {got} {wanted}");
    }
}

/// What was dropped adds nothing: the value is the sum of the kept scales, and the loss theirs.
#[test]
fn dropped_scales_add_nothing() {
    let x = random(7);
    let text = "multi_scale(of: toy_codes, scales: [1, 2, 3, 4], quantizer_dropout: true, dropout_cutoff: 1";
    let mut seen = std::collections::BTreeSet::new();
    for step in 0..40 {
        let mut quantizer = multi_scale(&format!("{text})"), LATENTS).unwrap();
        let quantized = quantizer.quantize_train(&x, &Rng::new(1, "step", step)).unwrap();
        assert_eq!(quantized.tokens.shape(), [2, 1, 30, 1]);
        let sums = quantizer.sums(&quantized.tokens, 4, None).unwrap();
        let value = quantized.latents.to_vec();
        let kept = 1 + sums.iter().position(|sum| sum.to_vec() == value).unwrap();
        let mean = sums[..kept].iter().map(|sum| sum.mse(&x).unwrap().item().unwrap()).sum::<f32>() / kept as f32;
        assert!((quantized.loss.item().unwrap() - 1.25 * mean).abs() < 1e-5);
        let left = sums[3].mse(&x).unwrap().item().unwrap();
        assert!((quantized.residual_energy.to_vec()[0] - left).abs() < 1e-6);
        seen.insert(kept);
    }
    assert_eq!(seen, [2, 3, 4].into());
    let refused = multi_scale(&format!("{text}, dropout_cutoff: 4)").replace("dropout_cutoff: 1, ", ""), LATENTS);
    assert!(refused.unwrap_err().to_string().contains("no scale 4"));
}

/// Without convolutions, one scale is plain quantization.
#[test]
fn one_scale_is_the_inner_quantizer() {
    let text = "multi_scale(of: toy_codes, scales: [4], phi_ratio: 0.0, losses: inner)";
    let (outer, x) = (multi_scale(text, LATENTS).unwrap(), random(3));
    let (quantized, inner) = (outer.quantize(&x).unwrap(), outer.held.get(0).unwrap().quantize(&x).unwrap());
    assert_eq!(quantized.latents.to_vec(), inner.latents.to_vec());
    assert_eq!(quantized.loss.item().unwrap(), inner.loss.item().unwrap());
}

#[test]
fn convolutions_are_shared_by_neighbours() {
    // VAR's ten scales: the two ties as the published code decides them.
    assert_eq!((0..10).map(|scale| phi_of(scale, 10, 4)).collect::<Vec<_>>(), [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]);
    assert_eq!((0..5).map(|scale| phi_of(scale, 5, 5)).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert_eq!(phi_of(0, 1, 4), 0);
}

#[test]
fn scales_that_do_not_fit_are_refused() {
    let refused = |scales: &str, latents| {
        multi_scale(&format!("multi_scale(of: toy_codes, scales: {scales})"), latents).unwrap_err().to_string()
    };
    assert!(refused("[1, 2]", LATENTS).contains("4 x 4"));
    assert!(refused("[2, 2, 4]", LATENTS).contains("coarse to fine"));
    assert!(refused("[]", LATENTS).contains("last scale"));
    assert!(refused("[1, 4]", MapShape { width: 5, ..LATENTS }).contains("4 x 5"));
    let vectors = multi_scale("multi_scale(of: toy_noise, scales: [4])", LATENTS).unwrap_err().to_string();
    assert!(vectors.contains("makes vectors"), "{vectors}");
}
