//! A step through the blocks of a transformer: the counterpart of [`crate::cpu::attention::decoder`].

use crate::cpu::attention::decoder::Sizes;
use crate::cpu::attention::rotary::Turned;
use crate::cpu::norm::layer::RowNorm;
use crate::cuda::device::kernels::{blocks, check, teams};
use crate::cuda::device::operands::{on_gpu, output};
use crate::cuda::gemm::packed::{Finish, Weight};
use crate::cuda::{Buffer, Gpu, Numbers, length};
use crate::{Error, Result, Tensor};
use cudarc::driver::{DeviceRepr, LaunchAsync};
use dfdx::prelude::CudaError;
use std::fmt;
use std::sync::Arc;

/// The kernels of `decoder.cu`.
pub(crate) const KERNELS: &[&str] = &[
    "product_few_1",
    "product_few_2",
    "product_few_4",
    "product_few_8",
    "product_few_bf16_1",
    "product_few_bf16_2",
    "product_few_bf16_4",
    "product_few_bf16_8",
    "finish_product",
    "decoder_norm",
    "cached_attention_1",
    "cached_attention_2",
    "cached_attention_4",
    "cached_attention_8",
    "cached_attention_16",
];

/// Kernels for heads of up to so many times 32 numbers, which a lane keeps as many of.
const LANE_NUMBERS: [usize; 5] = [1, 2, 4, 8, 16];

/// Threads of a block: 32 times CACHED_WARPS in `decoder.cu`.
const TEAM: usize = 128;

/// The keys and values of one block `[B, heads, capacity, head]`. Clones share them until one is written to.
#[derive(Clone)]
pub(crate) struct Cache {
    gpu: &'static Gpu,
    keys: Arc<Numbers>,
    values: Arc<Numbers>,
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cache({} numbers on {:?})", length(&self.keys) + length(&self.values), self.gpu)
    }
}

impl Cache {
    /// Room for `len` numbers of keys and as many of values, where `tensor` is; `None` if that is no GPU.
    pub(crate) fn beside(tensor: &Tensor, len: usize) -> Result<Option<Self>> {
        let Some(gpu) = tensor.gpu_buffer().map(Buffer::gpu) else {
            return Ok(None);
        };
        Ok(Some(Self { gpu, keys: Arc::new(gpu.room(len)?), values: Arc::new(gpu.room(len)?) }))
    }

    /// Both, to be written to.
    fn own(&mut self) -> Result<[&mut Numbers; 2], CudaError> {
        for numbers in [&mut self.keys, &mut self.values] {
            if Arc::get_mut(numbers).is_none() {
                *numbers = Arc::new(self.gpu.copy(numbers)?);
            }
        }
        match (Arc::get_mut(&mut self.keys), Arc::get_mut(&mut self.values)) {
            (Some(keys), Some(values)) => Ok([keys, values]),
            _ => Err(crate::cuda::device::kernels::invalid()),
        }
    }
}

/// The weights of a block, and the keys and values that it has gathered.
pub(crate) struct Block<'a> {
    pub(crate) norm1: [&'a Buffer; 2],
    pub(crate) qkv: &'a Weight,
    pub(crate) proj: &'a Weight,
    pub(crate) norm2: [&'a Buffer; 2],
    pub(crate) gate: Option<&'a Weight>,
    pub(crate) expand: &'a Weight,
    pub(crate) contract: &'a Weight,
    pub(crate) cache: &'a mut Cache,
}

/// Where new positions go on: `Continued` in `decoder.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Continued {
    batch: u64,
    heads: u64,
    head: u64,
    fresh: u64,
    past: u64,
    capacity: u64,
}

// SAFETY: plain numbers in C's layout, the same as in `decoder.cu`.
#[allow(unsafe_code)]
unsafe impl DeviceRepr for Continued {}

/// The kernel for heads of this size: how many numbers a lane keeps.
fn lane_numbers(sizes: &Sizes<'_>) -> Result<usize> {
    let head = sizes.width / sizes.heads;
    let most = 32 * LANE_NUMBERS[LANE_NUMBERS.len() - 1];
    let too_long = || Error::shape("Decoder", format!("heads of {head} numbers; on a GPU they have up to {most}"));
    LANE_NUMBERS.into_iter().find(|lane| head <= 32 * lane).ok_or_else(too_long)
}

/// Attention of new positions `[B, t, 3W]` over the cache and themselves, which are added to it.
pub(crate) fn attend(sizes: &Sizes<'_>, cache: &mut Cache, qkv: &Tensor) -> Result<Tensor> {
    let lane = lane_numbers(sizes)?;
    let Some((gpu, [input])) = on_gpu("KeyValues", [qkv])? else {
        return Err(Error::Device("keys and values on a GPU, and queries elsewhere".to_owned()));
    };
    let rows = sizes.batch * sizes.new;
    let mut out = gpu.room(rows * sizes.width)?;
    if rows > 0 {
        gpu.attend(sizes, lane, input.numbers(), cache, &mut out)?;
    }
    Ok(output(gpu, out, &[sizes.batch, sizes.new, sizes.width], false)?.0)
}

