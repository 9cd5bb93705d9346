//! Scaled dot-product attention, fused: the counterpart of [`crate::cpu::attention`].

pub(crate) mod decoder;
pub(crate) mod rotary;

use crate::cpu::attention::Sizes;
use crate::cuda::device::kernels::{check, in_tensor_cores, invalid, teams};
use crate::cuda::device::operands::{on_gpu, output, tracked};
use crate::cuda::device::tape::{Flow, Key};
use crate::cuda::{Gpu, Numbers, length};
use crate::tape::record_on_gpu;
use crate::{Result, Tensor};
use cudarc::driver::{DevicePtr, DevicePtrMut, DeviceRepr, LaunchAsync};
use dfdx::prelude::CudaError;

macro_rules! by_size {
    ($($name:literal),*) => {
        &[$(concat!($name, "_small"), concat!($name, "_medium"), concat!($name, "_large")),*]
    };
}

/// The kernels of `attention.cu`.
pub(crate) const KERNELS: &[&str] = by_size!(
    "attention_forward",
    "attention_queries",
    "attention_keys",
    "attention_few_forward",
    "attention_few_backward"
);

/// The kernels that take heads of up to so many numbers; the last takes all.
const TILED: [(usize, &str); 3] = [(32, "small"), (64, "medium"), (usize::MAX, "large")];

/// The same for sequences of up to [`FEW`] positions; longer heads go in tiles.
const SHORT: [(usize, &str); 3] = [(32, "small"), (64, "medium"), (128, "large")];

/// Numbers of a head in one slice of a tile, by kernel: C times N in `attention.cu`.
const SLICES: [(&str, usize); 3] = [("small", 32), ("medium", 64), ("large", 128)];

/// Positions of a short sequence at most: FEW in `attention.cu`.
const FEW: usize = 8;

/// Rows of a tile without and with tensor cores: TILE in `attention.cu`.
const TILES: [usize; 2] = [32, 64];

/// Threads of a block: TEAM in `attention.cu`.
const TEAM: usize = 128;

/// Rows of an operand as kernels take them: `HeadRows` in `attention.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Rows {
    data: u64,
    stride: u64,
}

// SAFETY: plain numbers in C's layout, the same as in `attention.cu`.
#[allow(unsafe_code)]
unsafe impl DeviceRepr for Rows {}

impl Rows {
    /// `rows` rows of `width` numbers, `stride` apart, from number `start` of `data` on.
    fn of(data: &Numbers, start: usize, stride: usize, rows: usize, width: usize) -> Result<Self, CudaError> {
        check(rows == 0 || start + (rows - 1) * stride + width <= length(data))?;
        Ok(Self { data: *data.device_ptr() + 4 * start as u64, stride: stride as u64 })
    }

    /// The same of rows that a kernel writes.
    fn to(data: &mut Numbers, start: usize, stride: usize, rows: usize, width: usize) -> Result<Self, CudaError> {
        check(rows == 0 || start + (rows - 1) * stride + width <= length(data))?;
        Ok(Self { data: *data.device_ptr_mut() + 4 * start as u64, stride: stride as u64 })
    }
}

/// Sizes as kernels take them: `Attention` in `attention.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Launch {
    pairs: u64,
    heads: u64,
    queries: u64,
    keys: u64,
    head: u64,
    scale: f32,
    causal: u32,
    wide: u32,
    unused: u32,
}

// SAFETY: plain numbers in C's layout, the same as in `attention.cu`.
#[allow(unsafe_code)]
unsafe impl DeviceRepr for Launch {}

/// An attention of `batch` entries.
#[derive(Clone, Copy)]
struct Tiling {
    gpu: &'static Gpu,
    batch: usize,
    sizes: Sizes,
}

impl Tiling {
    fn width(&self) -> usize {
        self.sizes.heads * self.sizes.head
    }

    fn pairs(&self) -> usize {
        self.batch * self.sizes.heads
    }

