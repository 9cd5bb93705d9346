//! Copies and sums between a map and its cells of `factor` x `factor` pixels.

use rayon::prelude::*;

/// Spreads every pixel of `small [.., width, channels]`, times `scale`, over a cell of `large`.
pub(crate) fn repeat(
    width: usize,
    channels: usize,
    factor: usize,
    scale: f32,
    small: &[f32],
    large: &mut [f32],
    accumulate: bool,
) {
    let row = width * channels;
    if row == 0 {
        return;
    }
    large.par_chunks_mut(row * factor * factor).zip(small.par_chunks(row)).for_each(|(cells, pixels)| {
        for line in cells.chunks_exact_mut(row * factor) {
            for (cell, pixel) in line.chunks_exact_mut(channels * factor).zip(pixels.chunks_exact(channels)) {
                for out in cell.chunks_exact_mut(channels) {
                    if accumulate {
                        out.iter_mut().zip(pixel).for_each(|(o, p)| *o += scale * p);
                    } else {
                        out.iter_mut().zip(pixel).for_each(|(o, p)| *o = scale * p);
                    }
                }
            }
        }
    });
}

/// Sums every cell of `large`, times `scale`, into a pixel of `small [.., width, channels]`.
pub(crate) fn sum_cells(
    width: usize,
    channels: usize,
    factor: usize,
    scale: f32,
    large: &[f32],
    small: &mut [f32],
    accumulate: bool,
) {
    let row = width * channels;
    if row == 0 {
        return;
    }
    small.par_chunks_mut(row).zip(large.par_chunks(row * factor * factor)).for_each(|(pixels, cells)| {
        if !accumulate {
            pixels.fill(0.0);
        }
        for line in cells.chunks_exact(row * factor) {
            for (pixel, cell) in pixels.chunks_exact_mut(channels).zip(line.chunks_exact(channels * factor)) {
                for part in cell.chunks_exact(channels) {
                    pixel.iter_mut().zip(part).for_each(|(o, p)| *o += scale * p);
                }
            }
        }
    });
}
