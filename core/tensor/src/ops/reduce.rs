//! Sums, means, maxima.

use super::arithmetic::Stretch;
use super::kernel::{Kernel, run};
use super::on_cpu;
use crate::cpu::loops::reduce::{sum_all, sum_axes};
use crate::cpu::loops::rows;
#[cfg(feature = "cuda")]
use crate::cuda::{Gpu, Numbers};
use crate::{Codes, Error, Result, Tensor};
#[cfg(feature = "cuda")]
use dfdx::prelude::CudaError;

/// `scale` times the sum of all elements.
struct SumAll {
    scale: f64,
}

impl Kernel<1> for SumAll {
    fn cpu(&self, [x]: [&[f32]; 1]) -> Vec<f32> {
        vec![(sum_all(x) * self.scale) as f32]
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, gpu: &Gpu, [x]: [&Numbers; 1]) -> Result<Numbers, CudaError> {
        gpu.sum_all(x, self.scale)
    }
}

/// `scale` times the sum over the marked axes of an operand of shape `shape`.
struct SumAxes {
    shape: Vec<usize>,
    reduced: Vec<bool>,
    scale: f32,
}

impl Kernel<1> for SumAxes {
    fn cpu(&self, [x]: [&[f32]; 1]) -> Vec<f32> {
        let mut sums = sum_axes(x, &self.shape, &self.reduced);
        if self.scale != 1.0 {
            sums.iter_mut().for_each(|x| *x *= self.scale);
        }
        sums
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, gpu: &Gpu, [x]: [&Numbers; 1]) -> Result<Numbers, CudaError> {
        gpu.sum(x, &self.shape, &self.reduced, self.scale)
    }
}

/// Sums the gradient of a stretched operand back to the operand's shape.
pub(crate) fn sum_to(x: Tensor, shape: &[usize]) -> Result<Tensor> {
    let outer = x.rank() - shape.len();
    let own = |axis: usize| axis.checked_sub(outer).map_or(1, |axis| shape[axis]);
    let reduced: Vec<bool> = x.shape().iter().enumerate().map(|(axis, &size)| size != own(axis)).collect();
    if !reduced.contains(&true) {
        return Ok(x.with_shape(shape));
    }
    run("sum", &SumAxes { shape: x.shape().to_vec(), reduced, scale: 1.0 }, [&x], shape)
}

impl Tensor {
    /// The sum of all elements: rank 0.
    pub fn sum_all(&self) -> Result<Tensor> {
        self.sum_all_scaled(1.0)
    }

    /// The mean of all elements: rank 0.
    ///
    /// # Errors
    /// [`Error::Shape`] if there are none.
    pub fn mean_all(&self) -> Result<Tensor> {
        if self.is_empty() {
            return Err(Error::shape("mean_all", format!("shape {:?} has no elements", self.shape())));
        }
        self.sum_all_scaled(1.0 / self.len() as f64)
    }

    fn sum_all_scaled(&self, scale: f64) -> Result<Tensor> {
        run("sum_all", &SumAll { scale }, [self], &[])?.with_backward(&[self], |_| {
            let shape = self.shape().to_vec();
            move |grad, gradients| {
                gradients.add(0, run("sum_all", &Stretch::new(&[], &shape, scale as f32), [&grad], &shape)?)
            }
        })
    }

    /// The sum over `axes`, which are removed from the shape, or kept with size 1 if `keep`.
    ///
    /// # Errors
    /// [`Error::Shape`] if an axis does not exist.
    pub fn sum(&self, axes: &[usize], keep: bool) -> Result<Tensor> {
        self.sum_scaled("sum", axes, keep, 1.0)
    }

    /// The mean over `axes`, which are removed from the shape, or kept with size 1 if `keep`.
    ///
    /// # Errors
    /// [`Error::Shape`] if an axis does not exist or there is nothing to average.
    pub fn mean(&self, axes: &[usize], keep: bool) -> Result<Tensor> {
        let count: usize = axes.iter().filter_map(|&axis| self.shape().get(axis)).product();
        if count == 0 {
            return Err(Error::shape("mean", format!("axes {axes:?} of shape {:?} have no elements", self.shape())));
        }
        self.sum_scaled("mean", axes, keep, 1.0 / count as f32)
    }

    fn sum_scaled(&self, op: &'static str, axes: &[usize], keep: bool, scale: f32) -> Result<Tensor> {
        let mut reduced = vec![false; self.rank()];
        for &axis in axes {
            let Some(mark) = reduced.get_mut(axis) else {
                return Err(Error::shape(op, format!("no axis {axis} in shape {:?}", self.shape())));
            };
            *mark = true;
        }
        let kept: Vec<usize> = self.shape().iter().zip(&reduced).map(|(&n, &r)| if r { 1 } else { n }).collect();
        let shape: Vec<usize> = if keep {
            kept.clone()
        } else {
            self.shape().iter().zip(&reduced).filter(|(_, r)| !**r).map(|(&n, _)| n).collect()
        };
        let kernel = SumAxes { shape: self.shape().to_vec(), reduced, scale };
        run(op, &kernel, [self], &shape)?.with_backward(&[self], |_| {
            let full = self.shape().to_vec();
            move |grad, gradients| gradients.add(0, run(op, &Stretch::new(&kept, &full, scale), [&grad], &full)?)
        })
    }

