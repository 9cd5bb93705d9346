//! What the tests of blocks share.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use crate::Result;
use crate::params::Params;
use crate::tensor::{Rng, Tape, Tensor};

/// Standard normal numbers.
pub(crate) fn random(shape: &[usize], seed: u64) -> Tensor {
    Tensor::from_vec(Rng::new(seed, "test", 0).normal(shape.iter().product()), shape).unwrap()
}

/// Runs `f` on random numbers of shape `input`; returns the shape of the output, and for the input and every parameter
/// the largest magnitude in its gradient (NaN if one is not finite).
pub(crate) fn largest_gradients(
    params: &Params,
    input: &[usize],
    f: impl Fn(&Tensor) -> Result<Tensor>,
) -> (Vec<usize>, Vec<(String, f32)>) {
    let x = random(input, 1).leaf();
    let tape = Tape::start().unwrap();
    let y = f(&x).unwrap();
    // A random projection: the plain sum of a normalised map has no gradient.
    let loss = y.mul(&random(y.shape(), 2)).unwrap().sum_all().unwrap();
    let mut gradients = tape.backward(&loss).unwrap();
    let leaves = params.trained().into_iter().map(|(name, var)| (name, var.get())).chain([("input".to_owned(), x)]);
    let largest = leaves.map(|(name, leaf)| {
        let gradient = gradients.take(&leaf).unwrap_or_else(|| Tensor::zeros(leaf.shape())).to_vec();
        let finite = gradient.iter().all(|g| g.is_finite());
        (name, if finite { gradient.iter().fold(0.0f32, |m, g| m.max(g.abs())) } else { f32::NAN })
    });
    (y.shape().to_vec(), largest.collect())
}

/// Checks that the input and every parameter get a gradient; returns the shape of the output.
pub(crate) fn every_parameter_learns(
    params: &Params,
    input: &[usize],
    f: impl Fn(&Tensor) -> Result<Tensor>,
) -> Vec<usize> {
    let (shape, gradients) = largest_gradients(params, input, f);
    for (name, gradient) in gradients {
        assert!(gradient > 0.0, "the gradient of {name} is {gradient}");
    }
    shape
}
