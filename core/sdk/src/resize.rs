//! Pictures and maps in other sizes, each axis on its own: a new pixel is a weighted sum of old ones.
//!
//! What a published system computes hangs on details that are named here: the kernel, whether it widens where the picture
//! shrinks, and which coordinates pixels have. [`Resize::of`] prepares what networks are shown, in f64 and without gradients;
//! [`Resize::differentiable`] is a part of a model.

use crate::tensor::Tensor;
use crate::tensor::ops::filter::Filter;
use crate::{Error, Result};
use rayon::prelude::*;

/// How a new pixel is made of old ones.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sampling {
    /// The mean of the pixels that the new one covers, each as a whole: `adaptive_avg_pool2d`.
    Area,
    /// A kernel around the place of the new pixel.
    Kernel {
        /// Its form.
        kernel: Kernel,
        /// Whether it widens by the factor that the picture shrinks by, as Pillow does and a plain `interpolate` does not.
        antialias: bool,
        /// What it reads beyond the border.
        border: Beyond,
    },
}

/// A kernel of interpolation, as a function of the distance in pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kernel {
    /// A triangle of width 2.
    Linear,
    /// Cubic pieces of width 4 (Keys 1981).
    Cubic {
        /// The slope at distance 1: -0.75 in PyTorch and OpenCV, -0.5 in Pillow and where PyTorch widens the kernel.
        a: f64,
    },
    /// A windowed sinc of width 6.
    Lanczos3,
}

/// What a kernel reads where it reaches over the border.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beyond {
    /// The edge pixel once more.
    Edge,
    /// Nothing: the weights inside are scaled to a sum of 1.
    Nothing,
}

/// Where the middle of a new pixel lies among the old ones.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Coordinates {
    /// Pixels are areas: `(i + 1/2) * step - 1/2`.
    Areas,
    /// Pixels are points from the upper left corner: `i * step`, as the first version of TensorFlow has it.
    Corners,
}

impl Sampling {
    /// `interpolate(mode = "bilinear", align_corners = False)`.
    pub const LINEAR: Self = Self::Kernel { kernel: Kernel::Linear, antialias: false, border: Beyond::Edge };
    /// `interpolate(mode = "bicubic", align_corners = False)`.
    pub const CUBIC: Self = Self::Kernel { kernel: Kernel::Cubic { a: -0.75 }, antialias: false, border: Beyond::Edge };
    /// `interpolate(mode = "bicubic", antialias = True)`, and Pillow's `BICUBIC` on floating-point pictures.
    pub const SMOOTH_CUBIC: Self =
        Self::Kernel { kernel: Kernel::Cubic { a: -0.5 }, antialias: true, border: Beyond::Nothing };
    /// `interpolate(mode = "bilinear", antialias = True)`, and Pillow's `BILINEAR` on floating-point pictures.
    pub const SMOOTH_LINEAR: Self = Self::Kernel { kernel: Kernel::Linear, antialias: true, border: Beyond::Nothing };
}

impl Kernel {
    /// The distance from which on it is 0.
    fn reach(self) -> f64 {
        match self {
            Self::Linear => 1.0,
            Self::Cubic { .. } => 2.0,
            Self::Lanczos3 => 3.0,
        }
    }

    fn at(self, distance: f64) -> f64 {
        let x = distance.abs();
        match self {
            Self::Linear => (1.0 - x).max(0.0),
            Self::Cubic { a } if x < 1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
            Self::Cubic { a } if x < 2.0 => ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a,
            Self::Lanczos3 if x < 3.0 => sinc(x) * sinc(x / 3.0),
            Self::Cubic { .. } | Self::Lanczos3 => 0.0,
        }
    }
}

fn sinc(x: f64) -> f64 {
    let x = std::f64::consts::PI * x;
    if x == 0.0 { 1.0 } else { x.sin() / x }
}

/// A change of size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Resize {
    size: [usize; 2],
    sampling: Sampling,
    coordinates: Coordinates,
    steps: Option<[f64; 2]>,
}

/// The old pixels of one new pixel along an axis: the first, and their weights.
struct Taps {
    first: usize,
    weights: Vec<f64>,
}

impl Resize {
    /// To `[height, width]`, with the pixels as areas and the ratio of the sizes as the step.
    pub fn to(size: [usize; 2], sampling: Sampling) -> Self {
        Self { size, sampling, coordinates: Coordinates::Areas, steps: None }
    }

    /// With other coordinates.
    #[must_use]
    pub fn with_coordinates(self, coordinates: Coordinates) -> Self {
        Self { coordinates, ..self }
    }

    /// With the steps given, in old pixels for a new one down and across, instead of the ratios of the sizes.
    #[must_use]
    pub fn with_steps(self, steps: [f64; 2]) -> Self {
        Self { steps: Some(steps), ..self }
    }

