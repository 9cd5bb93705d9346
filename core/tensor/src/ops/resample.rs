//! Resampling of feature maps `[B, H, W, C]`.

use super::kernel::{Kernel, run};
use crate::cpu::buffer;
use crate::cpu::loops::resample::Cells;
#[cfg(feature = "cuda")]
use crate::cuda::{Gpu, Numbers};
use crate::{Error, Result, Tensor};
#[cfg(feature = "cuda")]
use dfdx::prelude::CudaError;

/// Spreads every pixel over its cell.
struct Repeat(Cells);

impl Kernel<1> for Repeat {
    fn cpu(&self, [x]: [&[f32]; 1]) -> Vec<f32> {
        let [large, small] = self.0.images();
        let images = x.len().checked_div(small).unwrap_or(0);
        buffer(images * large, |out| self.0.repeat(x, out))
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, gpu: &Gpu, [x]: [&Numbers; 1]) -> Result<Numbers, CudaError> {
        gpu.repeat(x, self.0)
    }
}

/// Sums every cell into its pixel.
struct SumCells(Cells);

impl Kernel<1> for SumCells {
    fn cpu(&self, [x]: [&[f32]; 1]) -> Vec<f32> {
        let [large, small] = self.0.images();
        let images = x.len().checked_div(large).unwrap_or(0);
        buffer(images * small, |out| self.0.sum(x, out))
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, gpu: &Gpu, [x]: [&Numbers; 1]) -> Result<Numbers, CudaError> {
        gpu.sum_cells(x, self.0)
    }
}

impl Tensor {
    /// Nearest-neighbour upsampling: every pixel becomes a cell of `factor` x `factor`.
    ///
    /// # Errors
    /// [`Error::Shape`] unless the rank is 4 and the factor at least 1.
    pub fn upsample_nearest(&self, factor: usize) -> Result<Tensor> {
        let [batch, height, width, channels] = self.dims("upsample_nearest")?;
        if factor == 0 {
            return Err(Error::shape("upsample_nearest", "the factor must be at least 1"));
        }
        let cells = Cells { size: [height * factor, width * factor], channels, factor, scale: 1.0 };
        let shape = [batch, height * factor, width * factor, channels];
        run("upsample_nearest", &Repeat(cells), [self], &shape)?.with_backward(&[self], |_| {
            let own = self.shape().to_vec();
            move |grad, gradients| gradients.add(0, run("upsample_nearest", &SumCells(cells), [&grad], &own)?)
        })
    }

