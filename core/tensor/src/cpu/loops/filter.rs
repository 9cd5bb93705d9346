//! Weighted sums along an axis.

use crate::cpu::isa::{fma, simd};
use crate::cpu::loops::elementwise::GRAIN;
use crate::cpu::{Output, buffer};

/// Lines of numbers `[.., from, inner]` that become `[.., to, inner]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lines {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) inner: usize,
}

/// The numbers of a row of the table: the first old position, how many, and their weights.
fn taps(row: &[f32]) -> (usize, &[f32]) {
    (row[0] as usize, &row[2..][..row[1] as usize])
}

simd! {
    fn long<'a>(x: &[f32], weights: &[f32], inner: usize, out: Output<'a>) -> &'a mut [f32] {
        match weights {
            [a] => out.map(x, |x| a * x),
            [a, b] => out.zip(&x[..inner], &x[inner..], |x, y| fma::<FUSED>(*b, *y, a * x)),
            _ => {
                let out = out.zeros();
                for (x, &weight) in x.chunks_exact(inner).zip(weights) {
                    out.iter_mut().zip(x).for_each(|(out, &x)| *out = fma::<FUSED>(weight, x, *out));
                }
                out
            }
        }
    }
}

/// The same of lines as short as the pixels of a picture: the sums stay in registers.
fn short<'a, const N: usize>(x: &[f32], weights: &[f32], out: Output<'a>) -> &'a mut [f32] {
    let mut sums = [0.0; N];
    for (x, &weight) in x.as_chunks::<N>().0.iter().zip(weights) {
        for i in 0..N {
            sums[i] += weight * x[i];
        }
    }
    out.by_index(|i| sums[i])
}

impl Lines {
    /// The sums that the rows of `table` describe, one for each new position.
    pub(crate) fn filtered(self, x: &[f32], table: &[f32]) -> Vec<f32> {
        let Self { from, to, inner } = self;
        let outer = x.len().checked_div(from * inner).unwrap_or(0);
        if outer * to * inner == 0 {
            return Vec::new();
        }
        let width = table.len() / to;
        // Lines that a task makes.
        let lines = GRAIN.div_ceil(inner);
        buffer(outer * to * inner, |out| {
            out.par_chunks(lines * inner, |task, out| {
                let (mut image, mut position) = (task * lines / to, task * lines % to);
                out.chunks(inner, |_, out| {
                    let (first, weights) = taps(&table[position * width..][..width]);
                    let x = &x[(image * from + first) * inner..][..weights.len() * inner];
                    position += 1;
                    if position == to {
                        (image, position) = (image + 1, 0);
                    }
                    match inner {
                        1 => short::<1>(x, weights, out),
                        3 => short::<3>(x, weights, out),
                        4 => short::<4>(x, weights, out),
                        _ => long(x, weights, inner, out),
                    }
                })
            })
        })
    }
}
