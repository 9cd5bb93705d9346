//! Products with a right operand that was packed beforehand.

#![allow(unsafe_code)]

use super::gemm::{Shared, TASK};
use super::kernel::Kernels;
use super::product::Product;
use super::{pack, split};
use std::ptr::null;

/// The panels of `b [n, k]ᵀ`.
pub(crate) fn panels(n: usize, k: usize, b: &[f32]) -> Vec<f32> {
    let width = Kernels::best().width;
    let mut panels = super::buffer(n.next_multiple_of(width) * k);
    if k > 0 {
        split::each_chunk(&mut panels, k * width, TASK / 16, |(j, panel)| {
            let first = j * width;
            pack::transposed(&b[first * k..], k, (n - first).min(width), k, width, panel);
        });
    }
    panels
}

/// `c [m, n] = a [m, k] · b [n, k]ᵀ + bias [n]` over the [`panels`] of b. Few rows are cut by columns, so that all
/// threads have work and each reads its part of b once.
pub(crate) fn product(n: usize, k: usize, a: &[f32], panels: &[f32], bias: Option<&[f32]>, c: &mut [f32]) {
    if c.is_empty() {
        return;
    }
    let kernels = Kernels::best();
    let (m, width) = (c.len() / n, kernels.width);
    assert!(a.len() >= m * k && panels.len() >= n.next_multiple_of(width) * k);
    assert!(bias.is_none_or(|bias| bias.len() == n));
    let rows = m.min(8 * kernels.rows);
    // A piece is worth a thread, and a multiple of the panels' width.
    let columns = (TASK / 4 / (rows * k).max(1)).max(1).next_multiple_of(width).min(n);
    let (down, across) = (m.div_ceil(rows), n.div_ceil(columns));
    let out = Shared::new(c);
    split::each(down * across, |piece| {
        let (row, column) = (piece / across * rows, piece % across * columns);
        let product = Product {
            m: rows.min(m - row),
            n: columns.min(n - column),
            k,
            left: a[row * k..].as_ptr(),
            left_stride: k,
            by_columns: false,
            panels: panels[column * k..].as_ptr(),
            panel_stride: k * width,
            bias: bias.map_or(null(), |bias| bias[column..].as_ptr()),
            // SAFETY: row and column lie inside `c`.
            out: unsafe { out.get().add(row * n + column) },
            out_stride: n,
            accumulate: false,
        };
        // SAFETY: the operands have the sizes asserted above, and each piece writes its own rows and columns.
        unsafe { product.run(kernels) };
    });
}
