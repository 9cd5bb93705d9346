//! Scaling with the Catmull-Rom kernel (Keys 1981, a = -1/2), widened by the factor of reduction so that what a smaller image
//! cannot show is averaged away: the bicubic filter of Pillow.

use std::ops::Range;

/// The source pixels that make one pixel, and their weights, which sum to 1.
struct Taps {
    range: Range<usize>,
    weights: Vec<f32>,
}

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

/// How each of `to` pixels is made of `from` pixels.
fn taps(from: usize, to: usize) -> Vec<Taps> {
    let scale = from as f64 / to as f64;
    let widening = scale.max(1.0);
    let taps_of = |n: usize| {
        let middle = (n as f64 + 0.5) * scale;
        let first = (middle - 2.0 * widening).floor().max(0.0) as usize;
        let last = ((middle + 2.0 * widening).ceil() as usize).min(from);
        let weights: Vec<f64> = (first..last).map(|i| kernel((i as f64 + 0.5 - middle) / widening)).collect();
        let sum: f64 = weights.iter().sum();
        Taps { range: first..last, weights: weights.iter().map(|w| (w / sum) as f32).collect() }
    };
    (0..to).map(taps_of).collect()
}

/// Scales an image of `channels` bytes per pixel from the size `from` to the size `to` (height, width).
pub(crate) fn resample(bytes: Vec<u8>, channels: usize, from: [usize; 2], to: [usize; 2]) -> Vec<u8> {
    if from == to {
        return bytes;
    }
    let (rows, columns) = (taps(from[0], to[0]), taps(from[1], to[1]));
    let width = from[1] * channels;
    let mut line = vec![0.0_f32; width];
    let mut out = Vec::with_capacity(to[0] * to[1] * channels);
    for Taps { range, weights } in &rows {
        line.fill(0.0);
        for (y, &weight) in range.clone().zip(weights) {
            for (sum, &byte) in line.iter_mut().zip(&bytes[y * width..(y + 1) * width]) {
                *sum += weight * f32::from(byte);
            }
        }
        match channels {
            1 => across::<1>(&line, &columns, &mut out),
            _ => across::<3>(&line, &columns, &mut out),
        }
    }
    out
}

/// Scales one line of `C` channels.
fn across<const C: usize>(line: &[f32], columns: &[Taps], out: &mut Vec<u8>) {
    for Taps { range, weights } in columns {
        let mut sums = [0.5_f32; C];
        for (pixel, &weight) in line[range.start * C..range.end * C].chunks_exact(C).zip(weights) {
            for c in 0..C {
                sums[c] += weight * pixel[c];
            }
        }
        // To the nearest; a conversion keeps within 0 and 255.
        out.extend(sums.map(|sum| sum as u8));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flat_image_stays_flat_at_any_size() {
        for (from, to) in [([7, 5], [3, 9]), ([1, 1], [4, 4]), ([64, 3], [1, 1]), ([5, 5], [5, 5])] {
            let flat = vec![93; from[0] * from[1] * 3];
            assert_eq!(resample(flat, 3, from, to), vec![93; to[0] * to[1] * 3]);
        }
    }

    /// A line that rises evenly is what the kernel keeps, away from the borders.
    #[test]
    fn a_ramp_stays_a_ramp() {
        let ramp: Vec<u8> = (0..64).map(|x| x * 4).collect();
        let half = resample(ramp, 1, [1, 64], [1, 32]);
        for x in 2..30 {
            assert!(half[x].abs_diff((8 * x + 2) as u8) <= 1, "{half:?}");
        }
    }

    /// Stripes that are too fine for a small image become grey.
    #[test]
    fn what_cannot_be_shown_is_averaged() {
        let stripes: Vec<u8> = (0..256).map(|x| if x % 2 == 0 { 0 } else { 200 }).collect();
        let small = resample(stripes, 1, [1, 256], [1, 16]);
        assert!(small[2..14].iter().all(|byte| byte.abs_diff(100) <= 2), "{small:?}");
    }
}
