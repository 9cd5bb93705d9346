//! An average of the weights over training.

use crate::Result;
use crate::params::{Init, Params};
use crate::tensor::ops::optim::ema_all;
use crate::tensor::{Tensor, Var};
use std::collections::BTreeMap;

/// The exponential moving average of a model's parameters: `average <- decay average + (1 - decay) parameter` after each
/// step. It starts at the parameters' first values.
#[derive(Debug)]
pub struct WeightAverage {
    decay: f32,
    pairs: Vec<(Var, Var)>,
    state: Params,
}

impl WeightAverage {
    /// An average of `parameters`, as [`Params::trained`] lists them.
    ///
    /// # Errors
    /// Two parameters of one name.
    pub fn new(parameters: Vec<(String, Var)>, decay: f32) -> Result<Self> {
        let state = Params::new(0);
        let scope = state.scope("average");
        let pair = |(name, parameter): (String, Var)| {
            let value = parameter.get();
            let average = scope.buffer(&name, value.shape(), Init::ZEROS)?;
            average.set(&value)?;
            Ok((parameter, average))
        };
        let pairs = parameters.into_iter().map(pair).collect::<Result<_>>()?;
        Ok(Self { decay, pairs, state })
    }

    /// Takes in the parameters as they are now; to be called after each optimizer step.
    ///
    /// # Errors
    /// None that a caller could cause.
    pub fn update(&mut self) -> Result<()> {
        Ok(ema_all(&self.pairs, self.decay)?)
    }

    /// Runs `evaluate` with the average in the parameters' place, and puts the parameters back, also on a panic.
    pub fn with<R>(&self, evaluate: impl FnOnce() -> R) -> R {
        struct Swapped<'a>(&'a WeightAverage);
        impl Drop for Swapped<'_> {
            fn drop(&mut self) {
                self.0.swap();
            }
        }
        self.swap();
        let _back = Swapped(self);
        evaluate()
    }

    fn swap(&self) {
        for (parameter, average) in &self.pairs {
            // Made in pairs of one shape on one device.
            let _ = parameter.swap(average);
        }
    }

    /// The averages by name: `average.NAME`.
    pub fn state(&self) -> BTreeMap<String, Tensor> {
        self.state.state()
    }

    /// Goes on from a saved state; other names in it are ignored.
    ///
    /// # Errors
    /// [`crate::Error::Checkpoint`] names what is missing or has another shape; nothing is changed then.
    pub fn load(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        self.state.load(state)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
    use super::*;

    fn at(value: f32) -> Tensor {
        Tensor::full(value, &[2])
    }

    #[test]
    fn it_follows_the_parameters_and_stands_in_for_them() {
        let params = Params::new(0);
        let w = params.parameter("w", &[2], Init::ZEROS).unwrap();
        let mut average = WeightAverage::new(params.trained(), 0.75).unwrap();
        w.set(&at(8.0)).unwrap();
        average.update().unwrap();
        average.update().unwrap();
        // 0 -> 2 -> 3.5
        assert_eq!(average.with(|| w.get().to_vec()), [3.5; 2]);
        assert_eq!(w.get().to_vec(), [8.0; 2]);
        assert_eq!(average.state()["average.w"].to_vec(), [3.5; 2]);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| average.with(|| panic!("evaluation"))));
        assert!(panicked.is_err());
        assert_eq!(w.get().to_vec(), [8.0; 2]);
    }

    #[test]
    fn it_is_restored_by_name() {
        let params = Params::new(0);
        let w = params.parameter("w", &[2], Init::ONES).unwrap();
        let mut average = WeightAverage::new(params.trained(), 0.5).unwrap();
        average.load(&BTreeMap::from([("average.w".to_owned(), at(5.0))])).unwrap();
        average.update().unwrap();
        assert_eq!(average.with(|| w.get().to_vec()), [3.0; 2]);
        assert!(average.load(&BTreeMap::new()).unwrap_err().to_string().contains("average.w"));
    }
}
