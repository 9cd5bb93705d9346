//! Rows and the codes that name them: embedding, gathering, and averages of the rows of each code.

use crate::cpu::nearest::averages::Decay;
use crate::cuda::device::codes::OnGpu;
use crate::cuda::device::kernels::{blocks, check, elements, teams};
use crate::cuda::device::operands::{on_gpu, output, tracked};
use crate::cuda::{Gpu, Numbers, length};
use crate::tape::record_on_gpu;
use crate::{Codes, Result, Tensor, Var};
use cudarc::driver::{CudaSlice, DevicePtr, LaunchAsync};
use dfdx::prelude::CudaError;

/// The kernels of `by_code.cu`.
pub(crate) const KERNELS: &[&str] = &[
    "gather_rows",
    "gather_rows_by_four",
    "pick_columns",
    "put_columns",
    "count_digits",
    "scan_counts",
    "place_rows",
    "find_starts",
    "sum_runs",
    "sum_by_code",
    "count_by_code",
    "divide_rows",
    "smooth_counts",
    "replace_rare_sums",
    "replace_rare_counts",
    "count_rare",
];

/// Rows of a block that sorts, and values of a digit: CHUNK and DIGITS in `by_code.cu`.
const CHUNK: usize = 1024;
const DIGITS: usize = 256;

/// Rows of a table `[K, C]` that codes below K name.
pub(crate) fn embedding(table: &Tensor, codes: &Codes) -> Result<Option<Tensor>> {
    let Some((gpu, [rows])) = on_gpu("embedding", [table])? else {
        return Ok(None);
    };
    let (size, width) = (table.shape()[0], table.shape()[1]);
    let codes_there = codes.on_gpu(gpu)?;
    let data = gpu.gather_rows(rows.numbers(), &codes_there, width)?;
    let key = tracked(table);
    let (out, out_key) = output(gpu, data, &[codes.shape(), &[width]].concat(), key.is_some())?;
    if let (Some(key), Some(out_key)) = (key, out_key) {
        record_on_gpu(&out_key, move |grad, flow| {
            let by_code = RowsByCode::new(gpu, &codes_there, size)?;
            let mut sums = gpu.room(size * width)?;
            by_code.sum(gpu, &grad, &mut sums, width, Decay { old: 0.0, new: 1.0 })?;
            flow.add(&key, sums)
        });
    }
    Ok(Some(out))
}

/// Of every row of `x` the element that a code below the rows' width names, to shape `outer`.
pub(crate) fn gather_last(x: &Tensor, codes: &Codes, outer: &[usize]) -> Result<Option<Tensor>> {
    let Some((gpu, [input])) = on_gpu("gather_last", [x])? else {
        return Ok(None);
    };
    let width = x.last_dim();
    let codes = codes.on_gpu(gpu)?;
    let data = gpu.pick_columns(input.numbers(), &codes, width)?;
    let key = tracked(x);
    let (out, out_key) = output(gpu, data, outer, key.is_some())?;
    if let (Some(key), Some(out_key)) = (key, out_key) {
        record_on_gpu(&out_key, move |grad, flow| flow.add(&key, gpu.put_columns(&grad, &codes, width)?));
    }
    Ok(Some(out))
}

/// Takes vectors `[.., C]` with codes below K into the averages `[K]` and `[K, C]`; `false` if they are on the CPU.
pub(crate) fn update_averages(
    vectors: &Tensor,
    codes: &Codes,
    decay: Decay,
    [counts, sums]: [&Var; 2],
) -> Result<bool> {
    let Some((gpu, [x])) = on_gpu("update_averages", [vectors])? else {
        return Ok(false);
    };
    let (size, width) = (counts.get().len(), vectors.last_dim());
    let codes = codes.on_gpu(gpu)?;
    let by_code = RowsByCode::new(gpu, &codes, size)?;
    counts.lock().storage_mut().write_on_gpu(|counts| by_code.count(gpu, counts, decay))?;
    sums.lock().storage_mut().write_on_gpu(|sums| by_code.sum(gpu, x.numbers(), sums, width, decay))?;
    Ok(true)
}

/// `means = sums / counts` for `[K, C]` and `[K]`, the counts with `eps` added to each and scaled to their own sum; `false`
/// if they are on the CPU.
pub(crate) fn write_means(sums: &Tensor, counts: &Tensor, eps: f64, means: &Var) -> Result<bool> {
    let Some((gpu, [sums, counts])) = on_gpu("write_means", [sums, counts])? else {
        return Ok(false);
    };
    means.lock().storage_mut().write_on_gpu(|means| gpu.write_means(sums.numbers(), counts.numbers(), eps, means))?;
    Ok(true)
}

/// Gives every code whose count is below `least` that count, and `least` times its candidate as its sum; `false` if they are
/// on the CPU.
pub(crate) fn replace_rare(candidates: &Tensor, least: f32, [counts, sums]: [&Var; 2]) -> Result<bool> {
    let Some((gpu, [candidates])) = on_gpu("replace_rare", [candidates])? else {
        return Ok(false);
    };
    counts.lock().storage_mut().write_on_gpu(|counts| {
        Ok(sums.lock().storage_mut().write_on_gpu(|sums| gpu.replace_rare(candidates.numbers(), least, counts, sums)))
    })??;
    Ok(true)
}

