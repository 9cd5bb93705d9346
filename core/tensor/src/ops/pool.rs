//! Pooling of feature maps `[B, H, W, C]` over windows that may overlap.

use crate::cpu::buffer;
use crate::cpu::loops::pool::{Layout, Windows};
use crate::tape::{GradKey, record};
use crate::{Codes, Device, Error, Result, Tensor};
use std::ops::Range;

impl Tensor {
    /// The largest number of every window of `side` x `side` pixels, `stride` pixels apart, over a map with `padding`
    /// pixels around it that are never the largest: `[B, H, W, C] -> [B, H2, W2, C]`,
    /// `H2 = (H + 2 padding - side) / stride + 1`, as `torch.nn.functional.max_pool2d`. The gradient goes to the first
    /// largest pixel.
    ///
    /// # Errors
    /// [`Error::Shape`] unless the rank is 4, the stride at least 1, the padding at most half a side, and a window fits.
    pub fn max_pool(&self, side: usize, stride: usize, padding: usize) -> Result<Tensor> {
        let [_, height, width, channels] = self.dims("max_pool")?;
        let fits = side > 0 && stride > 0 && 2 * padding <= side && side <= height.min(width) + 2 * padding;
        if !fits {
            return Err(Error::shape(
                "max_pool",
                format!("no windows of {side} every {stride} with a padding of {padding} in {:?}", self.shape()),
            ));
        }
        let output = [height, width].map(|size| (size + 2 * padding - side) / stride + 1);
        let layout = Layout::Even { side, stride, before: padding };
        self.largest(Windows { input: [height, width], output, channels, layout })
    }

    /// The largest number of each of `rows` x `columns` shares of a map: `[B, H, W, C] -> [B, rows, columns, C]`. Share i
    /// of n begins at the pixel `floor(i H / n)` and ends before `ceil((i + 1) H / n)`, where a map has fewer pixels than
    /// shares, too, as in `torch.nn.functional.adaptive_max_pool2d`. The gradient goes to the first largest pixel.
    ///
    /// # Errors
    /// [`Error::Shape`] unless the rank is 4 and neither the map nor its shares are empty.
    pub fn adaptive_max_pool(&self, [rows, columns]: [usize; 2]) -> Result<Tensor> {
        let [_, height, width, channels] = self.dims("adaptive_max_pool")?;
        if [rows, columns, height, width].contains(&0) {
            return Err(Error::shape("adaptive_max_pool", format!("{rows} x {columns} shares of {:?}", self.shape())));
        }
        let output = [rows, columns];
        self.largest(Windows { input: [height, width], output, channels, layout: Layout::Shares })
    }

    /// The derivative of [`adaptive_max_pool`](Self::adaptive_max_pool) along `direction`, of the shape of `self`: its numbers
    /// where those of `self` are the largest. Differentiable in `direction`.
    ///
    /// # Errors
    /// As for `adaptive_max_pool`; another shape.
    pub fn adaptive_max_pool_along(&self, direction: &Tensor, [rows, columns]: [usize; 2]) -> Result<Tensor> {
        let [_, height, width, channels] = self.dims("adaptive_max_pool")?;
        if [rows, columns, height, width].contains(&0) || direction.shape() != self.shape() {
            let message = format!("{rows} x {columns} shares of {:?} and {:?}", self.shape(), direction.shape());
            return Err(Error::shape("adaptive_max_pool", message));
        }
        let output = [rows, columns];
        let windows = Windows { input: [height, width], output, channels, layout: Layout::Shares };
        direction.copies(&windows)?.gather_last(&self.detach().copies(&windows)?.argmax_last()?)
    }

    fn largest(&self, windows: Windows) -> Result<Tensor> {
        if self.device() != Device::Cpu {
            return self.max_of_copies(&windows);
        }
        let batch = self.shape()[0];
        let [image, pooled] = windows.images();
        let images = self.len().checked_div(image).unwrap_or(0);
        let data = buffer(images * pooled, |out| windows.largest(self.as_slice(), out));
        let key = self.tracked().map(|x| (x, GradKey::new()));
        let shape = [batch, windows.output[0], windows.output[1], windows.channels];
        let out = Tensor::output(data, &shape, key.as_ref().map(|k| k.1.clone()));
        if let Some((operand, key)) = key {
            let x = self.detach();
            record(&key, move |grad, flow| {
                flow.with(&operand, x.len(), |out| windows.spread(x.as_slice(), &grad, out))
            });
        }
        Ok(out)
    }

