//! The transformer block of VAR, whose norms the condition modulates, over sequences of groups: a position sees its own group
//! and those before it.

use crate::VarConfig;
use rqlab_sdk::nn::{Linear, l2_normalize};
use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::ops::attention::attention;
use std::ops::Range;

/// What layer norms add to the variance.
const EPS: f32 = 1e-6;
/// The largest temperature of attention that is learned.
const LARGEST_SCALE: f32 = 100.0;
/// What the published start multiplies the maps to scales and shifts by, and those to gates.
const MODULATION_START: [f32; 2] = [0.5, 1e-5];

/// The deviation of weights at first: `sqrt(1 / (3 W))`.
pub(crate) fn deviation(width: usize) -> f32 {
    (1.0 / (3.0 * width as f32)).sqrt()
}

/// A linear map without bias at first, whose weights have a share of the usual deviation.
pub(crate) fn linear(params: &Params, width: usize, [inputs, outputs]: [usize; 2], share: f32) -> Result<Linear> {
    Linear::with_init(params, inputs, outputs, Init::Normal(share * deviation(width)), Some(Init::ZEROS))
}

/// A layer norm without weights.
#[derive(Debug, Clone)]
pub(crate) struct PlainNorm {
    ones: Tensor,
    zeros: Tensor,
}

impl PlainNorm {
    pub(crate) fn new(width: usize) -> Self {
        Self { ones: Tensor::full(1.0, &[width]), zeros: Tensor::zeros(&[width]) }
    }

    /// `norm(x) (1 + scale) + shift` of `[B, T, W]`, with `[B, 1, W]` of either.
    pub(crate) fn modulated(&self, x: &Tensor, scale: &Tensor, shift: &Tensor) -> Result<Tensor> {
        let normal = x.layer_norm(&self.ones, &self.zeros, EPS)?;
        Ok(normal.mul(&scale.add_scalar(1.0)?)?.add(shift)?)
    }
}

/// Gates, scales and shifts of attention and perceptron, `[B, 1, W]` each, in the published order: gate, gate, scale, scale,
/// shift, shift.
pub(crate) type Modulation = [Tensor; 6];

/// From `silu c` `[B, 1, W]` to what modulates a block.
#[derive(Debug)]
enum Modulator {
    /// A map of the block's own: `ada_lin.1`.
    Own(Linear),
    /// A table `[1, 1, 6, W]` that is added to what one map makes for all blocks: `ada_gss`.
    Table(Var),
}

/// The keys and values `[B, n, W]` of the groups that were read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Past(Option<[Tensor; 2]>);

/// `x += gate1 attn(LN(x) (1 + scale1) + shift1)`, `x += gate2 ffn(LN(x) (1 + scale2) + shift2)`, with the tanh form of GELU in
/// `ffn`. Keys have no bias.
///
/// Parameters, as published: `attn.mat_qkv.weight`, `attn.q_bias`, `attn.v_bias`, `attn.scale_mul_1H11` where queries and keys
/// are normalised, `attn.proj`, `ffn.fc1`, `ffn.fc2`, `ada_lin.1` or `ada_gss`.
#[derive(Debug)]
pub(crate) struct Block {
    norm: PlainNorm,
    modulator: Modulator,
    qkv: Var,
    biases: [Var; 2],
    temperature: Option<Var>,
    proj: Linear,
    expand: Linear,
    contract: Linear,
    heads: usize,
    drop_path: f32,
}

impl Block {
    /// The n-th block of a configuration.
    pub(crate) fn new(params: &Params, config: &VarConfig, n: usize) -> Result<Self> {
        let VarConfig { width, heads, layers, .. } = *config;
        let hidden = ((config.mlp_ratio * width as f32).round() as usize).max(1);
        let out = (2.0 * layers as f32).sqrt().recip();
        let attn = params.scope("attn");
        let bias = |name: &str| attn.parameter(name, &[width], Init::ZEROS);
        let temperature = || attn.parameter("scale_mul_1H11", &[1, heads, 1, 1], Init::Constant(4f32.ln()));
        let modulator = if config.shared_modulation {
            Modulator::Table(params.parameter(
                "ada_gss",
                &[1, 1, 6, width],
                Init::Normal((width as f32).sqrt().recip()),
            )?)
        } else {
            Modulator::Own(modulation(&params.scope("ada_lin.1"), width)?)
        };
        if let (Modulator::Table(table), false) = (&modulator, params.is_dry()) {
            started(table, 2)?;
        }
        Ok(Self {
            norm: PlainNorm::new(width),
            modulator,
            qkv: attn.parameter("mat_qkv.weight", &[3 * width, width], Init::Normal(deviation(width)))?,
            biases: [bias("q_bias")?, bias("v_bias")?],
            temperature: config.normalize_attention.then(temperature).transpose()?,
            proj: linear(&attn.scope("proj"), width, [width, width], out)?,
            expand: linear(&params.scope("ffn.fc1"), width, [width, hidden], 1.0)?,
            contract: linear(&params.scope("ffn.fc2"), width, [hidden, width], out)?,
            heads,
            drop_path: config.drop_path * n as f32 / layers.saturating_sub(1).max(1) as f32,
        })
    }

