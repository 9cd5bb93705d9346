//! Rows by index, and back.

use crate::cpu::isa::simd;
use crate::cpu::loops::elementwise::GRAIN;
use crate::cpu::{Output, buffer};

/// Rows of `table` (of `width`) in the order of `codes`, which must be in range.
pub(crate) fn rows(table: &[f32], width: usize, codes: &[u32]) -> Vec<f32> {
    let group = (GRAIN / width.max(1)).max(1);
    buffer(codes.len() * width, |out| {
        out.par_chunks(group * width.max(1), |i, out| {
            out.chunks(width, |j, out| out.map(&table[codes[i * group + j] as usize * width..][..width], |x| *x))
        })
    })
}

/// For every `group` codes the sum of the rows of `table` (of `width`) that they name; they must be in range.
pub(crate) fn row_sums(table: &[f32], width: usize, codes: &[u32], group: usize) -> Vec<f32> {
    let rows = (GRAIN / (width * group).max(1)).max(1);
    buffer(codes.len() / group * width, |out| {
        out.par_chunks(rows * width.max(1), |i, out| {
            out.chunks(width, |j, out| {
                let sum = out.zeros();
                sum_rows(table, &codes[(i * rows + j) * group..][..group], 1, sum);
                sum
            })
        })
    })
}

simd! {
    /// Adds the named rows of `x`, each of which stands for `group` names, to `target`.
    fn sum_rows(x: &[f32], rows: &[u32], group: usize, target: &mut [f32]) {
        let width = target.len();
        for &row in rows {
            for (t, x) in target.iter_mut().zip(&x[row as usize / group * width..][..width]) {
                *t += x;
            }
        }
    }
}

/// The rows of each code in their order, so that codes can be summed side by side: a stable counting sort.
pub(crate) struct RowsByCode {
    starts: Vec<u32>,
    order: Vec<u32>,
}

impl RowsByCode {
    /// `codes`, one per row, are below `size`.
    pub(crate) fn new(codes: &[u32], size: usize) -> Self {
        // Where the rows of code k begin stands at k + 1 until they are listed, which moves it to where they end.
        let mut starts = vec![0u32; size + 2];
        for &code in codes {
            starts[code as usize + 2] += 1;
        }
        for i in 2..starts.len() {
            starts[i] += starts[i - 1];
        }
        let mut order = vec![0u32; codes.len()];
        for (i, &code) in codes.iter().enumerate() {
            let next = &mut starts[code as usize + 1];
            order[*next as usize] = i as u32;
            *next += 1;
        }
        Self { starts, order }
    }

    pub(crate) fn of(&self, code: usize) -> &[u32] {
        &self.order[self.starts[code] as usize..self.starts[code + 1] as usize]
    }
}

/// The sums of the rows i of `x` with each code, `codes[i]`, in the order of i, for rows of a table.
pub(crate) fn sums_by_code<'a>(x: &[f32], width: usize, codes: &[u32], table: Output<'a>) -> &'a mut [f32] {
    sums_by_code_of_groups(x, width, codes, 1, table)
}

/// The same where each row of `x` has `group` codes.
pub(crate) fn sums_by_code_of_groups<'a>(
    x: &[f32],
    width: usize,
    codes: &[u32],
    group: usize,
    table: Output<'a>,
) -> &'a mut [f32] {
    if width == 0 || table.is_empty() {
        return table.zeros();
    }
    let rows = RowsByCode::new(codes, table.len() / width);
    let rows_each = (GRAIN / 4 / width).max(1);
    table.par_chunks(rows_each * width, |i, table| {
        table.chunks(width, |j, target| {
            let target = target.zeros();
            sum_rows(x, rows.of(i * rows_each + j), group, target);
            target
        })
    })
}
