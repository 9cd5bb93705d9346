//! Views and copies under another shape.

use super::kernel::{GradientKernel, Kernel, run};
use super::on_cpu;
use crate::cpu::loops::layout::{Blocks, cumulative_sum, join, permute};
use crate::cpu::{Output, buffer};
#[cfg(feature = "cuda")]
use crate::cuda::{Gpu, Numbers};
use crate::{Error, Result, Tensor};
#[cfg(feature = "cuda")]
use dfdx::prelude::CudaError;
use std::ops::Range;

/// An operand of shape `from` with its axes in the order `axes`.
struct Permute {
    from: Vec<usize>,
    axes: Vec<usize>,
}

impl Permute {
    fn shape(&self) -> Vec<usize> {
        self.axes.iter().map(|&axis| self.from[axis]).collect()
    }
}

impl Kernel<1> for Permute {
    fn cpu(&self, [x]: [&[f32]; 1]) -> Vec<f32> {
        let mut strides = vec![1; self.from.len()];
        for axis in (1..self.from.len()).rev() {
            strides[axis - 1] = strides[axis] * self.from[axis];
        }
        let strides: Vec<usize> = self.axes.iter().map(|&axis| strides[axis]).collect();
        permute(x, &self.shape(), &strides)
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, gpu: &Gpu, [x]: [&Numbers; 1]) -> Result<Numbers, CudaError> {
        gpu.permute(x, &self.from, &self.axes)
    }
}

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

/// Running sums along the middle axis of `[outer, n, inner]`, from the end if `reverse`.
struct CumulativeSum {
    n: usize,
    inner: usize,
    reverse: bool,
}

impl Kernel<1> for CumulativeSum {
    fn cpu(&self, [x]: [&[f32]; 1]) -> Vec<f32> {
        cumulative_sum(x, self.n, self.inner, self.reverse)
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, gpu: &Gpu, [x]: [&Numbers; 1]) -> Result<Numbers, CudaError> {
        gpu.cumulative_sum(x, self.n, self.inner, self.reverse)
    }
}

impl Tensor {
    /// The same numbers under another shape of equal size. Free: shares numbers and gradient.
    ///
    /// # Errors
    /// [`Error::Shape`] if the sizes differ.
    pub fn reshape(&self, shape: &[usize]) -> Result<Tensor> {
        if shape.iter().product::<usize>() != self.len() {
            return Err(Error::shape("reshape", format!("{:?} does not fill {shape:?}", self.shape())));
        }
        Ok(self.with_shape(shape))
    }

    /// A copy whose axis i is axis `axes[i]` of this tensor.
    ///
    /// # Errors
    /// [`Error::Shape`] unless `axes` holds every axis once.
    pub fn permute(&self, axes: &[usize]) -> Result<Tensor> {
        let mut inverse = vec![usize::MAX; self.rank()];
        for (i, &axis) in axes.iter().enumerate() {
            if let Some(slot @ &mut usize::MAX) = inverse.get_mut(axis) {
                *slot = i;
            }
        }
        if axes.len() != self.rank() || inverse.contains(&usize::MAX) {
            return Err(Error::shape("permute", format!("{axes:?} is no order of the axes of {:?}", self.shape())));
        }
        let kernel = Permute { from: self.shape().to_vec(), axes: axes.to_vec() };
        let shape = kernel.shape();
        run("permute", &kernel, [self], &shape)?.with_backward(&[self], |_| {
            let (kernel, own) = (Permute { from: shape.clone(), axes: inverse }, self.shape().to_vec());
            move |grad, gradients| gradients.add(0, run("permute", &kernel, [&grad], &own)?)
        })
    }

    /// A copy with two axes exchanged.
    ///
    /// # Errors
    /// [`Error::Shape`] if an axis does not exist.
    pub fn transpose(&self, a: usize, b: usize) -> Result<Tensor> {
        if a >= self.rank() || b >= self.rank() {
            return Err(Error::shape("transpose", format!("no axes {a} and {b} in {:?}", self.shape())));
        }
        let mut axes: Vec<usize> = (0..self.rank()).collect();
        axes.swap(a, b);
        self.permute(&axes)
    }

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