    /// What modulates the block, of `silu c` `[B, 1, W]` or, where all blocks share a map, of what that made.
    pub(crate) fn modulation(&self, c: &Tensor) -> Result<Modulation> {
        let [images, width] = [c.shape()[0], self.norm.ones.len()];
        let maps = match &self.modulator {
            Modulator::Own(map) => map.forward(c)?.reshape(&[images, 6, width])?,
            Modulator::Table(table) => c.reshape(&[images, 6, width])?.add(&table.get().reshape(&[1, 6, width])?)?,
        };
        let part = |i: usize| maps.slice(1, i..i + 1);
        Ok([part(0)?, part(1)?, part(2)?, part(3)?, part(4)?, part(5)?])
    }

    /// Whole sequences `[B, T, W] -> [B, T, W]`, which `groups` divide.
    pub(crate) fn forward(&self, x: &Tensor, by: &Modulation, groups: &[Range<usize>], mode: &Mode) -> Result<Tensor> {
        self.run(x, by, mode, |[q, k, v]| {
            let of_group = |group: &Range<usize>| -> Result<Tensor> {
                let [keys, values] = [&k, &v].map(|x| x.slice(1, 0..group.end));
                Ok(attention(&q.slice(1, group.clone())?, &keys?, &values?, self.heads, false)?)
            };
            let parts = groups.iter().map(of_group).collect::<Result<Vec<_>>>()?;
            Ok(Tensor::concat(&parts.iter().collect::<Vec<_>>(), 1)?)
        })
    }

    /// The next group `[B, n, W]` of sequences whose past is kept: what [`Block::forward`] gives there.
    pub(crate) fn step(&self, x: &Tensor, by: &Modulation, past: &mut Past) -> Result<Tensor> {
        self.run(x, by, &Mode::Eval, |[q, k, v]| {
            let [keys, values] = match past.0.take() {
                None => [k, v],
                Some([keys, values]) => [Tensor::concat(&[&keys, &k], 1)?, Tensor::concat(&[&values, &v], 1)?],
            };
            let attended = attention(&q, &keys, &values, self.heads, false)?;
            past.0 = Some([keys, values]);
            Ok(attended)
        })
    }

    fn run(
        &self,
        x: &Tensor,
        [gate1, gate2, scale1, scale2, shift1, shift2]: &Modulation,
        mode: &Mode,
        attend: impl FnOnce([Tensor; 3]) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let attended = attend(self.project(&self.norm.modulated(x, scale1, shift1)?)?)?;
        let added = gate1.mul(&self.proj.forward(&attended)?)?;
        let x = x.add(&self.kept(added, mode, "attention")?)?;
        let hidden = self.expand.forward(&self.norm.modulated(&x, scale2, shift2)?)?.gelu_tanh()?;
        let added = gate2.mul(&self.contract.forward(&hidden)?)?;
        Ok(x.add(&self.kept(added, mode, "perceptron")?)?)
    }

    /// Queries, keys and values `[B, T, W]`, such that usual attention has the scores of VAR's.
    fn project(&self, x: &Tensor) -> Result<[Tensor; 3]> {
        let [images, length, width] = x.dims("attention")?;
        let head = width / self.heads;
        let [q_bias, v_bias] = self.biases.each_ref().map(Var::get);
        let bias = Tensor::concat(&[&q_bias, &self.norm.zeros, &v_bias], 0)?;
        let qkv = x.linear(&self.qkv.get(), Some(&bias))?;
        let third = |i: usize| qkv.slice(2, i * width..(i + 1) * width);
        let [q, k, v] = [third(0)?, third(1)?, third(2)?];
        let Some(temperature) = &self.temperature else { return Ok([q.mul_scalar(0.25)?, k, v]) };
        let unit = |x: &Tensor| l2_normalize(&x.reshape(&[images, length, self.heads, head])?);
        let scale = temperature.get().clamp(f32::NEG_INFINITY, LARGEST_SCALE.ln())?.exp()?;
        // Attention divides by the root of the head's size.
        let scale = scale.reshape(&[1, 1, self.heads, 1])?.mul_scalar((head as f32).sqrt())?;
        let (q, k) = (unit(&q)?.mul(&scale)?, unit(&k)?);
        Ok([q.reshape(x.shape())?, k.reshape(x.shape())?, v])
    }

    /// What is added `[B, T, W]`, without that of the images that are dropped.
    fn kept(&self, added: Tensor, mode: &Mode, name: &str) -> Result<Tensor> {
        match mode {
            Mode::Train(_) if self.drop_path > 0.0 => {
                let ones = Tensor::full(1.0, &[added.shape()[0], 1, 1]).to_device(added.device())?;
                Ok(added.mul(&mode.dropout(&ones, self.drop_path, name)?)?)
            }
            _ => Ok(added),
        }
    }
}

/// The map from `silu c` to a block's gates, scales and shifts, as it starts.
fn modulation(params: &Params, width: usize) -> Result<Linear> {
    let map = linear(params, width, [width, 6 * width], 1.0)?;
    if !params.is_dry() {
        started(&map.weight, 0)?;
    }
    Ok(map)
}

/// Makes of a map or table its published start: along `axis` the first third makes gates.
fn started(var: &Var, axis: usize) -> Result<()> {
    let value = var.get().detach();
    let gates = value.shape()[axis] / 3;
    let [others, first] = MODULATION_START;
    let parts =
        [value.slice(axis, 0..gates)?.mul_scalar(first)?, value.slice(axis, gates..3 * gates)?.mul_scalar(others)?];
    Ok(var.set(&Tensor::concat(&[&parts[0], &parts[1]], axis)?)?)
}
