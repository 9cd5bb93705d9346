#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use rqlab_sdk::tensor::Tape;

fn build(text: &str, channels: usize, params: &Params) -> Result<Fsq> {
    let latents = MapShape { height: 2, width: 3, channels };
    let cx = QuantizerContext { latents, params: params.clone(), components: Components::none() };
    Fsq::new(FsqConfig::parse(text).unwrap(), &cx)
}

fn fsq(text: &str, channels: usize) -> Fsq {
    build(text, channels, &Params::new(1)).unwrap()
}

fn rows(numbers: &[f32], channels: usize) -> Tensor {
    Tensor::from_vec(numbers.to_vec(), &[numbers.len() / channels, channels]).unwrap()
}

fn codes(quantized: &Quantized) -> Vec<u32> {
    quantized.tokens.codes().unwrap().as_slice().to_vec()
}

/// The published grid: 0 lies in the middle of 8, 5, 5, 5 levels, and the outer values are the first and the last code.
#[test]
fn zero_and_the_ends_have_the_published_codes() {
    let x = rows(&[0.0, 0.0, 0.0, 0.0, 3.0, 3.0, 3.0, 3.0, -3.0, -3.0, -3.0, -3.0], 4);
    let quantized = fsq("fsq", 4).quantize(&x).unwrap();
    assert_eq!(codes(&quantized), [500, 999, 0]);
    let wanted = [0.0, 0.0, 0.0, 0.0, 0.75, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0];
    assert_eq!(quantized.latents.to_vec(), wanted);
}

#[test]
fn every_level_is_reached_and_no_other() {
    for (text, levels) in [("fsq(levels: [2])", 2), ("fsq(levels: [7])", 7), ("fsq(levels: [8])", 8)]
        .into_iter()
        .chain([("fsq(levels: [2], symmetric: true)", 2), ("fsq(levels: [8], symmetric: true)", 8)])
    {
        let x: Vec<f32> = (-400..=400).map(|i| i as f32 / 20.0).collect();
        let quantized = fsq(text, 1).quantize(&rows(&x, 1)).unwrap();
        let codes = codes(&quantized);
        assert!(codes.is_sorted() && codes[0] == 0 && codes[800] == levels - 1, "{text}");
        assert!(codes.windows(2).all(|pair| pair[1] - pair[0] <= 1), "{text}");
        assert!(quantized.latents.as_slice().iter().all(|x| (-1.0..=1.0).contains(x)), "{text}");
    }
}

/// The rounding passes the gradient of the bound: at 0, with an odd number of levels, `h / (L div 2)`.
#[test]
fn gradients_are_those_of_the_bound() {
    for (text, wanted) in [("fsq(levels: [5])", 2.0 * 1.001 / 2.0), ("fsq(levels: [5], symmetric: true)", 1.0)] {
        let x = rows(&[0.0], 1).leaf();
        let tape = Tape::start().unwrap();
        let value = fsq(text, 1).quantize(&x).unwrap().latents.sum_all().unwrap();
        let gradient = tape.backward(&value).unwrap().take(&x).unwrap().item().unwrap();
        assert!((gradient - wanted).abs() < 1e-5, "{gradient} {wanted}");
    }
}

#[test]
fn cold_soft_codes_are_the_codes() {
    let x = Tensor::from_vec(Rng::new(1, "x", 0).normal(120), &[10, 2, 3, 2]).unwrap();
    for text in ["fsq(levels: [5, 4])", "fsq(levels: [5, 4], sub_tokens: [1, 1])"] {
        let fsq = fsq(text, 2);
        let request = TokenRequest { stochastic_codes: Some(1e-4), ..TokenRequest::default() };
        let (tokens, _) = fsq.tokens(&x, &request, &Rng::new(1, "draw", 0)).unwrap();
        assert_eq!(tokens.codes().unwrap(), fsq.quantize(&x).unwrap().tokens.codes().unwrap());
    }
}

#[test]
fn what_cannot_be_is_refused_in_the_plan() {
    let complaint = |text: &str| build(text, 4, &Params::dry()).unwrap_err().to_string();
    assert!(complaint("fsq(levels: [8, 6, 5])").contains("`code_channels: 3`"));
    assert!(complaint("fsq(levels: [1024, 1024, 1024, 1024])").contains("sub_tokens"));
    assert!(complaint("fsq(levels: [5, 5, 5, 5000], sub_tokens: [2, 2])").contains("1 / 4999"));
    assert_eq!(fsq("fsq(levels: [8, 6, 5], projection: true)", 64).level().sizes(), [240]);
    for text in ["fsq(levels: [1, 5])", "fsq(eps: 0.0)"] {
        assert!(FsqConfig::parse(text).is_err(), "{text}");
    }
}

#[test]
fn every_variant_keeps_the_contract_of_a_quantizer() {
    for (text, channels) in [
        ("fsq(levels: [8, 5, 5, 5])", 4),
        ("fsq(levels: [4, 3], symmetric: true, estimator: rotation)", 2),
        ("fsq(levels: [5, 4, 3], sub_tokens: [1, 2])", 3),
        ("fsq(levels: [5, 4, 3], sub_tokens: [2, 1], projection: true)", 6),
    ] {
        let latents = MapShape { height: 3, width: 2, channels };
        let config = FsqConfig::parse(text).unwrap();
        rqlab_sdk::testing::quantizer(latents, |cx| Fsq::new(config.clone(), cx));
    }
}