/// Takes `x` `[B, t, W]` through the blocks; `turns` has rotations of all positions. Nothing is read back, and nothing waits.
pub(crate) fn step(
    sizes: &Sizes<'_>,
    turns: Option<&Buffer>,
    layers: &mut [Block<'_>],
    x: &Tensor,
) -> Result<Option<Tensor>> {
    let Some((gpu, [input])) = on_gpu("Decoder", [x])? else {
        return Ok(None);
    };
    let (lane, width) = (lane_numbers(sizes)?, sizes.width);
    let turned =
        Turned { head: width / sizes.heads, row: 3 * width, turned: 2 * width, period: sizes.new, back: false };
    let rows = sizes.batch * sizes.new;
    let mut state = gpu.copy(input.numbers())?;
    if rows > 0 {
        let mut normal = gpu.room(rows * sizes.width)?;
        let mut attended = gpu.room(rows * sizes.width)?;
        let mut qkv = gpu.room(rows * 3 * sizes.width)?;
        for block in layers {
            let mut hidden = gpu.room(rows * block.expand.outputs)?;
            gpu.normalise(&state, block.norm1, sizes.norm, &mut normal)?;
            gpu.linear_into(block.qkv, &normal, &mut qkv, Finish::Store)?;
            if let Some(turns) = turns {
                qkv = gpu.rotated(turned, &qkv, turns.numbers(), sizes.past)?;
            }
            gpu.attend(sizes, lane, &qkv, block.cache, &mut attended)?;
            gpu.linear_into(block.proj, &attended, &mut state, Finish::Add)?;
            gpu.normalise(&state, block.norm2, sizes.norm, &mut normal)?;
            if let Some(gate) = block.gate {
                let mut gates = gpu.room(length(&hidden))?;
                gpu.linear_into(gate, &normal, &mut gates, Finish::Store)?;
                gpu.linear_into(block.expand, &normal, &mut hidden, Finish::Store)?;
                hidden = gpu.silu_mul(&gates, &hidden)?;
            } else {
                gpu.linear_into(block.expand, &normal, &mut hidden, Finish::Gelu)?;
            }
            gpu.linear_into(block.contract, &hidden, &mut state, Finish::Add)?;
        }
    }
    Ok(Some(output(gpu, state, x.shape(), false)?.0))
}

impl Gpu {
    /// The norm of every row.
    fn normalise(
        &self,
        x: &Numbers,
        [weight, bias]: [&Buffer; 2],
        RowNorm { eps, centred }: RowNorm,
        out: &mut Numbers,
    ) -> Result<(), CudaError> {
        let (weight, bias) = (weight.numbers(), bias.numbers());
        let width = length(weight);
        check(width > 0 && length(bias) == width && length(x) == length(out) && length(x).is_multiple_of(width))?;
        let rows = length(x) / width;
        let kernel = self.kernel("decoder_norm")?;
        // SAFETY: the lengths just checked are those that the kernel reads and writes.
        #[allow(unsafe_code)]
        unsafe {
            let all = (&**x, &**weight, &**bias, &mut **out, rows as u64, width as u64, eps, i32::from(centred));
            kernel.launch(blocks(rows), all)?;
        }
        Ok(())
    }

    /// Attention of new positions `[B, t, 3W]` over the cache and themselves, which are added to it.
    fn attend(
        &self,
        sizes: &Sizes<'_>,
        lane: usize,
        qkv: &Numbers,
        cache: &mut Cache,
        out: &mut Numbers,
    ) -> Result<(), CudaError> {
        let Sizes { batch, new, past, capacity, heads, width, .. } = *sizes;
        let [keys, values] = cache.own()?;
        let (rows, len) = (batch * new, batch * capacity * width);
        check(length(qkv) == 3 * rows * width && length(out) == rows * width && past + new <= capacity)?;
        check(length(keys) == len && length(values) == len)?;
        let kernel = self.kernel(&format!("cached_attention_{lane}"))?;
        let continued = Continued {
            batch: batch as u64,
            heads: heads as u64,
            head: (width / heads) as u64,
            fresh: new as u64,
            past: past as u64,
            capacity: capacity as u64,
        };
        // SAFETY: the lengths just checked are those of the sizes that the kernel is given; of the caches it reads the
        // first `past` positions, which earlier steps have written.
        #[allow(unsafe_code)]
        unsafe {
            kernel.launch(teams(rows * heads, TEAM), (&**qkv, &mut **keys, &mut **values, &mut **out, continued))?;
        }
        Ok(())
    }
}
