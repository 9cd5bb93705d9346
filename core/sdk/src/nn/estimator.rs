//! How gradients pass a quantizer.

use super::rotate_to;
use crate::Result;
use crate::tensor::Tensor;

crate::choice! {
    /// How gradients pass a quantizer: the field `estimator` of every quantizer that rounds.
    pub enum Estimator {
        /// Unchanged, as if nothing had been quantized (Bengio et al. 2013).
        StraightThrough = "straight_through",
        /// Rotated and scaled with the latents onto their quantized values (Fifty et al., ICLR 2025).
        Rotation = "rotation",
    }
}

impl Estimator {
    /// The numbers of `value` `[.., C]`, bit for bit, with a gradient for `latents` `[.., C]` and none for `value`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn pass(self, latents: &Tensor, value: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::StraightThrough => latents.straight_through(value)?,
            // The rotated latents are `value` but for rounding.
            Self::Rotation => rotate_to(latents, value)?.straight_through(value)?,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::nn::testing::random;
    use crate::tensor::Tape;

    #[test]
    fn the_value_is_exact_and_the_gradient_is_the_estimators() {
        let (x, value, g) = (random(&[7, 5], 1).leaf(), random(&[7, 5], 2).leaf(), random(&[7, 5], 3));
        let gradient = |pass: &dyn Fn() -> Tensor| {
            let tape = Tape::start().unwrap();
            let y = pass();
            let mut gradients = tape.backward(&y.mul(&g).unwrap().sum_all().unwrap()).unwrap();
            assert!(gradients.take(&value).is_none());
            (y.to_vec(), gradients.take(&x).unwrap().to_vec())
        };
        let straight = gradient(&|| Estimator::StraightThrough.pass(&x, &value).unwrap());
        assert_eq!(straight, (value.to_vec(), g.to_vec()));
        let (rotated, by_rotation) = gradient(&|| Estimator::Rotation.pass(&x, &value).unwrap());
        assert_eq!(rotated, value.to_vec());
        assert_eq!(by_rotation, gradient(&|| rotate_to(&x, &value).unwrap()).1);
    }
}
