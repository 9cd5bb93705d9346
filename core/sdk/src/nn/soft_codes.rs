//! Codes drawn by distance, and soft targets (Lee et al., "Autoregressive image generation using residual quantization",
//! CVPR 2022, section 3.2.3).

use crate::contracts::{Targets, TokenRequest, Tokens};
use crate::tensor::ops::nearest::{nearest, squared_distances};
use crate::tensor::ops::sampling::multinomial;
use crate::tensor::{Codes, Rng, Tensor};
use crate::{Error, Result};

/// Codes of latents, and for each depth the distributions that they were chosen from.
#[derive(Debug, Clone)]
pub struct SoftCodes {
    /// The codes `[.., D]`: the nearest, or drawn.
    pub codes: Codes,
    /// For each depth the distribution over its codebook, `[.., K_d]`.
    pub targets: Vec<Tensor>,
}

/// Codes of vectors `[.., C]` against codes `[K, C]`, with the distribution over all of them at `temperature`,
/// `softmax(-|x - e_k|² / T)`: `[..]` and `[.., K]`. Without `uniforms` each code is the nearest; with one uniform number
/// per vector, each is drawn from its distribution. No gradients.
///
/// # Errors
/// [`Error::Unsupported`] if the temperature is not above 0; shapes that do not fit.
pub fn soft_codes(
    vectors: &Tensor,
    weight: &Tensor,
    temperature: f32,
    uniforms: Option<&[f32]>,
) -> Result<(Codes, Tensor)> {
    if !(temperature > 0.0 && temperature.is_finite()) {
        return Err(Error::Unsupported(format!("soft codes need a temperature above 0, found {temperature}")));
    }
    let (vectors, weight) = (vectors.detach(), weight.detach());
    let targets = squared_distances(&vectors, &weight)?.mul_scalar(-1.0 / temperature)?.softmax()?;
    let codes = match uniforms {
        None => nearest(&vectors, &weight)?,
        Some(uniforms) => multinomial(&targets, uniforms)?,
    };
    Ok((codes, targets))
}

/// The tokens and targets of a request, for a quantizer that makes codes. `nearest` gives the codes of plain quantization;
/// `soft(T, draw)` the distributions at temperature T, along the nearest codes if `draw` is none, else along codes drawn with
/// that stream.
///
/// Soft targets at the temperature of the drawn codes are the distributions that these were drawn from. At another
/// temperature, or with nearest codes, they are those along the nearest codes.
///
/// # Errors
/// [`Error::Unsupported`] if posterior draws are asked for; those of `nearest` and `soft`.
pub fn code_tokens(
    request: &TokenRequest,
    rng: &Rng,
    nearest: impl FnOnce() -> Result<Codes>,
    soft: impl Fn(f32, Option<&Rng>) -> Result<SoftCodes>,
) -> Result<(Tokens, Targets)> {
    if request.posterior_draws {
        let message = "this quantizer makes codes, which have no posterior; ask for stochastic codes instead";
        return Err(Error::Unsupported(message.to_owned()));
    }
    let (codes, targets) = match (request.stochastic_codes, request.soft_targets) {
        (None, None) => (nearest()?, Targets::Hard),
        (None, Some(temperature)) => {
            let nearest = soft(temperature, None)?;
            (nearest.codes, Targets::Soft(nearest.targets))
        }
        (Some(temperature), None) => (soft(temperature, Some(rng))?.codes, Targets::Hard),
        (Some(drawn_at), Some(soft_at)) => {
            let drawn = soft(drawn_at, Some(rng))?;
            let targets = if drawn_at == soft_at { drawn.targets } else { soft(soft_at, None)?.targets };
            (drawn.codes, Targets::Soft(targets))
        }
    };
    Ok((Tokens::Codes(codes), targets))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
    use super::*;
    use crate::nn::testing::random;

    #[test]
    fn cold_soft_codes_are_one_hot_and_hot_ones_uniform() {
        let (x, e) = (random(&[50, 6], 5), random(&[9, 6], 6));
        let (codes, cold) = soft_codes(&x, &e, 1e-3, None).unwrap();
        let (_, hot) = soft_codes(&x, &e, 1e6, None).unwrap();
        for ((&code, cold), hot) in codes.as_slice().iter().zip(cold.as_slice().chunks(9)).zip(hot.as_slice().chunks(9))
        {
            assert!(cold[code as usize] > 0.99);
            assert!(hot.iter().all(|p| (p - 1.0 / 9.0).abs() < 1e-3));
        }
        let uniforms = Rng::new(7, "draw", 0).uniform(50);
        assert_eq!(soft_codes(&x, &e, 1e-3, Some(&uniforms)).unwrap().0, codes);
        assert!(soft_codes(&x, &e, 0.0, None).is_err());
    }

    /// Tells by its number which call it came from: 0 for nearest, T for soft targets, 10 T for drawn codes.
    fn answer(request: &TokenRequest) -> (u32, Option<f32>) {
        let codes = |code: f32| Codes::from_vec(vec![code as u32], &[1, 1]).unwrap();
        let soft = |t: f32, draw: Option<&Rng>| {
            let mark = if draw.is_some() { 10.0 * t } else { t };
            Ok(SoftCodes { codes: codes(mark), targets: vec![Tensor::full(mark, &[1, 1])] })
        };
        let (tokens, targets) = code_tokens(request, &Rng::new(0, "draw", 0), || Ok(codes(0.0)), soft).unwrap();
        let targets = match targets {
            Targets::Hard => None,
            Targets::Soft(targets) => Some(targets[0].item().unwrap()),
        };
        (tokens.codes().unwrap().as_slice()[0], targets)
    }

    #[test]
    fn tokens_and_targets_are_what_was_asked_for() {
        let request = |stochastic_codes, soft_targets| {
            answer(&TokenRequest { stochastic_codes, soft_targets, ..TokenRequest::default() })
        };
        assert_eq!(request(None, None), (0, None));
        assert_eq!(request(None, Some(2.0)), (2, Some(2.0)));
        assert_eq!(request(Some(2.0), None), (20, None));
        assert_eq!(request(Some(2.0), Some(2.0)), (20, Some(20.0)));
        assert_eq!(request(Some(2.0), Some(3.0)), (20, Some(3.0)));
    }

    #[test]
    fn codes_have_no_posterior() {
        let request = TokenRequest { posterior_draws: true, ..TokenRequest::default() };
        let refused = Error::Unsupported("not called".to_owned());
        let got = code_tokens(&request, &Rng::new(0, "draw", 0), || Err(refused), |_, _| panic!("not called"));
        assert!(got.unwrap_err().to_string().contains("posterior"));
    }
}
