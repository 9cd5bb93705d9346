//! Optimizer steps over many tensors in one launch.

use crate::cpu::optim::Adam;
use crate::cuda::device::kernels::{THREADS, check};
use crate::cuda::device::operands::{on_gpu, output, same_gpu};
use crate::cuda::{Buffer, Gpu, length};
use crate::ops::optim::AdamSlot;
use crate::{Error, Result, Tensor, Var};
use cudarc::driver::{CudaSlice, DevicePtr, DeviceRepr, DeviceSlice, LaunchAsync, LaunchConfig};
use dfdx::prelude::CudaError;

/// The kernels of `optim.cu`.
pub(crate) const KERNELS: &[&str] = &["adam_step", "ema_step", "square_pieces", "square_sums", "clip_factor"];

/// Tensors of a launch at most, and numbers of a block: MAX_TENSORS and PIECE in `optim.cu`.
const MAX_TENSORS: usize = 64;
const PIECE: usize = 4096;

/// Tensors in up to four roles as kernels take them: `Tensors` in `optim.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Tensors {
    count: u64,
    size: [u64; MAX_TENSORS],
    at: [[u64; MAX_TENSORS]; 4],
    first: [u32; MAX_TENSORS + 1],
}

// SAFETY: plain numbers in C's layout, the same as in `optim.cu`.
#[allow(unsafe_code)]
unsafe impl DeviceRepr for Tensors {}

// SAFETY: nine f32 in C's layout, as `Adam` in `optim.cu`.
#[allow(unsafe_code)]
unsafe impl DeviceRepr for Adam {}

impl Tensors {
    /// The table of up to [`MAX_TENSORS`] rows; all of a row have one length.
    fn new<const ROLES: usize>(rows: &[[&Buffer; ROLES]]) -> Result<Self, CudaError> {
        check(rows.len() <= MAX_TENSORS && ROLES <= 4)?;
        let mut table =
            Self { count: rows.len() as u64, size: [0; MAX_TENSORS], at: [[0; MAX_TENSORS]; 4], first: [0; 65] };
        for (t, row) in rows.iter().enumerate() {
            let size = row.first().map_or(0, |buffer| length(buffer.numbers()));
            check(row.iter().all(|buffer| length(buffer.numbers()) == size))?;
            table.size[t] = size as u64;
            for (at, buffer) in table.at.iter_mut().zip(row) {
                at[t] = *buffer.numbers().device_ptr();
            }
            let blocks = u32::try_from(size.div_ceil(PIECE)).ok().and_then(|n| n.checked_add(table.first[t]));
            table.first[t + 1] = blocks.ok_or_else(crate::cuda::device::kernels::invalid)?;
        }
        Ok(table)
    }

    fn blocks(&self) -> u32 {
        self.first[self.count as usize]
    }

    fn launch(&self) -> LaunchConfig {
        LaunchConfig { grid_dim: (self.blocks(), 1, 1), block_dim: (THREADS, 1, 1), shared_mem_bytes: 0 }
    }
}