    /// The same where there is no kernel.
    fn max_of_copies(&self, windows: &Windows) -> Result<Tensor> {
        self.copies(windows)?.max_last()
    }

    /// Every window's pixels beside each other: `[B, rows, columns, C, pixels]`. The last row and column of a window that is
    /// smaller than others are copied again.
    fn copies(&self, windows: &Windows) -> Result<Tensor> {
        let [batch, height, width, channels] = self.dims("max_pool")?;
        let [rows, columns] = windows.output;
        let pixels = |axis: usize| (0..windows.output[axis]).map(|i| windows.pixels(i, axis)).collect::<Vec<_>>();
        let (down, across) = (pixels(0), pixels(1));
        let longest = |ranges: &[Range<usize>]| ranges.iter().map(Range::len).max().unwrap_or(0);
        let side = [longest(&down), longest(&across)];
        let mut places = Vec::with_capacity(batch * rows * columns * side[0] * side[1]);
        for image in 0..batch {
            for (row, column) in down.iter().flat_map(|row| across.iter().map(move |column| (row, column))) {
                for (y, x) in (0..side[0]).flat_map(|y| (0..side[1]).map(move |x| (y, x))) {
                    let (y, x) = ((row.start + y).min(row.end - 1), (column.start + x).min(column.end - 1));
                    places.push(((image * height + y) * width + x) as u32);
                }
            }
        }
        let places = Codes::from_vec(places, &[batch, rows, columns, side[0] * side[1]])?;
        let cells = self.reshape(&[batch * height * width, channels])?.embedding(&places)?;
        cells.permute(&[0, 1, 2, 4, 3])
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first failure")]
mod tests {
    use super::*;
    use crate::Rng;
    use crate::ops::testing::{assert_close, check_gradients, on_every_device, random};

    /// The definition, over a map with a border of minus infinity.
    fn twin(x: &Tensor, side: usize, stride: usize, padding: usize) -> Vec<f32> {
        let [batch, height, width, channels] = x.dims("twin").unwrap();
        let [rows, columns] = [height, width].map(|size| (size + 2 * padding - side) / stride + 1);
        let mut out = Vec::new();
        for (b, row) in (0..batch).flat_map(|b| (0..rows).map(move |row| (b, row))) {
            for (column, c) in (0..columns).flat_map(|column| (0..channels).map(move |c| (column, c))) {
                let mut largest = f32::NEG_INFINITY;
                for (dy, dx) in (0..side).flat_map(|dy| (0..side).map(move |dx| (dy, dx))) {
                    let y = (row * stride + dy).wrapping_sub(padding);
                    let x_ = (column * stride + dx).wrapping_sub(padding);
                    if y < height && x_ < width {
                        largest = largest.max(x.as_slice()[((b * height + y) * width + x_) * channels + c]);
                    }
                }
                out.push(largest);
            }
        }
        out
    }

    #[test]
    fn the_largest_pixel_of_every_window() {
        on_every_device(|| {
            for shape in [[2, 5, 7, 3], [1, 4, 4, 8], [3, 3, 9, 1]] {
                // Numbers so far apart that a small step changes no order.
                let order = Rng::new(1, "order", 0).permutation(shape.iter().product());
                let x = Tensor::from_vec(order.into_iter().map(|i| 0.1 * i as f32 - 5.0).collect(), &shape).unwrap();
                for (side, stride, padding) in [(2, 2, 0), (3, 2, 0), (3, 1, 1), (3, 2, 1), (1, 1, 0), (3, 3, 0)] {
                    let pooled = x.max_pool(side, stride, padding).unwrap();
                    assert_eq!(pooled.to_vec(), twin(&x, side, stride, padding));
                    assert_eq!(pooled.shape()[1], (shape[1] + 2 * padding - side) / stride + 1);
                    check_gradients(std::slice::from_ref(&x), |t| t[0].max_pool(side, stride, padding), 1e-3);
                }
                let copied = Windows {
                    input: [shape[1], shape[2]],
                    output: [shape[1], shape[2]],
                    channels: shape[3],
                    layout: Layout::Even { side: 3, stride: 1, before: 1 },
                };
                assert_eq!(x.max_of_copies(&copied).unwrap().to_vec(), twin(&x, 3, 1, 1));
            }
        });
    }

    #[test]
    fn the_largest_pixel_of_every_share() {
        on_every_device(|| {
            for (shape, shares) in [([2, 5, 7, 3], [2, 3]), ([1, 2, 3, 8], [4, 7]), ([3, 4, 4, 1], [4, 1])] {
                let order = Rng::new(2, "order", 0).permutation(shape.iter().product());
                let x = Tensor::from_vec(order.into_iter().map(|i| 0.1 * i as f32 - 5.0).collect(), &shape).unwrap();
                let share = |i: usize, axis: usize| {
                    let (n, size) = (shares[axis], shape[axis + 1]);
                    i * size / n..((i + 1) * size).div_ceil(n)
                };
                let pooled = x.adaptive_max_pool(shares).unwrap();
                assert_eq!(pooled.shape(), [shape[0], shares[0], shares[1], shape[3]]);
                for (i, &found) in pooled.as_slice().iter().enumerate() {
                    let (c, i) = (i % shape[3], i / shape[3]);
                    let (b, row, column) = (i / shares[1] / shares[0], i / shares[1] % shares[0], i % shares[1]);
                    let pixels = share(row, 0).flat_map(|y| share(column, 1).map(move |x| (y, x)));
                    let at = |(y, z)| x.as_slice()[((b * shape[1] + y) * shape[2] + z) * shape[3] + c];
                    assert_eq!(found, pixels.map(at).fold(f32::NEG_INFINITY, f32::max));
                }
                check_gradients(std::slice::from_ref(&x), |t| t[0].adaptive_max_pool(shares), 1e-3);
                // Along a direction it changes as differences say.
                let direction = random(&shape, 3);
                let ahead = x.add(&direction.mul_scalar(1e-3).unwrap()).unwrap().adaptive_max_pool(shares).unwrap();
                let wanted = ahead.sub(&pooled).unwrap().mul_scalar(1e3).unwrap();
                let found = x.adaptive_max_pool_along(&direction, shares).unwrap();
                assert_close(found.as_slice(), wanted.as_slice(), 2e-2);
                let layout = Layout::Shares;
                let windows = Windows { input: [shape[1], shape[2]], output: shares, channels: shape[3], layout };
                assert_eq!(x.max_of_copies(&windows).unwrap().to_vec(), pooled.to_vec());
            }
            assert!(Tensor::zeros(&[1, 4, 4, 2]).adaptive_max_pool([0, 2]).is_err());
        });
    }

    #[test]
    fn equal_pixels_give_the_gradient_to_the_first_and_nan_is_kept() {
        let x = Tensor::from_vec(vec![1.0, 1.0, 1.0, 1.0, f32::NAN, 2.0, 3.0, 1.0], &[1, 2, 4, 1]).unwrap();
        let found = x.max_pool(2, 2, 0).unwrap();
        assert!(found.as_slice()[0].is_nan() && found.as_slice()[1] == 3.0);
        let flat = Tensor::zeros(&[1, 2, 2, 1]).leaf();
        let tape = crate::Tape::start().unwrap();
        let pooled = flat.max_pool(2, 1, 0).unwrap().sum_all().unwrap();
        let gradient = tape.backward(&pooled).unwrap().take(&flat).unwrap();
        assert_eq!(gradient.as_slice(), [1.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn windows_that_fit_nowhere_are_errors() {
        let x = Tensor::zeros(&[1, 4, 3, 2]);
        assert!(x.max_pool(4, 1, 0).is_err() && x.max_pool(0, 1, 0).is_err() && x.max_pool(2, 0, 0).is_err());
        assert!(x.max_pool(2, 2, 2).is_err() && Tensor::zeros(&[4, 4]).max_pool(2, 2, 0).is_err());
        assert!(Tensor::zeros(&[0, 4, 4, 2]).max_pool(2, 2, 0).unwrap().is_empty());
        assert_eq!(Tensor::zeros(&[2, 4, 4, 0]).max_pool(2, 2, 0).unwrap().shape(), [2, 2, 2, 0]);
    }
}
