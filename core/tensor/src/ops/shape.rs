//! Views and copies under another shape.

use super::kernel::{Kernel, run};
use crate::cpu::loops::layout::{cumulative_sum, permute};
#[cfg(feature = "cuda")]
use crate::cuda::{Gpu, Numbers};
use crate::{Error, Result, Tensor};
#[cfg(feature = "cuda")]
use dfdx::prelude::CudaError;

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

pub(super) fn no_axis(op: &'static str, axis: usize, x: &Tensor) -> Error {
    Error::shape(op, format!("no axis {axis} in shape {:?}", x.shape()))
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
            check_gradients(std::slice::from_ref(&x), |t| t[0].reshape(&[8, 18])?.square(), 1e-3);
            check_gradients(std::slice::from_ref(&x), |t| t[0].permute(&[2, 0, 3, 1]), 1e-3);
            check_gradients(std::slice::from_ref(&x), |t| t[0].transpose(1, 3), 1e-3);
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
            assert!(x.transpose(0, 2).is_err() && x.cumsum(2).is_err() && x.space_to_depth(1, 1).is_err());
            assert!(Tensor::zeros(&[1, 3, 4, 1]).space_to_depth(2, 2).is_err());
        });
    }
}
