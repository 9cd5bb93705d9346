//! Changes of layout: resampling, permutations, slices and their joins, running sums, maxima.

use crate::cpu::loops::layout;
use crate::cpu::loops::resample::Cells;
use crate::cuda::device::codes::OnGpu;
use crate::cuda::device::kernels::{Axes, blocks, check, elements};
use crate::cuda::device::operands::{on_gpu, output, tracked};
use crate::cuda::{Gpu, Numbers, length};
use crate::tape::record_on_gpu;
use crate::{Codes, Result, Tensor};
use cudarc::driver::{CudaSlice, DeviceRepr, DeviceSlice, LaunchAsync};
use dfdx::prelude::CudaError;

/// The kernels of `layout.cu`.
pub(crate) const KERNELS: &[&str] = &[
    "repeat_single",
    "repeat_quads",
    "sum_cells_single",
    "sum_cells_quads",
    "gather_single",
    "gather_quads",
    "copy_blocks_single",
    "copy_blocks_quads",
    "transpose_tiles",
    "cumsum_lines",
    "cumsum_rows",
    "row_argmax",
    "row_argmax_backward",
];

/// Side of the tiles that a transposition moves: TILE in `layout.cu`.
const TILE: usize = 32;

/// Rows of a block of the kernels that take a warp a row.
const ROWS: usize = 8;

/// `x` with every pixel as a cell, to `shape`.
pub(crate) fn upsample(x: &Tensor, cells: Cells, shape: &[usize]) -> Result<Option<Tensor>> {
    let Some((gpu, [input])) = on_gpu("upsample_nearest", [x])? else {
        return Ok(None);
    };
    let x_key = tracked(x);
    let (out, key) = output(gpu, gpu.repeat(input.numbers(), cells)?, shape, x_key.is_some())?;
    if let (Some(x_key), Some(key)) = (x_key, key) {
        record_on_gpu(&key, move |grad, flow| flow.add(&x_key, gpu.sum_cells(&grad, cells)?));
    }
    Ok(Some(out))
}

/// The mean over every cell, to `shape`.
pub(crate) fn avg_pool(x: &Tensor, cells: Cells, shape: &[usize]) -> Result<Option<Tensor>> {
    let Some((gpu, [input])) = on_gpu("avg_pool", [x])? else {
        return Ok(None);
    };
    let x_key = tracked(x);
    let (out, key) = output(gpu, gpu.sum_cells(input.numbers(), cells)?, shape, x_key.is_some())?;
    if let (Some(x_key), Some(key)) = (x_key, key) {
        record_on_gpu(&key, move |grad, flow| flow.add(&x_key, gpu.repeat(&grad, cells)?));
    }
    Ok(Some(out))
}

/// The numbers of `x` with its axes in the order `axes`, whose inverse is `inverse`.
pub(crate) fn permute(x: &Tensor, axes: &[usize], inverse: &[usize]) -> Result<Option<Tensor>> {
    let Some((gpu, [input])) = on_gpu("permute", [x])? else {
        return Ok(None);
    };
    let shape: Vec<usize> = axes.iter().map(|&axis| x.shape()[axis]).collect();
    let x_key = tracked(x);
    let data = gpu.permute(input.numbers(), x.shape(), axes)?;
    let (out, key) = output(gpu, data, &shape, x_key.is_some())?;
    if let (Some(x_key), Some(key)) = (x_key, key) {
        let inverse = inverse.to_vec();
        record_on_gpu(&key, move |grad, flow| flow.add(&x_key, gpu.permute(&grad, &shape, &inverse)?));
    }
    Ok(Some(out))
}

/// Of every `step` numbers of `x` the `len` from `start` on, to `shape`.
pub(crate) fn slice(x: &Tensor, [start, len, step]: [usize; 3], shape: &[usize]) -> Result<Option<Tensor>> {
    let Some((gpu, [input])) = on_gpu("slice", [x])? else {
        return Ok(None);
    };
    let total = x.len();
    let (small, large) = (Blocks { start: 0, step: len }, Blocks { start, step });
    let mut data = gpu.room(shape.iter().product())?;
    gpu.copy_blocks(input.numbers(), large, &mut data, small, len, false)?;
    let x_key = tracked(x);
    let (out, key) = output(gpu, data, shape, x_key.is_some())?;
    if let (Some(x_key), Some(key)) = (x_key, key) {
        record_on_gpu(&key, move |grad, flow| {
            flow.with(&x_key, |dx, accumulate| {
                if !accumulate {
                    *dx = gpu.zeros(total)?;
                }
                gpu.copy_blocks(&grad, small, dx, large, len, accumulate)
            })
        });
    }
    Ok(Some(out))
}