    /// The maximum over the innermost axis, which is removed: [.., K] -> [..]. The gradient goes to the first maximum.
    ///
    /// # Errors
    /// [`Error::Shape`] if the innermost axis is empty.
    pub fn max_last(&self) -> Result<Tensor> {
        let width = self.last_dim();
        if width == 0 {
            return Err(nothing("max_last", self));
        }
        let at = self.argmax_last()?;
        self.gather_last(&at)
    }

    /// The index of the first maximum over the innermost axis, which is removed: [.., K] -> codes [..]. Not
    /// differentiable.
    ///
    /// # Errors
    /// [`Error::Shape`] if the innermost axis is empty.
    pub fn argmax_last(&self) -> Result<Codes> {
        let width = self.last_dim();
        if width == 0 {
            return Err(nothing("argmax_last", self));
        }
        let outer = &self.shape()[..self.rank().saturating_sub(1)];
        return_from_gpu!(crate::cuda::loops::layout::argmax_last(self, outer));
        on_cpu("argmax_last", [self])?;
        Codes::from_vec(rows::argmax(self.as_slice(), width), outer)
    }
}

fn nothing(op: &'static str, x: &Tensor) -> Error {
    Error::shape(op, format!("nothing to choose from in shape {:?}", x.shape()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first failure")]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, check_gradients, on_every_device, random};

    /// The sum over the axes in the bit set `mask`, element by element, in f64.
    fn twin(x: &Tensor, mask: usize) -> Vec<f32> {
        let kept: usize = x.shape().iter().enumerate().filter(|(i, _)| mask >> i & 1 == 0).map(|(_, n)| n).product();
        let mut sums = vec![0.0f64; kept];
        for (flat, &value) in x.as_slice().iter().enumerate() {
            let (mut rest, mut to, mut stride) = (flat, 0, 1);
            for (axis, &size) in x.shape().iter().enumerate().rev() {
                if mask >> axis & 1 == 0 {
                    to += rest % size * stride;
                    stride *= size;
                }
                rest /= size;
            }
            sums[to] += f64::from(value);
        }
        sums.into_iter().map(|s| s as f32).collect()
    }

    #[test]
    fn sums_equal_the_element_by_element_sum_over_every_set_of_axes() {
        on_every_device(|| {
            for shape in
                [&[1][..], &[19], &[3, 5, 7], &[2, 1, 33, 4], &[1500, 3, 2], &[70_001], &[2, 20_000], &[3, 900, 65]]
            {
                let x = random(shape, 1);
                for mask in 0..1 << shape.len() {
                    let axes: Vec<usize> = (0..shape.len()).filter(|axis| mask >> axis & 1 == 1).collect();
                    let got = x.sum(&axes, false).unwrap();
                    assert_close(got.as_slice(), &twin(&x, mask), 1e-6);
                    let kept = x.sum(&axes, true).unwrap();
                    assert_eq!((kept.rank(), kept.as_slice()), (shape.len(), got.as_slice()));
                    let count: usize = axes.iter().map(|&axis| shape[axis]).product();
                    let mean: Vec<f32> = twin(&x, mask).iter().map(|s| s / count as f32).collect();
                    assert_close(x.mean(&axes, false).unwrap().as_slice(), &mean, 1e-6);
                }
                assert_close(x.sum_all().unwrap().as_slice(), &twin(&x, (1 << shape.len()) - 1), 1e-6);
            }
        });
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        on_every_device(|| {
            let x = random(&[3, 5, 2, 4], 2);
            for axes in [&[][..], &[0], &[3], &[1, 2], &[0, 2], &[0, 1, 2, 3]] {
                check_gradients(std::slice::from_ref(&x), |t| t[0].sum(axes, false), 1e-3);
                check_gradients(std::slice::from_ref(&x), |t| t[0].mean(axes, true), 1e-3);
            }
            check_gradients(std::slice::from_ref(&x), |t| t[0].sum_all(), 1e-3);
            check_gradients(std::slice::from_ref(&x), |t| t[0].mean_all(), 1e-3);
        });
    }

    #[test]
    fn the_gradient_of_a_maximum_goes_to_where_it_is() {
        on_every_device(|| {
            // Distinct values, so that a step does not change which is largest.
            let distinct: Vec<f32> = (0..35).map(|i| (i * 11 % 35) as f32).collect();
            check_gradients(&[Tensor::from_vec(distinct, &[5, 7]).unwrap()], |t| t[0].max_last(), 1e-3);
        });
    }

    #[test]
    fn the_first_of_equal_maxima_is_taken() {
        on_every_device(|| {
            for width in [1, 2, 5, 16, 17, 100] {
                let mut data = vec![-1.0; 3 * width];
                data[width - 1] = 2.0;
                data[width + width / 2..2 * width].fill(0.5);
                data[2 * width..].fill(f32::NEG_INFINITY);
                let x = Tensor::from_vec(data, &[3, width]).unwrap();
                assert_eq!(x.argmax_last().unwrap().as_slice(), [width as u32 - 1, width as u32 / 2, 0]);
                assert_eq!(x.max_last().unwrap().to_vec(), [2.0, 0.5, f32::NEG_INFINITY]);
            }
        });
    }

    #[test]
    fn misfits_are_errors() {
        on_every_device(|| {
            let x = Tensor::zeros(&[2, 0]);
            assert!(x.mean_all().is_err() && x.max_last().is_err() && x.mean(&[1], false).is_err());
            assert!(x.sum(&[2], false).is_err());
            assert_eq!(x.sum(&[1], false).unwrap().to_vec(), [0.0, 0.0]);
        });
    }
}
