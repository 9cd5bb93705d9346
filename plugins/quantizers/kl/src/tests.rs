#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use rqlab_sdk::tensor::Tape;

const LATENTS: MapShape = MapShape { height: 2, width: 3, channels: 8 };

fn random(shape: &[usize], seed: u64) -> Tensor {
    Tensor::from_vec(Rng::new(seed, "test", 0).normal(shape.iter().product()), shape).unwrap()
}

fn kl(text: &str) -> Kl {
    let cx = QuantizerContext { latents: LATENTS, params: Params::new(1), components: Components::none() };
    Kl::new(KlConfig::parse(text).unwrap(), &cx).unwrap()
}

/// Moments of one mean and one log-variance everywhere.
fn moments(images: usize, mean: f32, log_variance: f32) -> Tensor {
    let vector = [[mean; 4], [log_variance; 4]].concat();
    Tensor::from_vec(vector.repeat(images * 6), &[images, 2, 3, 8]).unwrap()
}

#[test]
fn every_variant_keeps_the_contract_of_a_quantizer() {
    for text in ["kl", "kl(evaluation: sample)", "kl(free_bits: 0.5, weight: 0.1)"] {
        let config = KlConfig::parse(text).unwrap();
        rqlab_sdk::testing::quantizer(LATENTS, |cx| Kl::new(config.clone(), cx));
    }
}

/// A posterior of half the deviation around 0 tells `ln 2 - 3/8` nats of each element.
#[test]
fn the_rate_is_the_divergence_in_bits() {
    let quantized = kl("kl(weight: 0.5)").quantize(&moments(3, 0.0, 0.25f32.ln())).unwrap();
    let nats = 24.0 * (LN_2 - 0.375);
    assert!((quantized.terms[0].1.item().unwrap() - nats).abs() < 1e-4);
    assert!((quantized.bits.unwrap().item().unwrap() - nats / LN_2).abs() < 1e-4);
    assert!((quantized.loss.item().unwrap() - 0.5 * nats).abs() < 1e-4);
    let standard = kl("kl").quantize(&moments(3, 0.0, 0.0)).unwrap();
    assert!(standard.bits.unwrap().item().unwrap().abs() < 1e-5);
}

/// Below the free bits nothing is gained by telling less.
#[test]
fn free_bits_cost_nothing() {
    let elements = 24.0;
    for (log_variance, told) in [(0.9f32.ln(), false), (0.01f32.ln(), true)] {
        let x = moments(2, 0.0, log_variance).leaf();
        let tape = Tape::start().unwrap();
        let quantized = kl("kl(weight: 1.0, free_bits: 1.0)").quantize(&x).unwrap();
        let gradient = tape.backward(&quantized.loss).unwrap().take(&x).unwrap();
        assert_eq!(gradient.as_slice().iter().any(|g| *g != 0.0), told);
        let loss = quantized.loss.item().unwrap();
        let rate = quantized.bits.unwrap().item().unwrap();
        let wanted = if told { rate * LN_2 } else { elements * LN_2 };
        assert!((loss - wanted).abs() < 1e-3, "{loss} {wanted}");
        assert_eq!(rate > elements, told);
    }
}

/// Means and deviations of draws, within five standard errors.
#[test]
fn training_and_priors_draw_from_the_posterior() {
    let x = moments(400, 1.0, 0.25f32.ln());
    let rng = Rng::new(1, "draw", 0);
    let request = TokenRequest { posterior_draws: true, ..TokenRequest::default() };
    let trained = kl("kl").quantize_train(&x, &rng).unwrap();
    let (asked, _) = kl("kl").tokens(&x, &request, &rng).unwrap();
    for draws in [&trained.latents, asked.vectors().unwrap()] {
        let mean = draws.mean_all().unwrap().item().unwrap();
        let variance = draws.add_scalar(-1.0).unwrap().square().unwrap().mean_all().unwrap().item().unwrap();
        assert!((mean - 1.0).abs() < 0.026 && (variance - 0.25).abs() < 0.018, "{mean} {variance}");
    }
    let soft = TokenRequest { soft_targets: Some(1.0), ..TokenRequest::default() };
    assert!(kl("kl").tokens(&x, &soft, &rng).is_err());
}

#[test]
fn evaluation_takes_the_mode_or_the_same_draw_for_all_images() {
    let x = moments(2, 1.0, 0.0);
    assert!(kl("kl").quantize(&x).unwrap().latents.as_slice().iter().all(|v| *v == 1.0));
    let drawn = kl("kl(evaluation: sample)").quantize(&x).unwrap().latents;
    assert_eq!(drawn.as_slice()[..24], drawn.as_slice()[24..]);
    assert!(drawn.as_slice().windows(2).any(|pair| pair[0] != pair[1]));
}

#[test]
fn a_gaussian_diverges_from_another_as_its_densities_say() {
    let pair = |seed| DiagonalGaussian::of_moments(&random(&[1, 2, 3, 8], seed)).unwrap();
    let (p, q) = (pair(1), pair(2));
    let standard = DiagonalGaussian::of_moments(&Tensor::zeros(&[1, 2, 3, 8])).unwrap();
    for (a, b) in p.kl_to(&standard).unwrap().as_slice().iter().zip(p.kl().unwrap().as_slice()) {
        assert!((a - b).abs() < 1e-5);
    }
    assert!(p.kl_to(&p).unwrap().as_slice().iter().all(|d| d.abs() < 1e-5));
    // KL(p || q) = E_p[ln p - ln q], over draws from p: within 0.1 for an average of 24 elements.
    let (mut difference, draws) = (0.0, 2000);
    for seed in 0..draws {
        let value = p.sample(&random(&[1, 2, 3, 4], 100 + seed)).unwrap();
        let [p_of, q_of] =
            [&p, &q].map(|g| g.negative_log_likelihood(&value).unwrap().mean_all().unwrap().item().unwrap());
        difference += (q_of - p_of) / draws as f32;
    }
    let exact = p.kl_to(&q).unwrap().mean_all().unwrap().item().unwrap();
    assert!((difference - exact).abs() < 0.1, "{difference} {exact}");
}

#[test]
fn channels_must_be_even() {
    let latents = MapShape { channels: 7, ..LATENTS };
    let cx = QuantizerContext { latents, params: Params::dry(), components: Components::none() };
    let error = Kl::new(KlConfig::parse("kl").unwrap(), &cx).unwrap_err().to_string();
    assert!(error.contains("7 channels") && error.contains("double_z: true"), "{error}");
}
