#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use rqlab_sdk::tensor::Tape;

fn ibq(text: &str, channels: usize) -> (Ibq, Params) {
    let params = Params::new(1);
    let latents = MapShape { height: 2, width: 3, channels };
    let cx = QuantizerContext { latents, params: params.clone(), components: Components::none() };
    (Ibq::new(IbqConfig::parse(text).unwrap(), &cx).unwrap(), params)
}

fn random(shape: &[usize], seed: u64) -> Tensor {
    Tensor::from_vec(Rng::new(seed, "test", 0).normal(shape.iter().product()), shape).unwrap()
}

#[test]
fn the_code_is_the_largest_dot_product_and_not_the_nearest() {
    let (ibq, params) = ibq("ibq(codebook: 2)", 2);
    let codebook = Tensor::from_vec(vec![1.0, 0.0, 5.0, 0.0], &[2, 2]).unwrap();
    params.trained()[0].1.set(&codebook).unwrap();
    let x = Tensor::from_vec(vec![1.0, 0.0], &[1, 2]).unwrap();
    let quantized = ibq.quantize(&x).unwrap();
    assert_eq!(quantized.tokens.codes().unwrap().as_slice(), [1]);
    assert_eq!(quantized.latents.to_vec(), [5.0, 0.0]);
}

/// With `A = onehot + p - sg(p)` and `q = A E`, along g: at E `Aᵀ g` and, by the logits, `Jᵀ (g Eᵀ)` times z, with J the
/// slope of the softmax.
#[test]
fn the_gradient_passes_through_the_softmax_to_every_code() {
    let (ibq, params) = ibq("ibq(codebook: 5)", 3);
    let (x, g) = (random(&[1, 3], 2).leaf(), random(&[1, 3], 3));
    let codebook = params.trained()[0].1.get();
    let tape = Tape::start().unwrap();
    let quantized = ibq.quantize(&x).unwrap();
    let mut gradients = tape.backward(&quantized.latents.mul(&g).unwrap().sum_all().unwrap()).unwrap();
    let (at_x, at_e) = (gradients.take(&x).unwrap(), gradients.take(&codebook).unwrap());
    let code = quantized.tokens.codes().unwrap().as_slice()[0] as usize;
    let rows: Vec<&[f32]> = codebook.as_slice().chunks(3).collect();
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let scores: Vec<f32> = rows.iter().map(|e| dot(e, x.as_slice()).exp()).collect();
    let p: Vec<f32> = scores.iter().map(|s| s / scores.iter().sum::<f32>()).collect();
    let along: Vec<f32> = rows.iter().map(|e| dot(e, g.as_slice())).collect();
    let mean = dot(&p, &along);
    let slope: Vec<f32> = p.iter().zip(&along).map(|(p, a)| p * (a - mean)).collect();
    for k in 0..5 {
        for c in 0..3 {
            let direct = if k == code { g.as_slice()[c] } else { 0.0 };
            let wanted = direct + slope[k] * x.as_slice()[c];
            assert!((at_e.as_slice()[3 * k + c] - wanted).abs() < 1e-5);
        }
    }
    for c in 0..3 {
        let wanted: f32 = (0..5).map(|k| slope[k] * rows[k][c]).sum();
        assert!((at_x.as_slice()[c] - wanted).abs() < 1e-5);
    }
}

/// Codes are drawn in training alone; at a low temperature they are those of evaluation.
#[test]
fn codes_may_be_drawn_in_training() {
    let x = random(&[40, 4], 9);
    let codes = |quantized: Quantized| quantized.tokens.codes().unwrap().to_owned();
    let of = |temperature: f32| {
        let text = format!("ibq(codebook: 9, stochastic_codes: {temperature:?})");
        let (mut drawn, _) = ibq(&text, 4);
        let trained = codes(drawn.quantize_train(&x, &Rng::new(1, "step", 0)).unwrap());
        (codes(drawn.quantize(&x).unwrap()), trained)
    };
    let ((nearest, cold), (same, warm)) = (of(1e-5), of(5.0));
    assert_eq!((&nearest, &nearest), (&cold, &same));
    assert_ne!(nearest, warm);
}

#[test]
fn every_variant_keeps_the_contract_of_a_quantizer() {
    for (text, channels) in [("ibq(codebook: 9)", 4), ("ibq(codebook: 9, code_dim: 3, entropy_weight: 0.0)", 6)] {
        let latents = MapShape { height: 3, width: 2, channels };
        let config = IbqConfig::parse(text).unwrap();
        rqlab_sdk::testing::quantizer(latents, |cx| Ibq::new(config.clone(), cx));
    }
}