/// One step of Adam on every slot, whose sizes fit, with gradients times a number that is not NaN; `false` if they are on the
/// CPU.
pub(crate) fn adam(slots: &[AdamSlot<'_>], grad_scale: &Tensor, how: Adam) -> Result<bool> {
    let vars: Vec<&Var> = slots.iter().flat_map(|slot| [slot.param, slot.m, slot.v]).collect();
    let Some(gpu) = same_gpu("adam", slots.iter().map(|slot| slot.grad))? else { return Ok(false) };
    let Some((_, [scale])) = on_gpu("adam", [grad_scale])? else { return Ok(false) };
    let grads: Vec<Buffer> = slots.iter().filter_map(|slot| slot.grad.gpu_buffer().cloned()).collect();
    Var::write_all(&vars, |written| {
        let rows: Vec<[&Buffer; 4]> =
            written.as_chunks::<3>().0.iter().zip(&grads).map(|([p, m, v], g)| [*p, g, *m, *v]).collect();
        for rows in rows.chunks(MAX_TENSORS) {
            let table = Tensors::new(rows)?;
            if table.blocks() > 0 {
                let kernel = gpu.kernel("adam_step")?;
                // SAFETY: every block reads and writes a piece of a tensor within its size, which is that of all four,
                // and reads one number.
                #[allow(unsafe_code)]
                unsafe {
                    kernel.launch(table.launch(), (table, how, &**scale.numbers())).map_err(CudaError::from)?;
                }
            }
        }
        Ok(true)
    })
}

/// `average = decay * average + (1 - decay) * value` of every pair, whose sizes fit; `false` if they are on the CPU.
pub(crate) fn ema(pairs: &[(Tensor, &Var)], decay: f32) -> Result<bool> {
    let Some(gpu) = same_gpu("ema", pairs.iter().map(|(value, _)| value))? else { return Ok(false) };
    let values: Vec<Buffer> = pairs.iter().filter_map(|(value, _)| value.gpu_buffer().cloned()).collect();
    let averages: Vec<&Var> = pairs.iter().map(|(_, average)| *average).collect();
    Var::write_all(&averages, |averages| {
        let rows: Vec<[&Buffer; 2]> = averages.iter().copied().zip(&values).map(<[_; 2]>::from).collect();
        for rows in rows.chunks(MAX_TENSORS) {
            let table = Tensors::new(rows)?;
            if table.blocks() > 0 {
                let kernel = gpu.kernel("ema_step")?;
                let rest = (1.0 - f64::from(decay)) as f32;
                // SAFETY: every block reads and writes a piece of a tensor within its size, which is that of both.
                #[allow(unsafe_code)]
                unsafe {
                    kernel.launch(table.launch(), (table, decay, rest)).map_err(CudaError::from)?;
                }
            }
        }
        Ok(true)
    })
}

/// Sums of squares, on the GPU that made them.
pub(crate) struct Squares {
    gpu: &'static Gpu,
    sums: CudaSlice<f64>,
}

// SAFETY: as for `Gpu`: an allocation that any thread may read and free.
#[allow(unsafe_code)]
unsafe impl Send for Squares {}
// SAFETY: as above; nothing writes to it any more.
#[allow(unsafe_code)]
unsafe impl Sync for Squares {}

impl Squares {
    /// The sum of squares of each tensor; `None` if they are on the CPU.
    pub(crate) fn of(tensors: &[&Tensor]) -> Result<Option<Self>> {
        let Some(gpu) = same_gpu("squares", tensors.iter().copied())? else { return Ok(None) };
        let buffers: Vec<[&Buffer; 1]> = tensors.iter().filter_map(|t| t.gpu_buffer().map(|b| [b])).collect();
        let tables: Vec<Tensors> = buffers.chunks(MAX_TENSORS).map(Tensors::new).collect::<Result<_, _>>()?;
        Ok(Some(Self { gpu, sums: gpu.sums_of_squares(&tables)? }))
    }

    /// The sums; the host waits for them.
    pub(crate) fn read(&self) -> Result<Vec<f64>> {
        crate::cuda::device::count_read();
        Ok(self.gpu.driver.dtoh_sync_copy(&self.sums).map_err(CudaError::from)?)
    }

    /// What brings the tensors to a norm of at most `most`, of rank 0; NaN if a sum is not finite.
    pub(crate) fn clip_factor(&self, most: f32) -> Result<Tensor> {
        let mut factor = self.gpu.room(1)?;
        let kernel = self.gpu.kernel("clip_factor")?;
        let count = DeviceSlice::len(&self.sums) as u64;
        // SAFETY: one block reads `count` sums and writes one number.
        #[allow(unsafe_code)]
        unsafe {
            kernel
                .launch(crate::cuda::device::kernels::blocks(1), (&self.sums, count, most, &mut *factor))
                .map_err(CudaError::from)?;
        }
        Ok(output(self.gpu, factor, &[], false)?.0)
    }
}

impl Gpu {
    fn sums_of_squares(&self, tables: &[Tensors]) -> Result<CudaSlice<f64>, CudaError> {
        let count: usize = tables.iter().map(|table| table.count as usize).sum();
        let mut sums: CudaSlice<f64> = self.driver.alloc_zeros(count)?;
        for (t, table) in tables.iter().enumerate() {
            if table.blocks() > 0 {
                // SAFETY: any bits are an f64.
                #[allow(unsafe_code)]
                let mut partial: CudaSlice<f64> = unsafe { self.driver.alloc(table.blocks() as usize)? };
                let (first, second) = (self.kernel("square_pieces")?, self.kernel("square_sums")?);
                let mut sums = sums.slice_mut(t * MAX_TENSORS..);
                // SAFETY: every block reads a piece of a tensor within its size and writes its element of `partial`;
                // then a block per tensor reads these and writes one sum, of as many as are left.
                #[allow(unsafe_code)]
                unsafe {
                    first.launch(table.launch(), (*table, &mut partial))?;
                    second.launch(
                        crate::cuda::device::kernels::blocks(table.count as usize),
                        (*table, &partial, &mut sums),
                    )?;
                }
            }
        }
        Ok(sums)
    }
}

impl Var {
    /// Lets `write` change the numbers of variables on a GPU in place; those that a living tensor shares are copied first.
    fn write_all<R>(vars: &[&Self], write: impl FnOnce(&[&Buffer]) -> Result<R>) -> Result<R> {
        let mut addresses: Vec<usize> = vars.iter().map(|var| var.address()).collect();
        addresses.sort_unstable();
        if addresses.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(Error::Device("one variable cannot be written twice at once".to_owned()));
        }
        let mut tensors: Vec<_> = vars.iter().map(|var| var.lock()).collect();
        for tensor in &mut tensors {
            tensor.storage_mut().own_on_gpu()?;
        }
        write(&tensors.iter().filter_map(|tensor| tensor.gpu_buffer()).collect::<Vec<_>>())
    }
}
