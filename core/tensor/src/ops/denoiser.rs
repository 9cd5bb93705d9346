//! The steps by which a small network turns noise into vectors, all of them in one operation, for sampling.
//!
//! The network is the denoiser of MAR (Li et al., "Autoregressive image generation without vector quantization", NeurIPS
//! 2024): an MLP whose layer norms are modulated by what is known of the vector and of the step.

use super::packed::PackedLinear;
use super::{common_device, on_cpu};
use crate::cpu::denoiser as kernel;
use crate::{Device, Error, Result, Tensor};

/// A block, `x += gate contract(silu(expand(norm(x) (1 + scale) + shift)))`, where shift, scale and gate are the thirds of
/// `modulation(y)`: weights `[O, I]` and biases `[O]` of linear maps, scale and shift `[W]` of the layer norm.
#[derive(Debug, Clone)]
pub struct DenoiserBlock {
    /// The layer norm.
    pub norm: [Tensor; 2],
    /// `[W, W]`.
    pub expand: [Tensor; 2],
    /// `[W, W]`.
    pub contract: [Tensor; 2],
    /// `[3W, W]`.
    pub modulation: [Tensor; 2],
}

/// The weights of a denoiser of vectors of C numbers, of model width W: `output(norm(h) (1 + scale) + shift)` with `h` from
/// `input(x)` through the blocks, a layer norm without parameters, and shift and scale the halves of `modulation(y)`.
#[derive(Debug, Clone)]
pub struct DenoiserWeights {
    /// `[W, C]`.
    pub input: [Tensor; 2],
    /// The blocks.
    pub blocks: Vec<DenoiserBlock>,
    /// `[2W, W]`.
    pub modulation: [Tensor; 2],
    /// `[O, W]`: O is C, or 2C where the network also says where the log-variance lies in its range.
    pub output: [Tensor; 2],
    /// What layer norms add to the variance.
    pub eps: f32,
}

/// A step: `x = signal x + prediction p`, with p the first C outputs; where the network has 2C, and except in the last step,
/// plus noise whose log-variance is `low + (v + 1) / 2 (high - low)`, with v the others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DenoisingStep {
    /// Factor of the vector.
    pub signal: f32,
    /// Factor of what the network predicts.
    pub prediction: f32,
    /// The range of the log-variance.
    pub log_variance: [f32; 2],
}

/// What is denoised: N vectors of C numbers, in S steps.
#[derive(Debug, Clone, Copy)]
pub struct Denoising<'a> {
    /// `[N, G, W]`: what is known of each vector. With G = 2 also what is known without its condition, for guidance.
    pub condition: &'a Tensor,
    /// `[S, W]`: what is known of each step. The blocks are modulated by `y = silu(condition + time)`.
    pub times: &'a Tensor,
    /// The steps, in the order in which they are taken.
    pub steps: &'a [DenoisingStep],
    /// With G = 2, predictions are `u + guidance (c - u)`, with u from the unconditional row; v is the conditional one's.
    pub guidance: f32,
    /// `[N, C]`: the vectors before the first step.
    pub start: &'a Tensor,
    /// `[S - 1, N, C]`, or more steps, which are not read: the noise after each step but the last. It is not looked at where
    /// the network predicts no variance.
    pub noise: &'a Tensor,
}

/// A denoiser laid out for many steps on few rows. Its weights are those of the moment when it was made; no gradients flow
/// through it.
#[derive(Debug, Clone)]
pub struct Denoiser {
    input: PackedLinear,
    blocks: Vec<Block>,
    /// Shift, 1 + scale and gate of every block, then shift and 1 + scale of the end.
    modulation: PackedLinear,
    /// Ones and zeros.
    norm: [Tensor; 2],
    output: PackedLinear,
    channels: usize,
    outputs: usize,
    width: usize,
    eps: f32,
}

#[derive(Debug, Clone)]
struct Block {
    norm: [Tensor; 2],
    expand: PackedLinear,
    contract: PackedLinear,
}

