#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use rqlab_sdk::tensor::Tape;

fn random(shape: &[usize], seed: u64) -> Tensor {
    Tensor::from_vec(Rng::new(seed, "test", 0).normal(shape.iter().product()), shape).unwrap()
}

fn vq(text: &str) -> (Vq, Params) {
    let params = Params::new(1);
    let latents = MapShape { height: 2, width: 3, channels: 4 };
    let cx = QuantizerContext { latents, params: params.clone(), components: Components::none() };
    (Vq::new(VqConfig::parse(text).unwrap(), &cx).unwrap(), params)
}

fn codes(quantized: &Quantized) -> Codes {
    quantized.tokens.codes().unwrap().clone()
}

fn close(got: &Tensor, wanted: &[f32]) {
    assert_eq!(got.len(), wanted.len());
    for (a, b) in got.as_slice().iter().zip(wanted) {
        assert!((a - b).abs() < 1e-6, "{a} {b}");
    }
}

/// The gradients of `loss = |sg(z) - e|² + beta |z - sg(e)|²`, by hand: `2 beta (z - e) / n` at z, and at each code the sum
/// of `2 (e - z) / n` over its vectors.
#[test]
fn losses_send_their_gradients_where_beta_says() {
    let z = random(&[2, 2, 3, 4], 2).leaf();
    for (text, on_z, on_e) in [
        ("vq(codebook: 5, codebook_update: gradient, beta: 0.3)", 0.3, 1.0),
        ("vq(codebook: 5, codebook_update: gradient, beta: 0.3, beta_on: codebook)", 1.0, 0.3),
        ("vq(codebook: 5, beta: 0.3)", 0.3, 0.0),
    ] {
        let (vq, params) = vq(text);
        let tape = Tape::start().unwrap();
        let quantized = vq.quantize(&z).unwrap();
        let mut gradients = tape.backward(&quantized.loss).unwrap();
        let (codes, e) = (codes(&quantized), vq.weight());
        let (mut at_z, mut at_e) = (Vec::new(), vec![0.0; e.len()]);
        for (z, &code) in z.as_slice().chunks(4).zip(codes.as_slice()) {
            let row = code as usize * 4..code as usize * 4 + 4;
            for ((z, e), g) in z.iter().zip(&e.as_slice()[row.clone()]).zip(&mut at_e[row]) {
                at_z.push(on_z * 2.0 * (z - e) / 48.0);
                *g += on_e * 2.0 * (e - z) / 48.0;
            }
        }
        close(&gradients.take(&z).unwrap(), &at_z);
        let trained = params.trained();
        assert_eq!(trained.len(), usize::from(on_e > 0.0));
        for (_, weight) in trained {
            close(&gradients.take(&weight.get()).unwrap(), &at_e);
        }
        let energy = quantized.residual_energy.item().unwrap();
        assert!((quantized.loss.item().unwrap() - energy * (on_z + on_e)).abs() < 1e-6);
    }
}

#[test]
fn the_gradient_of_the_value_passes_straight_through() {
    let (z, g) = (random(&[6, 4], 3).leaf(), random(&[6, 4], 4));
    for text in ["vq(codebook: 5)", "vq(codebook: 5, codebook_update: gradient)"] {
        let (vq, params) = vq(text);
        let tape = Tape::start().unwrap();
        let quantized = vq.quantize(&z).unwrap();
        let mut gradients = tape.backward(&quantized.latents.mul(&g).unwrap().sum_all().unwrap()).unwrap();
        assert_eq!(gradients.take(&z).unwrap().to_vec(), g.to_vec());
        assert!(params.trained().iter().all(|(_, weight)| gradients.take(&weight.get()).is_none()));
        assert_eq!(quantized.latents.to_vec(), vq.embed(&quantized.tokens, None).unwrap().to_vec());
    }
}

