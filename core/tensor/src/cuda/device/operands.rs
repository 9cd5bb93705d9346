//! What operations on a GPU share: their operands, and their output.

use crate::cuda::device::tape::Key;
use crate::cuda::{Buffer, Gpu, Numbers};
use crate::tape::GradKey;
use crate::{Result, Tensor};

/// The numbers of `operands` and the GPU that holds all of them; `None` if they are on the CPU.
///
/// # Errors
/// [`crate::Error::Device`] if they are on different devices.
pub(crate) fn on_gpu<const N: usize>(
    op: &'static str,
    operands: [&Tensor; N],
) -> Result<Option<(&'static Gpu, [Buffer; N])>> {
    crate::ops::common_device(op, operands)?;
    let mut buffers = Vec::with_capacity(N);
    for operand in operands {
        match operand.gpu_buffer() {
            Some(buffer) => buffers.push(buffer.clone()),
            None => return Ok(None),
        }
    }
    let gpu = buffers.first().map(Buffer::gpu);
    Ok(gpu.zip(buffers.try_into().ok()))
}

/// The key under which gradients of this operand are gathered, if a tape is recording and it wants one.
pub(crate) fn tracked(operand: &Tensor) -> Option<Key> {
    operand.tracked().and_then(|key| key.on_gpu().cloned())
}

/// The output of an operation, with the key of its gradient if one is `wanted`.
pub(crate) fn output(gpu: &'static Gpu, data: Numbers, shape: &[usize], wanted: bool) -> Result<(Tensor, Option<Key>)> {
    let key = if wanted { Some(Key::new(gpu)?) } else { None };
    let out = Tensor::on_gpu(Buffer::new(gpu, data), shape, key.clone().map(GradKey::Cuda));
    Ok((out, key))
}

/// The GPU that holds all of `operands`; `None` if they are on the CPU, or if there are none.
///
/// # Errors
/// [`crate::Error::Device`] if they are on different devices.
pub(crate) fn same_gpu<'a>(
    op: &'static str,
    operands: impl Iterator<Item = &'a Tensor> + Clone,
) -> Result<Option<&'static Gpu>> {
    crate::ops::common_device(op, operands.clone())?;
    Ok(operands.map(|operand| operand.gpu_buffer().map(Buffer::gpu)).next().flatten())
}
