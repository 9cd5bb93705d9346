//! Drawing codes from logits. No gradients.

use super::on_cpu;
use crate::cpu::sampling;
use crate::{Codes, Error, Result, Tensor};

/// What to do with the logits before a draw; `Default` draws from the softmax itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Draw {
    /// Logits are divided by it. Above zero.
    pub temperature: f32,
    /// Keep the k largest logits of a row, and those equal to the k-th.
    pub top_k: Option<usize>,
    /// Keep the most probable codes up to the one with which their probability reaches p (Holtzman et al., "The curious
    /// case of neural text degeneration", ICLR 2020).
    pub top_p: Option<f32>,
}

impl Default for Draw {
    fn default() -> Self {
        Self { temperature: 1.0, top_k: None, top_p: None }
    }
}

impl Draw {
    fn check(&self, op: &'static str) -> Result<()> {
        if !(self.temperature > 0.0 && self.temperature.is_finite()) {
            return Err(Error::shape(op, format!("the temperature must be above 0, found {}", self.temperature)));
        }
        if self.top_k == Some(0) {
            return Err(Error::shape(op, "top_k must be at least 1, found 0"));
        }
        match self.top_p {
            Some(p) if p.is_nan() || p <= 0.0 => Err(Error::shape(op, format!("top_p must be above 0, found {p}"))),
            _ => Ok(()),
        }
    }
}

/// Draws a code from every row of logits [.., K] -> codes [..]: division by the temperature, top-k, softmax, top-p,
/// renormalisation, then the smallest k whose cumulative probability, in index order, exceeds `uniforms[row]`.
///
/// # Errors
/// [`Error::Shape`] if K is 0, there is not one uniform number per row, or `draw` is out of range.
pub fn sample(logits: &Tensor, draw: &Draw, uniforms: &[f32]) -> Result<Codes> {
    draw.check("sample")?;
    let width = check_rows("sample", logits, Some(uniforms))?;
    return_from_gpu!(crate::cuda::sampling::sample(logits, draw, uniforms));
    on_cpu("sample", [logits])?;
    let codes = sampling::sample(logits.as_slice(), width, uniforms, draw.temperature, draw.top_k, draw.top_p);
    Codes::from_vec(codes, &logits.shape()[..logits.rank() - 1])
}

/// The probabilities that [`sample`] draws from: [.., K].
///
/// # Errors
/// As of [`sample`].
pub fn probabilities(logits: &Tensor, draw: &Draw) -> Result<Tensor> {
    draw.check("probabilities")?;
    let width = check_rows("probabilities", logits, None)?;
    return_from_gpu!(crate::cuda::sampling::probabilities(logits, draw));
    on_cpu("probabilities", [logits])?;
    let data = sampling::probabilities(logits.as_slice(), width, draw.temperature, draw.top_k, draw.top_p);
    Tensor::from_vec(data, logits.shape())
}

/// The logits [.., K] with all but the k largest of each row at negative infinity; ties with the k-th are kept.
///
/// # Errors
/// [`Error::Shape`] if K or k is 0.
pub fn top_k_logits(logits: &Tensor, k: usize) -> Result<Tensor> {
    let width = check_rows("top_k_logits", logits, None)?;
    if k == 0 {
        return Err(Error::shape("top_k_logits", "k must be at least 1, found 0"));
    }
    return_from_gpu!(crate::cuda::sampling::top_k(logits, k));
    on_cpu("top_k_logits", [logits])?;
    Tensor::from_vec(sampling::top_k(logits.as_slice(), width, k), logits.shape())
}

/// Probabilities [.., K] cut to the nucleus of each row and renormalised: sorted by falling probability, a code is kept
/// if those before it sum to less than p.
///
/// # Errors
/// [`Error::Shape`] if K is 0 or p is not above 0.
pub fn top_p_probs(probs: &Tensor, p: f32) -> Result<Tensor> {
    Draw { top_p: Some(p), ..Draw::default() }.check("top_p_probs")?;
    let width = check_rows("top_p_probs", probs, None)?;
    return_from_gpu!(crate::cuda::sampling::top_p(probs, p));
    on_cpu("top_p_probs", [probs])?;
    Tensor::from_vec(sampling::top_p(probs.as_slice(), width, p), probs.shape())
}

