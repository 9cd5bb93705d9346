//! The gradient of a convolution's weight.

#![allow(unsafe_code)]

use crate::cpu::Output;
use crate::cpu::conv::winograd::{self, Winograd};
use crate::cpu::conv::{FEW_CHANNELS, Geometry, Indirection, offsets};
use crate::cpu::gemm::kernel::Kernels;
use crate::cpu::gemm::pack;
use crate::cpu::gemm::product::{Product, tiles};
use crate::cpu::gemm::{self, TASK};
use crate::cpu::memory::scratch::scratch;
use rayon::prelude::*;
use std::ptr::null;

/// Positions whose contributions to the weight's gradient are summed in registers.
const DEPTH: usize = 256;

/// The gradient of the weight from that of the output and, into `db`, the gradient of the bias. The sum over positions
/// is cut into as many pieces as there are threads.
pub(crate) fn backward<'a>(
    g: &Geometry,
    x: &[f32],
    dy: &[f32],
    dw: Output<'a>,
    db: Option<&mut [f32]>,
) -> &'a mut [f32] {
    assert!(x.len() == g.input_len() && dy.len() == g.output_len() && dw.len() == g.weight_len());
    assert!(db.as_ref().is_none_or(|db| db.len() == g.outputs));
    if winograd::fits(g) {
        return Winograd::new(g).backward_weight(x, dy, dw, db);
    }
    if let Some(db) = db {
        gemm::column_sums(dy, db);
    }
    if g.is_linear() {
        return gemm::tn(g.outputs, g.inputs, g.batch * g.input[0] * g.input[1], dy, x, dw);
    }
    if dw.is_empty() {
        return dw.zeros();
    }
    let kernels = Kernels::best();
    let (taps, all) = (g.seen, g.taps());
    let [top, left] = g.before;
    let of_tap =
        |tap: usize| [(tap / g.kernel[1]) as isize - top as isize, (tap % g.kernel[1]) as isize - left as isize];
    let offsets = offsets(g.output, g.input, g.inputs, g.stride, (0..taps).map(of_tap));
    let zeros = vec![0.0; g.inputs];
    let indirection = Indirection {
        input: x,
        image: g.input[0] * g.input[1] * g.inputs,
        channels: g.inputs,
        positions: g.output[0] * g.output[1],
        taps,
        offsets: &offsets,
        zeros: &zeros,
    };
    let total = g.batch * indirection.positions;
    let pieces = (total * dw.len() / TASK).min(total / 64).clamp(1, rayon::current_num_threads());
    let (outputs, inputs) = (g.outputs, g.inputs);
    let len = outputs * inputs * taps;
    scratch(pieces * len, |parts| {
        let each: Vec<(usize, &mut [f32])> = parts.chunks_exact_mut(len).enumerate().collect();
        let sum = |(i, part): (usize, &mut [f32])| {
            weight_sums(kernels, outputs, &indirection, dy, i * total / pieces..(i + 1) * total / pieces, part);
        };
        if pieces == 1 {
            each.into_iter().for_each(sum)
        } else {
            each.into_par_iter().with_max_len(1).for_each(sum)
        }
        // From `[O][tap][I]` to `[O, I, kh, kw]`, adding the pieces in order.
        let parts = &*parts;
        dw.each_chunk(inputs * all, TASK / 32, |o, dw| {
            dw.chunks(all, |i, dw| {
                let sum = |tap: usize| parts.chunks_exact(len).map(|part| part[(o * taps + tap) * inputs + i]).sum();
                dw.by_index(|tap| if tap < taps { sum(tap) } else { 0.0 })
            })
        })
    })
}

/// `sums [O][tap][I]` over a range of positions.
fn weight_sums(
    kernels: &Kernels,
    outputs: usize,
    input: &Indirection<'_>,
    dy: &[f32],
    range: std::ops::Range<usize>,
    sums: &mut [f32],
) {
    if range.is_empty() {
        sums.fill(0.0);
        return;
    }
    let (rows, width, channels) = (kernels.packed_rows(), kernels.width, input.channels);
    let k = input.taps * channels;
    let depth = DEPTH.min(range.len());
    let heights: Vec<(usize, usize)> = tiles(outputs, kernels.rows).collect();
    let gathered = channels < FEW_CHANNELS;
    let mut pointers = vec![null(); input.taps * depth];
    let sizes = [heights.len() * depth * rows, depth * width, if gathered { depth * k } else { 0 }];
    scratch(sizes.iter().sum(), |memory| {
        let (left, memory) = memory.split_at_mut(sizes[0]);
        let (panel, columns) = memory.split_at_mut(sizes[1]);
        for from in range.clone().step_by(depth) {
            let here = depth.min(range.end - from);
            input.pointers(from, here, &mut pointers[..input.taps * here]);
            for (&(row, height), tile) in heights.iter().zip(left.chunks_exact_mut(depth * rows)) {
                pack::rows(&dy[from * outputs..], outputs, row, height, here, rows, tile);
            }
            let accumulate = from > range.start;
            let mut multiply = |column: usize, columns: usize, panel: &[f32]| {
                for (&(row, height), tile) in heights.iter().zip(left.chunks_exact(depth * rows)) {
                    let product = Product {
                        m: height,
                        n: columns,
                        k: here,
                        left: tile.as_ptr(),
                        left_stride: rows,
                        by_columns: true,
                        panels: panel.as_ptr(),
                        panel_stride: 0,
                        bias: null(),
                        out: sums[row * k + column..].as_mut_ptr(),
                        out_stride: k,
                        accumulate,
                    };
                    // SAFETY: tile and panel hold `here` rows, and the tile of `sums` lies inside it.
                    unsafe { product.run(kernels) };
                }
            };
            if gathered {
                // SAFETY: the pointers were made above.
                unsafe { input.gather(&pointers, here, columns) };
                for column in (0..k).step_by(width) {
                    let count = (k - column).min(width);
                    pack::rows(columns, k, column, count, here, width, panel);
                    multiply(column, count, panel);
                }
                continue;
            }
            for tap in 0..input.taps {
                for channel in (0..channels).step_by(width) {
                    let count = (channels - channel).min(width);
                    for (to, from) in panel.chunks_exact_mut(width).zip(&pointers[tap * here..(tap + 1) * here]) {
                        // SAFETY: the pointer is to `channels` numbers of the input, or of the zeros.
                        let from = unsafe { std::slice::from_raw_parts(from.add(channel), count) };
                        match (to.as_chunks_mut::<16>().0, from.as_chunks::<16>()) {
                            // Whole cache lines, without a call.
                            (to, (from, [])) => to.iter_mut().zip(from).for_each(|(to, from)| *to = *from),
                            _ => to[..count].copy_from_slice(from),
                        }
                    }
                    multiply(tap * channels + channel, count, panel);
                }
            }
        }
    });
}
