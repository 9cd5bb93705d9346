//! Nearest rows of a codebook, residual codes, and how far their sums are off: the counterpart of
//! [`crate::cpu::nearest`].

use crate::cuda::device::codes::OnGpu;
use crate::cuda::device::kernels::{blocks, check, elements, teams};
use crate::cuda::device::operands::{on_gpu, output, tracked};
use crate::cuda::{Buffer, Gpu, Numbers, length};
use crate::tape::record_on_gpu;
use crate::{Codes, Result, Tensor};
use cudarc::driver::sys::CUdevice_attribute;
use cudarc::driver::{CudaSlice, DevicePtr, DevicePtrMut, DeviceRepr, LaunchAsync};
use dfdx::prelude::CudaError;

/// The kernels of `nearest.cu`.
pub(crate) const KERNELS: &[&str] = &[
    "square_rows",
    "nearest_tiles",
    "nearest_settle",
    "distance_tiles",
    "partial_sums",
    "partial_totals",
    "partial_differences",
];

/// Rows and codes of a tile: SIDE in `nearest.cu`.
const SIDE: usize = 128;

/// Blocks of `nearest_tiles` that a multiprocessor runs at once: the launch bounds in `nearest.cu`.
const RESIDENT: usize = 2;

/// Parts of a codebook at most: the lanes of a warp, which picks the best of them.
const SPLITS: usize = 32;

/// Tensors that one kernel adds up: TERMS in `nearest.cu`.
const TERMS: usize = 8;

/// Blocks of that kernel at most.
const PIECES: usize = 1024;

/// A codebook `[K, C]` with `|e|² / 2` of every code.
pub(crate) struct Search {
    codebook: Buffer,
    halves: Numbers,
    size: usize,
    channels: usize,
}

impl Search {
    /// Prepares a codebook; `None` if it is on the CPU.
    pub(crate) fn new(codebook: &Tensor, size: usize, channels: usize) -> Result<Option<Self>> {
        let Some((gpu, [codebook])) = on_gpu("nearest", [codebook])? else {
            return Ok(None);
        };
        let halves = gpu.square_rows(codebook.numbers(), size, channels, 0.5)?;
        Ok(Some(Self { codebook, halves, size, channels }))
    }
}

/// Greedy residual codes of `x` over all searches, of codebooks with as many channels as x: codes of shape `shape`,
/// whose innermost axis are the depths.
pub(crate) fn residual_codes(x: &Tensor, depths: &[&Search], shape: &[usize]) -> Result<Option<Codes>> {
    let Some((gpu, [input])) = on_gpu("residual_codes", [x])? else {
        return Ok(None);
    };
    let n: usize = shape.iter().product();
    let mut codes = gpu.room_for_codes(n)?;
    let rows = n.checked_div(depths.len()).unwrap_or(0);
    if rows > 0 {
        // What is left by the depths before, of which there is none at first.
        let mut residual = if depths.len() > 1 { Some(gpu.room(x.len())?) } else { None };
        for (depth, search) in depths.iter().enumerate() {
            check(x.len() == rows * search.channels).map_err(crate::Error::from)?;
            let last = depth + 1 == depths.len();
            gpu.nearest(search, &input, residual.as_mut(), [depth, depths.len()], last, rows, &mut codes)?;
        }
    }
    let bound = depths.iter().map(|search| search.size).max().unwrap_or(0);
    Ok(Some(Codes::of_gpu(OnGpu::new(gpu, codes), shape, bound)))
}

/// All squared distances of `x` `[.., C]` from a codebook `[K, C]`, in shape `shape`.
pub(crate) fn squared_distances(x: &Tensor, codebook: &Tensor, shape: &[usize]) -> Result<Option<Tensor>> {
    let Some((gpu, [a, e])) = on_gpu("squared_distances", [x, codebook])? else {
        return Ok(None);
    };
    let [size, channels] = codebook.dims("squared_distances")?;
    let n: usize = shape.iter().product();
    let rows = n.checked_div(size).unwrap_or(0);
    let mut out = gpu.room(n)?;
    if rows > 0 {
        let own = gpu.square_rows(a.numbers(), rows, channels, 1.0)?;
        let squares = gpu.square_rows(e.numbers(), size, channels, 1.0)?;
        let kernel = gpu.kernel("distance_tiles")?;
        let tiles = rows.div_ceil(SIDE) * size.div_ceil(SIDE);
        let sizes = (rows as u64, size as u64, channels as u64);
        // SAFETY: both operands have the rows and channels whose squares have just been summed, and `out` a number for
        // every pair.
        #[allow(unsafe_code)]
        unsafe {
            let from = (&**a.numbers(), &**e.numbers(), &*own, &*squares);
            let all = (from.0, from.1, from.2, from.3, &mut *out, sizes.0, sizes.1, sizes.2);
            kernel.launch(blocks(tiles), all).map_err(CudaError::from)?;
        }
    }
    Ok(Some(output(gpu, out, shape, false)?.0))
}