    /// Maps `[B, H, W, C]` in the new size, summed in f64.
    ///
    /// # Errors
    /// A size of 0; a tensor that is no map.
    pub fn of(&self, maps: &Tensor) -> Result<Tensor> {
        let [batch, height, width, channels] = maps.dims("resize")?;
        if self.size.contains(&0) || height == 0 || width == 0 {
            return Err(Error::Data(format!("{height} x {width} pixels cannot become {:?}", self.size)));
        }
        let [rows, columns] = [self.axis(height, 0), self.axis(width, 1)];
        let [new_height, new_width] = self.size;
        let mut out = vec![0.0f32; batch * new_height * new_width * channels];
        let image = height * width * channels;
        if image == 0 || out.is_empty() {
            return Ok(Tensor::from_vec(out, &[batch, new_height, new_width, channels])?);
        }
        let line = new_width * channels;
        out.par_chunks_mut(new_height * line).zip(maps.as_slice().par_chunks(image)).for_each(|(out, image)| {
            // Across first: [H, W', C].
            let mut across = vec![0.0f64; height * line];
            for (row, across) in image.chunks(width * channels).zip(across.chunks_mut(line)) {
                for (pixel, taps) in across.chunks_mut(channels).zip(&columns) {
                    for (old, weight) in row[taps.first * channels..].chunks(channels).zip(&taps.weights) {
                        pixel.iter_mut().zip(old).for_each(|(sum, &old)| *sum += weight * f64::from(old));
                    }
                }
            }
            let mut sums = vec![0.0f64; line];
            for (out, taps) in out.chunks_mut(line).zip(&rows) {
                sums.fill(0.0);
                for (old, weight) in across[taps.first * line..].chunks(line).zip(&taps.weights) {
                    sums.iter_mut().zip(old).for_each(|(sum, old)| *sum += weight * old);
                }
                out.iter_mut().zip(&sums).for_each(|(out, sum)| *out = *sum as f32);
            }
        });
        Ok(Tensor::from_vec(out, &[batch, new_height, new_width, channels])?)
    }

    /// Maps `[B, H, W, C]` in the new size, with gradients and on the device that they are on, summed in f32.
    ///
    /// # Errors
    /// As for [`Resize::of`].
    pub fn differentiable(&self, maps: &Tensor) -> Result<Tensor> {
        let [_, height, width, _] = maps.dims("resize")?;
        if self.size.contains(&0) || height == 0 || width == 0 {
            return Err(Error::Data(format!("{height} x {width} pixels cannot become {:?}", self.size)));
        }
        let filter = |old: usize, axis: usize| {
            let taps = self.axis(old, axis).into_iter();
            let taps = taps.map(|tap| (tap.first, tap.weights.iter().map(|&weight| weight as f32).collect()));
            Filter::new(old, taps.collect())
        };
        Ok(maps.filter_map(&filter(height, 0)?, &filter(width, 1)?)?)
    }

