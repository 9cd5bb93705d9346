//! Changes of layout: permutations, slices and their joins, running sums, maxima.

use crate::cpu::loops::layout::{self, Blocks};
use crate::cuda::device::codes::OnGpu;
use crate::cuda::device::kernels::{Axes, blocks, check, elements};
use crate::cuda::device::operands::on_gpu;
use crate::cuda::{Gpu, Numbers, length};
use crate::{Codes, Result, Tensor};
use cudarc::driver::{CudaSlice, LaunchAsync};
use dfdx::prelude::CudaError;

/// The kernels of `layout.cu`.
pub(crate) const KERNELS: &[&str] = &[
    "gather_single",
    "gather_quads",
    "copy_blocks_single",
    "copy_blocks_quads",
    "transpose_tiles",
    "cumsum_lines",
    "cumsum_rows",
    "row_argmax",
];

/// Side of the tiles that a transposition moves: TILE in `layout.cu`.
const TILE: usize = 32;

/// Rows of a block of the kernels that take one warp per row.
const ROWS: usize = 8;

/// Where the maximum of every row of `x` stands first, in shape `outer`; the width is not 0.
pub(crate) fn argmax_last(x: &Tensor, outer: &[usize]) -> Result<Option<Codes>> {
    let Some((gpu, [input])) = on_gpu("argmax_last", [x])? else {
        return Ok(None);
    };
    let (at, _) = gpu.row_argmax(input.numbers(), x.last_dim())?;
    Ok(Some(Codes::of_gpu(OnGpu::new(gpu, at), outer, x.last_dim())))
}

/// Numbers that a thread moves at a time, and the suffix of the kernel's name: quads if all `sizes` allow it.
pub(crate) fn wide(sizes: &[usize]) -> (usize, &'static str) {
    if sizes.iter().all(|size| size.is_multiple_of(4)) { (4, "quads") } else { (1, "single") }
}

/// Where blocks lie once they are side by side.
fn side_by_side(blocks: Blocks) -> Blocks {
    Blocks { start: 0, step: blocks.len, ..blocks }
}

/// A size in 32 bits, in which kernels divide.
pub(crate) fn short(size: usize) -> Result<u32, CudaError> {
    u32::try_from(size).map_err(|_| crate::cuda::device::kernels::invalid())
}

impl Gpu {
    /// The numbers of `x`, of shape `from`, with its axes in the order `axes`.
    pub(crate) fn permute(&self, x: &Numbers, from: &[usize], axes: &[usize]) -> Result<Numbers, CudaError> {
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

    /// The blocks of `from`, side by side.
    pub(crate) fn gather_blocks(&self, from: &Numbers, blocks: Blocks) -> Result<Numbers, CudaError> {
        let count = length(from).checked_div(blocks.step).unwrap_or(0);
        let mut out = self.room(count * blocks.len)?;
        self.copy_blocks(from, blocks, &mut out, side_by_side(blocks), false)?;
        Ok(out)
    }

    /// Adds the blocks of `from` to what lies side by side in `to`.
    pub(crate) fn add_gathered_blocks(
        &self,
        from: &Numbers,
        blocks: Blocks,
        to: &mut Numbers,
    ) -> Result<(), CudaError> {
        self.copy_blocks(from, blocks, to, side_by_side(blocks), true)
    }

    /// Copies what lies side by side in `from` to blocks of `to`, or adds it if `adds`.
    pub(crate) fn scatter_blocks(
        &self,
        from: &Numbers,
        to: &mut Numbers,
        blocks: Blocks,
        adds: bool,
    ) -> Result<(), CudaError> {
        self.copy_blocks(from, side_by_side(blocks), to, blocks, adds)
    }

    /// Blocks of each of `parts` in turn: the numbers of a part, and how many of them make a block.
    pub(crate) fn join(&self, parts: &[(&Numbers, usize)]) -> Result<Numbers, CudaError> {
        let step = parts.iter().map(|(_, len)| len).sum();
        let mut out = self.room(parts.iter().map(|(part, _)| length(part)).sum())?;
        let mut start = 0;
        for &(part, len) in parts {
            self.scatter_blocks(part, &mut out, Blocks { start, len, step }, false)?;
            start += len;
        }
        Ok(out)
    }

    /// Copies blocks of one length, as many as there are steps in both, or adds them if `adds`.
    fn copy_blocks(
        &self,
        from: &Numbers,
        at: Blocks,
        to: &mut Numbers,
        place: Blocks,
        adds: bool,
    ) -> Result<(), CudaError> {
        let len = at.len;
        if len == 0 || length(from) == 0 || length(to) == 0 {
            return Ok(());
        }
        let count = length(from) / at.step;
        check(count == length(to) / place.step && place.len == len)?;
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
    pub(crate) fn cumulative_sum(
        &self,
        x: &Numbers,
        n: usize,
        inner: usize,
        reversed: bool,
    ) -> Result<Numbers, CudaError> {
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
            // SAFETY: the kernel reads rows * width elements and writes two numbers per row.
            #[allow(unsafe_code)]
            unsafe {
                let all = (&**x, &mut at, &mut *max, rows as u64, width as u64);
                kernel.launch(blocks(rows.div_ceil(ROWS)), all)?;
            }
        }
        Ok((at, max))
    }
}
