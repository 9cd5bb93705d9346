//! Weight normalisation.

use super::kernel::{Kernel, run};
use crate::cpu::norm::weight;
#[cfg(feature = "cuda")]
use crate::cuda::{Gpu, Numbers};
use crate::{Error, Result, Tensor};
#[cfg(feature = "cuda")]
use dfdx::prelude::CudaError;

/// `g v / |v|` of rows.
struct Normalise;

impl Kernel<2> for Normalise {
    fn cpu(&self, [v, g]: [&[f32]; 2]) -> Vec<f32> {
        weight::normalise(v, g)
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, gpu: &Gpu, [v, g]: [&Numbers; 2]) -> Result<Numbers, CudaError> {
        gpu.weight_norm(v, g)
    }
}

/// The gradient of v.
struct DirectionGradient;

impl Kernel<3> for DirectionGradient {
    fn cpu(&self, [grad, v, g]: [&[f32]; 3]) -> Vec<f32> {
        weight::direction_gradient(grad, v, g)
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, gpu: &Gpu, [grad, v, g]: [&Numbers; 3]) -> Result<Numbers, CudaError> {
        gpu.weight_norm_direction(grad, v, g)
    }
}

/// The gradient of g, of which there are `rows`.
struct LengthGradient {
    rows: usize,
}

impl Kernel<2> for LengthGradient {
    fn cpu(&self, [grad, v]: [&[f32]; 2]) -> Vec<f32> {
        weight::length_gradient(grad, v, self.rows)
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, gpu: &Gpu, [grad, v]: [&Numbers; 2]) -> Result<Numbers, CudaError> {
        gpu.weight_norm_length(grad, v, self.rows)
    }
}

impl Tensor {
    /// `g v / |v|`: the rows of this weight v `[O, ..]` at lengths g, which has O elements in any shape (Salimans and Kingma,
    /// "Weight normalization", 2016).
    ///
    /// # Errors
    /// [`Error::Shape`] unless there is a length for every row.
    pub fn weight_norm(&self, g: &Tensor) -> Result<Tensor> {
        let rows = self.shape().first().copied().unwrap_or(0);
        if g.len() != rows || self.is_empty() {
            let message = format!("lengths {:?} for the rows of {:?}", g.shape(), self.shape());
            return Err(Error::shape("weight_norm", message));
        }
        run("weight_norm", &Normalise, [self, g], self.shape())?.with_backward(&[self, g], |_| {
            let (v, g) = (self.detach(), g.detach());
            move |grad, gradients| {
                gradients.add(1, run("weight_norm", &LengthGradient { rows }, [&grad, &v], g.shape())?)?;
                gradients.add(0, run("weight_norm", &DirectionGradient, [&grad, &v, &g], v.shape())?)
            }
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first failure")]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, check_gradients, on_every_device, random};

    #[test]
    fn rows_have_their_lengths_and_directions() {
        on_every_device(|| {
            for shape in [&[1, 1][..], &[3, 5], &[4, 3, 3, 2], &[130, 67]] {
                let (v, g) = (random(shape, 1), random(&[shape[0], 1], 2));
                let width = v.len() / shape[0];
                let mut wanted = Vec::new();
                for (row, &g) in v.as_slice().chunks(width).zip(g.as_slice()) {
                    let length = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
                    wanted.extend(row.iter().map(|&x| (f64::from(g) * f64::from(x) / length) as f32));
                }
                assert_close(v.weight_norm(&g).unwrap().as_slice(), &wanted, 1e-6);
                if width > 1 {
                    check_gradients(&[v, g], |t| t[0].weight_norm(&t[1]), 2e-3);
                }
            }
            assert!(Tensor::zeros(&[2, 3]).weight_norm(&Tensor::zeros(&[3])).is_err());
        });
    }
}
