//! Copies of an operand into panels: `[k][width]` for each `width` columns of the right operand, `[k][rows]` for each
//! `rows` rows of the left one. Columns that do not exist are 0.

#![allow(unsafe_code)]

use super::dispatch::{Level, level};

/// One panel of `b [k, n]`, rows `stride` apart: columns `first..first + columns`.
pub(crate) fn rows(b: &[f32], stride: usize, first: usize, columns: usize, k: usize, width: usize, panel: &mut [f32]) {
    for (p, out) in panel.chunks_exact_mut(width).enumerate().take(k) {
        let (out, pad) = out.split_at_mut(columns);
        out.copy_from_slice(&b[p * stride + first..p * stride + first + columns]);
        pad.fill(0.0);
    }
}

/// One panel of the transpose of `b`, whose rows of `k` numbers lie `stride` apart: `columns` rows from the start of
/// `b`.
pub(crate) fn transposed(b: &[f32], stride: usize, columns: usize, k: usize, width: usize, panel: &mut [f32]) {
    assert!(panel.len() >= k * width && columns <= width);
    assert!(columns == 0 || b.len() >= (columns - 1) * stride + k);
    let mut done = 0;
    #[cfg(target_arch = "x86_64")]
    if level() >= Level::Avx2 && width.is_multiple_of(8) {
        // Blocks of 8 x 8; what is left below and to the right follows one by one.
        let (whole_k, whole_c) = (k - k % 8, columns - columns % 8);
        for c in (0..whole_c).step_by(8) {
            for p in (0..whole_k).step_by(8) {
                // SAFETY: the processor has AVX2; rows c..c + 8 have k numbers and the panel k rows, as checked above.
                unsafe {
                    transpose8(b.as_ptr().add(c * stride + p), stride, panel.as_mut_ptr().add(p * width + c), width)
                };
            }
            for p in whole_k..k {
                for c in c..c + 8 {
                    panel[p * width + c] = b[c * stride + p];
                }
            }
        }
        done = whole_c;
    }
    for c in done..columns {
        for (p, &x) in b[c * stride..c * stride + k].iter().enumerate() {
            panel[p * width + c] = x;
        }
    }
    if columns < width {
        for out in panel[..k * width].chunks_exact_mut(width) {
            out[columns..].fill(0.0);
        }
    }
}

/// Writes the transpose of the 8 x 8 block at `from` to `to`.
///
/// # Safety
/// Eight rows of eight numbers at either pointer, `stride` and `to_stride` apart, and a processor with AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn transpose8(from: *const f32, stride: usize, to: *mut f32, to_stride: usize) {
    use std::arch::x86_64::*;
    // SAFETY: the caller's promise.
    unsafe {
        // Halves of rows i and i + 4 side by side, so that only shuffles within 128 bits are left.
        let pair = |i: usize, at: usize| {
            let low = _mm256_castps128_ps256(_mm_loadu_ps(from.add(i * stride + at)));
            _mm256_insertf128_ps::<1>(low, _mm_loadu_ps(from.add((i + 4) * stride + at)))
        };
        for at in [0, 4] {
            let (a, b, c, d) = (pair(0, at), pair(1, at), pair(2, at), pair(3, at));
            let (ab, cd) = (_mm256_unpacklo_ps(a, b), _mm256_unpacklo_ps(c, d));
            _mm256_storeu_ps(to.add(at * to_stride), _mm256_shuffle_ps::<0b01_00_01_00>(ab, cd));
            _mm256_storeu_ps(to.add((at + 1) * to_stride), _mm256_shuffle_ps::<0b11_10_11_10>(ab, cd));
            let (ab, cd) = (_mm256_unpackhi_ps(a, b), _mm256_unpackhi_ps(c, d));
            _mm256_storeu_ps(to.add((at + 2) * to_stride), _mm256_shuffle_ps::<0b01_00_01_00>(ab, cd));
            _mm256_storeu_ps(to.add((at + 3) * to_stride), _mm256_shuffle_ps::<0b11_10_11_10>(ab, cd));
        }
    }
}
