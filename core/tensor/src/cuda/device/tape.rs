//! Gradients on a GPU: the counterpart of [`crate::tape`], over dfdx's tape for its CUDA device.

use crate::cuda::{Gpu, Numbers, length};
use crate::{Device, Error, Result};
use dfdx::prelude::{Backward, Cuda, CudaError, Gradients, OwnedTape, PutTape, Tape as _, Tensor as Dx, ZerosTensor};

/// Names a gradient on a GPU: an empty dfdx tensor, of which only the id matters.
#[derive(Clone)]
pub(crate) struct Key {
    gpu: &'static Gpu,
    name: Dx<(usize,), f32, Cuda>,
}

// SAFETY: as for `Gpu`: the tensor refers to a device that can be shared, and to an allocation of no elements.
#[allow(unsafe_code)]
unsafe impl Send for Key {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for Key {}

impl Key {
    pub(crate) fn new(gpu: &'static Gpu) -> Result<Self, CudaError> {
        Ok(Self { gpu, name: gpu.dfdx.try_zeros_like(&(0,))? })
    }

    pub(crate) fn gpu(&self) -> &'static Gpu {
        self.gpu
    }

    pub(crate) fn device(&self) -> Device {
        Device::Cuda(self.gpu.ordinal)
    }
}

/// A recording on a GPU.
pub(crate) type Recording = OwnedTape<f32, Cuda>;

/// Gradients during the backward pass.
pub(crate) struct Flow<'a>(&'a mut Gradients<f32, Cuda>);

impl Flow<'_> {
    /// Moves a finished gradient out; empty if nothing flowed.
    fn take(&mut self, key: &Key) -> Result<Numbers, CudaError> {
        let slot = self.0.get_or_alloc_mut(&key.name)?;
        Ok(if length(slot) == 0 { key.gpu.zeros(0)? } else { std::mem::replace(slot, key.gpu.zeros(0)?) })
    }

    /// Adds `contribution` to a gradient; the first one is moved in.
    pub(crate) fn add(&mut self, key: &Key, contribution: Numbers) -> Result<(), CudaError> {
        let slot = self.0.get_or_alloc_mut(&key.name)?;
        if length(slot) == 0 {
            *slot = contribution;
            return Ok(());
        }
        key.gpu.add_assign(slot, &contribution)
    }

    /// Hands out the gradient's numbers, and whether they hold contributions already: `false` means that `write` must
    /// put numbers there, `true` that it must add to them.
    pub(crate) fn with(
        &mut self,
        key: &Key,
        write: impl FnOnce(&mut Numbers, bool) -> Result<(), CudaError>,
    ) -> Result<(), CudaError> {
        let slot = self.0.get_or_alloc_mut(&key.name)?;
        let accumulate = length(slot) > 0;
        write(slot, accumulate)
    }
}

/// Appends an operation's backward pass, which receives the gradient of the output; it is not called when none
/// reached the output.
pub(crate) fn append(
    recording: &mut Recording,
    output: &Key,
    backward: impl FnOnce(Numbers, &mut Flow<'_>) -> Result<(), CudaError> + 'static,
) {
    let output = output.clone();
    recording.add_backward_op(move |gradients| {
        let mut flow = Flow(gradients);
        let grad = flow.take(&output)?;
        if length(&grad) == 0 { Ok(()) } else { backward(grad, &mut flow) }
    });
}

/// What a backward pass left at the leaves.
pub(crate) struct Left(Gradients<f32, Cuda>);

impl Left {
    /// Moves a gradient out; `None` if none flowed.
    pub(crate) fn take(&mut self, key: &Key) -> Option<Numbers> {
        Flow(&mut self.0).take(key).ok().filter(|grad| length(grad) > 0)
    }
}

/// Sends `gradient` back from the output named `key`.
pub(crate) fn backward(mut recording: Recording, key: &Key, gradient: Numbers) -> Result<Left> {
    let failed = |error: CudaError| Error::Device(format!("backward pass on {}: {error:?}", key.device()));
    let name = key.clone();
    recording.add_backward_op(move |gradients| Flow(gradients).add(&name, gradient));
    // dfdx starts a backward pass from a tensor of rank 0; the operation above starts ours.
    let start: Dx<(), f32, Cuda> = key.gpu.dfdx.try_zeros_like(&()).map_err(failed)?;
    start.put_tape(recording).try_backward().map(Left).map_err(failed)
}
