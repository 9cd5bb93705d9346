//! The structural similarity index (Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error
//! visibility to structural similarity", 2004).

use super::{DataRange, Error, Images, Result};
use rayon::prelude::*;

/// The weights of a window of `side` x `side` pixels: the outer product of those along one side with themselves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Window {
    /// A bell of deviation `sigma`, in pixels.
    Gaussian {
        /// Pixels of a side; odd.
        side: usize,
        /// Standard deviation of the weights in pixels.
        sigma: f64,
    },
    /// Equal weights.
    Uniform {
        /// Pixels of a side; odd.
        side: usize,
    },
}

/// Where windows may lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Border {
    /// Inside the image.
    Inside,
    /// Around every pixel, over an image that goes on beyond its border as in a mirror: `c b a | a b c` if
    /// `repeat_edge`, `d c b | a b c d` if not.
    Mirror {
        /// Whether the edge pixel comes twice.
        repeat_edge: bool,
    },
}

/// The structural similarity index.
///
/// Per channel and window, with weighted means m, variances v and covariance c:
/// `(2 m_a m_b + C1)(2 c + C2) / ((m_a^2 + m_b^2 + C1)(v_a + v_b + C2))`, `C_i = (k_i * width of the range)^2`.
/// Intensities are counted from the low end of the range, so that [-1, 1] and [0, 1] give the same index.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ssim {
    /// The interval of the intensities.
    pub range: DataRange,
    /// The window.
    pub window: Window,
    /// Where windows may lie.
    pub border: Border,
    /// Whether variances and covariance of a window of n pixels are multiplied by n / (n - 1).
    pub sample_covariance: bool,
    /// Stabilises the comparison of means.
    pub k1: f64,
    /// Stabilises the comparison of variances.
    pub k2: f64,
}

impl Ssim {
    /// The published settings: an 11 x 11 Gaussian window with sigma 1.5 inside the image, k1 = 0.01, k2 = 0.03
    /// (section III.C).
    pub fn new(range: DataRange) -> Self {
        let window = Window::Gaussian { side: 11, sigma: 1.5 };
        Self { range, window, border: Border::Inside, sample_covariance: false, k1: 0.01, k2: 0.03 }
    }

    /// The defaults of scikit-image's `structural_similarity`: a uniform window of 7 x 7 inside the image, with the
    /// covariance of a sample.
    pub fn scikit_image(range: DataRange) -> Self {
        Self { window: Window::Uniform { side: 7 }, sample_covariance: true, ..Self::new(range) }
    }

    /// The index of each image: `[B]`, the mean over its windows, then its channels. 1 for equal images, NaN for an
    /// image that holds one. An error if the shapes differ, the window is even, or no window lies inside an image.
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

    /// The index of each window: `[B, H', W', C]`, where a window inside leaves out `side - 1` rows and columns and a
    /// mirrored border none. Errors as [`Self::per_image`].
    pub fn map(&self, a: Images, b: Images) -> Result<Vec<f64>> {
        let weights = self.weights(&a, &b)?;
        let [_, _, width, channels] = a.shape();
        let maps = a.each().zip(b.each()).map(|(a, b)| self.image_map(a, b, width, channels, &weights));
        Ok(maps.collect::<Vec<_>>().concat())
    }

    /// The weights along one side of the window, of sum 1.
    fn weights(&self, a: &Images, b: &Images) -> Result<Vec<f64>> {
        a.check_same_shape(b, "SSIM")?;
        let (side, sigma) = match self.window {
            Window::Gaussian { side, sigma } => (side, sigma),
            Window::Uniform { side } => (side, f64::INFINITY),
        };
        if side % 2 == 0 || sigma.is_nan() || sigma <= 0.0 {
            return Err(Error::value("SSIM", format!("window {side} must be odd and sigma {sigma} positive")));
        }
        if self.sample_covariance && side < 2 {
            return Err(Error::value("SSIM", "a window of one pixel has no sample covariance"));
        }
        let [_, height, width, _] = a.shape();
        if self.border == Border::Inside && (height < side || width < side) {
            return Err(Error::shape("SSIM", format!("{height} x {width} images hold no {side} x {side} window")));
        }
        let centre = (side / 2) as f64;
        let bell: Vec<f64> = (0..side).map(|t| (-(t as f64 - centre).powi(2) / (2.0 * sigma.powi(2))).exp()).collect();
        let sum: f64 = bell.iter().sum();
        Ok(bell.iter().map(|value| value / sum).collect())
    }

