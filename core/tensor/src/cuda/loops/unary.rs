//! Functions of one element.

use crate::cuda::device::operands::{on_gpu, output, tracked};
use crate::tape::record_on_gpu;
use crate::{Result, Tensor};

/// The function of `elementwise.cu` named `function`, whose slope is given at its input or at its output.
pub(crate) fn apply(
    function: &'static str,
    parameters: [f32; 2],
    slope_of_output: bool,
    x: &Tensor,
) -> Result<Option<Tensor>> {
    let Some((gpu, [input])) = on_gpu(function, [x])? else {
        return Ok(None);
    };
    let x_key = tracked(x);
    let (out, key) = output(gpu, gpu.map(function, input.numbers(), parameters)?, x.shape(), x_key.is_some())?;
    if let (Some(x_key), Some(key)) = (x_key, key) {
        let at = if slope_of_output { out.gpu_buffer().cloned().unwrap_or(input) } else { input };
        record_on_gpu(&key, move |mut grad, flow| {
            gpu.chain(function, at.numbers(), &mut grad, parameters)?;
            flow.add(&x_key, grad)
        });
    }
    Ok(Some(out))
}