    /// The mean over cells of `factor` x `factor` pixels: `[B, H, W, C] -> [B, H/factor, W/factor, C]`. Where the factor
    /// does not divide a size, the last rows or columns, which fill no cell, are dropped: `torch.nn.functional.avg_pool2d`.
    ///
    /// # Errors
    /// [`Error::Shape`] unless the rank is 4 and the map holds at least one cell.
    pub fn avg_pool(&self, factor: usize) -> Result<Tensor> {
        let [batch, height, width, channels] = self.dims("avg_pool")?;
        if factor == 0 || height < factor || width < factor {
            return Err(Error::shape("avg_pool", format!("no cell of {factor} x {factor} fits in {:?}", self.shape())));
        }
        let cells = Cells { size: [height, width], channels, factor, scale: 1.0 / (factor * factor) as f32 };
        let shape = [batch, height / factor, width / factor, channels];
        run("avg_pool", &SumCells(cells), [self], &shape)?.with_backward(&[self], |_| {
            let own = self.shape().to_vec();
            move |grad, gradients| gradients.add(0, run("avg_pool", &Repeat(cells), [&grad], &own)?)
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first failure")]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, check_gradients, on_every_device, random};

    /// The element of a map `x` at image, row, column and channel.
    fn at(x: &Tensor, [b, y, z, c]: [usize; 4]) -> f32 {
        let [_, height, width, channels] = x.dims("at").unwrap();
        x.as_slice()[((b * height + y) * width + z) * channels + c]
    }

    /// The image, row, column and channel of element `i` of a map of shape `shape`.
    fn index(i: usize, [_, height, width, channels]: [usize; 4]) -> [usize; 4] {
        let pixel = i / channels;
        [pixel / width / height, pixel / width % height, pixel % width, i % channels]
    }

    #[test]
    fn every_pixel_becomes_a_cell() {
        on_every_device(|| {
            for shape in [[2, 3, 5, 7], [3, 2, 1, 8]] {
                let x = random(&shape, 1);
                for factor in 1..4 {
                    let up = x.upsample_nearest(factor).unwrap();
                    assert_eq!(up.shape(), [shape[0], shape[1] * factor, shape[2] * factor, shape[3]]);
                    for (i, value) in up.as_slice().iter().enumerate() {
                        let [b, y, z, c] = index(i, up.dims("").unwrap());
                        assert_eq!(*value, at(&x, [b, y / factor, z / factor, c]));
                    }
                    check_gradients(std::slice::from_ref(&x), |t| t[0].upsample_nearest(factor), 1e-3);
                    // A map that is used twice gets both gradients.
                    let twice = |t: &[Tensor]| t[0].upsample_nearest(factor)?.mul(&t[0].upsample_nearest(factor)?);
                    check_gradients(std::slice::from_ref(&x), twice, 1e-3);
                }
            }
        });
    }

    /// Sizes that the factor divides, and that leave rows, columns, or both over.
    #[test]
    fn a_cell_becomes_its_mean_and_what_fills_no_cell_is_dropped() {
        on_every_device(|| {
            for shape in [[2, 6, 4, 3], [2, 7, 4, 3], [2, 4, 7, 8], [3, 5, 9, 4], [1, 3, 3, 1], [2, 11, 7, 5]] {
                let x = random(&shape, 2);
                for factor in 1..4 {
                    let pooled = x.avg_pool(factor).unwrap();
                    assert_eq!(pooled.shape(), [shape[0], shape[1] / factor, shape[2] / factor, shape[3]]);
                    let wanted: Vec<f32> = (0..pooled.len())
                        .map(|i| {
                            let [b, y, z, c] = index(i, pooled.dims("").unwrap());
                            let cell = (0..factor * factor)
                                .map(|k| at(&x, [b, y * factor + k / factor, z * factor + k % factor, c]));
                            (cell.map(f64::from).sum::<f64>() / (factor * factor) as f64) as f32
                        })
                        .collect();
                    assert_close(pooled.as_slice(), &wanted, 1e-6);
                    check_gradients(std::slice::from_ref(&x), |t| t[0].avg_pool(factor), 1e-3);
                    let twice = |t: &[Tensor]| t[0].avg_pool(factor)?.mul(&t[0].avg_pool(factor)?);
                    check_gradients(std::slice::from_ref(&x), twice, 1e-3);
                }
            }
            let map = Tensor::from_vec((0..10).map(|x| x as f32).collect(), &[1, 2, 5, 1]).unwrap();
            assert_eq!(map.avg_pool(2).unwrap().as_slice(), [3.0, 5.0]);
        });
    }

    #[test]
    fn misfits_are_errors() {
        on_every_device(|| {
            let x = Tensor::zeros(&[1, 4, 3, 2]);
            assert!(x.avg_pool(4).is_err() && x.avg_pool(0).is_err() && x.upsample_nearest(0).is_err());
            assert!(Tensor::zeros(&[4, 4]).avg_pool(2).is_err());
            assert!(Tensor::zeros(&[0, 4, 4, 2]).avg_pool(3).unwrap().is_empty());
            assert_eq!(Tensor::zeros(&[2, 5, 5, 0]).avg_pool(2).unwrap().shape(), [2, 2, 2, 0]);
        });
    }
}
