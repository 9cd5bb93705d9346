//! Views and copies under another shape.

use crate::cpu::buffer;
use crate::cpu::strided::{add_blocks, copy_blocks, cumulative_sum, permute};
use crate::tape::{GradKey, record};
use crate::{Error, Result, Tensor};
use std::ops::Range;

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
        let (shape, data) = permuted(self.as_slice(), self.shape(), axes);
        let key = self.tracked().map(|x| (x, GradKey::new()));
        let out = Tensor::output(data, &shape, key.as_ref().map(|k| k.1.clone()));
        if let Some((x, key)) = key {
            record(&key, move |grad, flow| flow.add(&x, permuted(&grad, &shape, &inverse).1));
        }
        Ok(out)
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
        let (start, len, step) = (range.start * inner, range.len() * inner, size * inner);
        let mut data = buffer(shape.iter().product());
        if !data.is_empty() {
            copy_blocks(&self.as_slice()[start..], step, &mut data, len, len);
        }
        let key = self.tracked().map(|x| (x, GradKey::new()));
        let out = Tensor::output(data, &shape, key.as_ref().map(|k| k.1.clone()));
        if let Some((x, key)) = key {
            let total = self.len();
            record(&key, move |grad, flow| {
                flow.with(&x, total, |out, accumulate| {
                    if !accumulate {
                        out.fill(0.0);
                    }
                    add_blocks(&grad, len, &mut out[start..], step, len);
                })
            });
        }
        Ok(out)
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
        let mut data = buffer(shape.iter().product());
        let (mut start, mut parts) = (0, Vec::new());
        for t in tensors {
            let len = t.shape()[axis] * inner;
            if !t.is_empty() {
                copy_blocks(t.as_slice(), len, &mut data[start..], step, len);
                if let Some(key) = t.tracked() {
                    parts.push((key, start, len, t.len()));
                }
            }
            start += len;
        }
        let key = (!parts.is_empty()).then(GradKey::new);
        let out = Tensor::output(data, &shape, key.clone());
        if let Some(key) = key {
            record(&key, move |grad, flow| {
                for (key, start, len, total) in parts {
                    flow.with(&key, total, |out, accumulate| {
                        if accumulate {
                            add_blocks(&grad[start..], step, out, len, len);
                        } else {
                            copy_blocks(&grad[start..], step, out, len, len);
                        }
                    })?;
                }
                Ok(())
            });
        }
        Ok(out)
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
        let key = self.tracked().map(|x| (x, GradKey::new()));
        let data = cumulative_sum(self.as_slice(), n, inner, false);
        let out = Tensor::output(data, self.shape(), key.as_ref().map(|k| k.1.clone()));
        if let Some((x, key)) = key {
            record(&key, move |grad, flow| flow.add(&x, cumulative_sum(&grad, n, inner, true)));
        }
        Ok(out)
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

/// The shape and numbers of `x` of shape `from` with its axes in the order `axes`.
fn permuted(x: &[f32], from: &[usize], axes: &[usize]) -> (Vec<usize>, Vec<f32>) {
    let mut strides = vec![1; from.len()];
    for axis in (1..from.len()).rev() {
        strides[axis - 1] = strides[axis] * from[axis];
    }
    let shape: Vec<usize> = axes.iter().map(|&axis| from[axis]).collect();
    let strides: Vec<usize> = axes.iter().map(|&axis| strides[axis]).collect();
    let data = permute(x, &shape, &strides);
    (shape, data)
}
