//! The denoiser of single vectors: an MLP with adaptive layer norms.

use crate::Result;
use crate::nn::{LayerNorm, Linear};
use crate::params::{Init, Params};
use crate::tensor::ops::denoiser::{Denoiser, DenoiserBlock, DenoiserWeights};
use crate::tensor::{Codes, Tensor};

/// Numbers that a time is embedded in: half cosines, half sines.
const FREQUENCIES: usize = 256;
/// What layer norms add to the variance.
const EPS: f32 = 1e-6;

/// MAR's denoiser (`SimpleMLPAdaLN`), which predicts from a noised vector `[N, C]`, its time and a condition `[N, Z]`.
///
/// With `y = silu(time + condition)` and W the width: `h = input_proj x`; in each block shift, scale and gate are the thirds
/// of `adaLN_modulation y`, and `h += gate mlp(in_ln(h) (1 + scale) + shift)` with `mlp` two linear maps around SiLU; at last
/// shift and scale are the halves of another such map, and the output is `linear(norm(h) (1 + scale) + shift)`. All that
/// modulates and the last map start at zero.
///
/// Parameters: `time_embed.mlp.{0,2}`, `cond_embed`, `input_proj`, `res_blocks.N.{in_ln, mlp.0, mlp.2, adaLN_modulation.1}`,
/// `final_layer.{adaLN_modulation.1, linear}`.
#[derive(Debug, Clone)]
pub struct DenoisingMlp {
    time: [Linear; 2],
    condition: Linear,
    input: Linear,
    blocks: Vec<Block>,
    modulation: Linear,
    output: Linear,
    width: usize,
}

#[derive(Debug, Clone)]
struct Block {
    norm: LayerNorm,
    expand: Linear,
    contract: Linear,
    modulation: Linear,
}

/// A linear map that starts uniform by both its sizes (Glorot and Bengio 2010), without bias, as published.
fn linear(params: &Params, inputs: usize, outputs: usize) -> Result<Linear> {
    Linear::with_init(params, inputs, outputs, Init::xavier(inputs, outputs), Some(Init::ZEROS))
}

fn zero(params: &Params, inputs: usize, outputs: usize) -> Result<Linear> {
    Linear::with_init(params, inputs, outputs, Init::ZEROS, Some(Init::ZEROS))
}

impl DenoisingMlp {
    /// A network of `depth` blocks of model width `width`, from vectors of `channels` numbers and conditions of `condition`
    /// numbers to `outputs`.
    ///
    /// # Errors
    /// A name that is taken.
    pub fn new(
        params: &Params,
        [channels, outputs]: [usize; 2],
        condition: usize,
        [width, depth]: [usize; 2],
    ) -> Result<Self> {
        let time = |name: &str, inputs: usize| {
            let scope = params.scope("time_embed.mlp").scope(name);
            Linear::with_init(&scope, inputs, width, Init::Normal(0.02), Some(Init::ZEROS))
        };
        let block = |i: usize| {
            let scope = params.scope("res_blocks").scope(i);
            Ok(Block {
                norm: LayerNorm::new(&scope.scope("in_ln"), width, EPS)?,
                expand: linear(&scope.scope("mlp.0"), width, width)?,
                contract: linear(&scope.scope("mlp.2"), width, width)?,
                modulation: zero(&scope.scope("adaLN_modulation.1"), width, 3 * width)?,
            })
        };
        let last = params.scope("final_layer");
        Ok(Self {
            time: [time("0", FREQUENCIES)?, time("2", width)?],
            condition: linear(&params.scope("cond_embed"), condition, width)?,
            input: linear(&params.scope("input_proj"), channels, width)?,
            blocks: (0..depth).map(block).collect::<Result<_>>()?,
            modulation: zero(&last.scope("adaLN_modulation.1"), width, 2 * width)?,
            output: zero(&last.scope("linear"), width, outputs)?,
            width,
        })
    }

