//! Drawing codes from logits. No gradients.

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
/// [`Error::Shape`] if K is 0, there is not one uniform number a row, or `draw` is out of range.
pub fn sample(logits: &Tensor, draw: &Draw, uniforms: &[f32]) -> Result<Codes> {
    draw.check("sample")?;
    let width = check_rows("sample", logits, Some(uniforms))?;
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
    Tensor::from_vec(sampling::top_p(probs.as_slice(), width, p), probs.shape())
}

/// Draws a code from every row of probabilities [.., K] -> codes [..]: the smallest k whose cumulative probability, in
/// index order and in f64, exceeds `uniforms[row]`; the last possible code where rounding leaves none.
///
/// # Errors
/// [`Error::Shape`] if K is 0 or there is not one uniform number a row.
pub fn multinomial(probs: &Tensor, uniforms: &[f32]) -> Result<Codes> {
    let width = check_rows("multinomial", probs, Some(uniforms))?;
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
