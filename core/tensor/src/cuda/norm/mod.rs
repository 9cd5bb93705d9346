//! Layer norm and group norm.

pub(crate) mod weight;

use crate::cpu::norm::group::Maps;
use crate::cpu::norm::layer::RowNorm;
use crate::cuda::device::kernels::{block_grid, blocks, check};
use crate::cuda::device::operands::{on_gpu, output, tracked};
use crate::cuda::{Buffer, Gpu, Numbers, length};
use crate::tape::record_on_gpu;
use crate::{Result, Tensor};
use cudarc::driver::{CudaSlice, DeviceRepr, DeviceSlice, LaunchAsync};
use dfdx::prelude::CudaError;

/// The kernels of `norm.cu`.
pub(crate) const KERNELS: &[&str] = &[
    "layer_norm_forward_4",
    "layer_norm_forward_16",
    "layer_norm_forward_32",
    "layer_norm_forward_wide",
    "layer_norm_backward_4",
    "layer_norm_backward_16",
    "layer_norm_backward_32",
    "layer_norm_backward_wide",
    "layer_norm_sums",
    "group_norm_moments_single",
    "group_norm_moments_quads",
    "group_norm_forward_single",
    "group_norm_forward_quads",
    "group_norm_sums_single",
    "group_norm_sums_quads",
    "group_norm_backward_single",
    "group_norm_backward_quads",
];

/// The norm of every row; weight and bias are as long as a row.
pub(crate) fn layer_norm(
    op: &'static str,
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    norm: RowNorm,
) -> Result<Option<Tensor>> {
    let Some((gpu, [input, w, b])) = on_gpu(op, [x, weight, bias])? else {
        return Ok(None);
    };
    let (data, moments) = gpu.layer_norm([input.numbers(), w.numbers(), b.numbers()], norm)?;
    let (x_key, w_key, b_key) = (tracked(x), tracked(weight), tracked(bias));
    let (out, key) = output(gpu, data, x.shape(), x_key.is_some() || w_key.is_some() || b_key.is_some())?;
    if let Some(key) = key {
        record_on_gpu(&key, move |grad, flow| {
            if w_key.is_some() || b_key.is_some() {
                let [dw, db] = gpu.layer_norm_sums([input.numbers(), &moments, &grad], length(w.numbers()))?;
                for (key, sums) in [(&w_key, dw), (&b_key, db)] {
                    if let Some(key) = key {
                        flow.add(key, sums)?;
                    }
                }
            }
            match &x_key {
                Some(key) => {
                    let operands = [input.numbers(), &moments, w.numbers(), &grad];
                    flow.add(key, gpu.layer_norm_backward(operands, norm.centred)?)
                }
                None => Ok(()),
            }
        });
    }
    Ok(Some(out))
}

/// Group norm of maps, which are not empty and which `maps` describes, with SiLU if it says so; weight and bias are as
/// long as a row of channels. Beside it the mean and reciprocal standard deviation of each group.
pub(crate) fn group_norm(
    op: &'static str,
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    maps: Maps,
) -> Result<Option<(Tensor, Tensor)>> {
    let Some((gpu, [input, w, b])) = on_gpu(op, [x, weight, bias])? else {
        return Ok(None);
    };
    let pieces = Pieces::new(x.len(), maps)?;
    let (data, moments) = gpu.group_norm([input.numbers(), w.numbers(), b.numbers()], pieces)?;
    let moments = Tensor::on_gpu(Buffer::new(gpu, moments), &[pieces.batch * maps.groups, 2], None);
    let (x_key, w_key, b_key) = (tracked(x), tracked(weight), tracked(bias));
    let (out, key) = output(gpu, data, x.shape(), x_key.is_some() || w_key.is_some() || b_key.is_some())?;
    if let (Some(key), Some(moments)) = (key, moments.gpu_buffer().cloned()) {
        record_on_gpu(&key, move |grad, flow| {
            let operands = [input.numbers(), &grad, w.numbers(), b.numbers(), moments.numbers()];
            let sums = gpu.group_norm_sums(operands, pieces)?;
            if w_key.is_some() || b_key.is_some() {
                let (mut dw, mut db) = (gpu.room(maps.channels)?, gpu.room(maps.channels)?);
                gpu.join_columns(&sums, [&mut dw, &mut db], 1.0)?;
                for (key, sums) in [(&w_key, dw), (&b_key, db)] {
                    if let Some(key) = key {
                        flow.add(key, sums)?;
                    }
                }
            }
            match &x_key {
                Some(key) => flow.add(key, gpu.group_norm_backward(operands, &sums, pieces)?),
                None => Ok(()),
            }
        });
    }
    Ok(Some((out, moments)))
}

/// `Maps` in `norm.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Sizes {
    positions: i32,
    channels: i32,
    groups: i32,
    chunk: i32,
    chunks: i32,
    eps: f32,
    silu: i32,
}

