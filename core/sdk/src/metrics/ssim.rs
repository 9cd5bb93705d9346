//! The structural similarity index (Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error
//! visibility to structural similarity", 2004).

use super::{DataRange, Error, Images, Result};
use rayon::prelude::*;

/// The structural similarity index with a Gaussian window, over the windows that lie fully inside the image.
///
/// Per channel and window, with weighted means m, variances v (no n-1 correction) and covariance c:
/// `(2 m_a m_b + C1)(2 c + C2) / ((m_a^2 + m_b^2 + C1)(v_a + v_b + C2))`, `C_i = (k_i * width of the range)^2`.
/// Intensities are counted from the low end of the range, so that [-1, 1] and [0, 1] give the same index.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ssim {
    /// The interval of the intensities.
    pub range: DataRange,
    /// Side of the square window in pixels; odd.
    pub window: usize,
    /// Standard deviation of the Gaussian weights in pixels.
    pub sigma: f64,
    /// Stabilises the comparison of means.
    pub k1: f64,
    /// Stabilises the comparison of variances.
    pub k2: f64,
}

impl Ssim {
    /// The published settings: an 11 x 11 window with sigma 1.5, k1 = 0.01, k2 = 0.03 (section III.C).
    pub fn new(range: DataRange) -> Self {
        Self { range, window: 11, sigma: 1.5, k1: 0.01, k2: 0.03 }
    }

    /// The index of each image: `[B]`, the mean over its windows, then its channels. 1 for equal images, NaN for an
    /// image that holds one. An error if the shapes differ, the window is even, or an image is smaller than the window.
    pub fn per_image(&self, a: Images, b: Images) -> Result<Vec<f64>> {
        let channels = a.shape()[3];
        let by_channel = self.per_channel(a, b)?;
        Ok(by_channel.chunks_exact(channels).map(|image| image.iter().sum::<f64>() / channels as f64).collect())
    }

    /// The index of each channel of each image: `[B, C]`, the mean over its windows. Errors as [`Self::per_image`].
    pub fn per_channel(&self, a: Images, b: Images) -> Result<Vec<f64>> {
        let weights = self.weights(&a, &b)?;
        let [_, _, width, channels] = a.shape();
        let means = a.each().zip(b.each()).map(|(a, b)| {
            let map = self.image_map(a, b, width, channels, &weights);
            let windows = (map.len() / channels) as f64;
            let mut sums = vec![0.0; channels];
            for window in map.chunks_exact(channels) {
                sums.iter_mut().zip(window).for_each(|(sum, value)| *sum += value);
            }
            sums.iter().map(|sum| sum / windows).collect::<Vec<f64>>()
        });
        Ok(means.collect::<Vec<_>>().concat())
    }

    /// The index of each window: `[B, H - window + 1, W - window + 1, C]`. Errors as [`Self::per_image`].
    pub fn map(&self, a: Images, b: Images) -> Result<Vec<f64>> {
        let weights = self.weights(&a, &b)?;
        let [_, _, width, channels] = a.shape();
        let maps = a.each().zip(b.each()).map(|(a, b)| self.image_map(a, b, width, channels, &weights));
        Ok(maps.collect::<Vec<_>>().concat())
    }

    /// The Gaussian along one side of the window, of sum 1: the window is its outer product with itself.
    fn weights(&self, a: &Images, b: &Images) -> Result<Vec<f64>> {
        a.check_same_shape(b, "SSIM")?;
        let Self { window, sigma, .. } = *self;
        if window % 2 == 0 || sigma.is_nan() || sigma <= 0.0 {
            return Err(Error::value("SSIM", format!("window {window} must be odd and sigma {sigma} positive")));
        }
        let [_, height, width, _] = a.shape();
        if height < window || width < window {
            return Err(Error::shape("SSIM", format!("{height} x {width} images hold no {window} x {window} window")));
        }
        let centre = (window / 2) as f64;
        let bell: Vec<f64> =
            (0..window).map(|t| (-(t as f64 - centre).powi(2) / (2.0 * sigma.powi(2))).exp()).collect();
        let sum: f64 = bell.iter().sum();
        Ok(bell.iter().map(|value| value / sum).collect())
    }

