#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use rqlab_sdk::tensor::Tape;

fn simvq(text: &str, channels: usize) -> (SimVq, Params) {
    let params = Params::new(1);
    let latents = MapShape { height: 2, width: 3, channels };
    let cx = QuantizerContext { latents, params: params.clone(), components: Components::none() };
    (SimVq::new(SimVqConfig::parse(text).unwrap(), &cx).unwrap(), params)
}

fn random(shape: &[usize], seed: u64) -> Tensor {
    Tensor::from_vec(Rng::new(seed, "test", 0).normal(shape.iter().product()), shape).unwrap()
}

#[test]
fn only_the_map_is_trained_and_it_moves_every_code() {
    let (simvq, params) = simvq("simvq(codebook: 50, table_dim: 6)", 4);
    let x = random(&[3, 4], 1).leaf();
    let before = simvq.codebook().unwrap().to_vec();
    let tape = Tape::start().unwrap();
    let loss = simvq.quantize(&x).unwrap().loss;
    let mut gradients = tape.backward(&loss).unwrap();
    let trained = params.trained();
    assert_eq!(trained.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["code_transform.weight"]);
    let gradient = gradients.take(&trained[0].1.get()).unwrap();
    trained[0].1.set(&trained[0].1.get().sub(&gradient).unwrap()).unwrap();
    let after = simvq.codebook().unwrap().to_vec();
    assert!(before.chunks(4).zip(after.chunks(4)).all(|(a, b)| a != b));
}

/// `codebook_weight |sg(z) - e|² + beta |z - sg(e)|²`: at z `2 beta (z - e) / n`.
#[test]
fn losses_have_their_weights() {
    let (simvq, _) = simvq("simvq(codebook: 5, codebook_weight: 2.0, beta: 0.5)", 4);
    let x = random(&[6, 4], 2).leaf();
    let tape = Tape::start().unwrap();
    let quantized = simvq.quantize(&x).unwrap();
    let energy = quantized.residual_energy.item().unwrap();
    assert!((quantized.loss.item().unwrap() - 2.5 * energy).abs() < 1e-6);
    let gradient = tape.backward(&quantized.loss).unwrap().take(&x).unwrap();
    for ((got, z), e) in gradient.as_slice().iter().zip(x.as_slice()).zip(quantized.latents.as_slice()) {
        assert!((got - (z - e) / 24.0).abs() < 1e-6);
    }
}

/// Codes are drawn in training alone; at a low temperature they are those of evaluation.
#[test]
fn codes_may_be_drawn_in_training() {
    let x = random(&[40, 4], 9);
    let codes = |quantized: Quantized| quantized.tokens.codes().unwrap().to_owned();
    let of = |temperature: f32| {
        let text = format!("simvq(codebook: 9, stochastic_codes: {temperature:?})");
        let (mut drawn, _) = simvq(&text, 4);
        let trained = codes(drawn.quantize_train(&x, &Rng::new(1, "step", 0)).unwrap());
        (codes(drawn.quantize(&x).unwrap()), trained)
    };
    let ((nearest, cold), (same, warm)) = (of(1e-5), of(5.0));
    assert_eq!((&nearest, &nearest), (&cold, &same));
    assert_ne!(nearest, warm);
}

#[test]
fn every_variant_keeps_the_contract_of_a_quantizer() {
    for (text, channels) in [
        ("simvq(codebook: 9, stochastic_codes: 0.5)", 4),
        ("simvq(codebook: 9, table_dim: 3, estimator: rotation)", 5),
        ("simvq(codebook: 9, code_dim: 2)", 6),
    ] {
        let latents = MapShape { height: 3, width: 2, channels };
        let config = SimVqConfig::parse(text).unwrap();
        rqlab_sdk::testing::quantizer(latents, |cx| SimVq::new(config.clone(), cx));
    }
}
