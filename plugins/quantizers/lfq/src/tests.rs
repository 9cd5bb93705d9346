#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use rqlab_sdk::tensor::Tape;

fn build(text: &str, channels: usize, params: &Params) -> Result<Lfq> {
    let latents = MapShape { height: 2, width: 3, channels };
    let cx = QuantizerContext { latents, params: params.clone(), components: Components::none() };
    Lfq::new(LfqConfig::parse(text).unwrap(), &cx)
}

fn lfq(text: &str, channels: usize) -> Lfq {
    build(text, channels, &Params::new(1)).unwrap()
}

fn random(shape: &[usize], seed: u64) -> Tensor {
    Tensor::from_vec(Rng::new(seed, "test", 0).normal(shape.iter().product()), shape).unwrap()
}

/// Bits that are no palindrome tell the two orders apart; zero is -1.
#[test]
fn signs_are_the_bits_of_a_code_in_either_order() {
    let x = Tensor::from_vec(vec![0.1, 0.2, -0.3, 0.0, 0.0, 0.0], &[2, 3]).unwrap();
    for (order, wanted) in [("lsb_first", [3, 0]), ("msb_first", [6, 0])] {
        let quantized = lfq(&format!("lfq(bits: 3, bit_order: {order})"), 3).quantize(&x).unwrap();
        assert_eq!(quantized.tokens.codes().unwrap().as_slice(), wanted);
        assert_eq!(quantized.latents.to_vec(), [1.0, 1.0, -1.0, -1.0, -1.0, -1.0]);
    }
    let two = lfq("lfq(bits: 3, sub_tokens: [1, 2])", 3).quantize(&x).unwrap();
    assert_eq!(two.tokens.codes().unwrap().as_slice(), [1, 1, 0, 0]);
}

/// The softmax of `2 inv_temperature z.c` over all corners, in f64 and from the definition.
#[test]
fn entropies_are_those_of_the_softmax_over_all_codes() {
    for text in ["lfq(bits: 4, inv_temperature: 0.7)", "lfq(bits: 4, inv_temperature: 0.7, spherical: true)"] {
        let (lfq, x) = (lfq(text, 4), random(&[9, 4], 2));
        let vectors = lfq.vectors(&x).unwrap();
        let corner = |code: usize, bit: usize| f64::from(lfq.magnitude) * if code >> bit & 1 == 1 { 1.0 } else { -1.0 };
        let entropy = |p: &[f64]| -p.iter().map(|p| p * p.ln()).sum::<f64>();
        let (mut mean, mut sample) = (vec![0.0; 16], 0.0);
        for z in vectors.as_slice().chunks(4) {
            let score = |code| (0..4).map(|bit| 1.4 * f64::from(z[bit]) * corner(code, bit)).sum::<f64>().exp();
            let scores: Vec<f64> = (0..16).map(score).collect();
            let p: Vec<f64> = scores.iter().map(|score| score / scores.iter().sum::<f64>()).collect();
            sample += entropy(&p) / 9.0;
            mean.iter_mut().zip(&p).for_each(|(mean, p)| *mean += p / 9.0);
        }
        let found = lfq.entropies(&vectors).unwrap();
        assert!((f64::from(found.sample.item().unwrap()) - sample).abs() < 1e-5);
        assert!((f64::from(found.codebook.item().unwrap()) - entropy(&mean)).abs() < 1e-3);
    }
}

/// `q = z + sg(sign z - z)`: its gradient is that of z; commitment is `2 beta (z - q) / n`.
#[test]
fn gradients_are_those_of_the_definition() {
    let (x, g) = (random(&[5, 4], 3).leaf(), random(&[5, 4], 4));
    let lfq = lfq("lfq(bits: 4, entropy_weight: 0.0, beta: 0.5)", 4);
    let tape = Tape::start().unwrap();
    let quantized = lfq.quantize(&x).unwrap();
    let total = quantized.latents.mul(&g).unwrap().sum_all().unwrap().add(&quantized.loss).unwrap();
    let gradient = tape.backward(&total).unwrap().take(&x).unwrap();
    for ((got, g), (z, q)) in
        gradient.as_slice().iter().zip(g.as_slice()).zip(x.as_slice().iter().zip(quantized.latents.as_slice()))
    {
        assert!((got - (g + (z - q) / 20.0)).abs() < 1e-6);
    }
}

