//! Parts of tensors, and their joins.

use super::kernel::{GradientKernel, Kernel, run};
use super::on_cpu;
use super::shape::no_axis;
use crate::cpu::loops::layout::{Blocks, join};
use crate::cpu::{Output, buffer};
#[cfg(feature = "cuda")]
use crate::cuda::{Gpu, Numbers};
use crate::{Error, Result, Tensor};
#[cfg(feature = "cuda")]
use dfdx::prelude::CudaError;
use std::ops::Range;

/// Blocks of a longer operand, side by side.
struct Gather(Blocks);

impl Kernel<1> for Gather {
    fn cpu(&self, [x]: [&[f32]; 1]) -> Vec<f32> {
        let count = x.len().checked_div(self.0.step).unwrap_or(0);
        buffer(count * self.0.len, |out| self.0.gather(x, out))
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, gpu: &Gpu, [x]: [&Numbers; 1]) -> Result<Numbers, CudaError> {
        gpu.gather_blocks(x, self.0)
    }
}

impl GradientKernel for Gather {
    fn cpu<'a>(&self, grad: &[f32], out: Output<'a>) -> &'a mut [f32] {
        self.0.gather(grad, out)
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, gpu: &Gpu, grad: &Numbers, out: &mut Numbers, _: usize, accumulate: bool) -> Result<(), CudaError> {
        if accumulate {
            return gpu.add_gathered_blocks(grad, self.0, out);
        }
        *out = gpu.gather_blocks(grad, self.0)?;
        Ok(())
    }
}

/// What lies side by side, in blocks of a longer output, which is 0 beside them.
struct Scatter(Blocks);

impl GradientKernel for Scatter {
    fn cpu<'a>(&self, grad: &[f32], out: Output<'a>) -> &'a mut [f32] {
        self.0.scatter(grad, out)
    }

    #[cfg(feature = "cuda")]
    fn cuda(
        &self,
        gpu: &Gpu,
        grad: &Numbers,
        out: &mut Numbers,
        len: usize,
        accumulate: bool,
    ) -> Result<(), CudaError> {
        if !accumulate {
            *out = gpu.zeros(len)?;
        }
        gpu.scatter_blocks(grad, out, self.0, accumulate)
    }
}

impl Tensor {
    /// A copy of the elements `range` of `axis`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the axis or the range does not exist.
    pub fn slice(&self, axis: usize, range: Range<usize>) -> Result<Tensor> {
        let size = *self.shape().get(axis).ok_or_else(|| no_axis("slice", axis, self))?;
        if range.start > range.end || range.end > size {
            return Err(Error::shape("slice", format!("no range {range:?} in axis {axis} of {:?}", self.shape())));
        }
        let inner: usize = self.shape()[axis + 1..].iter().product();
        let mut shape = self.shape().to_vec();
        shape[axis] = range.len();
        let blocks = Blocks { start: range.start * inner, len: range.len() * inner, step: size * inner };
        run("slice", &Gather(blocks), [self], &shape)?.with_backward(&[self], |_| {
            let total = self.len();
            move |grad, gradients| gradients.write(0, total, &Scatter(blocks), &grad)
        })
    }

    /// Joins tensors along `axis`.
    ///
    /// # Errors
    /// [`Error::Shape`] if there are none, the axis does not exist, or other axes differ.
    pub fn concat(tensors: &[&Tensor], axis: usize) -> Result<Tensor> {
        let first = tensors.first().ok_or_else(|| Error::shape("concat", "no tensors to join"))?;
        if axis >= first.rank() {
            return Err(no_axis("concat", axis, first));
        }
        if let Some(odd) = tensors.iter().find(|t| !same_but(first.shape(), t.shape(), axis)) {
            return Err(Error::shape(
                "concat",
                format!("{:?} and {:?} differ beside axis {axis}", first.shape(), odd.shape()),
            ));
        }
        let mut shape = first.shape().to_vec();
        shape[axis] = tensors.iter().map(|t| t.shape()[axis]).sum();
        let inner: usize = shape[axis + 1..].iter().product();
        let step = shape[axis] * inner;
        let lens: Vec<usize> = tensors.iter().map(|t| t.shape()[axis] * inner).collect();
        super::common_device("concat", tensors.iter().copied())?;
        Self::joined(tensors, &lens, &shape)?.with_backward(tensors, |_| {
            let totals: Vec<usize> = tensors.iter().map(|t| t.len()).collect();
            move |grad, gradients| {
                let mut start = 0;
                for (operand, (&len, &total)) in lens.iter().zip(&totals).enumerate() {
                    if total > 0 {
                        gradients.write(operand, total, &Gather(Blocks { start, len, step }), &grad)?;
                    }
                    start += len;
                }
                Ok(())
            }
        })
    }