#[test]
fn training_moves_an_ema_codebook_and_evaluation_moves_none() {
    let z = random(&[8, 2, 3, 4], 5);
    for (text, moves) in [("vq(codebook: 5)", true), ("vq(codebook: 5, codebook_update: gradient)", false)] {
        let (mut vq, params) = vq(text);
        let numbers = |params: &Params| params.state().values().map(Tensor::to_vec).collect::<Vec<_>>();
        let before = numbers(&params);
        vq.quantize(&z).unwrap();
        let request = TokenRequest { stochastic_codes: Some(1.0), ..TokenRequest::default() };
        vq.tokens(&z, &request, &Rng::new(1, "draw", 0)).unwrap();
        assert_eq!(numbers(&params), before);
        let trained = vq.quantize_train(&z, &Rng::new(1, "step", 0)).unwrap();
        assert_eq!(numbers(&params) != before, moves);
        assert_eq!(trained.events.is_empty(), !moves);
    }
}

/// With decay 0 one step of training is one step of k-means: every code becomes the mean of its vectors.
#[test]
fn without_memory_a_step_is_a_step_of_k_means() {
    let (mut vq, _) = vq("vq(codebook: 3, decay: 0.0, eps: 0.0, restart: false)");
    let z = random(&[40, 4], 6);
    let codes = codes(&vq.quantize_train(&z, &Rng::new(1, "step", 0)).unwrap());
    let weight = vq.weight();
    for code in 0..3 {
        let own = |row: &(&[f32], &u32)| *row.1 == code;
        let rows: Vec<_> = z.as_slice().chunks(4).zip(codes.as_slice()).filter(own).collect();
        for c in 0..4 {
            let mean = rows.iter().map(|(z, _)| z[c]).sum::<f32>() / rows.len() as f32;
            assert!((weight.as_slice()[code as usize * 4 + c] - mean).abs() < 1e-5);
        }
    }
}

/// All vectors are alike, so that most codes never get one.
#[test]
fn codes_without_restarts_are_not_thrown_away() {
    let x = random(&[1, 1, 1, 4], 2).broadcast_to(&[2, 2, 3, 4]).unwrap();
    let (mut vq, _) = vq("vq(codebook: 64, restart: false)");
    for step in 0..500 {
        vq.quantize_train(&x, &Rng::new(1, "step", step)).unwrap();
        let largest = vq.weight().as_slice().iter().fold(0.0, |largest: f32, x| largest.max(x.abs()));
        assert!(largest < 5.0, "step {step}: {largest}");
    }
}

#[test]
fn beta_needs_a_loss_to_weigh() {
    let latents = MapShape { height: 1, width: 1, channels: 1 };
    let cx = QuantizerContext { latents, params: Params::dry(), components: Components::none() };
    let error = Vq::new(VqConfig::parse("vq(beta_on: codebook)").unwrap(), &cx).unwrap_err().to_string();
    assert!(error.contains("codebook_update: gradient"), "{error}");
    assert!(VqConfig::parse("vq(codebook: 1)").is_err());
}

#[test]
fn codes_have_one_depth() {
    let (vq, _) = vq("vq(codebook: 64)");
    assert_eq!(vq.level().nominal_bits(), Some(36.0));
    let x = random(&[2, 2, 3, 4], 7);
    let tokens = vq.quantize(&x).unwrap().tokens;
    assert_eq!(tokens.shape(), vq.level().token_shape(2));
    let soft = TokenRequest { soft_targets: Some(1e-4), ..TokenRequest::default() };
    let (nearest, targets) = vq.tokens(&x, &soft, &Rng::new(1, "draw", 0)).unwrap();
    assert_eq!(nearest.codes().unwrap(), tokens.codes().unwrap());
    assert!(matches!(targets, Targets::Soft(targets) if targets.len() == 1 && targets[0].shape() == [2, 2, 3, 64]));
    assert_eq!(vq.embed(&tokens, Some(1)).unwrap().shape(), x.shape());
    assert!(vq.embed(&tokens, Some(2)).is_err());
}

#[test]
fn every_variant_keeps_the_contract_of_a_quantizer() {
    let latents = MapShape { height: 3, width: 2, channels: 6 };
    for text in [
        "vq(codebook: 8)",
        "vq(codebook: 8, codebook_update: gradient, beta_on: codebook)",
        "vq(codebook: 8, restart: false)",
    ] {
        let config = VqConfig::parse(text).unwrap();
        rqlab_sdk::testing::quantizer(latents, |cx| Vq::new(config.clone(), cx));
    }
}
