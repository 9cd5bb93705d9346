//! Pooling of feature maps `[B, H, W, C]` over windows that may overlap.

use crate::cpu::buffer;
use crate::cpu::loops::pool::Windows;
use crate::tape::{GradKey, record};
use crate::{Codes, Device, Error, Result, Tensor};

impl Tensor {
    /// The largest number of every window of `side` x `side` pixels, `stride` pixels apart, over a map with `padding`
    /// pixels around it that are never the largest: `[B, H, W, C] -> [B, H2, W2, C]`,
    /// `H2 = (H + 2 padding - side) / stride + 1`, as `torch.nn.functional.max_pool2d`. The gradient goes to the first
    /// largest pixel.
    ///
    /// # Errors
    /// [`Error::Shape`] unless the rank is 4, the stride at least 1, the padding at most half a side, and a window fits.
    pub fn max_pool(&self, side: usize, stride: usize, padding: usize) -> Result<Tensor> {
        let [batch, height, width, channels] = self.dims("max_pool")?;
        let fits = side > 0 && stride > 0 && 2 * padding <= side && side <= height.min(width) + 2 * padding;
        if !fits {
            return Err(Error::shape(
                "max_pool",
                format!("no windows of {side} every {stride} with a padding of {padding} in {:?}", self.shape()),
            ));
        }
        let output = [height, width].map(|size| (size + 2 * padding - side) / stride + 1);
        let windows = Windows { input: [height, width], output, channels, side, stride, before: padding };
        if self.device() != Device::Cpu {
            return self.max_of_copies(&windows);
        }
        let [image, pooled] = windows.images();
        let images = self.len().checked_div(image).unwrap_or(0);
        let data = buffer(images * pooled, |out| windows.largest(self.as_slice(), out));
        let key = self.tracked().map(|x| (x, GradKey::new()));
        let shape = [batch, output[0], output[1], channels];
        let out = Tensor::output(data, &shape, key.as_ref().map(|k| k.1.clone()));
        if let Some((operand, key)) = key {
            let x = self.detach();
            record(&key, move |grad, flow| {
                flow.with(&operand, x.len(), |out| windows.spread(x.as_slice(), &grad, out))
            });
        }
        Ok(out)
    }

    /// The same where there is no kernel: every window's pixels are copied beside each other first. Pixels beyond the map
    /// are stood for by their neighbours inside, which lie in the same window.
    fn max_of_copies(&self, windows: &Windows) -> Result<Tensor> {
        let [batch, height, width, channels] = self.dims("max_pool")?;
        let [rows, columns] = windows.output;
        let side = windows.side;
        let mut places = Vec::with_capacity(batch * rows * columns * side * side);
        let inside = |i: usize, size: usize| i.saturating_sub(windows.before).min(size - 1) as u32;
        for image in 0..batch as u32 {
            for row in 0..rows {
                for column in 0..columns {
                    for cell in 0..side * side {
                        let y = inside(row * windows.stride + cell / side, height);
                        let x = inside(column * windows.stride + cell % side, width);
                        places.push((image * height as u32 + y) * width as u32 + x);
                    }
                }
            }
        }
        let places = Codes::from_vec(places, &[batch, rows, columns, side * side])?;
        let cells = self.reshape(&[batch * height * width, channels])?.embedding(&places)?;
        cells.permute(&[0, 1, 2, 4, 3])?.max_last()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first failure")]
mod tests {
    use super::*;
    use crate::Rng;
    use crate::ops::testing::{check_gradients, on_every_device};

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
                    side: 3,
                    stride: 1,
                    before: 1,
                };
                assert_eq!(x.max_of_copies(&copied).unwrap().to_vec(), twin(&x, 3, 1, 1));
            }
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
