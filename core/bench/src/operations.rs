//! Single operations, forward and backward.

use crate::Prepared;
use crate::models::{codes, normal};
use crate::workloads::Operation;
use rqlab_sdk::Result;
use rqlab_sdk::resize::{Resize, Sampling};
use rqlab_sdk::tensor::ops::attention::attention;
use rqlab_sdk::tensor::ops::conv::Conv2d;
use rqlab_sdk::tensor::{Device, Tape, Tensor, no_grad, wait_for_device};
use std::time::Instant;

/// An operation on its operands.
type Apply = Box<dyn Fn(&[Tensor]) -> Result<Tensor>>;

/// Makes an operation ready: forward, then backward from a fixed gradient into every operand.
///
/// # Errors
/// Sizes that do not fit.
pub(crate) fn prepare(operation: Operation) -> Result<Prepared> {
    let (shapes, apply): (Vec<Vec<usize>>, Apply) = match operation {
        Operation::Conv3x3 { batch, side, channels: c } => (
            vec![vec![batch, side, side, c], vec![c, c, 3, 3], vec![c]],
            Box::new(|t| Ok(t[0].conv2d(&t[1], Some(&t[2]), Conv2d::same(3))?)),
        ),
        Operation::Linear { rows, inputs, outputs } => (
            vec![vec![rows, inputs], vec![outputs, inputs], vec![outputs]],
            Box::new(|t| Ok(t[0].linear(&t[1], Some(&t[2]))?)),
        ),
        Operation::Attention { batch, heads, length, head } => (
            vec![vec![batch, length, heads * head]; 3],
            Box::new(move |t| Ok(attention(&t[0], &t[1], &t[2], heads, true)?)),
        ),
        Operation::LayerNorm { rows, width } => {
            (vec![vec![rows, width], vec![width], vec![width]], Box::new(|t| Ok(t[0].layer_norm(&t[1], &t[2], 1e-5)?)))
        }
        Operation::GroupNorm { batch, side, channels } => (
            vec![vec![batch, side, side, channels], vec![channels], vec![channels]],
            Box::new(|t| Ok(t[0].group_norm(8, &t[1], &t[2], 1e-6)?)),
        ),
        Operation::BatchNorm { batch, side, channels } => (
            vec![vec![batch, side, side, channels], vec![channels], vec![channels]],
            Box::new(|t| Ok(t[0].batch_norm(&t[1], &t[2], 1e-5)?.0)),
        ),
        Operation::Resize { batch, side, channels, to, .. } => {
            let resize = Resize::to([to; 2], Sampling::SMOOTH_LINEAR);
            (vec![vec![batch, side, side, channels]], Box::new(move |t| resize.differentiable(&t[0])))
        }
        Operation::Gelu { elements } => (vec![vec![elements]], Box::new(|t| Ok(t[0].gelu()?))),
        Operation::CrossEntropy { rows, codes: size } => {
            let targets = codes(&[rows], size, "targets")?;
            (vec![vec![rows, size]], Box::new(move |t| Ok(t[0].cross_entropy(&targets)?.mean_all()?)))
        }
    };
    let operands = shapes.iter().enumerate().map(|(i, shape)| normal(shape, &format!("operand {i}")));
    let leaves: Vec<Tensor> = operands.map(|x| Ok(x?.leaf())).collect::<Result<_>>()?;
    if matches!(operation, Operation::Resize { backward: false, .. }) {
        return Ok(Prepared::new(None, move || no_grad(|| apply(&leaves)).map(drop)));
    }
    let result = apply(&leaves)?;
    let gradient = match result.len() {
        1 => Tensor::full(1.0, result.shape()),
        _ => normal(result.shape(), "gradient")?,
    };
    let call = Box::new(move || {
        // On the CPU the pass takes the gradient for its own, as it takes what it computed itself: a copy is none of its
        // work. On a GPU it takes a copy beside it, which is as good as free; one from the host would be most of the time.
        let own = (gradient.device() == Device::Cpu).then(|| gradient.to_vec());
        wait_for_device()?;
        let started = Instant::now();
        let tape = Tape::start()?;
        let result = apply(&leaves)?;
        let mut gradients = match own {
            Some(own) => tape.backward_from_vec(&result, own)?,
            None => tape.backward_from(&result, &gradient)?,
        };
        leaves.iter().for_each(|leaf| drop(gradients.take(leaf)));
        wait_for_device()?;
        Ok(started.elapsed())
    });
    Ok(Prepared { params: None, call, children: None })
}