/// Joins tensors by turns of as many numbers as `lens` says for each, to `shape`.
pub(crate) fn concat(tensors: &[&Tensor], lens: &[usize], shape: &[usize]) -> Result<Option<Tensor>> {
    crate::ops::place("concat", tensors.iter().copied())?;
    let Some(gpu) = tensors.iter().find_map(|t| t.gpu_buffer()).map(|buffer| buffer.gpu()) else {
        return Ok(None);
    };
    let step = lens.iter().sum();
    let mut data = gpu.room(shape.iter().product())?;
    let (mut start, mut parts) = (0, Vec::new());
    for (tensor, &len) in tensors.iter().zip(lens) {
        if let Some(buffer) = tensor.gpu_buffer().filter(|_| len > 0) {
            let (small, large) = (Blocks { start: 0, step: len }, Blocks { start, step });
            gpu.copy_blocks(buffer.numbers(), small, &mut data, large, len, false)?;
            parts.extend(tracked(tensor).map(|key| (key, small, large, len, tensor.len())));
        }
        start += len;
    }
    let (out, key) = output(gpu, data, shape, !parts.is_empty())?;
    if let Some(key) = key {
        record_on_gpu(&key, move |grad, flow| {
            for (key, small, large, len, total) in parts {
                flow.with(&key, |dx, accumulate| {
                    if !accumulate {
                        *dx = gpu.room(total)?;
                    }
                    gpu.copy_blocks(&grad, large, dx, small, len, accumulate)
                })?;
            }
            Ok(())
        });
    }
    Ok(Some(out))
}

/// Running sums along the middle axis of `x` seen as `[outer, n, inner]`.
pub(crate) fn cumsum(x: &Tensor, n: usize, inner: usize) -> Result<Option<Tensor>> {
    let Some((gpu, [input])) = on_gpu("cumsum", [x])? else {
        return Ok(None);
    };
    let x_key = tracked(x);
    let (out, key) = output(gpu, gpu.cumsum(input.numbers(), n, inner, false)?, x.shape(), x_key.is_some())?;
    if let (Some(x_key), Some(key)) = (x_key, key) {
        record_on_gpu(&key, move |grad, flow| flow.add(&x_key, gpu.cumsum(&grad, n, inner, true)?));
    }
    Ok(Some(out))
}

/// The maximum of every row of `x`, whose width is not 0, to shape `outer`.
pub(crate) fn max_last(x: &Tensor, outer: &[usize]) -> Result<Option<Tensor>> {
    let Some((gpu, [input])) = on_gpu("max_last", [x])? else {
        return Ok(None);
    };
    let width = x.last_dim();
    let (at, max) = gpu.row_argmax(input.numbers(), width)?;
    let x_key = tracked(x);
    let (out, key) = output(gpu, max, outer, x_key.is_some())?;
    if let (Some(x_key), Some(key)) = (x_key, key) {
        record_on_gpu(&key, move |grad, flow| flow.add(&x_key, gpu.row_argmax_backward(&grad, &at, width)?));
    }
    Ok(Some(out))
}

/// Where the maximum of every row of `x` stands first, in shape `outer`; the width is not 0.
pub(crate) fn argmax_last(x: &Tensor, outer: &[usize]) -> Result<Option<Codes>> {
    let Some((gpu, [input])) = on_gpu("argmax_last", [x])? else {
        return Ok(None);
    };
    let (at, _) = gpu.row_argmax(input.numbers(), x.last_dim())?;
    Ok(Some(Codes::of_gpu(OnGpu::new(gpu, at), outer, x.last_dim())))
}

/// `Cells` of `layout.cu`, with channels counted in elements.
#[derive(Clone, Copy)]
#[repr(C)]
struct DeviceCells {
    sizes: [u32; 6],
    scale: f32,
}

// SAFETY: plain numbers in C's layout, the same as in `layout.cu`.
#[allow(unsafe_code)]
unsafe impl DeviceRepr for DeviceCells {}

/// Where blocks of numbers lie.
#[derive(Clone, Copy)]
struct Blocks {
    start: usize,
    step: usize,
}

/// Numbers that a thread moves at a time, and the suffix of the kernel's name: quads if all `sizes` allow it.
fn wide(sizes: &[usize]) -> (usize, &'static str) {
    if sizes.iter().all(|size| size.is_multiple_of(4)) { (4, "quads") } else { (1, "single") }
}

/// The numbers of an image, and of its cells.
fn images(cells: Cells) -> [usize; 2] {
    [cells.size, cells.count()].map(|[rows, columns]| rows * columns * cells.channels)
}

/// A size in 32 bits, in which kernels divide.
fn short(size: usize) -> Result<u32, CudaError> {
    u32::try_from(size).map_err(|_| crate::cuda::device::kernels::invalid())
}

