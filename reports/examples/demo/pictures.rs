//! Made-up pictures: discs and squares, blurred by as much as a tokenizer might.

use rqlab_reports::{CodeMap, Example, Image};

const SIDE: u32 = 32;

/// Splitmix64: enough for pictures, and the same everywhere.
pub(crate) struct Noise(pub(crate) u64);

impl Noise {
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    pub(crate) fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(crate) fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }
}

/// Overlapping discs or squares of many sizes.
pub(crate) fn leaves(noise: &mut Noise, class: usize) -> Image {
    let mut rgb = vec![0_u8; (SIDE * SIDE * 3) as usize];
    for _ in 0..40 {
        let (x, y) = (noise.uniform() * f64::from(SIDE), noise.uniform() * f64::from(SIDE));
        let radius = 2.0 / (0.08 + noise.uniform());
        let colour: [f64; 3] =
            std::array::from_fn(|c| 255.0 * (0.25 + 0.7 * noise.uniform()) * if c == class % 3 { 1.0 } else { 0.6 });
        for row in 0..SIDE {
            for column in 0..SIDE {
                let (dx, dy) = (f64::from(column) - x, f64::from(row) - y);
                let inside =
                    if class.is_multiple_of(2) { dx.hypot(dy) < radius } else { dx.abs().max(dy.abs()) < radius };
                if inside {
                    let at = ((row * SIDE + column) * 3) as usize;
                    for c in 0..3 {
                        rgb[at + c] = colour[c] as u8;
                    }
                }
            }
        }
    }
    Image { width: SIDE, height: SIDE, rgb }
}

/// A blurred, noisy copy; `quality` from 0 to 1.
pub(crate) fn degraded(image: &Image, quality: f64, noise: &mut Noise) -> Image {
    let side = SIDE as i64;
    let reach = ((1.0 - quality) * 4.0).round() as i64;
    let mut rgb = Vec::with_capacity(image.rgb.len());
    for row in 0..side {
        for column in 0..side {
            for c in 0..3 {
                let (mut sum, mut count) = (0.0, 0.0);
                for y in (row - reach).max(0)..=(row + reach).min(side - 1) {
                    for x in (column - reach).max(0)..=(column + reach).min(side - 1) {
                        sum += f64::from(image.rgb[((y * side + x) * 3 + c) as usize]);
                        count += 1.0;
                    }
                }
                rgb.push((sum / count + noise.normal() * 14.0 * (1.0 - quality)).clamp(0.0, 255.0) as u8);
            }
        }
    }
    Image { width: SIDE, height: SIDE, rgb }
}

/// Test images with their reconstructions and codes.
pub(crate) fn examples(levels: usize, depth: usize, quality: f64, codebook: usize, noise: &mut Noise) -> Vec<Example> {
    (0..6_usize)
        .map(|number| {
            let original = leaves(&mut Noise(1000 + number as u64), number % 4);
            let reconstructions = (1..=depth)
                .map(|codes| degraded(&original, quality * (0.45 + 0.55 * codes as f64 / depth as f64), noise))
                .collect();
            let mut codes = |side: usize| {
                let codes = (0..side * side * depth).map(|_| (noise.bits() % codebook as u64) as u32).collect();
                CodeMap { height: side, width: side, depth, codes }
            };
            Example {
                label: format!("test {number}, class {}", number % 4),
                original,
                reconstructions,
                codes: (1..=levels).map(|level| codes(if level < levels { 4 } else { 8 })).collect(),
            }
        })
        .collect()
}