    /// The index of each window of one image: `[H', W', C]`. The two-dimensional filter is one along the rows, then
    /// one along the columns; all channels of a row are filtered at once, as neighbours lie `channels` apart.
    fn image_map(&self, a: &[f32], b: &[f32], width: usize, channels: usize, weights: &[f64]) -> Vec<f64> {
        let low = self.range.low();
        let row = width * channels;
        let filtered = (width + 1 - weights.len()) * channels;
        // Per input row, the row-filtered a, b, a^2, b^2 and a b, one after the other.
        let mut rows = vec![0.0; a.len() / row * 5 * filtered];
        let mut products = vec![0.0; 5 * row];
        for ((a, b), out) in a.chunks_exact(row).zip(b.chunks_exact(row)).zip(rows.chunks_exact_mut(5 * filtered)) {
            for (i, (&a, &b)) in a.iter().zip(b).enumerate() {
                let (a, b) = (f64::from(a) - low, f64::from(b) - low);
                for (plane, value) in [a, b, a * a, b * b, a * b].into_iter().enumerate() {
                    products[plane * row + i] = value;
                }
            }
            for (plane, out) in products.chunks_exact(row).zip(out.chunks_exact_mut(filtered)) {
                for (t, weight) in weights.iter().enumerate() {
                    add_scaled(out, &plane[t * channels..], *weight);
                }
            }
        }

        let [c1, c2] = [self.k1, self.k2].map(|k| (k * self.range.width()).powi(2));
        let mut map = Vec::with_capacity((a.len() / row + 1 - weights.len()) * filtered);
        let mut moments = vec![0.0; 5 * filtered];
        for window in rows.chunks_exact(5 * filtered).collect::<Vec<_>>().windows(weights.len()) {
            moments.fill(0.0);
            window.iter().zip(weights).for_each(|(row, weight)| add_scaled(&mut moments, row, *weight));
            map.extend((0..filtered).map(|i| {
                let [ma, mb, aa, bb, ab] = std::array::from_fn(|plane| moments[plane * filtered + i]);
                let (va, vb, cov) = (aa - ma * ma, bb - mb * mb, ab - ma * mb);
                (2.0 * ma * mb + c1) * (2.0 * cov + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2))
            }));
        }
        map
    }
}