/// Pointers to up to [`TERMS`] tensors: `Terms` in `nearest.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Terms {
    of: [u64; TERMS],
    count: u64,
}

// SAFETY: plain numbers in C's layout, the same as in `nearest.cu`.
#[allow(unsafe_code)]
unsafe impl DeviceRepr for Terms {}

impl Terms {
    /// `terms` in groups, each of `n` numbers.
    fn groups(terms: &[Buffer], n: usize) -> Result<Vec<Self>, CudaError> {
        check(terms.iter().all(|term| length(term.numbers()) == n))?;
        let group = |terms: &[Buffer]| {
            let mut of = [0; TERMS];
            of.iter_mut().zip(terms).for_each(|(of, term)| *of = *term.numbers().device_ptr());
            Self { of, count: terms.len() as u64 }
        };
        Ok(terms.chunks(TERMS).map(group).collect())
    }
}

/// The sum of all terms, the mean square of x less the sum after each term `[D]`, and the sum of these. Of at least one
/// term and one number, all of one shape.
pub(crate) fn partial_sums(x: &Tensor, terms: &[Tensor]) -> Result<Option<[Tensor; 3]>> {
    crate::ops::common_device("partial_sums", terms.iter().chain([x]))?;
    let Some((gpu, [input])) = on_gpu("partial_sums", [x])? else {
        return Ok(None);
    };
    let terms: Vec<Buffer> = terms.iter().filter_map(|term| term.gpu_buffer().cloned()).collect();
    let (sum, means, total) = gpu.partial_sums(input.numbers(), &terms)?;
    let x_key = tracked(x);
    let (sum, _) = output(gpu, sum, x.shape(), false)?;
    let (means, _) = output(gpu, means, &[terms.len()], false)?;
    let (total, key) = output(gpu, total, &[], x_key.is_some())?;
    if let (Some(x_key), Some(key)) = (x_key, key) {
        record_on_gpu(&key, move |grad, flow| {
            flow.add(&x_key, gpu.partial_differences(input.numbers(), &terms, &grad)?)
        });
    }
    Ok(Some([sum, means, total]))
}

/// Into how many parts a codebook of `tiles_across` tiles is cut, for `tiles_down` tiles of rows, so that blocks of which a
/// GPU runs `slots` at once are done the soonest; of equal numbers the lowest.
fn splits(tiles_down: usize, tiles_across: usize, slots: usize) -> usize {
    let time = |splits: usize| (tiles_down * splits).div_ceil(slots) * tiles_across.div_ceil(splits);
    (1..=tiles_across.min(SPLITS)).min_by_key(|&splits| time(splits)).unwrap_or(1)
}

impl Gpu {
    /// How many blocks run side by side for each that fits on a multiprocessor: at least 1.
    fn multiprocessors(&self) -> Result<usize, CudaError> {
        let count = self.driver.attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        Ok(usize::try_from(count).unwrap_or(1).max(1))
    }

    /// `scale` times the sum of squares of every row.
    fn square_rows(&self, x: &Numbers, rows: usize, channels: usize, scale: f32) -> Result<Numbers, CudaError> {
        check(length(x) == rows * channels)?;
        let mut out = self.room(rows)?;
        if rows > 0 {
            let kernel = self.kernel("square_rows")?;
            // SAFETY: the kernel reads rows * channels numbers and writes one per row.
            #[allow(unsafe_code)]
            unsafe {
                kernel.launch(elements(32 * rows), (&**x, &mut *out, rows as u64, channels as u64, scale))?;
            }
        }
        Ok(out)
    }

