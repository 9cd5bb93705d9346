//! The straight-through estimator.

use crate::{Error, Result, Tensor};

impl Tensor {
    /// The value of `forward` with the gradient passed to `self`: `self + sg(forward - self)`, bit-equal to `forward`
    /// (Bengio et al., "Estimating or propagating gradients through stochastic neurons", 2013).
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes differ.
    pub fn straight_through(&self, forward: &Tensor) -> Result<Tensor> {
        super::common_device("straight_through", [self, forward])?;
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first failure")]
mod tests {
    use crate::Tape;
    use crate::ops::testing::{on_every_device, random};

    #[test]
    fn the_value_is_forward_and_the_gradient_is_that_of_self() {
        on_every_device(|| {
            let (x, forward) = (random(&[3, 5], 1).leaf(), random(&[3, 5], 2).leaf());
            let weights = random(&[3, 5], 3);
            let tape = Tape::start().unwrap();
            let y = x.straight_through(&forward).unwrap();
            assert_eq!(y.as_slice(), forward.as_slice());
            let loss = y.mul(&weights).unwrap().sum_all().unwrap();
            let mut gradients = tape.backward(&loss).unwrap();
            assert_eq!(gradients.take(&x).unwrap().to_vec(), weights.to_vec());
            assert!(gradients.take(&forward).is_none());
            assert!(x.straight_through(&random(&[5, 3], 4)).is_err());
        });
    }
}