    /// The kernel for short sequences, if this is one.
    fn short(&self) -> Option<&'static str> {
        let Sizes { queries, keys, .. } = self.sizes;
        if queries == keys && queries <= FEW { self.fitting(&SHORT) } else { None }
    }

    fn fitting(&self, kernels: &[(usize, &'static str)]) -> Option<&'static str> {
        kernels.iter().find(|(most, _)| self.sizes.head <= *most).map(|(_, name)| *name)
    }

    /// The kernel for tiles, and how many blocks it has work for with tiles of `rows`.
    fn tiled(&self, rows: usize) -> Result<(&'static str, usize), CudaError> {
        let tile = TILES[usize::from(in_tensor_cores(&self.gpu.driver)?)];
        let name = self.fitting(&TILED).unwrap_or("large");
        let slice = SLICES.iter().find(|(own, _)| *own == name).map_or(1, |(_, slice)| *slice);
        Ok((name, self.pairs() * rows.div_ceil(tile) * self.sizes.head.div_ceil(slice)))
    }

    /// Sizes, and whether four neighbouring numbers of every row, in `rows`, can be read or written at once.
    fn launch(&self, rows: &[Rows]) -> Launch {
        let Sizes { heads, queries, keys, head, causal } = self.sizes;
        let wide = head.is_multiple_of(4) && rows.iter().all(|rows| rows.data % 16 == 0 && rows.stride % 4 == 0);
        Launch {
            pairs: self.pairs() as u64,
            heads: heads as u64,
            queries: queries as u64,
            keys: keys as u64,
            head: head as u64,
            scale: 1.0 / (head as f32).sqrt(),
            causal: u32::from(causal),
            wide: u32::from(wide),
            unused: 0,
        }
    }

    /// Rows of an operand with as many rows as there are queries, or keys.
    fn rows(&self, data: &Numbers, start: usize, stride: usize, per_entry: usize) -> Result<Rows, CudaError> {
        Rows::of(data, start, stride, self.batch * per_entry, self.width())
    }

    /// The output `[B, T, W]` and, but for short sequences, the log of each row's sum of exponentials `[B, heads, T]`.
    fn forward(&self, [q, k, v]: [Rows; 3]) -> Result<(Numbers, Option<Numbers>), CudaError> {
        let gpu = self.gpu;
        let Sizes { queries, .. } = self.sizes;
        let mut out = gpu.room(self.batch * queries * self.width())?;
        if length(&out) == 0 {
            return Ok((out, None));
        }
        let y = Rows::to(&mut out, 0, self.width(), self.batch * queries, self.width())?;
        let size = self.launch(&[q, k, v, y]);
        if let Some(name) = self.short() {
            let kernel = gpu.kernel(&format!("attention_few_forward_{name}"))?;
            // SAFETY: every operand has the rows that `size` names, as `Rows` has checked; all live until this returns,
            // and the driver frees them after the kernel.
            #[allow(unsafe_code)]
            unsafe {
                kernel.launch(teams(self.pairs().div_ceil(TEAM / 32), TEAM), (size, q, k, v, y))?;
            }
            return Ok((out, None));
        }
        let mut log_sums = gpu.room(self.pairs() * queries)?;
        let (name, blocks) = self.tiled(queries)?;
        let kernel = gpu.kernel(&format!("attention_forward_{name}"))?;
        // SAFETY: as above; `log_sums` has a number for a row of each head.
        #[allow(unsafe_code)]
        unsafe {
            kernel.launch(teams(blocks, TEAM), (size, q, k, v, y, &mut *log_sums))?;
        }
        Ok((out, Some(log_sums)))
    }

    /// Writes the gradients of query, key and value to rows of the same sizes.
    fn backward(
        &self,
        [q, k, v]: [Rows; 3],
        y: &Numbers,
        dy: &Numbers,
        log_sums: Option<&Numbers>,
        [dq, dk, dv]: [Rows; 3],
    ) -> Result<(), CudaError> {
        let gpu = self.gpu;
        let Sizes { queries, keys, .. } = self.sizes;
        if self.pairs() == 0 || queries == 0 {
            return Ok(());
        }
        let (y, dy) = (self.rows(y, 0, self.width(), queries)?, self.rows(dy, 0, self.width(), queries)?);
        let size = self.launch(&[q, k, v, dy, dq, dk, dv]);
        if let Some(name) = self.short() {
            let kernel = gpu.kernel(&format!("attention_few_backward_{name}"))?;
            // SAFETY: as in the forward pass; gradients have the rows of their operands, and no other kernel runs.
            #[allow(unsafe_code)]
            unsafe {
                kernel.launch(teams(self.pairs().div_ceil(TEAM / 32), TEAM), (size, q, k, v, dy, dq, dk, dv))?;
            }
            return Ok(());
        }
        let log_sums = log_sums.ok_or_else(invalid)?;
        check(length(log_sums) == self.pairs() * queries)?;
        let mut means = gpu.room(length(log_sums))?;
        let (name, blocks) = self.tiled(queries)?;
        let first = gpu.kernel(&format!("attention_queries_{name}"))?;
        let (name, of_keys) = self.tiled(keys)?;
        let second = gpu.kernel(&format!("attention_keys_{name}"))?;
        // SAFETY: as above; the second kernel reads the means that the first has written.
        #[allow(unsafe_code)]
        unsafe {
            first.launch(teams(blocks, TEAM), (size, q, k, v, y, dy, &**log_sums, &mut *means, dq))?;
            second.launch(teams(of_keys, TEAM), (size, q, k, v, dy, &**log_sums, &*means, dk, dv))?;
        }
        Ok(())
    }
}

/// `attention` of operands whose sizes fit.
pub(crate) fn attention(q: &Tensor, k: &Tensor, v: &Tensor, batch: usize, sizes: Sizes) -> Result<Option<Tensor>> {
    let Some((gpu, operands)) = on_gpu("attention", [q, k, v])? else {
        return Ok(None);
    };
    let tiling = Tiling { gpu, batch, sizes };
    let (width, rows) = (tiling.width(), [sizes.queries, sizes.keys, sizes.keys]);
    let thirds = move |of: [&Numbers; 3]| -> Result<[Rows; 3], CudaError> {
        Ok([
            tiling.rows(of[0], 0, width, rows[0])?,
            tiling.rows(of[1], 0, width, rows[1])?,
            tiling.rows(of[2], 0, width, rows[2])?,
        ])
    };
    let (data, log_sums) = tiling.forward(thirds(operands.each_ref().map(crate::cuda::Buffer::numbers))?)?;
    let keys: [Option<Key>; 3] = [tracked(q), tracked(k), tracked(v)];
    let (out, key) = output(gpu, data, q.shape(), keys.iter().any(Option::is_some))?;
    if let (Some(key), Some(y)) = (key, out.gpu_buffer().cloned()) {
        record_on_gpu(&key, move |dy, flow: &mut Flow<'_>| {
            let of = operands.each_ref().map(crate::cuda::Buffer::numbers);
            let [mut dq, mut dk, mut dv] =
                [gpu.room(length(of[0]))?, gpu.room(length(of[1]))?, gpu.room(length(of[2]))?];
            let grads = [
                Rows::to(&mut dq, 0, width, batch * rows[0], width)?,
                Rows::to(&mut dk, 0, width, batch * rows[1], width)?,
                Rows::to(&mut dv, 0, width, batch * rows[2], width)?,
            ];
            tiling.backward(thirds(of)?, y.numbers(), &dy, log_sums.as_ref(), grads)?;
            for (key, grad) in keys.iter().zip([dq, dk, dv]) {
                if let Some(key) = key {
                    flow.add(key, grad)?;
                }
            }
            Ok(())
        });
    }
    Ok(Some(out))
}

/// `attention_qkv` of an operand whose sizes fit.
pub(crate) fn attention_qkv(qkv: &Tensor, batch: usize, sizes: Sizes) -> Result<Option<Tensor>> {
    let Some((gpu, [operand])) = on_gpu("attention_qkv", [qkv])? else {
        return Ok(None);
    };
    let tiling = Tiling { gpu, batch, sizes };
    let (width, length_of) = (tiling.width(), sizes.queries);
    let thirds = move |of: &Numbers| -> Result<[Rows; 3], CudaError> {
        let third = |i: usize| tiling.rows(of, i * width, 3 * width, length_of);
        Ok([third(0)?, third(1)?, third(2)?])
    };
    let (data, log_sums) = tiling.forward(thirds(operand.numbers())?)?;
    let qkv_key = tracked(qkv);
    let (out, key) = output(gpu, data, &[batch, length_of, width], qkv_key.is_some())?;
    if let (Some(qkv_key), Some(key), Some(y)) = (qkv_key, key, out.gpu_buffer().cloned()) {
        record_on_gpu(&key, move |dy, flow| {
            let mut grad = gpu.room(length(operand.numbers()))?;
            let mut third = |i: usize| Rows::to(&mut grad, i * width, 3 * width, batch * length_of, width);
            let grads = [third(0)?, third(1)?, third(2)?];
            tiling.backward(thirds(operand.numbers())?, y.numbers(), &dy, log_sums.as_ref(), grads)?;
            flow.add(&qkv_key, grad)
        });
    }
    Ok(Some(out))
}
