//! Linear maps of a few rows, as sampling makes them.

use crate::cuda::device::kernels::{check, elements, teams};
use crate::cuda::device::operands::{on_gpu, output};
use crate::cuda::device::precision::Math;
use crate::cuda::gemm::{Operand, Sizes, Stored, multiply};
use crate::cuda::{Buffer, Gpu, Numbers, length};
use crate::{Error, Result, Tensor};
use cudarc::driver::{DevicePtr, LaunchAsync};
use dfdx::prelude::CudaError;
use std::fmt;
use std::sync::Arc;

/// Rows up to which a product is bound by reading the weight, and has a kernel that reads it once.
const FEW_ROWS: usize = 8;

/// Threads of a block of that kernel, of which 32 take two outputs.
const TEAM: usize = 128;
const OUTPUTS: usize = 2 * TEAM / 32;

/// What becomes of a product: the values of FINISH_GELU and FINISH_ADD in `decoder.cu`.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Finish {
    Store = 0,
    Gelu = 1,
    /// Added to what is there.
    Add = 2,
}

/// A weight `[O, I]` with its bias `[O]`, in the precision of products: the weight in bf16 is rounded once, and then
/// half as long to read.
#[derive(Clone)]
pub(crate) struct Weight {
    gpu: &'static Gpu,
    weight: Arc<Operand<Buffer>>,
    bias: Option<Buffer>,
    pub(crate) outputs: usize,
    inputs: usize,
}

impl fmt::Debug for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Weight([{}, {}] on {:?})", self.outputs, self.inputs, self.gpu)
    }
}

impl Weight {
    /// A weight and a bias, whose sizes fit; `None` if they are on the CPU.
    pub(crate) fn new(weight: &Tensor, bias: Option<&Tensor>) -> Result<Option<Self>> {
        Self::rounded(crate::cuda::device::precision::math(), weight, bias)
    }

    /// The same in a given precision.
    fn rounded(math: Math, weight: &Tensor, bias: Option<&Tensor>) -> Result<Option<Self>> {
        let Some((gpu, [numbers])) = on_gpu("PackedLinear", [weight])? else {
            return Ok(None);
        };
        let [outputs, inputs] = weight.dims("PackedLinear")?;
        let weight = Arc::new(Operand::rounded(gpu, math, numbers)?);
        Ok(Some(Self { gpu, weight, bias: bias.and_then(Tensor::gpu_buffer).cloned(), outputs, inputs }))
    }

    /// `x · weightᵀ + bias`: x `[.., I]` on the weight's GPU gives `shape`, `[.., O]`.
    ///
    /// # Errors
    /// [`crate::Error::Device`] if x is elsewhere.
    pub(crate) fn forward(&self, x: &Tensor, shape: &[usize]) -> Result<Tensor> {
        match x.gpu_buffer() {
            Some(buffer) if buffer.gpu().ordinal == self.gpu.ordinal => {
                let mut out = self.gpu.room(shape.iter().product())?;
                self.gpu.linear_into(self, buffer.numbers(), &mut out, Finish::Store)?;
                Ok(output(self.gpu, out, shape, false)?.0)
            }
            _ => Err(Error::Device(format!(
                "PackedLinear: the weight is on {:?}, the input on {}",
                self.gpu,
                x.device()
            ))),
        }
    }
}

impl Gpu {
    /// Writes `x · weightᵀ + bias`, finished as asked, to all rows of `out`.
    pub(crate) fn linear_into(
        &self,
        linear: &Weight,
        x: &Numbers,
        out: &mut Numbers,
        finish: Finish,
    ) -> Result<(), CudaError> {
        let Weight { outputs, inputs, .. } = *linear;
        let n = length(out);
        if n == 0 {
            return Ok(());
        }
        check(outputs > 0 && n.is_multiple_of(outputs) && linear.weight.len() == outputs * inputs)?;
        let rows = n / outputs;
        let bias = linear.bias.as_ref().map(Buffer::numbers);
        check(length(x) == rows * inputs && bias.is_none_or(|bias| length(bias) == outputs))?;
        // A pointer, or none.
        let bias = bias.map_or(0, |bias| *bias.device_ptr());
        if rows <= FEW_ROWS {
            let height = rows.next_power_of_two();
            let (kernel, weight) = match &*linear.weight {
                Operand::Plain(weight) => (format!("product_few_{height}"), *weight.numbers().device_ptr()),
                Operand::Bf16(halves) => (format!("product_few_bf16_{height}"), *halves.device_ptr()),
            };
            let kernel = self.kernel(&kernel)?;
            let sizes = (rows as u64, outputs as u64, inputs as u64);
            // SAFETY: the lengths just checked are those that the kernel reads and writes; it reads weights of this kind.
            #[allow(unsafe_code)]
            unsafe {
                let all = (&**x, weight, bias, &mut **out, sizes.0, sizes.1, sizes.2, finish as u32);
                kernel.launch(teams(outputs.div_ceil(OUTPUTS), TEAM), all)?;
            }
        } else {
            let sizes = Sizes { batch: 1, m: rows, n: outputs, k: inputs };
            let product = multiply(self, Stored::RightTransposed, sizes, &Operand::new(self, x)?, &linear.weight)?;
            if bias == 0 && finish == Finish::Store {
                *out = product;
                return Ok(());
            }
            let kernel = self.kernel("finish_product")?;
            // SAFETY: product and `out` have n numbers, and the bias one an output.
            #[allow(unsafe_code)]
            unsafe {
                kernel.launch(elements(n), (&*product, bias, &mut **out, n as u64, outputs as u64, finish as u32))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first failure")]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, on_every_device, random};

    /// Of numbers that have few digits, rounding to bf16 takes none.
    #[test]
    fn weights_in_bf16_give_what_they_give_in_f32() {
        on_every_device(|| {
            for (rows, inputs, outputs) in [(1, 8, 5), (2, 129, 70), (3, 256, 31), (8, 64, 17)] {
                let round = |x: Tensor| {
                    let data = x.to_vec().iter().map(|x| (16.0 * x).round() / 16.0).collect();
                    Tensor::from_vec(data, x.shape()).unwrap()
                };
                let (x, bias) = (random(&[rows, inputs], 1), random(&[outputs], 3));
                let weight = round(random(&[outputs, inputs], 2));
                if let Some(packed) = Weight::rounded(Math::Bf16, &weight, Some(&bias)).unwrap() {
                    let wanted = Weight::rounded(Math::F32, &weight, Some(&bias)).unwrap().unwrap();
                    let wanted = wanted.forward(&x, &[rows, outputs]).unwrap();
                    assert_close(packed.forward(&x, &[rows, outputs]).unwrap().as_slice(), wanted.as_slice(), 1e-6);
                }
            }
        });
    }
}