impl Gpu {
    /// Spreads every pixel over its cell; what belongs to no cell becomes 0.
    fn repeat(&self, small: &Numbers, cells: Cells) -> Result<Numbers, CudaError> {
        let [large_image, small_image] = images(cells);
        let n = length(small).checked_div(small_image).unwrap_or(0) * large_image;
        let mut large = self.room(n)?;
        if n > 0 {
            check(length(small).is_multiple_of(small_image))?;
            self.resample("repeat", small, &mut large, cells)?;
        }
        Ok(large)
    }

    /// Sums every cell.
    fn sum_cells(&self, large: &Numbers, cells: Cells) -> Result<Numbers, CudaError> {
        let [large_image, small_image] = images(cells);
        let n = length(large).checked_div(large_image).unwrap_or(0) * small_image;
        let mut small = self.room(n)?;
        if n > 0 {
            check(length(large).is_multiple_of(large_image))?;
            self.resample("sum_cells", large, &mut small, cells)?;
        }
        Ok(small)
    }

    /// A kernel that reads `from` and writes `to`, one of which has a cell for each pixel of the other.
    fn resample(&self, kernel: &str, from: &Numbers, to: &mut Numbers, cells: Cells) -> Result<(), CudaError> {
        let (wide, suffix) = wide(&[cells.channels]);
        let n = short(length(to) / wide)?;
        let ([height, width], [rows, columns]) = (cells.size, cells.count());
        let sizes = [height, width, rows, columns, cells.channels / wide, cells.factor];
        let mut shorts = [0; 6];
        for (to, size) in shorts.iter_mut().zip(sizes) {
            *to = short(size)?;
        }
        let cells = DeviceCells { sizes: shorts, scale: cells.scale };
        let kernel = self.kernel(&format!("{kernel}_{suffix}"))?;
        // SAFETY: the kernel writes the elements of `to` and reads the pixels of `from` that belong to them; the caller
        // has checked that these are whole images.
        #[allow(unsafe_code)]
        unsafe {
            kernel.launch(elements(n as usize), (&**from, &mut **to, u64::from(n), cells))?;
        }
        Ok(())
    }

    /// The numbers of `x`, of shape `from`, with its axes in the order `axes`.
    fn permute(&self, x: &Numbers, from: &[usize], axes: &[usize]) -> Result<Numbers, CudaError> {
        let n = length(x);
        check(from.iter().product::<usize>() == n)?;
        let mut out = self.room(n)?;
        if n == 0 {
            return Ok(out);
        }
        short(n)?;
        let mut steps = vec![1; from.len()];
        for axis in (1..from.len()).rev() {
            steps[axis - 1] = steps[axis] * from[axis];
        }
        let of = |sizes: &[usize]| -> Vec<usize> { axes.iter().map(|&axis| sizes[axis]).collect() };
        let (shape, strides) = layout::merge(&of(from), &of(&steps));
        let inner = shape.len() - 1;
        match strides.iter().position(|&stride| stride == 1).filter(|&axis| axis != inner) {
            Some(line) => self.transpose(x, &mut out, &shape, &strides, line)?,
            None => {
                let mut sizes = vec![shape[inner]];
                sizes.extend(&strides[..inner]);
                let (wide, suffix) = if strides[inner] == 1 { wide(&sizes) } else { (1, "single") };
                let (mut shape, mut strides) = (shape, strides);
                shape[inner] /= wide;
                strides[..inner].iter_mut().for_each(|stride| *stride /= wide);
                let axes = Axes::new(&shape, &strides, &[])?;
                check(wide * (axes.last()[0] + 1) <= n)?;
                let kernel = self.kernel(&format!("gather_{suffix}"))?;
                // SAFETY: the kernel writes the elements of `out`, and reads `x` up to the offset just checked.
                #[allow(unsafe_code)]
                unsafe {
                    kernel.launch(elements(n / wide), (&**x, &mut *out, (n / wide) as u64, axes))?;
                }
            }
        }
        Ok(out)
    }

    /// The same where the innermost axis of the input becomes axis `line` of the output.
    fn transpose(
        &self,
        x: &Numbers,
        out: &mut Numbers,
        shape: &[usize],
        strides: &[usize],
        line: usize,
    ) -> Result<(), CudaError> {
        let inner = shape.len() - 1;
        let mut steps = vec![1; shape.len()];
        for axis in (0..inner).rev() {
            steps[axis] = steps[axis + 1] * shape[axis + 1];
        }
        let others =
            |of: &[usize]| -> Vec<usize> { (0..inner).filter(|&axis| axis != line).map(|axis| of[axis]).collect() };
        let outer = Axes::new(&others(shape), &others(strides), &others(&steps))?;
        let tiles = outer.count() * shape[line].div_ceil(TILE) * shape[inner].div_ceil(TILE);
        let [from, to] = outer.last();
        check(from + (shape[inner] - 1) * strides[inner] + shape[line] <= length(x))?;
        check(to + (shape[line] - 1) * steps[line] + shape[inner] <= length(out))?;
        let kernel = self.kernel("transpose_tiles")?;
        let sizes = (shape[line] as u64, shape[inner] as u64, strides[inner] as u64, steps[line] as u64);
        // SAFETY: the kernel reads `x` and writes `out` up to the offsets just checked.
        #[allow(unsafe_code)]
        unsafe {
            let all = (&**x, &mut **out, tiles as u64, sizes.0, sizes.1, sizes.2, sizes.3, outer);
            kernel.launch(blocks(tiles), all)?;
        }
        Ok(())
    }