/// Draws a code from every row of probabilities [.., K] -> codes [..]: the smallest k whose cumulative probability, in
/// index order and in f64, exceeds `uniforms[row]`; the last possible code where rounding leaves none.
///
/// # Errors
/// [`Error::Shape`] if K is 0 or there is not one uniform number per row.
pub fn multinomial(probs: &Tensor, uniforms: &[f32]) -> Result<Codes> {
    let width = check_rows("multinomial", probs, Some(uniforms))?;
    return_from_gpu!(crate::cuda::sampling::multinomial(probs, uniforms));
    on_cpu("multinomial", [probs])?;
    let codes = sampling::multinomial(probs.as_slice(), width, uniforms);
    Codes::from_vec(codes, &probs.shape()[..probs.rank() - 1])
}

/// The width of the rows, after checking that there are some and that each has its uniform number.
fn check_rows(op: &'static str, x: &Tensor, uniforms: Option<&[f32]>) -> Result<usize> {
    let width = x.last_dim();
    if x.rank() == 0 || width == 0 {
        return Err(Error::shape(op, format!("wanted [.., K] with K > 0, found {:?}", x.shape())));
    }
    match uniforms {
        Some(u) if u.len() != x.len() / width => Err(Error::shape(
            op,
            format!("{} uniform numbers for the {} rows of {:?}", u.len(), x.len() / width, x.shape()),
        )),
        _ => Ok(width),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first failure")]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, on_every_device, random};
    use crate::{Device, Rng};

    fn row(data: &[f32]) -> Tensor {
        Tensor::from_vec(data.to_vec(), &[1, data.len()]).unwrap()
    }

    #[test]
    fn the_crossing_code_is_kept_and_one_after_it_is_not() {
        on_every_device(|| {
            let probs = row(&[0.5, 0.3, 0.15, 0.05]);
            assert_close(top_p_probs(&probs, 0.8).unwrap().as_slice(), &[0.625, 0.375, 0.0, 0.0], 1e-7);
            assert_close(
                top_p_probs(&probs, 0.81).unwrap().as_slice(),
                &[0.526_315_8, 0.315_789_5, 0.157_894_7, 0.0],
                1e-6,
            );
            assert_eq!(top_p_probs(&probs, 1e-3).unwrap().to_vec(), [1.0, 0.0, 0.0, 0.0]);
            assert_close(top_p_probs(&probs, 1.0).unwrap().as_slice(), probs.as_slice(), 1e-7);
        });
    }

    #[test]
    fn ties_with_the_kth_logit_are_kept() {
        on_every_device(|| {
            let gone = f32::NEG_INFINITY;
            let logits = row(&[1.0, 3.0, 2.0, 2.0, 0.0]);
            assert_eq!(top_k_logits(&logits, 1).unwrap().to_vec(), [gone, 3.0, gone, gone, gone]);
            assert_eq!(top_k_logits(&logits, 2).unwrap().to_vec(), [gone, 3.0, 2.0, 2.0, gone]);
            assert_eq!(top_k_logits(&logits, 9).unwrap().to_vec(), logits.to_vec());
        });
    }

    #[test]
    fn the_kth_logit_is_that_of_the_sorted_row() {
        on_every_device(|| {
            for width in [1, 2, 15, 16, 17, 100, 513] {
                let mut logits = random(&[1, width], 7).to_vec();
                // Ties, zeros of both signs, and what a mask leaves.
                for (i, x) in logits.iter_mut().enumerate() {
                    *x = [*x, (2.0 * *x).round(), 0.0, -0.0, f32::NEG_INFINITY, 1e-42, -3e38][i * i % 7];
                }
                let mut sorted = logits.clone();
                sorted.sort_by(|a, b| b.total_cmp(a));
                for k in 1..=width {
                    let least = sorted[k - 1];
                    let wanted: Vec<f32> =
                        logits.iter().map(|&x| if x < least { f32::NEG_INFINITY } else { x }).collect();
                    let got = top_k_logits(&row(&logits), k).unwrap().to_vec();
                    assert_eq!(got, wanted, "{k} of {width}");
                }
            }
        });
    }

    #[test]
    fn filters_apply_in_the_published_order() {
        on_every_device(|| {
            for width in [2, 7, 64, 513] {
                let logits = random(&[5, width], 1);
                let draw = Draw { temperature: 0.7, top_k: Some(width.div_ceil(2)), top_p: Some(0.8) };
                let step = top_k_logits(&logits.mul_scalar(1.0 / 0.7).unwrap(), width.div_ceil(2)).unwrap();
                let wanted = top_p_probs(&step.softmax().unwrap(), 0.8).unwrap();
                let got = probabilities(&logits, &draw).unwrap();
                assert_close(got.as_slice(), wanted.as_slice(), 1e-6);
                assert_close(got.sum(&[1], false).unwrap().as_slice(), &[1.0; 5], 1e-6);
                let uniforms = Rng::new(2, "uniforms", 0).uniform(5);
                assert_eq!(sample(&logits, &draw, &uniforms).unwrap(), multinomial(&got, &uniforms).unwrap());
            }
        });
    }

    /// Rows of tied logits too, of which top-p keeps those of the lowest indices.
    #[test]
    fn every_device_draws_the_same() {
        on_every_device(|| {
            for (rows, width) in [(40, 5), (9, 1000), (3, 4099)] {
                for coarse in [false, true] {
                    let mut logits = random(&[rows, width], 8).to_vec();
                    logits.iter_mut().for_each(|x| *x = if coarse { x.round() } else { 3.0 * *x });
                    let logits = Tensor::from_vec(logits, &[rows, width]).unwrap();
                    let there = logits.to_device(Device::Cpu).unwrap();
                    let uniforms = Rng::new(9, "uniforms", 0).uniform(rows);
                    for (temperature, top_k, top_p) in [
                        (1.0, None, None),
                        (0.8, Some(width / 3), None),
                        (1.0, None, Some(0.6)),
                        (1.3, Some(3), Some(0.9)),
                    ] {
                        let draw = Draw { temperature, top_k, top_p };
                        let wanted = probabilities(&there, &draw).unwrap();
                        assert_close(probabilities(&logits, &draw).unwrap().as_slice(), wanted.as_slice(), 1e-6);
                        let wanted = sample(&there, &draw, &uniforms).unwrap();
                        assert_eq!(sample(&logits, &draw, &uniforms).unwrap(), wanted, "{rows} x {width}, {draw:?}");
                    }
                }
            }
        });
    }

    #[test]
    fn a_draw_inverts_the_distribution_function_in_index_order() {
        on_every_device(|| {
            let probs = row(&[0.0, 0.25, 0.0, 0.5, 0.25, 0.0]);
            for (u, code) in [(0.0, 1), (0.2499, 1), (0.25, 3), (0.7499, 3), (0.75, 4), (0.999_999_94, 4)] {
                assert_eq!(multinomial(&probs, &[u]).unwrap().as_slice(), [code], "at {u}");
            }
            // Rounding left the row short of 1: the last possible code.
            assert_eq!(multinomial(&row(&[0.5, 0.499, 0.0]), &[0.9999]).unwrap().as_slice(), [1]);
        });
    }

    #[test]
    fn codes_come_as_often_as_they_are_probable() {
        on_every_device(|| {
            let n = 50_000;
            let logits = row(&[0.0, 1.0, 2.0, -1.0]).broadcast_to(&[n, 4]).unwrap();
            let codes = sample(&logits, &Draw::default(), &Rng::new(3, "uniforms", 0).uniform(n)).unwrap();
            let probs = row(&[0.0, 1.0, 2.0, -1.0]).softmax().unwrap();
            for (k, &p) in probs.as_slice().iter().enumerate() {
                let share = codes.as_slice().iter().filter(|&&code| code == k as u32).count() as f32 / n as f32;
                // Five standard errors of a proportion.
                assert!((share - p).abs() < 5.0 * (p * (1.0 - p) / n as f32).sqrt(), "code {k}: {share} of {p}");
            }
        });
    }

    #[test]
    fn misfits_are_errors() {
        on_every_device(|| {
            let logits = Tensor::zeros(&[2, 3]);
            let plain = Draw::default();
            assert!(sample(&logits, &plain, &[0.5]).is_err() && multinomial(&logits, &[0.5; 3]).is_err());
            assert!(sample(&logits, &Draw { temperature: 0.0, ..plain }, &[0.5; 2]).is_err());
            assert!(probabilities(&logits, &Draw { top_k: Some(0), ..plain }).is_err());
            assert!(probabilities(&logits, &Draw { top_p: Some(0.0), ..plain }).is_err());
            assert!(
                top_k_logits(&Tensor::zeros(&[2, 0]), 1).is_err() && top_p_probs(&Tensor::scalar(1.0), 0.5).is_err()
            );
        });
    }
}
