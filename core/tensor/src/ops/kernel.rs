//! What a differentiable operation is made of: a forward kernel for each device, and one backward pass for all of them,
//! written in tensor operations.

use super::on_cpu;
use crate::cpu::Output;
#[cfg(feature = "cuda")]
use crate::cuda::{Buffer, Gpu, Numbers, device::operands::on_gpu};
use crate::tape::{GradKey, OperandGradients, record_for_all};
use crate::{Error, Result, Tensor};
#[cfg(feature = "cuda")]
use dfdx::prelude::CudaError;

/// A kernel that makes new numbers of those of `N` operands, on each device.
pub(crate) trait Kernel<const N: usize> {
    /// On the CPU.
    fn cpu(&self, operands: [&[f32]; N]) -> Vec<f32>;

    /// On a GPU.
    #[cfg(feature = "cuda")]
    fn cuda(&self, gpu: &Gpu, operands: [&Numbers; N]) -> Result<Numbers, CudaError>;
}

/// A kernel that makes a gradient from that of an output, or adds to it where contributions are in already.
pub(crate) trait GradientKernel {
    /// On the CPU.
    fn cpu<'a>(&self, grad: &[f32], out: Output<'a>) -> &'a mut [f32];

    /// On a GPU. `out` has `len` elements if `accumulate`, and is made anew with as many if not.
    #[cfg(feature = "cuda")]
    fn cuda(&self, gpu: &Gpu, grad: &Numbers, out: &mut Numbers, len: usize, accumulate: bool)
    -> Result<(), CudaError>;
}

/// What a kernel makes of operands that are on one device, as a tensor of shape `shape` without a gradient.
pub(crate) fn run<const N: usize>(
    op: &'static str,
    kernel: &impl Kernel<N>,
    operands: [&Tensor; N],
    shape: &[usize],
) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let Some((gpu, buffers)) = on_gpu(op, operands)? {
        let data = kernel.cuda(gpu, buffers.each_ref().map(Buffer::numbers))?;
        return Ok(Tensor::on_gpu(Buffer::new(gpu, data), shape, None));
    }
    on_cpu(op, operands)?;
    Ok(Tensor::output(kernel.cpu(operands.map(Tensor::as_slice)), shape, None))
}

impl Tensor {
    /// This result of an operation on `operands`, recorded if one of them wants a gradient: `prepare` then keeps what the
    /// backward pass needs, and gives that pass. It gets the gradient of this result and hands on those of the operands.
    pub(crate) fn with_backward<B>(self, operands: &[&Tensor], prepare: impl FnOnce(&Tensor) -> B) -> Result<Tensor>
    where
        B: FnOnce(Tensor, &mut OperandGradients<'_, '_>) -> Result<()> + 'static,
    {
        let keys: Vec<Option<GradKey>> = operands.iter().map(|operand| operand.tracked()).collect();
        if keys.iter().all(Option::is_none) {
            return Ok(self);
        }
        let key = GradKey::at(&self).ok_or_else(|| Error::Device(format!("{} does not answer", self.device())))?;
        record_for_all(&key, self.shape(), keys, prepare(&self));
        Ok(self.with_grad(Some(key)))
    }
}