/// How many of the counts are below `least`, of rank 0.
pub(crate) fn count_rare(counts: &Tensor, least: f32) -> Result<Option<Tensor>> {
    let Some((gpu, [of])) = on_gpu("count_rare", [counts])? else {
        return Ok(None);
    };
    let mut number = gpu.room(1)?;
    let kernel = gpu.kernel("count_rare")?;
    // SAFETY: one block reads all counts and writes one number.
    #[allow(unsafe_code)]
    unsafe {
        kernel
            .launch(blocks(1), (&**of.numbers(), counts.len() as u64, least, &mut *number))
            .map_err(CudaError::from)?;
    }
    Ok(Some(output(gpu, number, &[], false)?.0))
}

/// The rows of each code, in their order.
struct RowsByCode<'a> {
    codes: &'a OnGpu,
    rows: usize,
    size: usize,
    order: CudaSlice<u32>,
    starts: CudaSlice<u32>,
}

impl<'a> RowsByCode<'a> {
    /// Sorts rows by their codes, all below `size`.
    fn new(gpu: &Gpu, codes: &'a OnGpu, size: usize) -> Result<Self, CudaError> {
        let rows = codes.len();
        check(u32::try_from(rows).is_ok() && u32::try_from(size).is_ok())?;
        let chunks = rows.div_ceil(CHUNK);
        let mut order = gpu.room_for_codes(if rows == 0 { 1 } else { rows })?;
        let mut sorted_digits = 0;
        while rows > 0 && (sorted_digits == 0 || (size - 1) >> (8 * sorted_digits) > 0) {
            let shift = 8 * sorted_digits;
            let mut placed = gpu.room_for_codes(rows)?;
            let mut counts = gpu.room_for_codes(DIGITS * chunks)?;
            // In the first round rows stand in their own order.
            let before = if sorted_digits == 0 { 0 } else { *order.device_ptr() };
            let (count, scan, place) =
                (gpu.kernel("count_digits")?, gpu.kernel("scan_counts")?, gpu.kernel("place_rows")?);
            let (n, counted) = (rows as u64, (DIGITS * chunks) as u64);
            // SAFETY: a block a chunk reads its part of the order and the codes of these rows, which are below `rows`,
            // and writes DIGITS counts; a block sums these up; and the rows of each chunk get places below `rows`.
            #[allow(unsafe_code)]
            unsafe {
                let each = one_a_block(chunks)?;
                count.launch(each, (codes.slice(), before, &mut counts, n, shift as u32))?;
                scan.launch(blocks(1), (&mut counts, counted))?;
                place.launch(each, (codes.slice(), before, &counts, &mut placed, n, shift as u32))?;
            }
            order = placed;
            sorted_digits += 1;
        }
        let mut starts = gpu.room_for_codes(size + 1)?;
        let find = gpu.kernel("find_starts")?;
        // SAFETY: the kernel reads the order and the codes of the rows it lists, and writes size + 1 numbers.
        #[allow(unsafe_code)]
        unsafe {
            find.launch(elements(size + 1), (codes.slice(), &order, &mut starts, rows as u64, size as u64))?;
        }
        Ok(Self { codes, rows, size, order, starts })
    }

    /// `out = old out + new s` with the sums s of each code's rows of `x`; with `old` 0 nothing of `out` is read.
    fn sum(&self, gpu: &Gpu, x: &Numbers, out: &mut Numbers, width: usize, decay: Decay) -> Result<(), CudaError> {
        check(length(x) == self.rows * width && length(out) == self.size * width)?;
        if length(out) > 0 {
            // As many pieces as rows in each, about: a code may have all rows.
            let piece = self.rows.isqrt().next_multiple_of(32).max(32);
            let (pieces, tiles) = (self.rows.div_ceil(piece), width.div_ceil(32));
            let (mut own, mut heads) = (gpu.room(self.size * width)?, gpu.room(pieces * width)?);
            let (runs, join) = (gpu.kernel("sum_runs")?, gpu.kernel("sum_by_code")?);
            let (rows, size, width, piece) = (self.rows as u64, self.size as u64, width as u64, piece as u64);
            // SAFETY: the first kernel reads rows of `x` that the order lists, of which there are as many as codes were
            // sorted, and writes sums of codes below `size` and of pieces; the second reads those of codes that have rows
            // and of pieces with rows, and reads and writes size * width sums.
            #[allow(unsafe_code)]
            unsafe {
                if rows > 0 {
                    let from = (&**x, self.codes.slice(), &self.order, &self.starts);
                    let all = (from.0, from.1, from.2, from.3, &mut *own, &mut *heads, rows, width, piece);
                    runs.launch(teams((pieces * tiles).div_ceil(2), 64), all)?;
                }
                let all = (&*own, &*heads, &self.starts, &mut **out, size, width, piece, decay.old, decay.new);
                join.launch(blocks(self.size * tiles), all)?;
            }
        }
        Ok(())
    }

