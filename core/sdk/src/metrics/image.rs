//! Pixel errors between images: mean squared error and peak signal-to-noise ratio.

use super::{Error, Result};
use rayon::prelude::*;

/// A batch of images `[B, H, W, C]`, channels last, in any range.
#[derive(Debug, Clone, Copy)]
pub struct Images<'a> {
    values: &'a [f32],
    shape: [usize; 4],
}

impl<'a> Images<'a> {
    /// Views `values` as `[B, H, W, C]`. An error if the sizes do not multiply to the number of values, or if an image
    /// has no pixels.
    pub fn new(values: &'a [f32], shape: [usize; 4]) -> Result<Self> {
        if shape[1..].contains(&0) {
            return Err(Error::shape("images", format!("{shape:?} has images without pixels")));
        }
        if shape.iter().try_fold(1usize, |size, &n| size.checked_mul(n)) != Some(values.len()) {
            return Err(Error::shape("images", format!("{} values do not fill {shape:?}", values.len())));
        }
        Ok(Self { values, shape })
    }

    /// `[B, H, W, C]`.
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// The values of one image, `[H, W, C]`, for each image in turn.
    pub(super) fn each(&self) -> rayon::slice::ChunksExact<'a, f32> {
        self.values.par_chunks_exact(self.shape[1..].iter().product())
    }

    pub(super) fn check_same_shape(&self, other: &Self, measure: &'static str) -> Result<()> {
        if self.shape == other.shape {
            return Ok(());
        }
        Err(Error::shape(measure, format!("images {:?} against images {:?}", self.shape, other.shape)))
    }
}

/// The interval that intensities are meant to lie in. Values outside of it are measured as they are: clamp them first
/// where the published number does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DataRange {
    low: f64,
    high: f64,
}

impl DataRange {
    /// Intensities in [0, 1].
    pub const UNIT: Self = Self { low: 0.0, high: 1.0 };
    /// Intensities in [-1, 1], as the models see them.
    pub const SIGNED: Self = Self { low: -1.0, high: 1.0 };

    /// From black to white. An error unless `low < high`, both finite.
    pub fn new(low: f64, high: f64) -> Result<Self> {
        if low.is_finite() && high.is_finite() && low < high {
            return Ok(Self { low, high });
        }
        Err(Error::value("data range", format!("[{low}, {high}] is not an interval")))
    }

    /// The intensity of black.
    pub fn low(&self) -> f64 {
        self.low
    }

    /// The distance between black and white: the peak of the peak signal-to-noise ratio.
    pub fn width(&self) -> f64 {
        self.high - self.low
    }
}

/// Mean squared error of each image over its pixels and channels: `[B]`, in squared units of the intensities (on
/// [-1, 1] it is four times that on [0, 1]). NaN for an image that holds one. An error if the shapes differ.
pub fn mse(a: Images, b: Images) -> Result<Vec<f64>> {
    a.check_same_shape(&b, "mse")?;
    let mean_square = |(a, b): (&[f32], &[f32])| {
        let sum: f64 = a.iter().zip(b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum();
        sum / a.len() as f64
    };
    Ok(a.each().zip(b.each()).map(mean_square).collect())
}

/// Peak signal-to-noise ratio in dB of a mean squared error in the units of `range`: `10 log10(width^2 / mse)`.
/// Infinite for an error of 0.
pub fn psnr(mse: f64, range: DataRange) -> f64 {
    10.0 * (range.width().powi(2) / mse).log10()
}

/// The PSNR in dB of the error over all images at once, from the errors of images of one size. It is at most the mean
/// of the images' own PSNR, and finite as soon as one image differs. An error if there are no images.
pub fn psnr_pooled(mse: &[f64], range: DataRange) -> Result<f64> {
    if mse.is_empty() {
        return Err(Error::TooFew { measure: "pooled PSNR", of: "images", found: 0, wanted: 1 });
    }
    Ok(psnr(mse.iter().sum::<f64>() / mse.len() as f64, range))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_constant_difference_gives_its_square() {
        let (a, b) = ([0.25f32; 2 * 12], [[0.25f32; 12], [0.5; 12]].concat());
        let shape = [2, 2, 2, 3];
        let error = mse(Images::new(&a, shape).unwrap(), Images::new(&b, shape).unwrap()).unwrap();
        assert_eq!(error, [0.0, 0.0625]);
    }

    #[test]
    fn ten_times_less_error_is_ten_decibels() {
        assert_eq!(psnr(1.0, DataRange::UNIT), 0.0);
        assert!((psnr(1e-3, DataRange::UNIT) - 30.0).abs() < 1e-12);
        assert_eq!(psnr(0.0, DataRange::UNIT), f64::INFINITY);
        // The same images on [-1, 1]: four times the squared error, the same ratio.
        assert!((psnr(4e-3, DataRange::SIGNED) - 30.0).abs() < 1e-12);
    }

    #[test]
    fn pooled_psnr_is_that_of_the_mean_error() {
        assert!((psnr_pooled(&[0.0, 0.02], DataRange::UNIT).unwrap() - 20.0).abs() < 1e-12);
        assert!(psnr_pooled(&[], DataRange::UNIT).is_err());
    }

    #[test]
    fn wrong_sizes_are_errors() {
        let values = [0.0f32; 12];
        assert!(Images::new(&values, [1, 2, 2, 2]).is_err());
        assert!(Images::new(&values[..0], [1, 2, 0, 3]).is_err());
        assert!(Images::new(&values[..0], [0, 2, 2, 3]).is_ok());
        let a = Images::new(&values, [1, 2, 2, 3]).unwrap();
        let b = Images::new(&values, [1, 4, 1, 3]).unwrap();
        assert_eq!(mse(a, b).unwrap_err().to_string(), "mse: images [1, 2, 2, 3] against images [1, 4, 1, 3]");
        assert!(DataRange::new(1.0, 1.0).is_err());
    }
}