    /// Running sums along `axis`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the axis does not exist.
    pub fn cumsum(&self, axis: usize) -> Result<Tensor> {
        let n = *self.shape().get(axis).ok_or_else(|| no_axis("cumsum", axis, self))?;
        let inner: usize = self.shape()[axis + 1..].iter().product();
        run("cumsum", &CumulativeSum { n, inner, reverse: false }, [self], self.shape())?.with_backward(&[self], |_| {
            move |grad, gradients| {
                let kernel = CumulativeSum { n, inner, reverse: true };
                gradients.add(0, run("cumsum", &kernel, [&grad], grad.shape())?)
            }
        })
    }

    /// Folds cells of `factor_h` x `factor_w` positions into channels: [B, H, W, C] -> [B, H/fh, W/fw, fh*fw*C], in
    /// the order row in cell, column in cell, channel, with the channel fastest.
    ///
    /// # Errors
    /// [`Error::Shape`] unless the factors divide the map.
    pub fn space_to_depth(&self, factor_h: usize, factor_w: usize) -> Result<Tensor> {
        let [b, h, w, c] = self.dims("space_to_depth")?;
        if factor_h == 0 || factor_w == 0 || h % factor_h != 0 || w % factor_w != 0 {
            return Err(Error::shape(
                "space_to_depth",
                format!("cells of {factor_h} x {factor_w} do not tile {:?}", self.shape()),
            ));
        }
        let (rows, columns) = (h / factor_h, w / factor_w);
        self.with_shape(&[b, rows, factor_h, columns, factor_w, c]).permute(&[0, 1, 3, 2, 4, 5])?.reshape(&[
            b,
            rows,
            columns,
            factor_h * factor_w * c,
        ])
    }

    /// The inverse of [`space_to_depth`](Self::space_to_depth): [B, h, w, fh*fw*C] -> [B, h*fh, w*fw, C].
    ///
    /// # Errors
    /// [`Error::Shape`] unless the factors divide the channels.
    pub fn depth_to_space(&self, factor_h: usize, factor_w: usize) -> Result<Tensor> {
        let [b, rows, columns, channels] = self.dims("depth_to_space")?;
        let cell = factor_h * factor_w;
        if cell == 0 || channels % cell != 0 {
            return Err(Error::shape(
                "depth_to_space",
                format!("{factor_h} x {factor_w} does not divide the channels of {:?}", self.shape()),
            ));
        }
        let c = channels / cell;
        self.with_shape(&[b, rows, columns, factor_h, factor_w, c]).permute(&[0, 1, 3, 2, 4, 5])?.reshape(&[
            b,
            rows * factor_h,
            columns * factor_w,
            c,
        ])
    }
}

fn no_axis(op: &'static str, axis: usize, x: &Tensor) -> Error {
    Error::shape(op, format!("no axis {axis} in shape {:?}", x.shape()))
}