/// Training on the entropy terms alone makes vectors sure and spreads them over all codes.
#[test]
fn the_entropy_terms_spread_vectors_over_codes() {
    let lfq = lfq("lfq(bits: 3, inv_temperature: 1.0, beta: 0.0)", 3);
    // All in one corner at first.
    let mut x = random(&[64, 3], 5).mul_scalar(0.1).unwrap().add_scalar(0.3).unwrap();
    let used = |x: &Tensor| {
        let mut codes = lfq.quantize(x).unwrap().tokens.codes().unwrap().as_slice().to_vec();
        codes.sort_unstable();
        codes.dedup();
        codes.len()
    };
    assert_eq!(used(&x), 1);
    for _ in 0..200 {
        let leaf = x.leaf();
        let tape = Tape::start().unwrap();
        let loss = lfq.quantize(&leaf).unwrap().loss;
        let gradient = tape.backward(&loss).unwrap().take(&leaf).unwrap();
        x = x.sub(&gradient.mul_scalar(100.0).unwrap()).unwrap();
    }
    assert_eq!(used(&x), 8);
}

/// The published schedule: three times the weight at first, once from its last step on; a resumed run goes on where it stood.
#[test]
fn entropy_terms_weigh_more_at_first() {
    let text =
        "lfq(bits: 4, beta: 0.0, inv_temperature: 1.0, entropy_annealing_factor: 2.0, entropy_annealing_steps: 4)";
    let (params, x) = (Params::new(1), random(&[9, 4], 7));
    let mut quantizer = build(text, 4, &params).unwrap();
    let plain = quantizer.quantize(&x).unwrap().loss.item().unwrap();
    let ratio = |quantizer: &mut Lfq| {
        quantizer.quantize_train(&x, &Rng::new(0, "step", 0)).unwrap().loss.item().unwrap() / plain
    };
    let mut ratios: Vec<f32> = (0..3).map(|_| ratio(&mut quantizer)).collect();
    let resumed = Params::new(2);
    let mut other = build(text, 4, &resumed).unwrap();
    resumed.load(&params.state()).unwrap();
    ratios.extend((0..3).map(|_| ratio(&mut other)));
    for (got, wanted) in ratios.iter().zip([3.0, 2.5, 2.0, 1.5, 1.0, 1.0]) {
        assert!((got - wanted).abs() < 1e-5, "{ratios:?}");
    }
}

/// The tables and distributions of 18 bits at once would be 2^18 times as many numbers as there are positions.
#[test]
fn many_bits_are_quantized_in_groups() {
    let lfq = lfq("lfq(bits: 18, entropy_group: 6, sub_tokens: [6, 12])", 18);
    let quantized = lfq.quantize(&random(&[4, 2, 3, 18], 6)).unwrap();
    assert_eq!(lfq.level().sizes(), [64, 4096]);
    assert_eq!(quantized.tokens.shape(), [4, 2, 3, 2]);
    assert!(quantized.loss.item().unwrap().is_finite());
}

/// What a plan counts: logits and probabilities of all groups at each of 6 positions.
#[test]
fn a_step_makes_as_many_numbers_as_groups_have_values() {
    let of = |text: &str| lfq(text, 18).activations();
    assert_eq!(of("lfq(bits: 18, entropy_group: 6, sub_tokens: [6, 12])"), 2 * 6 * 3 * 64);
    assert_eq!(of("lfq(bits: 18, entropy_group: 12, sub_tokens: [6, 12])"), 2 * 6 * (4096 + 64));
    assert_eq!(of("lfq(bits: 18, entropy_group: 18)"), (2 * 6) << 18);
    assert_eq!(of("lfq(bits: 18, entropy_weight: 0.0)"), 0);
}

#[test]
fn what_cannot_be_is_refused_in_the_plan() {
    let complaint = |text: &str| build(text, 18, &Params::dry()).unwrap_err().to_string();
    assert!(complaint("lfq(bits: 10)").contains("`code_channels: 10`"));
    assert!(complaint("lfq(bits: 36, projection: true)").contains("sub_tokens"));
    assert!(complaint("lfq(bits: 18, sub_tokens: [6, 6])").contains("18 channels"));
}

#[test]
fn every_variant_keeps_the_contract_of_a_quantizer() {
    for (text, channels) in [
        ("lfq(bits: 4)", 4),
        ("lfq(bits: 5, entropy_group: 2, bit_order: msb_first, entropy_eps: clamp)", 5),
        ("lfq(bits: 4, spherical: true, estimator: rotation, entropy_annealing_factor: 2.0)", 4),
        ("lfq(bits: 6, sub_tokens: [2, 4], projection: true, entropy_weight: 0.0)", 9),
    ] {
        let latents = MapShape { height: 3, width: 2, channels };
        let config = LfqConfig::parse(text).unwrap();
        rqlab_sdk::testing::quantizer(latents, |cx| Lfq::new(config.clone(), cx));
    }
}
