//! Vectors of length 1.

use crate::Result;
use crate::tensor::Tensor;

/// Vectors `[.., C]` divided by their lengths; lengths below 1e-12 count as 1e-12. Gradients flow.
///
/// # Errors
/// A tensor of rank 0.
pub fn l2_normalize(vectors: &Tensor) -> Result<Tensor> {
    let last = vectors.rank().saturating_sub(1);
    let length = vectors.square()?.sum(&[last], true)?.clamp(1e-24, f32::INFINITY)?.sqrt()?;
    Ok(vectors.div(&length)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::nn::testing::random;
    use crate::tensor::Tape;

    /// The gradient g comes back as `(g - (g·u) u) / |x|`, u being x / |x|.
    #[test]
    fn lengths_are_one_and_gradients_lie_across() {
        let (x, g) = (random(&[3, 5], 1).leaf(), random(&[3, 5], 2));
        let tape = Tape::start().unwrap();
        let unit = l2_normalize(&x).unwrap();
        let loss = unit.mul(&g).unwrap().sum_all().unwrap();
        let gradient = tape.backward(&loss).unwrap().take(&x).unwrap();
        let rows = x.as_slice().chunks(5).zip(unit.as_slice().chunks(5)).zip(g.as_slice().chunks(5));
        for (((x, u), g), gradient) in rows.zip(gradient.as_slice().chunks(5)) {
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
            assert!((dot(u, u) - 1.0).abs() < 1e-6);
            for i in 0..5 {
                assert!((gradient[i] - (g[i] - dot(g, u) * u[i]) / dot(x, x).sqrt()).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn a_vector_of_zeros_stays_and_sends_finite_gradients() {
        let x = Tensor::zeros(&[1, 4]).leaf();
        let tape = Tape::start().unwrap();
        let unit = l2_normalize(&x).unwrap();
        assert_eq!(unit.to_vec(), [0.0; 4]);
        let gradient = tape.backward(&unit.sum_all().unwrap()).unwrap().take(&x).unwrap();
        assert!(gradient.as_slice().iter().all(|g| g.is_finite()));
    }
}