    /// The codes at one depth of `rows` rows: of `x` at the first depth, and of the residual after it. Writes what they
    /// leave to the residual, unless nothing follows.
    fn nearest(
        &self,
        search: &Search,
        x: &Buffer,
        residual: Option<&mut Numbers>,
        [depth, depths]: [usize; 2],
        last: bool,
        rows: usize,
        codes: &mut CudaSlice<u32>,
    ) -> Result<(), CudaError> {
        let Search { codebook, halves, size, channels, .. } = search;
        let n = rows * channels;
        check(length(x.numbers()) == n && residual.as_ref().is_none_or(|residual| length(residual) == n))?;
        check(cudarc::driver::DeviceSlice::len(codes) == rows * depths && depth < depths)?;
        let (tiles, parts) = (rows.div_ceil(SIDE), size.div_ceil(SIDE));
        let splits = splits(tiles, parts, RESIDENT * self.multiprocessors()?);
        let (mut scores, mut found) = (self.room(splits * rows)?, self.room_for_codes(splits * rows)?);
        let into = residual.map_or(0, |residual| *residual.device_ptr_mut());
        let from = if depth == 0 || into == 0 { *x.numbers().device_ptr() } else { into };
        let (first, second) = (self.kernel("nearest_tiles")?, self.kernel("nearest_settle")?);
        let codebook = &**codebook.numbers();
        let sizes = (rows as u64, *size as u64, *channels as u64, splits as u64);
        // SAFETY: `from` has rows * channels numbers, as has what is left; the codebook has size * channels, and `halves`
        // one per code, as when the search was made; scores and what was found have one per row and part, and codes one per row
        // and depth.
        #[allow(unsafe_code)]
        unsafe {
            let all = (from, codebook, &**halves, &mut *scores, &mut found, sizes.0, sizes.1, sizes.2, sizes.3);
            first.launch(blocks(tiles * splits), all)?;
            let of = (&*scores, &found, sizes.3, codes, depths as u64, depth as u64);
            let left = if last { 0 } else { into };
            let all = (of.0, of.1, of.2, of.3, of.4, of.5, from, codebook, left, sizes.0, sizes.2);
            second.launch(teams((32 * rows).div_ceil(256), 256), all)?;
        }
        Ok(())
    }

    fn partial_sums(&self, x: &Numbers, terms: &[Buffer]) -> Result<(Numbers, Numbers, Numbers), CudaError> {
        let n = length(x);
        check(n > 0 && !terms.is_empty())?;
        let launch = elements(n.min(256 * PIECES));
        let pieces = launch.grid_dim.0 as usize;
        let (mut sum, mut means, mut total) = (self.room(n)?, self.room(terms.len())?, self.room(1)?);
        // SAFETY: any bits are an f64.
        #[allow(unsafe_code)]
        let mut partial: CudaSlice<f64> = unsafe { self.driver.alloc(terms.len() * pieces)? };
        for (i, group) in Terms::groups(terms, n)?.into_iter().enumerate() {
            let mut own = partial.slice_mut(i * TERMS * pieces..);
            // SAFETY: x, the sum and all terms have n numbers; the group has a partial sum for each term and block.
            #[allow(unsafe_code)]
            unsafe {
                let all = (&**x, group, &mut *sum, &mut own, n as u64, u32::from(i == 0));
                self.kernel("partial_sums")?.launch(launch, all)?;
            }
        }
        // SAFETY: one block reads all partial sums, and writes a mean per term and one sum.
        #[allow(unsafe_code)]
        unsafe {
            let all = (&partial, &mut *means, &mut *total, terms.len() as u64, pieces as u64, n as u64);
            self.kernel("partial_totals")?.launch(blocks(1), all)?;
        }
        Ok((sum, means, total))
    }

    fn partial_differences(&self, x: &Numbers, terms: &[Buffer], grad: &Numbers) -> Result<Numbers, CudaError> {
        let n = length(x);
        check(length(grad) == 1)?;
        let groups = Terms::groups(terms, n)?;
        let mut out = self.room(n)?;
        let mut sum = if groups.len() > 1 { Some(self.room(n)?) } else { None };
        let sum = sum.as_mut().map_or(0, |sum| *sum.device_ptr_mut());
        for (i, group) in groups.iter().enumerate() {
            let (fresh, more) = (u32::from(i == 0), u32::from(i + 1 < groups.len()));
            // SAFETY: x, `out` and all terms have n numbers, and so has the sum, which is used with several groups only.
            #[allow(unsafe_code)]
            unsafe {
                let all = (&**x, *group, sum, &**grad, &mut *out, n as u64, fresh, more);
                self.kernel("partial_differences")?.launch(elements(n), all)?;
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A GPU with room for 264 blocks: two parts of 128 tiles each fill it once, three would need it twice.
    #[test]
    fn a_codebook_is_cut_so_that_blocks_fill_the_gpu() {
        assert_eq!(splits(128, 128, 264), 2);
        assert_eq!(splits(128, 8, 264), 2);
        assert_eq!(splits(512, 8, 264), 1);
        assert_eq!(splits(1, 8, 264), 8);
        assert_eq!(splits(1, 128, 264), 32);
        assert_eq!(splits(128, 1, 264), 1);
    }
}
