//! Copies of an operand into panels: `[k][width]` for each `width` columns of the right operand, `[k][rows]` for each
//! `rows` rows of the left one.

#![allow(unsafe_code)]

use crate::cpu::isa::{Level, level, simd};

/// One panel of `b [k, n]`, rows `stride` apart: columns `first..first + columns`. Columns that pad it hold what follows
/// in `b`, or are left as they are; products with them are never written.
pub(crate) fn rows(b: &[f32], stride: usize, first: usize, columns: usize, k: usize, width: usize, panel: &mut [f32]) {
    match width {
        32 => rows_of_32(b, stride, first, columns, k, panel),
        16 => rows_of_16(b, stride, first, columns, k, panel),
        8 => rows_of_8(b, stride, first, columns, k, panel),
        _ => {
            for (p, out) in panel.chunks_exact_mut(width).enumerate().take(k) {
                out[..columns].copy_from_slice(&b[p * stride + first..][..columns]);
            }
        }
    }
}

/// Copies of a fixed length, unlike those of any length, are a few instructions. The last rows, behind whose columns
/// less than a panel's width may follow, are copied apart: one branch for both would make every copy a call.
#[inline(always)]
fn copy_rows<const W: usize>(b: &[f32], stride: usize, first: usize, columns: usize, k: usize, panel: &mut [f32]) {
    let whole = if b.len() < first + W { 0 } else { ((b.len() - first - W) / stride.max(1) + 1).min(k) };
    let (head, tail) = panel[..k * W].split_at_mut(whole * W);
    for (p, out) in head.as_chunks_mut::<W>().0.iter_mut().enumerate() {
        out.copy_from_slice(&b[p * stride + first..][..W]);
    }
    for (p, out) in tail.chunks_exact_mut(W).enumerate() {
        out[..columns].copy_from_slice(&b[(whole + p) * stride + first..][..columns]);
    }
}

simd! {
    fn rows_of_32(b: &[f32], stride: usize, first: usize, columns: usize, k: usize, panel: &mut [f32]) {
        copy_rows::<32>(b, stride, first, columns, k, panel);
    }
}
simd! {
    fn rows_of_16(b: &[f32], stride: usize, first: usize, columns: usize, k: usize, panel: &mut [f32]) {
        copy_rows::<16>(b, stride, first, columns, k, panel);
    }
}
simd! {
    fn rows_of_8(b: &[f32], stride: usize, first: usize, columns: usize, k: usize, panel: &mut [f32]) {
        copy_rows::<8>(b, stride, first, columns, k, panel);
    }
}

/// One panel of the transpose of `b`, whose rows of `k` numbers lie `stride` apart: `columns` rows from the start of
/// `b`. Columns that pad it are 0.
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
