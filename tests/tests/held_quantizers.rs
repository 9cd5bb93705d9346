//! Quantizers that hold others, with those of this workspace.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use rqlab_sdk::config::Call;
use rqlab_sdk::contracts::Builder;
use rqlab_sdk::prelude::*;
use rqlab_tests::held::Held;

fn build(text: &str, latents: MapShape) -> Box<dyn Quantizer> {
    let cx = QuantizerContext { latents, params: Params::new(1), components: Components::new(Held) };
    Held.quantizer(&Call::new(text), &cx).unwrap()
}

#[test]
fn they_keep_the_contract_whatever_they_hold() {
    let latents = MapShape { height: 4, width: 4, channels: 6 };
    for text in [
        "residual(of: fsq(levels: [5, 4, 3]), depth: 3, code_dim: 3, soft_clamp: 1.0)",
        "residual(of: lfq(bits: 6), depth: 2)",
        "residual(of: simvq(codebook: 8), depth: 2, shared: true, estimator: rotation)",
        "residual(of: product(of: vq(codebook: 8)), depth: 2)",
        "product(of: rq(depth: 2, codebook: 8), parts: 3)",
        "product(of: fsq(levels: [5, 4, 3]), parts: 2)",
        "multi_scale(of: vq(codebook: 8, normalize: always), scales: [1, 2, 4])",
        "multi_scale(of: product(of: lfq(bits: 3)), scales: [2, 4], losses: both)",
    ] {
        rqlab_sdk::testing::quantizer(latents, |cx| {
            Ok(Boxed(
                Held.quantizer(
                    &Call::new(text),
                    &QuantizerContext { components: Components::new(Held), ..cx.clone() },
                )?,
            ))
        });
    }
}

/// Signs of what is left, each depth half as large as the one before, are the digits of a binary number: D of them leave at
/// most `2^-(D - 1)` of a number between -2 and 2.
#[test]
fn residual_signs_are_binary_digits() {
    let latents = MapShape { height: 5, width: 4, channels: 3 };
    let quantizer = build("residual(of: lfq(bits: 3), depth: 7)", latents);
    let x = Rng::new(2, "test", 0).uniform(60).into_iter().map(|u| 4.0 * u - 2.0).collect();
    let x = Tensor::from_vec(x, &[1, 5, 4, 3]).unwrap();
    let quantized = quantizer.quantize(&x).unwrap();
    for depth in 1..=7 {
        let partial = quantizer.embed(&quantized.tokens, Some(depth)).unwrap();
        let most = 0.5f32.powi(depth as i32 - 1) + 1e-6;
        assert!(x.as_slice().iter().zip(partial.as_slice()).all(|(x, q)| (x - q).abs() <= most), "depth {depth}");
    }
}

/// The signs of two channels each, the first the lowest bit.
#[test]
fn what_a_product_holds_quantizes_its_own_channels() {
    let latents = MapShape { height: 1, width: 1, channels: 4 };
    let quantizer = build("product(of: lfq(bits: 2), parts: 2)", latents);
    let x = Tensor::from_vec(vec![0.5, -1.0, 2.0, 3.0], &[1, 1, 1, 4]).unwrap();
    let quantized = quantizer.quantize(&x).unwrap();
    assert_eq!(quantized.latents.to_vec(), [1.0, -1.0, 1.0, 1.0]);
    assert_eq!(quantized.tokens.codes().unwrap().as_slice(), [0b01, 0b11]);
}

/// The kit takes a type.
struct Boxed(Box<dyn Quantizer>);

impl Quantizer for Boxed {
    fn level(&self) -> LevelInfo {
        self.0.level()
    }

    fn quantize(&self, latents: &Tensor) -> Result<Quantized> {
        self.0.quantize(latents)
    }

    fn quantize_train(&mut self, latents: &Tensor, rng: &Rng) -> Result<Quantized> {
        self.0.quantize_train(latents, rng)
    }

    fn tokens(&self, latents: &Tensor, request: &TokenRequest, rng: &Rng) -> Result<(Tokens, Targets)> {
        self.0.tokens(latents, request, rng)
    }

    fn embed(&self, tokens: &Tokens, depth: Option<usize>) -> Result<Tensor> {
        self.0.embed(tokens, depth)
    }
}
