//! Scaling with the Catmull-Rom kernel (Keys 1981, a = -1/2), widened by the factor of reduction so that what a smaller image
//! cannot show is averaged away: the bicubic filter of Pillow. In integers, and therefore equal on every machine.

use crate::Flaw;
use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

/// Scales an image of `channels` bytes per pixel from the size `from` to the size `to` (height, width).
///
/// # Errors
/// More than 2^32 rows or columns.
pub(crate) fn resample(bytes: Vec<u8>, channels: usize, from: [usize; 2], to: [usize; 2]) -> Result<Vec<u8>, Flaw> {
    if from == to {
        return Ok(bytes);
    }
    let pixel = if channels == 1 { PixelType::U8 } else { PixelType::U8x3 };
    let failed = |e: &dyn std::fmt::Display| Flaw { reason: "too large", message: format!("it cannot be scaled: {e}") };
    let side = |side: usize| u32::try_from(side).map_err(|e| failed(&e));
    let from = ImageRef::new(side(from[1])?, side(from[0])?, &bytes, pixel).map_err(|e| failed(&e))?;
    let mut scaled = Image::new(side(to[1])?, side(to[0])?, pixel);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom));
    Resizer::new().resize(&from, &mut scaled, &options).map_err(|e| failed(&e))?;
    Ok(scaled.into_vec())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn kernel(x: f64) -> f64 {
        let x = x.abs();
        if x < 1.0 {
            (1.5 * x - 2.5) * x * x + 1.0
        } else if x < 2.0 {
            ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
        } else {
            0.0
        }
    }

    /// The weights that make each of `to` pixels of `from` pixels, by their definition.
    fn weights(from: usize, to: usize) -> Vec<Vec<f64>> {
        let scale = from as f64 / to as f64;
        let of = |n: usize| {
            let middle = (n as f64 + 0.5) * scale;
            let weights: Vec<f64> = (0..from).map(|i| kernel((i as f64 + 0.5 - middle) / scale.max(1.0))).collect();
            let sum: f64 = weights.iter().sum();
            weights.iter().map(|weight| weight / sum).collect()
        };
        (0..to).map(of).collect()
    }

    fn exact(bytes: &[u8], channels: usize, from: [usize; 2], to: [usize; 2]) -> Vec<f64> {
        let (down, right) = (weights(from[0], to[0]), weights(from[1], to[1]));
        let mut out = Vec::new();
        for rows in &down {
            for columns in &right {
                for c in 0..channels {
                    let pixel = |y: usize, x: usize| f64::from(bytes[(y * from[1] + x) * channels + c]);
                    let line = |y: usize| columns.iter().enumerate().map(|(x, w)| w * pixel(y, x)).sum::<f64>();
                    let sum: f64 = rows.iter().enumerate().filter(|(_, w)| **w != 0.0).map(|(y, w)| w * line(y)).sum();
                    out.push(sum.clamp(0.0, 255.0));
                }
            }
        }
        out
    }

    /// Each of the two passes rounds once: noise, which is the hardest, differs by little more than a level. It leaves room for
    /// the kernel's overshoot, which is cut off between the passes.
    #[test]
    fn it_is_the_kernel_within_rounding() {
        for (channels, from, to) in [
            (3, [31, 23], [8, 9]),
            (1, [40, 17], [7, 30]),
            (3, [5, 6], [16, 16]),
            (3, [120, 90], [11, 8]),
            (1, [1, 9], [4, 4]),
        ] {
            let bytes: Vec<u8> = rqlab_sdk::tensor::Rng::new(1, "noise", 0)
                .below(from[0] * from[1] * channels, 136)
                .into_iter()
                .map(|word| 60 + word as u8)
                .collect();
            let wanted = exact(&bytes, channels, from, to);
            let found = resample(bytes, channels, from, to).unwrap();
            let most = found.iter().zip(&wanted).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
            assert!(most < 1.6, "{from:?} to {to:?}: {most}");
        }
    }

    #[test]
    fn a_flat_image_stays_flat_at_any_size() {
        for (from, to) in [([7, 5], [3, 9]), ([1, 1], [4, 4]), ([64, 3], [1, 1]), ([5, 5], [5, 5])] {
            let flat = vec![93; from[0] * from[1] * 3];
            assert_eq!(resample(flat, 3, from, to).unwrap(), vec![93; to[0] * to[1] * 3]);
        }
    }

    /// A line that rises evenly is what the kernel keeps, away from the borders.
    #[test]
    fn a_ramp_stays_a_ramp() {
        let ramp: Vec<u8> = (0..64).map(|x| x * 4).collect();
        let half = resample(ramp, 1, [1, 64], [1, 32]).unwrap();
        for x in 2..30 {
            assert!(half[x].abs_diff((8 * x + 2) as u8) <= 1, "{half:?}");
        }
    }

    /// Stripes that are too fine for a small image become grey.
    #[test]
    fn what_cannot_be_shown_is_averaged() {
        let stripes: Vec<u8> = (0..256).map(|x| if x % 2 == 0 { 0 } else { 200 }).collect();
        let small = resample(stripes, 1, [1, 256], [1, 16]).unwrap();
        assert!(small[2..14].iter().all(|byte| byte.abs_diff(100) <= 2), "{small:?}");
    }
}
