#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use rqlab_sdk::tensor::Tape;

fn bsq(text: &str, channels: usize) -> Bsq {
    let latents = MapShape { height: 2, width: 3, channels };
    let cx = QuantizerContext { latents, params: Params::new(1), components: Components::none() };
    Bsq::new(BsqConfig::parse(text).unwrap(), &cx).unwrap()
}

fn random(shape: &[usize], seed: u64) -> Tensor {
    Tensor::from_vec(Rng::new(seed, "test", 0).normal(shape.iter().product()), shape).unwrap()
}

#[test]
fn codes_have_length_1_and_the_first_channel_is_the_highest_bit() {
    let x = Tensor::from_vec(vec![0.1, 0.2, -0.3, 0.0], &[1, 4]).unwrap();
    let quantized = bsq("bsq(bits: 4)", 4).quantize(&x).unwrap();
    assert_eq!(quantized.tokens.codes().unwrap().as_slice(), [0b1100]);
    assert_eq!(quantized.latents.to_vec(), [0.5, 0.5, -0.5, -0.5]);
}

/// Straight through the sign, before the scale: `dq/dh = 1 / sqrt(L)`.
#[test]
fn the_gradient_is_scaled_as_the_code_is() {
    let h = l2_normalize(&random(&[6, 9], 1)).unwrap();
    let (leaf, g) = (h.leaf(), random(&[6, 9], 2));
    let through = |value: &Tensor, tape: Tape| {
        tape.backward(&value.mul(&g).unwrap().sum_all().unwrap()).unwrap().take(&leaf).unwrap()
    };
    let tape = Tape::start().unwrap();
    let found = through(&bsq("bsq(bits: 9)", 9).quantize(&leaf).unwrap().latents, tape);
    let tape = Tape::start().unwrap();
    let wanted = through(&l2_normalize(&leaf).unwrap().mul_scalar(1.0 / 3.0).unwrap(), tape);
    assert!(found.mse(&wanted).unwrap().item().unwrap() < 1e-12);
}

/// Bits are independent, so that the entropy of a vector's distribution does not depend on how they are grouped.
#[test]
fn the_entropy_of_a_vector_is_the_same_for_any_group() {
    let x = random(&[20, 6], 3);
    let sample = |group: usize| {
        let bsq = bsq(&format!("bsq(bits: 6, entropy_group: {group}, inv_temperature: 2.0)"), 6);
        bsq.entropies(&bsq.vectors(&x).unwrap()).unwrap().sample.item().unwrap()
    };
    for group in [1, 2, 3] {
        assert!((sample(group) - sample(6)).abs() < 1e-5);
    }
}

#[test]
fn thirty_six_bits_need_sub_tokens() {
    let latents = MapShape { height: 2, width: 3, channels: 36 };
    let cx = QuantizerContext { latents, params: Params::dry(), components: Components::none() };
    let refused = Bsq::new(BsqConfig::parse("bsq(bits: 36)").unwrap(), &cx).unwrap_err().to_string();
    assert!(refused.contains("2^36") && refused.contains("sub_tokens"), "{refused}");
    assert_eq!(bsq("bsq(bits: 36, sub_tokens: [18, 18])", 36).level().sizes(), [1 << 18; 2]);
}

#[test]
fn every_variant_keeps_the_contract_of_a_quantizer() {
    for (text, channels) in [
        ("bsq(bits: 4, entropy_annealing_factor: 2.0, entropy_annealing_steps: 3)", 4),
        ("bsq(bits: 5, entropy_group: 2, bit_order: lsb_first, beta: 0.25, estimator: rotation)", 5),
        ("bsq(bits: 6, sub_tokens: [2, 4], projection: true, entropy_weight: 0.0)", 9),
    ] {
        let latents = MapShape { height: 3, width: 2, channels };
        let config = BsqConfig::parse(text).unwrap();
        rqlab_sdk::testing::quantizer(latents, |cx| Bsq::new(config.clone(), cx));
    }
}