    /// `counts = old counts + new n` with the number n of each code's rows.
    fn count(&self, gpu: &Gpu, counts: &mut Numbers, decay: Decay) -> Result<(), CudaError> {
        check(length(counts) == self.size)?;
        if self.size > 0 {
            let kernel = gpu.kernel("count_by_code")?;
            let all = (&self.starts, &mut **counts, self.size as u64, decay.old, decay.new);
            // SAFETY: the kernel reads size + 1 starts, and reads and writes `size` counts.
            #[allow(unsafe_code)]
            unsafe {
                kernel.launch(elements(self.size), all)?;
            }
        }
        Ok(())
    }
}

/// A launch of exactly `n` blocks.
fn one_a_block(n: usize) -> Result<cudarc::driver::LaunchConfig, CudaError> {
    check(i32::try_from(n).is_ok())?;
    Ok(cudarc::driver::LaunchConfig { grid_dim: (n as u32, 1, 1), ..blocks(1) })
}

impl Gpu {
    /// Rows of `table` in the order of `codes`.
    fn gather_rows(&self, table: &Numbers, codes: &OnGpu, width: usize) -> Result<Numbers, CudaError> {
        let n = codes.len() * width;
        let mut out = self.room(n)?;
        if n > 0 {
            let (name, step) = if width.is_multiple_of(4) { ("gather_rows_by_four", 4) } else { ("gather_rows", 1) };
            let kernel = self.kernel(name)?;
            let sizes = ((n / step) as u64, (width / step) as u64);
            // SAFETY: the kernel writes n numbers, and reads rows that the codes name, which the operation has checked.
            #[allow(unsafe_code)]
            unsafe {
                kernel.launch(elements(n / step), (&**table, codes.slice(), &mut *out, sizes.0, sizes.1))?;
            }
        }
        Ok(out)
    }

    /// The element of every row of `x` that its code names.
    fn pick_columns(&self, x: &Numbers, codes: &OnGpu, width: usize) -> Result<Numbers, CudaError> {
        let rows = codes.len();
        check(length(x) == rows * width)?;
        let mut out = self.room(rows)?;
        if rows > 0 {
            let kernel = self.kernel("pick_columns")?;
            // SAFETY: the kernel writes a number per row, and reads one whose code the operation has checked.
            #[allow(unsafe_code)]
            unsafe {
                kernel.launch(elements(rows), (&**x, codes.slice(), &mut *out, rows as u64, width as u64))?;
            }
        }
        Ok(out)
    }

    /// Rows of zeros with `grad` where the codes are.
    fn put_columns(&self, grad: &Numbers, codes: &OnGpu, width: usize) -> Result<Numbers, CudaError> {
        let n = codes.len() * width;
        check(length(grad) == codes.len())?;
        let mut out = self.room(n)?;
        if n > 0 {
            let kernel = self.kernel("put_columns")?;
            // SAFETY: the kernel writes n numbers, and reads a number and a code a row.
            #[allow(unsafe_code)]
            unsafe {
                kernel.launch(elements(n), (&**grad, codes.slice(), &mut *out, n as u64, width as u64))?;
            }
        }
        Ok(out)
    }

    fn replace_rare(
        &self,
        candidates: &Numbers,
        least: f32,
        counts: &mut Numbers,
        sums: &mut Numbers,
    ) -> Result<(), CudaError> {
        let (n, size) = (length(sums), length(counts));
        check(length(candidates) == n && (n == 0 || n.is_multiple_of(size)))?;
        if n > 0 {
            let (of_sums, of_counts) = (self.kernel("replace_rare_sums")?, self.kernel("replace_rare_counts")?);
            let (n, size, width) = (n as u64, size as u64, (n / size) as u64);
            // SAFETY: n sums are read and written with n candidates and a count for each row, then a count a code.
            #[allow(unsafe_code)]
            unsafe {
                of_sums.launch(elements(n as usize), (&**candidates, &**counts, &mut **sums, n, width, least))?;
                of_counts.launch(elements(size as usize), (&mut **counts, size, least))?;
            }
        }
        Ok(())
    }

    fn write_means(&self, sums: &Numbers, counts: &Numbers, eps: f64, means: &mut Numbers) -> Result<(), CudaError> {
        let (n, size) = (length(sums), length(counts));
        check(length(means) == n && (n == 0 || n.is_multiple_of(size)))?;
        if n > 0 {
            let mut smoothed = self.room(size)?;
            let (smooth, divide) = (self.kernel("smooth_counts")?, self.kernel("divide_rows")?);
            let (n, size, width) = (n as u64, size as u64, (n / size) as u64);
            // SAFETY: one block reads and writes a number per code; then n numbers are read and written.
            #[allow(unsafe_code)]
            unsafe {
                smooth.launch(blocks(1), (&**counts, &mut *smoothed, size, eps))?;
                divide.launch(elements(n as usize), (&**sums, &*smoothed, &mut **means, n, width))?;
            }
        }
        Ok(())
    }
}
