//! Sums, means, maxima.

use crate::cpu::elementwise::{Walk, Zip, zip};
use crate::cpu::rows;
use crate::cpu::sum::{sum_all, sum_axes};
use crate::tape::{GradKey, record};
use crate::{Codes, Error, Result, Tensor};

#[derive(Clone, Copy)]
struct Scale(f32);

impl Zip for Scale {
    #[inline(always)]
    fn value(self, x: f32, _: f32) -> f32 {
        x * self.0
    }
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
        let key = self.tracked().map(|x| (x, GradKey::new()));
        let data = vec![(sum_all(self.as_slice()) * scale) as f32];
        let out = Tensor::output(data, &[], key.as_ref().map(|k| k.1.clone()));
        if let Some((x, key)) = key {
            let len = self.len();
            record(&key, move |grad, flow| {
                flow.add(&x, zip(Scale(scale as f32), &Walk::new(&[len], &[], &[]), &grad, &grad))
            });
        }
        Ok(out)
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
        let mut data = sum_axes(self.as_slice(), self.shape(), &reduced);
        if scale != 1.0 {
            data.iter_mut().for_each(|x| *x *= scale);
        }
        let key = self.tracked().map(|x| (x, GradKey::new()));
        let out = Tensor::output(data, &shape, key.as_ref().map(|k| k.1.clone()));
        if let Some((x, key)) = key {
            let full = self.shape().to_vec();
            record(&key, move |grad, flow| {
                flow.add(&x, zip(Scale(scale), &Walk::new(&full, &kept, &kept), &grad, &grad))
            });
        }
        Ok(out)
    }

    /// The maximum over the innermost axis, which is removed: [.., K] -> [..]. The gradient goes to the first maximum.
    ///
    /// # Errors
    /// [`Error::Shape`] if the innermost axis is empty.
    pub fn max_last(&self) -> Result<Tensor> {
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
            return Err(Error::shape("argmax_last", format!("nothing to choose from in shape {:?}", self.shape())));
        }
        Codes::from_vec(rows::argmax(self.as_slice(), width), &self.shape()[..self.rank().saturating_sub(1)])
    }
}
