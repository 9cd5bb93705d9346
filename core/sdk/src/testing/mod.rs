//! Tests of the contracts, for the authors of plugins: one call checks what a component promises, and panics with every
//! promise that it breaks.
//!
//! ```ignore
//! #[test]
//! fn it_keeps_the_contract_of_a_quantizer() {
//!     let latents = MapShape { height: 2, width: 3, channels: 4 };
//!     rqlab_sdk::testing::quantizer(latents, |cx| Round::new(RoundConfig::parse("round").unwrap(), cx));
//! }
//! ```
//!
//! Components are built small and with their first random values; nothing is trained but an objective's critic, for a few
//! steps. All randomness is fixed: a test that passes once passes always.

#![allow(clippy::panic, reason = "what a component breaks is said by failing its test")]

mod autoencoder;
mod dataset;
mod gradients;
mod objective;
mod prior;
mod quantizer;
pub mod toys;

pub use autoencoder::autoencoder;
pub use dataset::dataset;
pub use objective::objective;
pub use prior::{PriorCase, code_prior, prior};
pub use quantizer::quantizer;

use crate::params::Params;
use crate::tensor::{Rng, Tensor};

/// A promise that does not hold: what was found, and what was wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Broken(String);

impl<E: std::error::Error> From<E> for Broken {
    fn from(error: E) -> Self {
        Self(format!("failed: {error}"))
    }
}

/// What came of the check of one promise.
type Check<T = ()> = Result<T, Broken>;

/// Fails unless `holds`.
fn ensure(holds: bool, complaint: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(Broken(complaint())) }
}

/// The promises that do not hold, by name.
fn broken(checks: impl IntoIterator<Item = (&'static str, Check)>) -> Vec<(&'static str, String)> {
    checks.into_iter().filter_map(|(promise, check)| check.err().map(|Broken(what)| (promise, what))).collect()
}

/// Panics if there is a promise that does not hold.
#[track_caller]
fn settle(component: &str, broken: &[(&'static str, String)]) {
    if !broken.is_empty() {
        let lines: Vec<String> = broken.iter().map(|(promise, what)| format!("- {promise}: {what}")).collect();
        panic!("the {component} breaks its contract:\n{}", lines.join("\n"));
    }
}

/// Standard normal numbers.
fn random(shape: &[usize], purpose: &str) -> Tensor {
    let numbers = Rng::new(7, purpose, 0).normal(shape.iter().product());
    Tensor::from_vec(numbers, shape).unwrap_or_else(|_| Tensor::zeros(shape))
}

/// Images `[B, H, W, C]` in [-1, 1].
fn random_images(shape: &[usize], purpose: &str) -> Tensor {
    let numbers = Rng::new(7, purpose, 0).uniform(shape.iter().product()).into_iter().map(|x| 2.0 * x - 1.0).collect();
    Tensor::from_vec(numbers, shape).unwrap_or_else(|_| Tensor::zeros(shape))
}

/// Fails unless shapes are equal and no number differs by more than `tolerance`; 0 asks for equal bits.
fn close(what: &str, found: &Tensor, wanted: &Tensor, tolerance: f32) -> Check {
    ensure(found.shape() == wanted.shape(), || {
        format!("{what} has shape {:?}, not {:?}", found.shape(), wanted.shape())
    })?;
    let differences = found.as_slice().iter().zip(wanted.as_slice()).map(|(a, b)| (a - b).abs());
    let worst = differences.fold(0.0f32, |worst, d| if d.is_nan() { f32::INFINITY } else { worst.max(d) });
    ensure(worst <= tolerance, || format!("{what} differs by {worst}, and at most {tolerance} is allowed"))
}

/// Fails unless `value` is one finite number.
fn finite(what: &str, value: &Tensor) -> Check<f64> {
    ensure(value.rank() == 0, || format!("{what} must be of rank 0, found shape {:?}", value.shape()))?;
    let value = f64::from(value.item()?);
    ensure(value.is_finite(), || format!("{what} is {value}"))?;
    Ok(value)
}

/// Fails unless all terms are of rank 0, or of rank 1 where that is allowed, finite, and without gradients.
fn terms(terms: &[(&'static str, Tensor)], ranks: usize) -> Check {
    for (name, value) in terms {
        ensure(value.rank() <= ranks, || format!("the term `{name}` has shape {:?}", value.shape()))?;
        ensure(!value.wants_grad(), || format!("the term `{name}` carries a gradient; detach it"))?;
        ensure(value.as_slice().iter().all(|x| x.is_finite()), || format!("the term `{name}` is not finite"))?;
    }
    Ok(())
}

/// All numbers of a model: to see whether they change.
#[derive(Debug, PartialEq)]
struct Snapshot(Vec<(String, Vec<u32>)>);

impl Snapshot {
    fn of(params: &Params) -> Self {
        let bits = |t: &Tensor| t.as_slice().iter().map(|x| x.to_bits()).collect();
        Self(params.state().iter().map(|(name, value)| (name.clone(), bits(value))).collect())
    }

    /// Of the trained parameters alone.
    fn of_trained(params: &Params) -> Self {
        let trained = params.trained();
        let mut all = Self::of(params);
        all.0.retain(|(name, _)| trained.iter().any(|(trained, _)| trained == name));
        all
    }

    /// Fails if one of its numbers is another now.
    fn unchanged(&self, params: &Params, by: &str) -> Check {
        let now = Self::of(params);
        match self.0.iter().find(|before| !now.0.contains(before)) {
            Some((name, _)) => Err(Broken(format!("{by} changes `{name}`"))),
            None => Ok(()),
        }
    }
}
