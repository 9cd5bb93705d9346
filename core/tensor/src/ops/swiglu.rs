//! The hidden state of SwiGLU.

use super::{common_device, on_cpu};
use crate::cpu::loops::swiglu;
use crate::tape::{GradKey, record};
use crate::{Error, Result, Tensor};

impl Tensor {
    /// `silu(self) x`, element by element: of two linear maps of an input the hidden state of SwiGLU (Shazeer, "GLU variants
    /// improve transformer", 2020).
    ///
    /// # Errors
    /// [`Error::Shape`] unless both have one shape.
    pub fn silu_mul(&self, x: &Tensor) -> Result<Tensor> {
        if self.shape() != x.shape() {
            return Err(Error::shape("silu_mul", format!("a gate {:?} of {:?}", self.shape(), x.shape())));
        }
        common_device("silu_mul", [self, x])?;
        return_from_gpu!(crate::cuda::loops::swiglu::silu_mul(self, x));
        on_cpu("silu_mul", [self, x])?;
        let keys = [self.tracked(), x.tracked()];
        let key = keys.iter().any(Option::is_some).then(GradKey::new);
        let out = Tensor::output(swiglu::silu_mul(self.as_slice(), x.as_slice()), self.shape(), key.clone());
        if let Some(key) = key {
            let (gate, x) = (self.detach(), x.detach());
            record(&key, move |mut grad, flow| {
                let mut gate = gate.to_vec();
                swiglu::silu_mul_backward(&mut gate, x.as_slice(), &mut grad);
                for (key, grad) in keys.iter().zip([gate, grad]) {
                    if let Some(key) = key {
                        flow.add(key, grad)?;
                    }
                }
                Ok(())
            });
        }
        Ok(out)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first failure")]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, check_gradients, on_every_device, random};

    #[test]
    fn a_gate_is_silu_times_the_other() {
        on_every_device(|| {
            for shape in [vec![1], vec![3, 5, 7], vec![40_003], vec![0, 4]] {
                let (gate, x) = (random(&shape, 1), random(&shape, 2));
                let wanted = gate.silu().unwrap().mul(&x).unwrap();
                assert_close(gate.silu_mul(&x).unwrap().as_slice(), wanted.as_slice(), 1e-6);
            }
            check_gradients(&[random(&[3, 7], 3), random(&[3, 7], 4)], |t| t[0].silu_mul(&t[1]), 1e-3);
            assert!(Tensor::zeros(&[2, 3]).silu_mul(&Tensor::zeros(&[3, 2])).is_err());
        });
    }
}