impl Denoiser {
    /// A denoiser of about `rows` rows at a time.
    ///
    /// # Errors
    /// [`Error::Shape`] if sizes do not fit.
    pub fn new(weights: &DenoiserWeights, rows: usize) -> Result<Self> {
        let [width, channels] = weights.input[0].dims("Denoiser")?;
        let [outputs, _] = weights.output[0].dims("Denoiser")?;
        let packed = |[weight, bias]: &[Tensor; 2], wanted: [usize; 2]| {
            if weight.shape() != wanted {
                let message = format!("a weight {:?} where {wanted:?} was wanted", weight.shape());
                return Err(Error::shape("Denoiser", message));
            }
            PackedLinear::new(weight, Some(bias), rows)
        };
        if outputs != channels && outputs != 2 * channels {
            return Err(Error::shape("Denoiser", format!("{outputs} outputs for vectors of {channels}")));
        }
        let mut blocks = Vec::with_capacity(weights.blocks.len());
        let (mut maps, mut biases) = (Vec::new(), Vec::new());
        let ones = Tensor::full(1.0, &[width]).to_device(weights.input[0].device())?;
        let mut modulate = |[map, bias]: &[Tensor; 2], parts: usize| -> Result<()> {
            if map.shape() != [parts * width, width] || bias.shape() != [parts * width] {
                let message = format!("a modulation {:?} for a width of {width}", map.shape());
                return Err(Error::shape("Denoiser", message));
            }
            maps.push(map.detach());
            for part in 0..parts {
                let bias = bias.detach().slice(0, part * width..(part + 1) * width)?;
                biases.push(if part == 1 { bias.add(&ones)? } else { bias });
            }
            Ok(())
        };
        for block in &weights.blocks {
            if block.norm.iter().any(|t| t.shape() != [width]) {
                return Err(Error::shape(
                    "Denoiser",
                    format!("a layer norm {:?}, width {width}", block.norm[0].shape()),
                ));
            }
            modulate(&block.modulation, 3)?;
            blocks.push(Block {
                norm: block.norm.each_ref().map(Tensor::detach),
                expand: packed(&block.expand, [width, width])?,
                contract: packed(&block.contract, [width, width])?,
            });
        }
        modulate(&weights.modulation, 2)?;
        let map = Tensor::concat(&maps.iter().collect::<Vec<_>>(), 0)?;
        let bias = Tensor::concat(&biases.iter().collect::<Vec<_>>(), 0)?;
        Ok(Self {
            input: packed(&weights.input, [width, channels])?,
            modulation: PackedLinear::new(&map, Some(&bias), rows)?,
            norm: [ones.clone(), ones.mul_scalar(0.0)?],
            output: packed(&weights.output, [outputs, width])?,
            blocks,
            channels,
            outputs,
            width,
            eps: weights.eps,
        })
    }

    /// The vectors `[N, C]` after all steps.
    ///
    /// # Errors
    /// [`Error::Shape`] if sizes do not fit.
    pub fn run(&self, how: &Denoising<'_>) -> Result<Tensor> {
        let [vectors, group, _] = how.condition.dims("Denoiser")?;
        let steps = how.steps.len();
        let later = how.noise.shape().first().copied().unwrap_or(0);
        let noisy = self.outputs > self.channels && steps > 1;
        if !(1..=2).contains(&group)
            || how.condition.shape() != [vectors, group, self.width]
            || how.times.shape() != [steps, self.width]
            || how.start.shape() != [vectors, self.channels]
            || (noisy && (later + 1 < steps || how.noise.shape() != [later, vectors, self.channels]))
        {
            let shapes = [how.condition, how.times, how.start, how.noise].map(Tensor::shape);
            let message = format!("condition, times, start, noise {shapes:?} do not fit {steps} steps");
            return Err(Error::shape("Denoiser", message));
        }
        if common_device("Denoiser", [how.condition, how.times, how.start, &self.norm[0]])? != Device::Cpu {
            return self.run_by_operations(how);
        }
        on_cpu("Denoiser", [how.noise])?;
        let mut x = how.start.to_vec();
        if let (Some(net), false) = (self.operands(), x.is_empty()) {
            let sizes = kernel::Sizes { vectors, group, channels: self.channels, width: self.width, eps: self.eps };
            let noise = if noisy { how.noise.as_slice() } else { &[] };
            let known = [how.condition.as_slice(), how.times.as_slice()];
            kernel::run(&sizes, &net, known, how.steps, how.guidance, noise, &mut x);
        }
        Ok(Tensor::output(x, how.start.shape(), None))
    }