/// Whether two shapes agree on every axis but one.
fn same_but(a: &[usize], b: &[usize], axis: usize) -> bool {
    a.len() == b.len() && a.iter().zip(b).enumerate().all(|(i, (a, b))| i == axis || a == b)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first failure")]
mod tests {
    use super::*;
    use crate::ops::testing::{agrees_with_the_cpu, assert_close, check_gradients, on_every_device, random};

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
    fn permutation_moves_every_element_to_its_place() {
        on_every_device(|| {
            let orders: [(&[usize], &[usize]); 9] = [
                (&[], &[]),
                (&[7], &[0]),
                (&[3, 5], &[1, 0]),
                (&[67, 129], &[1, 0]),
                (&[2, 35, 17], &[0, 2, 1]),
                (&[2, 3, 4, 5], &[0, 2, 1, 3]),
                (&[2, 3, 4, 5], &[3, 1, 0, 2]),
                (&[1, 16, 33, 1], &[3, 2, 1, 0]),
                (&[5, 0, 3], &[2, 1, 0]),
            ];
            for (shape, axes) in orders {
                let x = random(shape, 1);
                let y = x.permute(axes).unwrap();
                for flat in 0..y.len() {
                    let to = index(flat, y.shape());
                    let mut from = vec![0; to.len()];
                    for (i, &axis) in axes.iter().enumerate() {
                        from[axis] = to[i];
                    }
                    assert_eq!(y.as_slice()[flat], at(&x, &from));
                }
            }
        });
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
    fn cells_fold_row_then_column_then_channel_and_back() {
        on_every_device(|| {
            let x = random(&[2, 6, 4, 3], 3);
            let folded = x.space_to_depth(3, 2).unwrap();
            assert_eq!(folded.shape(), [2, 2, 2, 18]);
            for flat in 0..folded.len() {
                let [b, h, w, c] = index(flat, folded.shape()).try_into().unwrap();
                assert_eq!(folded.as_slice()[flat], at(&x, &[b, h * 3 + c / 6, w * 2 + c / 3 % 2, c % 3]));
            }
            assert_eq!(folded.depth_to_space(3, 2).unwrap().as_slice(), x.as_slice());
        });
    }

    #[test]
    fn running_sums_equal_the_sums_of_slices() {
        on_every_device(|| {
            for shape in [[3, 5, 7], [2, 3, 70]] {
                let x = random(&shape, 4);
                for axis in 0..3 {
                    let sums = x.cumsum(axis).unwrap();
                    for n in 0..shape[axis] {
                        let wanted = x.slice(axis, 0..n + 1).unwrap().sum(&[axis], false).unwrap();
                        let got = sums.slice(axis, n..n + 1).unwrap();
                        assert_close(got.as_slice(), wanted.as_slice(), 1e-6);
                    }
                }
                agrees_with_the_cpu(&[x], |t| t[0].cumsum(2));
            }
        });
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        on_every_device(|| {
            let x = random(&[2, 4, 6, 3], 5);
            let y = random(&[2, 4, 5, 3], 6);
            check_gradients(std::slice::from_ref(&x), |t| t[0].reshape(&[8, 18])?.square(), 1e-3);
            check_gradients(std::slice::from_ref(&x), |t| t[0].permute(&[2, 0, 3, 1]), 1e-3);
            check_gradients(std::slice::from_ref(&x), |t| t[0].transpose(1, 3), 1e-3);
            check_gradients(std::slice::from_ref(&x), |t| t[0].slice(2, 1..4), 1e-3);
            check_gradients(std::slice::from_ref(&x), |t| t[0].slice(2, 1..4)?.add(&t[0].slice(2, 3..6)?), 1e-3);
            check_gradients(&[x.clone(), y], |t| Tensor::concat(&[&t[0], &t[1], &t[0]], 2), 1e-3);
            check_gradients(std::slice::from_ref(&x), |t| Tensor::stack(&[&t[0], &t[0].square()?], 1), 1e-3);
            check_gradients(std::slice::from_ref(&x), |t| t[0].cumsum(1), 1e-3);
            check_gradients(std::slice::from_ref(&x), |t| t[0].space_to_depth(2, 3), 1e-3);
            check_gradients(&[random(&[2, 2, 1, 12], 7)], |t| t[0].depth_to_space(3, 2), 1e-3);
        });
    }

    #[test]
    fn misfits_are_errors() {
        on_every_device(|| {
            let x = Tensor::zeros(&[2, 3]);
            assert!(x.reshape(&[5]).is_err() && x.permute(&[0, 0]).is_err() && x.permute(&[0]).is_err());
            assert!(x.transpose(0, 2).is_err() && x.slice(1, 2..4).is_err() && x.slice(2, 0..1).is_err());
            let other = Tensor::zeros(&[3, 3]);
            assert!(Tensor::concat(&[&x, &other], 1).is_err() && Tensor::concat(&[&x, &other], 0).is_ok());
            assert!(Tensor::concat(&[], 0).is_err() && Tensor::stack(&[&x, &other], 0).is_err());
            assert!(x.cumsum(2).is_err() && x.space_to_depth(1, 1).is_err());
            assert!(Tensor::zeros(&[1, 3, 4, 1]).space_to_depth(2, 2).is_err());
        });
    }
}