    /// Times as cosines and sines, `[N, 256]`: `cos(t f_k)`, then `sin(t f_k)`, with `f_k = 10000^(-k / 128)`.
    ///
    /// # Errors
    /// None in practice: times have a shape.
    pub fn time_features(times: &[f32]) -> Result<Tensor> {
        let half = FREQUENCIES / 2;
        let frequency = |k: usize| (-(10_000f32.ln()) * k as f32 / half as f32).exp();
        let frequencies: Vec<f32> = (0..half).map(frequency).collect();
        let mut features = Vec::with_capacity(times.len() * FREQUENCIES);
        for &time in times {
            features.extend(frequencies.iter().map(|f| (time * f).cos()));
            features.extend(frequencies.iter().map(|f| (time * f).sin()));
        }
        Ok(Tensor::from_vec(features, &[times.len(), FREQUENCIES])?)
    }

    /// The embedding `[N, W]` of times. Equal times are embedded once.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn embed_times(&self, times: &[f32]) -> Result<Tensor> {
        let mut distinct = times.to_vec();
        distinct.sort_by(f32::total_cmp);
        distinct.dedup();
        let features = Self::time_features(&distinct)?.to_device(self.output.weight.get().device())?;
        let table = self.time[1].forward(&self.time[0].forward(&features)?.silu()?)?;
        let at = |time: &f32| distinct.partition_point(|other| other.total_cmp(time).is_lt()) as u32;
        Ok(table.embedding(&Codes::from_vec(times.iter().map(at).collect(), &[times.len()])?)?)
    }

    /// The embedding `[.., W]` of conditions `[.., Z]`: it is the same at all times.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn embed_condition(&self, condition: &Tensor) -> Result<Tensor> {
        self.condition.forward(condition)
    }

    /// The output `[N, O]` for vectors `[N, C]`, given their embedded times and conditions, `[N, W]` each.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn forward(&self, x: &Tensor, times: &Tensor, condition: &Tensor) -> Result<Tensor> {
        let y = times.add(condition)?.silu()?;
        let mut h = self.input.forward(x)?;
        for block in &self.blocks {
            let hidden = self.modulated(&block.norm.forward(&h)?, &y, &block.modulation)?;
            let added = block.contract.forward(&block.expand.forward(&hidden)?.silu()?)?;
            h = h.add(&self.part(&y, &block.modulation, 2)?.mul(&added)?)?;
        }
        let [ones, zeros] = self.plain_norm(x)?;
        self.output.forward(&self.modulated(&h.layer_norm(&ones, &zeros, EPS)?, &y, &self.modulation)?)
    }

    /// Part `part` of a map of y: its rows are few, so that taking them apart costs less than taking the result apart.
    fn part(&self, y: &Tensor, map: &Linear, part: usize) -> Result<Tensor> {
        let rows = part * self.width..(part + 1) * self.width;
        let bias = map.bias.as_ref().map(|bias| bias.get().slice(0, rows.clone())).transpose()?;
        Ok(y.linear(&map.weight.get().slice(0, rows)?, bias.as_ref())?)
    }

    /// `normal (1 + scale) + shift`, of the first two parts of a map of y.
    fn modulated(&self, normal: &Tensor, y: &Tensor, map: &Linear) -> Result<Tensor> {
        let rows = |part: usize| part * self.width..(part + 1) * self.width;
        let bias = |part: usize| map.bias.as_ref().map(|bias| bias.get().slice(0, rows(part))).transpose();
        let scaled = normal.mul(&y.linear(
            &map.weight.get().slice(0, rows(1))?,
            bias(1)?.map(|b| b.add_scalar(1.0)).transpose()?.as_ref(),
        )?)?;
        Ok(y.linear_add(&map.weight.get().slice(0, rows(0))?, bias(0)?.as_ref(), &scaled)?)
    }

    fn plain_norm(&self, x: &Tensor) -> Result<[Tensor; 2]> {
        let full = |value: f32| Tensor::full(value, &[self.width]).to_device(x.device());
        Ok([full(1.0)?, full(0.0)?])
    }

    /// The network as it is now, laid out to denoise about `rows` rows.
    ///
    /// # Errors
    /// Those of [`Denoiser::new`].
    pub fn denoiser(&self, rows: usize) -> Result<Denoiser> {
        let linear = |linear: &Linear| -> [Tensor; 2] {
            let weight = linear.weight.get();
            let bias = linear.bias.as_ref().map_or_else(|| Tensor::zeros(&weight.shape()[..1]), |bias| bias.get());
            [weight, bias]
        };
        let block = |block: &Block| DenoiserBlock {
            norm: [block.norm.weight.get(), block.norm.bias.get()],
            expand: linear(&block.expand),
            contract: linear(&block.contract),
            modulation: linear(&block.modulation),
        };
        let weights = DenoiserWeights {
            input: linear(&self.input),
            blocks: self.blocks.iter().map(block).collect(),
            modulation: linear(&self.modulation),
            output: linear(&self.output),
            eps: EPS,
        };
        Ok(Denoiser::new(&weights, rows)?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::nn::testing::{every_parameter_learns, random};

    fn awake(params: &Params) {
        for (i, (_, var)) in params.trained().into_iter().enumerate() {
            let shape = var.get().shape().to_vec();
            var.set(&random(&shape, i as u64).mul_scalar(0.3).unwrap()).unwrap();
        }
    }

    #[test]
    fn it_starts_by_predicting_nothing() {
        let net = DenoisingMlp::new(&Params::new(1), [3, 6], 5, [8, 2]).unwrap();
        let (x, z) = (random(&[2, 3], 1), net.embed_condition(&random(&[2, 5], 2)).unwrap());
        let y = net.forward(&x, &net.embed_times(&[0.0, 9.0]).unwrap(), &z).unwrap();
        assert_eq!(y.to_vec(), [0.0; 12]);
    }

    #[test]
    fn gradients_reach_every_parameter() {
        let params = Params::new(1);
        let net = DenoisingMlp::new(&params, [3, 6], 5, [8, 2]).unwrap();
        awake(&params);
        let z = random(&[4, 5], 2);
        every_parameter_learns(&params, &[4, 3], |x| {
            net.forward(x, &net.embed_times(&[3.0, 1.0, 3.0, 999.0])?, &net.embed_condition(&z)?)
        });
    }

    /// One step of the fused loop is the network's output, guided.
    #[test]
    fn the_denoiser_is_the_network() {
        use crate::tensor::ops::denoiser::{Denoising, DenoisingStep};
        let params = Params::new(1);
        let net = DenoisingMlp::new(&params, [3, 6], 5, [8, 2]).unwrap();
        awake(&params);
        let (x, z) = (random(&[2, 3], 1), net.embed_condition(&random(&[4, 5], 2)).unwrap());
        let twice = Tensor::stack(&[&x, &x], 1).unwrap().reshape(&[4, 3]).unwrap();
        let out = net.forward(&twice, &net.embed_times(&[7.0; 4]).unwrap(), &z).unwrap().to_vec();
        let how = Denoising {
            condition: &z.reshape(&[2, 2, 8]).unwrap(),
            times: &net.embed_times(&[7.0]).unwrap(),
            steps: &[DenoisingStep { signal: 0.5, prediction: 2.0, log_variance: [0.0; 2] }],
            guidance: 3.0,
            start: &x,
            noise: &Tensor::zeros(&[0, 2, 3]),
        };
        let got = net.denoiser(4).unwrap().run(&how).unwrap().to_vec();
        for (i, got) in got.iter().enumerate() {
            let (n, c) = (i / 3, i % 3);
            let (with, without) = (out[2 * n * 6 + c], out[(2 * n + 1) * 6 + c]);
            let wanted = 0.5 * x.to_vec()[i] + 2.0 * (without + 3.0 * (with - without));
            assert!((got - wanted).abs() < 1e-4, "{got} {wanted}");
        }
    }
}