    /// The weights of an axis of `old` pixels.
    fn axis(&self, old: usize, axis: usize) -> Vec<Taps> {
        let new = self.size[axis];
        let step = self.steps.map_or(old as f64 / new as f64, |steps| steps[axis]);
        let Sampling::Kernel { kernel, antialias, border } = self.sampling else {
            let mean =
                |first: usize, end: usize| Taps { first, weights: vec![1.0 / (end - first) as f64; end - first] };
            return (0..new).map(|i| mean(i * old / new, ((i + 1) * old).div_ceil(new))).collect();
        };
        let widened = if antialias { step.max(1.0) } else { 1.0 };
        let reach = kernel.reach() * widened;
        let at = |i: usize| match self.coordinates {
            Coordinates::Areas => (i as f64 + 0.5) * step - 0.5,
            Coordinates::Corners => i as f64 * step,
        };
        let last = old as i64 - 1;
        (0..new)
            .map(|i| {
                let middle = at(i);
                let [from, to] = [(middle - reach).ceil() as i64, (middle + reach).floor() as i64];
                let [first, end] = [from, to].map(|place| place.clamp(0, last) as usize);
                let mut weights = vec![0.0; end - first + 1];
                for place in from..=to {
                    let weight = kernel.at((place as f64 - middle) / widened);
                    let inside = place.clamp(0, last);
                    if inside == place || border == Beyond::Edge {
                        weights[inside as usize - first] += weight;
                    }
                }
                let sum: f64 = weights.iter().sum();
                weights.iter_mut().for_each(|weight| *weight /= sum);
                Taps { first, weights }
            })
            .collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::tensor::{Rng, Tape};

    fn line(values: &[f32]) -> Tensor {
        Tensor::from_vec(values.to_vec(), &[1, 1, values.len(), 1]).unwrap()
    }

    fn resized(values: &[f32], width: usize, sampling: Sampling) -> Vec<f32> {
        Resize::to([1, width], sampling).of(&line(values)).unwrap().to_vec()
    }

    fn assert_close(found: &[f32], wanted: &[f32]) {
        assert_eq!(found.len(), wanted.len());
        assert!(found.iter().zip(wanted).all(|(x, y)| (x - y).abs() < 1e-5), "{found:?}, wanted {wanted:?}");
    }

    /// Numbers of `torch.nn.functional.interpolate` and of Pillow, or by hand.
    #[test]
    fn a_line_of_pixels_in_other_sizes() {
        let x = [0.0, 1.0, 4.0, 9.0];
        assert_close(&resized(&x, 8, Sampling::LINEAR), &[0.0, 0.25, 0.75, 1.75, 3.25, 5.25, 7.75, 9.0]);
        assert_close(&resized(&x, 2, Sampling::LINEAR), &[0.5, 6.5]);
        assert_close(&resized(&x, 2, Sampling::Area), &[0.5, 6.5]);
        assert_close(&resized(&x, 3, Sampling::Area), &[0.5, 2.5, 6.5]);
        // Cubic, a = -0.75, halfway: (-3 x0 + 19 x1 + 19 x2 - 3 x3) / 32, edges repeated.
        let cubic = |[a, b, c, d]: [f32; 4]| (-3.0 * a + 19.0 * b + 19.0 * c - 3.0 * d) / 32.0;
        assert_close(&resized(&x, 2, Sampling::CUBIC), &[cubic([0.0, 0.0, 1.0, 4.0]), cubic([1.0, 4.0, 9.0, 9.0])]);
        // A triangle of width 4 around 0.5 and 2.5: weights 1/8 of 3 3 1 inside, then scaled to a sum of 1.
        assert_close(&resized(&x, 2, Sampling::SMOOTH_LINEAR), &[(3.0 + 4.0) / 7.0, (1.0 + 12.0 + 27.0) / 7.0]);
        let corners = Resize::to([1, 8], Sampling::LINEAR).with_coordinates(Coordinates::Corners);
        assert_close(corners.of(&line(&x)).unwrap().as_slice(), &[0.0, 0.5, 1.0, 2.5, 4.0, 6.5, 9.0, 9.0]);
    }

    #[test]
    fn equal_sizes_change_nothing_and_flat_pictures_stay_flat() {
        let lanczos = Sampling::Kernel { kernel: Kernel::Lanczos3, antialias: true, border: Beyond::Nothing };
        for sampling in [
            Sampling::Area,
            Sampling::LINEAR,
            Sampling::CUBIC,
            Sampling::SMOOTH_CUBIC,
            Sampling::SMOOTH_LINEAR,
            lanczos,
        ] {
            assert_close(&resized(&[3.0, -1.0, 4.0], 3, sampling), &[3.0, -1.0, 4.0]);
            for width in [1, 2, 7, 11] {
                assert_close(&resized(&[2.5; 5], width, sampling), &vec![2.5; width]);
            }
        }
    }

    #[test]
    fn what_has_gradients_has_the_same_values() {
        let x = Tensor::from_vec(Rng::new(1, "maps", 0).normal(2 * 7 * 5 * 3), &[2, 7, 5, 3]).unwrap();
        let samplings =
            [Sampling::Area, Sampling::LINEAR, Sampling::CUBIC, Sampling::SMOOTH_CUBIC, Sampling::SMOOTH_LINEAR];
        for (sampling, size) in samplings.into_iter().flat_map(|s| [[3, 11], [14, 2], [7, 5]].map(|size| (s, size))) {
            let resize = Resize::to(size, sampling);
            let leaf = x.leaf();
            let tape = Tape::start().unwrap();
            let found = resize.differentiable(&leaf).unwrap();
            assert_close(found.as_slice(), resize.of(&x).unwrap().as_slice());
            // The gradient of a sum is what each old pixel counts in it: all of them as much as there are new ones.
            let gradient = tape.backward(&found.sum_all().unwrap()).unwrap().take(&leaf).unwrap();
            let (sum, wanted) = (gradient.sum_all().unwrap().item().unwrap(), found.len() as f32);
            assert!((sum - wanted).abs() < 1e-4 * wanted, "{sum}, wanted {wanted}");
        }
    }

    #[test]
    fn channels_rows_and_columns_keep_apart() {
        let x = Tensor::from_vec((0..24).map(|x| x as f32).collect(), &[2, 2, 3, 2]).unwrap();
        let found = Resize::to([4, 3], Sampling::LINEAR).of(&x).unwrap();
        assert_eq!(found.shape(), [2, 4, 3, 2]);
        // Row weights 0, 1/4, 3/4, 1 between rows that lie 6 apart.
        for (i, value) in found.as_slice().iter().enumerate() {
            let (image, row, rest) = (i / 24, i / 6 % 4, i % 6);
            assert_eq!(*value, (12 * image + rest) as f32 + 6.0 * [0.0, 0.25, 0.75, 1.0][row]);
        }
        assert!(Resize::to([0, 3], Sampling::Area).of(&x).is_err());
    }
}
