//! The straight-through estimator.

use crate::{Error, Result, Tensor};

impl Tensor {
    /// The value of `forward` with the gradient passed to `self`: `self + sg(forward - self)`, bit-equal to `forward`
    /// (Bengio et al., "Estimating or propagating gradients through stochastic neurons", 2013).
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes differ.
    pub fn straight_through(&self, forward: &Tensor) -> Result<Tensor> {
        if self.shape() != forward.shape() {
            return Err(Error::shape(
                "straight_through",
                format!("shapes differ: {:?} and {:?}", self.shape(), forward.shape()),
            ));
        }
        // The output shares the gradient of `self`, so nothing need be recorded.
        Ok(forward.with_grad(self.tracked()))
    }
}