    /// Copies blocks of `len` numbers, as many as there are steps in the operand that is not cut, or adds them.
    fn copy_blocks(
        &self,
        from: &Numbers,
        at: Blocks,
        to: &mut Numbers,
        place: Blocks,
        len: usize,
        adds: bool,
    ) -> Result<(), CudaError> {
        if len == 0 || length(from) == 0 || length(to) == 0 {
            return Ok(());
        }
        let count = length(from) / at.step;
        check(count == length(to) / place.step)?;
        let fits = |blocks: Blocks, n: usize| (count - 1) * blocks.step + blocks.start + len <= n;
        check(count > 0 && fits(at, length(from)) && fits(place, length(to)))?;
        let (wide, suffix) = wide(&[len, at.start, at.step, place.start, place.step]);
        let n = short(count * len / wide)?;
        let kernel = self.kernel(&format!("copy_blocks_{suffix}"))?;
        let [start_in, step_in, start_out, step_out] =
            [at.start, at.step, place.start, place.step].map(|size| (size / wide) as u64);
        let len = short(len / wide)?;
        // SAFETY: the kernel reads and writes `count` blocks, the last of which were just checked to be inside.
        #[allow(unsafe_code)]
        unsafe {
            let all = (&**from, &mut **to, u64::from(n), len, start_in, step_in, start_out, step_out, i32::from(adds));
            kernel.launch(elements(n as usize), all)?;
        }
        Ok(())
    }

    /// Running sums along the middle axis of `[outer, n, inner]`, from the end if `reversed`.
    fn cumsum(&self, x: &Numbers, n: usize, inner: usize, reversed: bool) -> Result<Numbers, CudaError> {
        let mut out = self.room(length(x))?;
        if length(x) > 0 {
            check(length(x).is_multiple_of(n * inner))?;
            let (lines, reversed) = (length(x) / n, i32::from(reversed));
            // SAFETY: both kernels read and write lines * n elements, as many as there are.
            #[allow(unsafe_code)]
            unsafe {
                if inner == 1 {
                    let kernel = self.kernel("cumsum_rows")?;
                    let all = (&**x, &mut *out, lines as u64, n as u64, reversed);
                    kernel.launch(blocks(lines.div_ceil(ROWS)), all)?;
                } else {
                    let kernel = self.kernel("cumsum_lines")?;
                    let all = (&**x, &mut *out, lines as u64, n as u64, inner as u64, reversed);
                    kernel.launch(elements(lines), all)?;
                }
            }
        }
        Ok(out)
    }

    /// Where each row's maximum stands first, and the maxima.
    fn row_argmax(&self, x: &Numbers, width: usize) -> Result<(CudaSlice<u32>, Numbers), CudaError> {
        check(width > 0 && length(x).is_multiple_of(width))?;
        short(width)?;
        let rows = length(x) / width;
        let mut at = self.room_for_codes(rows)?;
        let mut max = self.room(rows)?;
        if rows > 0 {
            let kernel = self.kernel("row_argmax")?;
            // SAFETY: the kernel reads rows * width elements and writes two numbers a row.
            #[allow(unsafe_code)]
            unsafe {
                let all = (&**x, &mut at, &mut *max, rows as u64, width as u64);
                kernel.launch(blocks(rows.div_ceil(ROWS)), all)?;
            }
        }
        Ok((at, max))
    }

    fn row_argmax_backward(&self, grad: &Numbers, at: &CudaSlice<u32>, width: usize) -> Result<Numbers, CudaError> {
        check(at.len() == length(grad))?;
        let n = length(grad) * width;
        let mut dx = self.room(n)?;
        if n > 0 {
            let kernel = self.kernel("row_argmax_backward")?;
            // SAFETY: the kernel writes the n elements of `dx` and reads two numbers a row.
            #[allow(unsafe_code)]
            unsafe {
                kernel.launch(elements(n), (&**grad, at, &mut *dx, n as u64, width as u64))?;
            }
        }
        Ok(dx)
    }
}