    /// What kernels of the CPU work with, if the weights are there.
    fn operands(&self) -> Option<kernel::Net<'_>> {
        let blocks = self.blocks.iter().map(|block| {
            Some(kernel::Block {
                norm: [block.norm[0].as_slice(), block.norm[1].as_slice()],
                expand: block.expand.operand()?,
                contract: block.contract.operand()?,
            })
        });
        Some(kernel::Net {
            input: self.input.operand()?,
            blocks: blocks.collect::<Option<_>>()?,
            modulation: self.modulation.operand()?,
            norm: [self.norm[0].as_slice(), self.norm[1].as_slice()],
            output: self.output.operand()?,
        })
    }

    /// The same, one operation after another: what a GPU runs, without a host read, and the twin of the kernel.
    fn run_by_operations(&self, how: &Denoising<'_>) -> Result<Tensor> {
        let [vectors, group, width] = how.condition.dims("Denoiser")?;
        let (rows, channels) = (vectors * group, self.channels);
        let condition = how.condition.reshape(&[rows, width])?;
        let mut x = how.start.clone();
        for (i, step) in how.steps.iter().enumerate() {
            let y = condition.add(&how.times.slice(0, i..i + 1)?)?.silu()?;
            let modulation = self.modulation.forward(&y)?;
            let part = |n: usize| modulation.slice(1, n * width..(n + 1) * width);
            let h = self.input.forward(&x)?;
            let mut h = Tensor::stack(&vec![&h; group], 1)?.reshape(&[rows, width])?;
            for (b, block) in self.blocks.iter().enumerate() {
                let normal = h.layer_norm(&block.norm[0], &block.norm[1], self.eps)?;
                let hidden = block.expand.forward(&normal.mul(&part(3 * b + 1)?)?.add(&part(3 * b)?)?)?.silu()?;
                h = h.add(&part(3 * b + 2)?.mul(&block.contract.forward(&hidden)?)?)?;
            }
            let end = 3 * self.blocks.len();
            let normal = h.layer_norm(&self.norm[0], &self.norm[1], self.eps)?;
            let out = self.output.forward(&normal.mul(&part(end + 1)?)?.add(&part(end)?)?)?;
            let out = out.reshape(&[vectors, group, self.outputs])?;
            let of = |g: usize, from: usize| -> Result<Tensor> {
                out.slice(1, g..g + 1)?.slice(2, from..from + channels)?.reshape(&[vectors, channels])
            };
            let mut prediction = of(0, 0)?;
            if group == 2 {
                let without = of(1, 0)?;
                prediction = without.add(&prediction.sub(&without)?.mul_scalar(how.guidance)?)?;
            }
            x = x.mul_scalar(step.signal)?.add(&prediction.mul_scalar(step.prediction)?)?;
            if self.outputs > channels && i + 1 < how.steps.len() {
                let [low, high] = step.log_variance;
                let half =
                    of(0, channels)?.mul_scalar(0.25 * (high - low))?.add_scalar(0.25 * (high - low) + 0.5 * low)?;
                let noise = how.noise.slice(0, i..i + 1)?.reshape(&[vectors, channels])?;
                x = x.add(&half.exp()?.mul(&noise)?)?;
            }
        }
        Ok(x)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first failure")]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, on_every_device, random};

    fn weights(width: usize, channels: usize, outputs: usize, depth: usize) -> DenoiserWeights {
        let linear = |outputs: usize, inputs: usize, seed: u64| {
            let scale = 1.0 / (inputs as f32).sqrt();
            [random(&[outputs, inputs], seed).mul_scalar(scale).unwrap(), random(&[outputs], seed + 1)]
        };
        let block = |seed: u64| DenoiserBlock {
            norm: [random(&[width], seed), random(&[width], seed + 1)],
            expand: linear(width, width, seed + 2),
            contract: linear(width, width, seed + 4),
            modulation: linear(3 * width, width, seed + 6),
        };
        DenoiserWeights {
            input: linear(width, channels, 1),
            blocks: (0..depth).map(|i| block(10 * i as u64 + 10)).collect(),
            modulation: linear(2 * width, width, 3),
            output: linear(outputs, width, 5),
            eps: 1e-6,
        }
    }

    fn steps(count: usize) -> Vec<DenoisingStep> {
        let step = |i: usize| DenoisingStep {
            signal: 0.9 - 0.01 * i as f32,
            prediction: -0.1 - 0.02 * i as f32,
            log_variance: [-4.0, -2.0 + 0.1 * i as f32],
        };
        (0..count).map(step).collect()
    }

    #[test]
    fn all_steps_at_once_give_what_one_operation_after_another_gives() {
        on_every_device(|| {
            for (vectors, group, channels, width, depth, count) in [
                (1, 1, 1, 1, 0, 1),
                (1, 2, 4, 20, 2, 3),
                (3, 1, 16, 33, 1, 4),
                (9, 2, 5, 48, 3, 5),
                (40, 2, 16, 64, 2, 2),
            ] {
                for outputs in [channels, 2 * channels] {
                    let denoiser = Denoiser::new(&weights(width, channels, outputs, depth), vectors * group).unwrap();
                    let how = Denoising {
                        condition: &random(&[vectors, group, width], 91),
                        times: &random(&[count, width], 92),
                        steps: &steps(count),
                        guidance: 1.7,
                        start: &random(&[vectors, channels], 93),
                        noise: &random(&[count, vectors, channels], 94),
                    };
                    let (got, wanted) = (denoiser.run(&how).unwrap(), denoiser.run_by_operations(&how).unwrap());
                    assert_eq!(got.shape(), [vectors, channels]);
                    assert_close(got.as_slice(), wanted.as_slice(), 2e-5);
                }
            }
        });
    }

    #[test]
    fn misfits_are_errors() {
        on_every_device(|| {
            let good = weights(6, 4, 8, 1);
            assert!(Denoiser::new(&DenoiserWeights { output: good.input.clone(), ..good.clone() }, 1).is_err());
            let denoiser = Denoiser::new(&good, 1).unwrap();
            let (condition, times, start) = (Tensor::zeros(&[2, 1, 6]), Tensor::zeros(&[3, 6]), Tensor::zeros(&[2, 4]));
            let steps = steps(3);
            let [noise, less] = [2, 1].map(|steps| Tensor::zeros(&[steps, 2, 4]));
            let how = Denoising {
                condition: &condition,
                times: &times,
                steps: &steps,
                guidance: 1.0,
                start: &start,
                noise: &noise,
            };
            assert!(denoiser.run(&how).is_ok());
            assert!(denoiser.run(&Denoising { noise: &less, ..how }).is_err());
            assert!(denoiser.run(&Denoising { steps: &steps[..2], ..how }).is_err());
        });
    }
}