    /// Blocks of so many elements of each tensor in turn, without a gradient.
    fn joined(tensors: &[&Tensor], lens: &[usize], shape: &[usize]) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if let Some(buffers) = tensors.iter().map(|t| t.gpu_buffer()).collect::<Option<Vec<_>>>()
            && let Some(gpu) = buffers.first().map(|buffer| buffer.gpu())
        {
            let parts: Vec<_> = buffers.iter().map(|buffer| buffer.numbers()).zip(lens.iter().copied()).collect();
            return Ok(Tensor::on_gpu(crate::cuda::Buffer::new(gpu, gpu.join(&parts)?), shape, None));
        }
        on_cpu("concat", tensors.iter().copied())?;
        let parts: Vec<_> = tensors.iter().map(|t| t.as_slice()).zip(lens.iter().copied()).collect();
        Ok(Tensor::output(join(&parts), shape, None))
    }

    /// Joins tensors of one shape along a new axis at `axis`.
    ///
    /// # Errors
    /// [`Error::Shape`] if there are none, their shapes differ, or `axis` is above their rank.
    pub fn stack(tensors: &[&Tensor], axis: usize) -> Result<Tensor> {
        let first = tensors.first().ok_or_else(|| Error::shape("stack", "no tensors to join"))?;
        if let Some(odd) = tensors.iter().find(|t| t.shape() != first.shape()) {
            return Err(Error::shape("stack", format!("shapes differ: {:?} and {:?}", first.shape(), odd.shape())));
        }
        if axis > first.rank() {
            return Err(no_axis("stack", axis, first));
        }
        let mut shape = first.shape().to_vec();
        shape.insert(axis, 1);
        let parts: Vec<Tensor> = tensors.iter().map(|t| t.with_shape(&shape)).collect();
        Self::concat(&parts.iter().collect::<Vec<_>>(), axis)
    }
}

/// Whether two shapes agree on every axis but one.
fn same_but(a: &[usize], b: &[usize], axis: usize) -> bool {
    a.len() == b.len() && a.iter().zip(b).enumerate().all(|(i, (a, b))| i == axis || a == b)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first failure")]
mod tests {
    use super::*;
    use crate::ops::testing::{check_gradients, on_every_device, random};

    /// The element of `x` at `index`.
    fn at(x: &Tensor, index: &[usize]) -> f32 {
        x.as_slice()[x.shape().iter().zip(index).fold(0, |flat, (size, i)| flat * size + i)]
    }

    /// The index of element `flat` of a tensor of shape `shape`.
    fn index(mut flat: usize, shape: &[usize]) -> Vec<usize> {
        let mut index = vec![0; shape.len()];
        for (i, size) in index.iter_mut().zip(shape).rev() {
            *i = flat % size;
            flat /= size;
        }
        index
    }

    #[test]
    fn slices_joined_again_are_the_whole() {
        on_every_device(|| {
            for shape in [&[5][..], &[5, 3], &[2, 7, 3], &[3, 2, 6, 5]] {
                let x = random(shape, 2);
                for axis in 0..shape.len() {
                    let cut = shape[axis] / 2;
                    let (left, right) = (x.slice(axis, 0..cut).unwrap(), x.slice(axis, cut..shape[axis]).unwrap());
                    assert_eq!((left.shape()[axis], right.shape()[axis]), (cut, shape[axis] - cut));
                    for flat in 0..right.len() {
                        let mut place = index(flat, right.shape());
                        place[axis] += cut;
                        assert_eq!(right.as_slice()[flat], at(&x, &place));
                    }
                    let joined = Tensor::concat(&[&left, &right], axis).unwrap();
                    assert_eq!((joined.shape(), joined.as_slice()), (x.shape(), x.as_slice()));
                    let stacked = Tensor::stack(&[&x, &x], axis).unwrap();
                    assert_eq!(stacked.shape()[axis], 2);
                    assert_eq!(stacked.slice(axis, 1..2).unwrap().as_slice(), x.as_slice());
                }
            }
        });
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        on_every_device(|| {
            let (x, y) = (random(&[2, 4, 6, 3], 5), random(&[2, 4, 5, 3], 6));
            check_gradients(std::slice::from_ref(&x), |t| t[0].slice(2, 1..4), 1e-3);
            check_gradients(std::slice::from_ref(&x), |t| t[0].slice(2, 1..4)?.add(&t[0].slice(2, 3..6)?), 1e-3);
            check_gradients(&[x.clone(), y], |t| Tensor::concat(&[&t[0], &t[1], &t[0]], 2), 1e-3);
            check_gradients(std::slice::from_ref(&x), |t| Tensor::stack(&[&t[0], &t[0].square()?], 1), 1e-3);
            // A part that is empty or the whole, and parts that meet at one leaf.
            check_gradients(std::slice::from_ref(&x), |t| t[0].slice(1, 2..2)?.sum_all()?.add(&t[0].sum_all()?), 1e-3);
            check_gradients(&[x], |t| t[0].slice(3, 0..3)?.mul(&t[0].slice(3, 0..3)?), 1e-3);
        });
    }

    #[test]
    fn misfits_are_errors() {
        on_every_device(|| {
            let (x, other) = (Tensor::zeros(&[2, 3]), Tensor::zeros(&[3, 3]));
            assert!(x.slice(1, 2..4).is_err() && x.slice(2, 0..1).is_err());
            assert!(Tensor::concat(&[&x, &other], 1).is_err() && Tensor::concat(&[&x, &other], 0).is_ok());
            assert!(Tensor::concat(&[], 0).is_err() && Tensor::stack(&[&x, &other], 0).is_err());
        });
    }
}