fn add_scaled(out: &mut [f64], values: &[f64], weight: f64) {
    out.iter_mut().zip(values).for_each(|(out, value)| *out += weight * value);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use rqlab_tensor::Rng;

    /// The definition, window by window and weight by weight.
    fn obvious(ssim: &Ssim, a: &[f32], b: &[f32], [height, width, channels]: [usize; 3]) -> Vec<f64> {
        let n = ssim.window;
        let half = (n / 2) as f64;
        let bell = |t: usize| (-(t as f64 - half).powi(2) / (2.0 * ssim.sigma.powi(2))).exp();
        let total: f64 = (0..n * n).map(|i| bell(i / n) * bell(i % n)).sum();
        let mut map = Vec::new();
        for (y, x, c) in
            (0..=height - n).flat_map(|y| (0..=width - n).flat_map(move |x| (0..channels).map(move |c| (y, x, c))))
        {
            let expect = |of: &dyn Fn(f64, f64) -> f64| -> f64 {
                let term = |i: usize| {
                    let at = ((y + i / n) * width + x + i % n) * channels + c;
                    let low = ssim.range.low();
                    bell(i / n) * bell(i % n) / total * of(f64::from(a[at]) - low, f64::from(b[at]) - low)
                };
                (0..n * n).map(term).sum()
            };
            let (ma, mb) = (expect(&|a, _| a), expect(&|_, b| b));
            let va = expect(&|a, _| (a - ma).powi(2));
            let vb = expect(&|_, b| (b - mb).powi(2));
            let cov = expect(&|a, b| (a - ma) * (b - mb));
            let [c1, c2] = [ssim.k1, ssim.k2].map(|k| (k * ssim.range.width()).powi(2));
            map.push((2.0 * ma * mb + c1) * (2.0 * cov + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2)));
        }
        map
    }

    #[test]
    fn separable_filtering_equals_the_definition() {
        for (shape, window) in [([1, 11, 11, 1], 11), ([2, 13, 17, 3], 11), ([1, 7, 9, 2], 5), ([3, 4, 3, 1], 1)] {
            let n = shape.iter().product();
            let a = Rng::new(1, "a", 0).uniform(n);
            let b: Vec<f32> = a.iter().zip(Rng::new(1, "b", 0).normal(n)).map(|(a, b)| a + 0.2 * b).collect();
            let ssim = Ssim { window, sigma: 1.2, ..Ssim::new(DataRange::UNIT) };
            let map = ssim.map(Images::new(&a, shape).unwrap(), Images::new(&b, shape).unwrap()).unwrap();
            let size = n / shape[0];
            let expected: Vec<f64> = a
                .chunks(size)
                .zip(b.chunks(size))
                .flat_map(|(a, b)| obvious(&ssim, a, b, [shape[1], shape[2], shape[3]]))
                .collect();
            assert_eq!(map.len(), expected.len());
            assert!(map.iter().zip(&expected).all(|(x, y)| (x - y).abs() < 1e-9), "{shape:?}");
        }
    }

    #[test]
    fn equal_images_have_index_one_and_the_range_is_a_choice_of_units() {
        let shape = [2, 12, 14, 3];
        let n = shape.iter().product();
        let (a, b) = (Rng::new(2, "a", 0).uniform(n), Rng::new(2, "b", 0).uniform(n));
        let unit = Ssim::new(DataRange::UNIT);
        let same = unit.per_image(Images::new(&a, shape).unwrap(), Images::new(&a, shape).unwrap()).unwrap();
        assert!(same.iter().all(|s| (s - 1.0).abs() < 1e-12));

        let signed = |x: &[f32]| x.iter().map(|x| 2.0 * x - 1.0).collect::<Vec<f32>>();
        let (sa, sb) = (signed(&a), signed(&b));
        let in_unit = unit.per_image(Images::new(&a, shape).unwrap(), Images::new(&b, shape).unwrap()).unwrap();
        let in_signed = Ssim::new(DataRange::SIGNED)
            .per_image(Images::new(&sa, shape).unwrap(), Images::new(&sb, shape).unwrap())
            .unwrap();
        assert!(in_unit.iter().zip(&in_signed).all(|(x, y)| (x - y).abs() < 1e-5 && *x < 0.5));
    }

    #[test]
    fn constant_images_compare_by_their_means_alone() {
        let shape = [1, 11, 11, 1];
        let (a, b) = ([0.5f32; 121], [0.25f32; 121]);
        let index = Ssim::new(DataRange::UNIT)
            .per_image(Images::new(&a, shape).unwrap(), Images::new(&b, shape).unwrap())
            .unwrap();
        let expected = (2.0 * 0.5 * 0.25 + 1e-4) / (0.25 + 0.0625 + 1e-4);
        assert!((index[0] - expected).abs() < 1e-9);
    }

    #[test]
    fn an_image_smaller_than_the_window_is_an_error() {
        let values = [0.0f32; 80];
        let images = Images::new(&values, [1, 10, 8, 1]).unwrap();
        let error = Ssim::new(DataRange::UNIT).per_image(images, images).unwrap_err();
        assert_eq!(error.to_string(), "SSIM: 10 x 8 images hold no 11 x 11 window");
        assert!(Ssim { window: 4, ..Ssim::new(DataRange::UNIT) }.per_image(images, images).is_err());
    }
}