    /// The pixels that a side of `size` is read at: all, or with those beyond its border on both ends.
    fn positions(&self, size: usize, reach: usize) -> Vec<usize> {
        let Border::Mirror { repeat_edge } = self.border else { return (0..size).collect() };
        let edge = i64::from(repeat_edge);
        // Where a size of one has no neighbour to mirror, its pixel repeats.
        let period = (2 * size as i64 - 2 * (1 - edge)).max(1);
        (-(reach as i64)..(size + reach) as i64)
            .map(|at| {
                let at = at.rem_euclid(period);
                (if at < size as i64 { at } else { period - edge - at }) as usize
            })
            .collect()
    }

    /// The index of each window of one image: `[H', W', C]`. The two-dimensional filter is one along the rows, then
    /// one along the columns; all channels of a row are filtered at once, as neighbours lie `channels` apart.
    fn image_map(&self, a: &[f32], b: &[f32], width: usize, channels: usize, weights: &[f64]) -> Vec<f64> {
        let (low, reach, row) = (self.range.low(), weights.len() / 2, width * channels);
        let lines = self.positions(a.len() / row, reach);
        let columns = self.positions(width, reach);
        let read = columns.len() * channels;
        let filtered = (columns.len() + 1 - weights.len()) * channels;
        // Per input row, the row-filtered a, b, a^2, b^2 and a b, one after the other.
        let mut rows = vec![0.0; lines.len() * 5 * filtered];
        let mut products = vec![0.0; 5 * read];
        for (&line, out) in lines.iter().zip(rows.chunks_exact_mut(5 * filtered)) {
            for (i, &column) in columns.iter().enumerate() {
                for channel in 0..channels {
                    let from = line * row + column * channels + channel;
                    let (a, b) = (f64::from(a[from]) - low, f64::from(b[from]) - low);
                    for (plane, value) in [a, b, a * a, b * b, a * b].into_iter().enumerate() {
                        products[plane * read + i * channels + channel] = value;
                    }
                }
            }
            for (plane, out) in products.chunks_exact(read).zip(out.chunks_exact_mut(filtered)) {
                for (t, weight) in weights.iter().enumerate() {
                    add_scaled(out, &plane[t * channels..], *weight);
                }
            }
        }

        let [c1, c2] = [self.k1, self.k2].map(|k| (k * self.range.width()).powi(2));
        let pixels = (weights.len() * weights.len()) as f64;
        let unbiased = if self.sample_covariance { pixels / (pixels - 1.0) } else { 1.0 };
        let mut map = Vec::with_capacity((lines.len() + 1 - weights.len()) * filtered);
        let mut moments = vec![0.0; 5 * filtered];
        for window in rows.chunks_exact(5 * filtered).collect::<Vec<_>>().windows(weights.len()) {
            moments.fill(0.0);
            window.iter().zip(weights).for_each(|(row, weight)| add_scaled(&mut moments, row, *weight));
            map.extend((0..filtered).map(|i| {
                let [ma, mb, aa, bb, ab] = std::array::from_fn(|plane| moments[plane * filtered + i]);
                let (va, vb, cov) = (aa - ma * ma, bb - mb * mb, ab - ma * mb);
                let [va, vb, cov] = [va, vb, cov].map(|moment| unbiased * moment);
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
        let (n, sigma) = match ssim.window {
            Window::Gaussian { side, sigma } => (side, sigma),
            Window::Uniform { side } => (side, 1e9),
        };
        let unbiased = if ssim.sample_covariance { (n * n) as f64 / (n * n - 1) as f64 } else { 1.0 };
        let half = (n / 2) as f64;
        let bell = |t: usize| (-(t as f64 - half).powi(2) / (2.0 * sigma.powi(2))).exp();
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
            let va = unbiased * expect(&|a, _| (a - ma).powi(2));
            let vb = unbiased * expect(&|_, b| (b - mb).powi(2));
            let cov = unbiased * expect(&|a, b| (a - ma) * (b - mb));
            let [c1, c2] = [ssim.k1, ssim.k2].map(|k| (k * ssim.range.width()).powi(2));
            map.push((2.0 * ma * mb + c1) * (2.0 * cov + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2)));
        }
        map
    }

    #[test]
    fn separable_filtering_equals_the_definition() {
        let bell = |side| Window::Gaussian { side, sigma: 1.2 };
        for (shape, window, sample_covariance) in [
            ([1, 11, 11, 1], bell(11), false),
            ([2, 13, 17, 3], bell(11), false),
            ([1, 7, 9, 2], bell(5), true),
            ([3, 4, 3, 1], bell(1), false),
            ([2, 9, 8, 3], Window::Uniform { side: 7 }, true),
        ] {
            let n = shape.iter().product();
            let a = Rng::new(1, "a", 0).uniform(n);
            let b: Vec<f32> = a.iter().zip(Rng::new(1, "b", 0).normal(n)).map(|(a, b)| a + 0.2 * b).collect();
            let ssim = Ssim { window, sample_covariance, ..Ssim::new(DataRange::UNIT) };
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
        let ssim = Ssim::new(DataRange::UNIT);
        assert!(Ssim { window: Window::Uniform { side: 4 }, ..ssim }.per_image(images, images).is_err());
        let one = Window::Uniform { side: 1 };
        assert!(Ssim { window: one, sample_covariance: true, ..ssim }.per_image(images, images).is_err());
    }

    /// A mirrored border is the image made larger by hand, and read inside; every pixel has its window.
    #[test]
    fn a_mirrored_border_is_a_larger_image() {
        let line = [1.0f32, 5.0, 2.0, 4.0];
        for (repeat_edge, larger) in
            [(true, [5.0, 1.0, 1.0, 5.0, 2.0, 4.0, 4.0, 2.0]), (false, [2.0, 5.0, 1.0, 5.0, 2.0, 4.0, 2.0, 5.0])]
        {
            // The same lines repeated below each other stay equal when they are mirrored.
            let (small, large) = (line.repeat(5), larger.repeat(9));
            let inside = Ssim { window: Window::Uniform { side: 5 }, ..Ssim::new(DataRange::UNIT) };
            let mirrored = Ssim { border: Border::Mirror { repeat_edge }, ..inside };
            let half = |x: &[f32]| x.iter().map(|x| 0.5 * x).collect::<Vec<f32>>();
            let index = |ssim: &Ssim, x: &[f32], shape| {
                ssim.map(Images::new(x, shape).unwrap(), Images::new(&half(x), shape).unwrap()).unwrap()
            };
            let (got, wanted) = (index(&mirrored, &small, [1, 5, 4, 1]), index(&inside, &large, [1, 9, 8, 1]));
            assert_eq!(got.len(), 20);
            assert!(got.iter().zip(&wanted).all(|(x, y)| (x - y).abs() < 1e-12), "{got:?} {wanted:?}");
        }
    }

    /// Beyond its neighbours a mirror shows the other end again; one pixel shows itself.
    #[test]
    fn a_small_image_is_mirrored_many_times() {
        let at = |repeat_edge, size| {
            Ssim { border: Border::Mirror { repeat_edge }, ..Ssim::new(DataRange::UNIT) }.positions(size, 4)
        };
        assert_eq!(at(true, 2), [0, 1, 1, 0, 0, 1, 1, 0, 0, 1]);
        assert_eq!(at(false, 2), [0, 1, 0, 1, 0, 1, 0, 1, 0, 1]);
        assert_eq!(at(false, 1), [0; 9]);
        assert_eq!(at(true, 1), [0; 9]);
    }
}
