//! Gated linear units.

use super::kernel::{Kernel, run};
use crate::cpu::loops::gate;
#[cfg(feature = "cuda")]
use crate::cuda::{Gpu, Numbers};
use crate::{Error, Result, Tensor};
#[cfg(feature = "cuda")]
use dfdx::prelude::CudaError;

/// `x + a sigmoid(b)` of rows of `width`.
struct AddGlu {
    width: usize,
}

impl Kernel<2> for AddGlu {
    fn cpu(&self, [x, gates]: [&[f32]; 2]) -> Vec<f32> {
        gate::add_glu(x, gates, self.width)
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, gpu: &Gpu, [x, gates]: [&Numbers; 2]) -> Result<Numbers, CudaError> {
        gpu.add_glu(x, gates, self.width)
    }
}

/// The gradient of both halves from that of `a sigmoid(b)`.
struct GluGradient {
    width: usize,
}

impl Kernel<2> for GluGradient {
    fn cpu(&self, [grad, gates]: [&[f32]; 2]) -> Vec<f32> {
        gate::glu_gradient(grad, gates, self.width)
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, gpu: &Gpu, [grad, gates]: [&Numbers; 2]) -> Result<Numbers, CudaError> {
        gpu.glu_gradient(grad, gates, self.width)
    }
}

impl Tensor {
    /// `self + a sigmoid(b)`, where a and b are the halves of the innermost axis of `gates`: a residual connection with a gated
    /// linear unit (Dauphin et al., "Language modeling with gated convolutional networks", 2017). `[.., C]` and `[.., 2C]` give
    /// `[.., C]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes do not fit.
    pub fn add_glu(&self, gates: &Tensor) -> Result<Tensor> {
        let width = self.last_dim();
        let wanted = self.shape().split_last().map(|(&last, outer)| [outer, &[2 * last]].concat());
        if wanted.as_deref() != Some(gates.shape()) {
            let message = format!("gates {:?} are not twice as wide as {:?}", gates.shape(), self.shape());
            return Err(Error::shape("add_glu", message));
        }
        run("add_glu", &AddGlu { width }, [self, gates], self.shape())?.with_backward(&[self, gates], |_| {
            let gates = gates.detach();
            move |grad, gradients| {
                gradients.add(1, run("add_glu", &GluGradient { width }, [&grad, &gates], gates.shape())?)?;
                gradients.add(0, grad)
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
    fn a_gate_lets_through_what_its_sigmoid_says() {
        on_every_device(|| {
            for shape in [&[1][..], &[3, 5], &[2, 7, 33], &[300, 130]] {
                let width = shape[shape.len() - 1];
                let gates = [&shape[..shape.len() - 1], &[2 * width]].concat();
                let (x, gates) = (random(shape, 1), random(&gates, 2));
                let mut wanted = x.to_vec();
                for (row, gates) in wanted.chunks_mut(width).zip(gates.as_slice().chunks(2 * width)) {
                    for (i, x) in row.iter_mut().enumerate() {
                        *x += gates[i] / (1.0 + (-gates[width + i]).exp());
                    }
                }
                assert_close(x.add_glu(&gates).unwrap().as_slice(), &wanted, 1e-6);
                check_gradients(&[x, gates], |t| t[0].add_glu(&t[1]), 1e-3);
            }
            assert!(Tensor::zeros(&[2, 3]).add_glu(&Tensor::zeros(&[2, 5])).is_err());
        });
    }
}
