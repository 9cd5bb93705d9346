//! A linear map for many small products with one weight, as sampling makes them.

use super::{common_device, on_cpu};
use crate::cpu::gemm::packed::{self, Numbers, Weight};
use crate::{Error, Result, Tensor};

/// Products of fewer rows read the weight where it lies: it passes through the caches once either way.
const FEW_ROWS: usize = 4;

/// A linear map whose weight is arranged once in the order in which products read it: [`Tensor::linear`] arranges it
/// anew each time, which a large batch pays for and a small one does not. It does not follow the weight when that
/// changes, and no gradients flow through it.
#[derive(Debug, Clone)]
pub struct PackedLinear {
    weight: Arranged,
    /// On the CPU.
    bias: Option<Tensor>,
    outputs: usize,
    inputs: usize,
}

#[derive(Debug, Clone)]
enum Arranged {
    Plain(Tensor),
    Panels(Vec<f32>),
    #[cfg(feature = "cuda")]
    Gpu(crate::cuda::gemm::packed::Weight),
}

impl PackedLinear {
    /// Arranges a weight `[O, I]` and a bias `[O]` for products of about `rows` rows.
    ///
    /// # Errors
    /// [`Error::Shape`] if the sizes do not fit.
    pub fn new(weight: &Tensor, bias: Option<&Tensor>, rows: usize) -> Result<Self> {
        common_device("PackedLinear", [weight].into_iter().chain(bias))?;
        let [outputs, inputs] = weight.dims("PackedLinear")?;
        if let Some(bias) = bias.filter(|b| b.shape() != [outputs]) {
            let message = format!("weight {:?} and bias {:?} do not fit", weight.shape(), bias.shape());
            return Err(Error::shape("PackedLinear", message));
        }
        #[cfg(feature = "cuda")]
        if let Some(weight) = crate::cuda::gemm::packed::Weight::new(weight, bias)? {
            return Ok(Self { weight: Arranged::Gpu(weight), bias: None, outputs, inputs });
        }
        on_cpu("PackedLinear", [weight])?;
        let weight = if rows < FEW_ROWS {
            Arranged::Plain(weight.detach())
        } else {
            Arranged::Panels(packed::panels(outputs, inputs, weight.as_slice()))
        };
        Ok(Self { weight, bias: bias.map(Tensor::detach), outputs, inputs })
    }

    /// `x · weightᵀ + bias`: `[.., I] -> [.., O]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the sizes do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match x.shape().split_last() {
            Some((&last, outer)) if last == self.inputs => {
                let shape: Vec<usize> = outer.iter().copied().chain([self.outputs]).collect();
                #[cfg(feature = "cuda")]
                if let Arranged::Gpu(weight) = &self.weight {
                    return weight.forward(x, &shape);
                }
                on_cpu("PackedLinear", [x])?;
                let data = match self.operand() {
                    Some(weight) => packed::product(&weight, outer.iter().product(), x.as_slice()),
                    None => Vec::new(),
                };
                Ok(Tensor::output(data, &shape, None))
            }
            _ => {
                let sizes = [self.outputs, self.inputs];
                Err(Error::shape("PackedLinear", format!("input {:?} does not fit a weight {sizes:?}", x.shape())))
            }
        }
    }

    /// Outputs and inputs.
    pub(crate) fn sizes(&self) -> [usize; 2] {
        [self.outputs, self.inputs]
    }

    /// What kernels of a GPU multiply with; `None` if the weight is on the CPU.
    #[cfg(feature = "cuda")]
    pub(crate) fn on_gpu(&self) -> Option<&crate::cuda::gemm::packed::Weight> {
        match &self.weight {
            Arranged::Gpu(weight) => Some(weight),
            _ => None,
        }
    }

    /// What kernels of the CPU multiply with; `None` if the weight is on a GPU.
    pub(crate) fn operand(&self) -> Option<Weight<'_>> {
        let numbers = match &self.weight {
            Arranged::Plain(weight) => Numbers::Rows(weight.as_slice()),
            Arranged::Panels(panels) => Numbers::Panels(panels),
            #[cfg(feature = "cuda")]
            Arranged::Gpu(_) => return None,
        };
        Some(Weight { n: self.outputs, k: self.inputs, numbers, bias: self.bias.as_ref().map(Tensor::as_slice) })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first failure")]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, on_every_device, random};

    #[test]
    fn a_packed_weight_gives_what_the_plain_one_gives() {
        on_every_device(|| {
            for (rows, inputs, outputs) in [
                (1, 1, 1),
                (2, 3, 5),
                (1, 129, 70),
                (13, 64, 31),
                (16, 256, 1024),
                (100, 300, 96),
                (257, 65, 47),
                (3, 0, 4),
            ] {
                let (x, w, b) = (random(&[rows, inputs], 1), random(&[outputs, inputs], 2), random(&[outputs], 3));
                for (bias, expected) in [(None, 1), (Some(&b), 1), (None, 100), (Some(&b), 100)] {
                    let got = PackedLinear::new(&w, bias, expected).unwrap().forward(&x).unwrap();
                    assert_eq!(got.shape(), [rows, outputs]);
                    assert_close(got.as_slice(), x.linear(&w, bias).unwrap().as_slice(), 1e-5);
                }
            }
        });
    }

    #[test]
    fn misfits_are_errors() {
        on_every_device(|| {
            let w = Tensor::zeros(&[4, 3]);
            for rows in [1, 100] {
                assert!(PackedLinear::new(&w, Some(&Tensor::zeros(&[3])), rows).is_err());
                let packed = PackedLinear::new(&w, None, rows).unwrap();
                assert!(packed.forward(&Tensor::zeros(&[2, 4])).is_err());
                assert!(packed.forward(&Tensor::zeros(&[0, 3])).unwrap().is_empty());
            }
        });
    }
}