// SAFETY: plain numbers in C's layout, the same as in `norm.cu`.
#[allow(unsafe_code)]
unsafe impl DeviceRepr for Sizes {}

/// How the work of a group norm is cut.
#[derive(Clone, Copy)]
struct Pieces {
    batch: usize,
    sizes: Sizes,
}

/// Blocks that fill a GPU, positions of a chunk at least, and chunks of a map at most: every block adds up those of its
/// map.
const FILL: usize = 512;
const CHUNK: usize = 32;
const CHUNKS: usize = 64;

impl Pieces {
    fn new(len: usize, maps: Maps) -> Result<Self, CudaError> {
        let batch = len / (maps.positions * maps.channels);
        let wanted = FILL.div_ceil(batch).clamp(1, CHUNKS);
        let chunk = maps.positions.div_ceil(wanted).max(CHUNK);
        let int = |size: usize| i32::try_from(size).map_err(|_| crate::cuda::device::kernels::invalid());
        // What a kernel adds to an index of a position stays in range, too.
        check(maps.positions < 1 << 30 && batch * CHUNKS < 1 << 30)?;
        let sizes = Sizes {
            positions: int(maps.positions)?,
            channels: int(maps.channels)?,
            groups: int(maps.groups)?,
            chunk: int(chunk)?,
            chunks: int(maps.positions.div_ceil(chunk))?,
            eps: maps.eps,
            silu: maps.silu.into(),
        };
        Ok(Self { batch, sizes })
    }

    fn channels(&self) -> usize {
        self.sizes.channels as usize
    }

    fn groups(&self) -> usize {
        self.sizes.groups as usize
    }

    fn len(&self) -> usize {
        self.batch * self.sizes.positions as usize * self.channels()
    }

    /// Sums of all chunks: two per channel.
    fn sums(&self) -> usize {
        self.batch * self.sizes.chunks as usize * 2 * self.channels()
    }

    fn kernel(&self, name: &str) -> String {
        format!("{name}_{}", if self.channels().is_multiple_of(4) { "quads" } else { "single" })
    }

    /// A block a chunk, with `shared` numbers of shared memory.
    fn grid(&self, shared: usize) -> Result<cudarc::driver::LaunchConfig, CudaError> {
        block_grid([self.sizes.chunks as usize * self.batch, 1, 1], 4 * shared)
    }
}

/// The suffix of the layer norm's kernel for rows of `width` numbers, and how many rows a block takes.
fn rows_kernel(width: usize) -> (&'static str, usize) {
    match width {
        0..=128 => ("4", 8),
        129..=512 => ("16", 8),
        513..=1024 => ("32", 8),
        _ => ("wide", 1),
    }
}

impl Gpu {
    /// The norm of `x` with weight and bias, and each row's mean and reciprocal standard deviation.
    fn layer_norm(
        &self,
        [x, weight, bias]: [&Numbers; 3],
        RowNorm { eps, centred }: RowNorm,
    ) -> Result<(Numbers, Numbers), CudaError> {
        let width = length(weight);
        check(width > 0 && length(bias) == width && length(x).is_multiple_of(width))?;
        let rows = length(x) / width;
        let (mut out, mut moments) = (self.room(length(x))?, self.room(2 * rows)?);
        if rows > 0 {
            let (suffix, each) = rows_kernel(width);
            let kernel = self.kernel(&format!("layer_norm_forward_{suffix}"))?;
            let sizes = (rows as u64, width as u64);
            // SAFETY: `x` and `out` have rows * width elements, weight and bias `width`, `moments` two per row.
            #[allow(unsafe_code)]
            unsafe {
                let from = (&**x, &**weight, &**bias);
                let all = (from.0, from.1, from.2, &mut *out, &mut *moments, sizes.0, sizes.1, eps, i32::from(centred));
                kernel.launch(blocks(rows.div_ceil(each)), all)?;
            }
        }
        Ok((out, moments))
    }

    /// The gradient of the input.
    fn layer_norm_backward(
        &self,
        [x, moments, weight, grad]: [&Numbers; 4],
        centred: bool,
    ) -> Result<Numbers, CudaError> {
        let width = length(weight);
        let rows = length(x) / width;
        check(length(grad) == length(x) && length(moments) == 2 * rows && length(x) == rows * width)?;
        let mut dx = self.room(length(x))?;
        if rows > 0 {
            let (suffix, each) = rows_kernel(width);
            let kernel = self.kernel(&format!("layer_norm_backward_{suffix}"))?;
            let sizes = (rows as u64, width as u64);
            // SAFETY: the lengths just checked are those that the kernel reads and writes.
            #[allow(unsafe_code)]
            unsafe {
                let from = (&**x, &**moments, &**weight, &**grad);
                let all = (from.0, from.1, from.2, from.3, &mut *dx, sizes.0, sizes.1, i32::from(centred));
                kernel.launch(blocks(rows.div_ceil(each)), all)?;
            }
        }
        Ok(dx)
    }

    /// The gradients of weight and bias.
    fn layer_norm_sums(&self, [x, moments, grad]: [&Numbers; 3], width: usize) -> Result<[Numbers; 2], CudaError> {
        let rows = length(x) / width;
        check(length(grad) == length(x) && length(moments) == 2 * rows && length(x) == rows * width)?;
        if rows == 0 {
            return Ok([self.zeros(width)?, self.zeros(width)?]);
        }
        let (mut dw, mut db) = (self.room(width)?, self.room(width)?);
        let piece = rows.div_ceil(128).max(64);
        let pieces = rows.div_ceil(piece);
        let mut partial = self.room_for_sums(pieces * 2 * width)?;
        let kernel = self.kernel("layer_norm_sums")?;
        let grid = block_grid([width.div_ceil(32), pieces, 1], 0)?;
        let sizes = (rows as u64, width as u64, piece as u64);
        // SAFETY: the kernel reads what was just checked and writes two sums a piece and column.
        #[allow(unsafe_code)]
        unsafe {
            kernel.launch(grid, (&**x, &**moments, &**grad, &mut partial, sizes.0, sizes.1, sizes.2))?;
        }
        self.join_columns(&partial, [&mut dw, &mut db], 1.0)?;
        Ok([dw, db])
    }

    /// The norm of `x`, and the mean and reciprocal standard deviation of every group.
    fn group_norm(&self, [x, weight, bias]: [&Numbers; 3], pieces: Pieces) -> Result<(Numbers, Numbers), CudaError> {
        let channels = pieces.channels();
        check(length(x) == pieces.len() && length(weight) == channels && length(bias) == channels)?;
        let mut sums = self.room_for_sums(pieces.sums())?;
        let (mut out, mut moments) = (self.room(length(x))?, self.room(pieces.batch * 2 * pieces.groups())?);
        let first = self.kernel(&pieces.kernel("group_norm_moments"))?;
        let second = self.kernel(&pieces.kernel("group_norm_forward"))?;
        // SAFETY: `x` and `out` have as many elements as `pieces` says, `sums` two a chunk and channel, `moments` two a
        // map and group, and weight and bias one per channel. The second launch has room for two numbers per group.
        #[allow(unsafe_code)]
        unsafe {
            first.launch(pieces.grid(0)?, (&**x, &mut sums, pieces.sizes))?;
            let from = (&**x, &sums, &**weight, &**bias);
            let all = (from.0, from.1, from.2, from.3, &mut *out, &mut *moments, pieces.sizes);
            second.launch(pieces.grid(2 * pieces.groups())?, all)?;
        }
        Ok((out, moments))
    }

    /// What the gradients of weight and bias sum up, `[chunks][2][channels]`.
    fn group_norm_sums(
        &self,
        [x, grad, weight, bias, moments]: [&Numbers; 5],
        pieces: Pieces,
    ) -> Result<CudaSlice<f64>, CudaError> {
        check(length(x) == pieces.len() && length(grad) == pieces.len())?;
        let mut sums = self.room_for_sums(pieces.sums())?;
        let kernel = self.kernel(&pieces.kernel("group_norm_sums"))?;
        // SAFETY: `x` and `grad` have as many elements as `pieces` says, the rest is that of the forward pass, and
        // `sums` has two a chunk and channel.
        #[allow(unsafe_code)]
        unsafe {
            let from = (&**x, &**grad, &**weight, &**bias, &**moments);
            let all = (from.0, from.1, from.2, from.3, from.4, &mut sums, pieces.sizes);
            kernel.launch(pieces.grid(0)?, all)?;
        }
        Ok(sums)
    }

    /// The gradient of the input.
    fn group_norm_backward(
        &self,
        [x, grad, weight, bias, moments]: [&Numbers; 5],
        sums: &CudaSlice<f64>,
        pieces: Pieces,
    ) -> Result<Numbers, CudaError> {
        check(length(x) == pieces.len() && length(grad) == pieces.len() && sums.len() == pieces.sums())?;
        let mut dx = self.room(length(x))?;
        let kernel = self.kernel(&pieces.kernel("group_norm_backward"))?;
        // SAFETY: `x`, `grad` and `dx` have as many elements as `pieces` says, the rest is that of the forward pass.
        // The launch has room for two numbers per group.
        #[allow(unsafe_code)]
        unsafe {
            let from = (&**x, &**grad, &**weight, &**bias, &**moments);
            let all = (from.0, from.1, from.2, from.3, from.4, sums, &mut *dx, pieces.sizes);
            kernel.launch(pieces.grid(2 * pieces.groups())?, all)?;
        }
        Ok(dx)
    }
}
