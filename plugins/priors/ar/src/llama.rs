//! The transformer of LlamaGen (Sun et al., "Autoregressive Model Beats Diffusion: Llama for Scalable Image Generation",
//! 2024): RMS norms, SwiGLU, rotary positions by row and column, no biases.

use crate::ArConfig;
use rqlab_sdk::config::ConfigError;
use rqlab_sdk::nn::{Linear, Orders};
use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::ops::attention::attention;
use std::ops::Range;

/// Added to the mean square.
const EPS: f32 = 1e-5;

rqlab_sdk::choice! {
    /// How queries and keys of the condition are turned, which has no cell.
    pub enum StartRotation {
        /// Multiplied by 0, as published: every position gives it the score 0, and its value alone acts.
        Zero = "zero",
        /// Not at all.
        Identity = "identity",
    }
}

/// The hidden width of a SwiGLU: 8/3 of the model width, up to the next multiple.
pub fn swiglu_width(width: usize, multiple: usize) -> usize {
    (8 * width / 3).next_multiple_of(multiple)
}

/// `x / sqrt(mean x^2 + eps)` times a weight `[W]`.
#[derive(Debug, Clone)]
struct RmsNorm(Var);

impl RmsNorm {
    fn new(params: &Params, width: usize) -> Result<Self> {
        Ok(Self(params.parameter("weight", &[width], Init::ONES)?))
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let last = x.rank().saturating_sub(1);
        let root = x.square()?.mean(&[last], true)?.add_scalar(EPS)?.sqrt()?;
        Ok(x.div(&root)?.mul(&self.0.get())?)
    }
}

/// Rotations of pairs of neighbouring channels: the first half of a head's h/2 pairs turns by the row of a token's cell, the
/// second by its column, pair i of a half by the angle `place 10000^(-4 i / h)`.
#[derive(Debug, Clone)]
pub struct Rotary {
    /// Cosines and sines `[1 + T, h/2]`: of the condition, then of all codes in raster order.
    turns: [Tensor; 2],
}

impl Rotary {
    /// Of the condition and all codes of a map. `head` is h, a multiple of 4.
    ///
    /// # Errors
    /// None in practice: the shape has its numbers.
    pub fn new(level: &LevelInfo, head: usize, start: StartRotation) -> Result<Self> {
        let quarter = head / 4;
        let length = 1 + level.positions() * level.depth();
        let angle = |token: usize, pair: usize| {
            let cell = (token - 1) / level.depth();
            let place = if pair < quarter { cell / level.width } else { cell % level.width };
            place as f64 * 10000f64.powf(-((pair % quarter) as f64) / quarter as f64)
        };
        let table = |start: f32, turn: fn(f64) -> f64| {
            let at = |i: usize| match i / (2 * quarter) {
                0 => start,
                token => turn(angle(token, i % (2 * quarter))) as f32,
            };
            Tensor::from_vec((0..length * 2 * quarter).map(at).collect(), &[length, 2 * quarter])
        };
        let cosine = if start == StartRotation::Zero { 0.0 } else { 1.0 };
        Ok(Self { turns: [table(cosine, f64::cos)?, table(0.0, f64::sin)?] })
    }

    /// The table `[1 + T, h/2, 2]` of cosines and sines.
    ///
    /// # Errors
    /// None in practice: the shape has its numbers.
    pub fn table(&self) -> Result<Tensor> {
        Ok(Tensor::stack(&[&self.turns[0], &self.turns[1]], 2)?)
    }

    /// Cosines and sines `[1 or B, n, 1, h/2]` of inputs `range`, the first of which is the condition.
    fn of(&self, range: Range<usize>, orders: &Orders) -> Result<[Tensor; 2]> {
        let codes = range.start.saturating_sub(1)..range.end - 1;
        let part = |table: &Tensor| -> Result<Tensor> {
            let pairs = table.last_dim();
            if codes.is_empty() {
                return Ok(table.slice(0, 0..1)?.reshape(&[1, 1, 1, pairs])?);
            }
            let mut rows = orders.rows(&table.slice(0, 1..1 + orders.length())?, codes.clone())?;
            let images = rows.shape()[0];
            if range.start == 0 {
                let first = table.slice(0, 0..1)?.reshape(&[1, 1, pairs])?.broadcast_to(&[images, 1, pairs])?;
                rows = Tensor::concat(&[&first, &rows], 1)?;
            }
            Ok(rows.reshape(&[images, range.len(), 1, pairs])?)
        };
        Ok([part(&self.turns[0])?, part(&self.turns[1])?])
    }

    /// Turns `[B, n, W]`, heads one after another.
    fn turn(x: &Tensor, [cos, sin]: &[Tensor; 2]) -> Result<Tensor> {
        let [batch, length, width] = x.dims("rotary")?;
        let pairs = cos.last_dim();
        let shape = [batch, length, width / (2 * pairs), pairs];
        let x = x.reshape(&[batch, length, width / (2 * pairs), pairs, 2])?;
        let part = |i: usize| -> Result<Tensor> { Ok(x.slice(4, i..i + 1)?.reshape(&shape)?) };
        let (a, b) = (part(0)?, part(1)?);
        let turned = [a.mul(cos)?.sub(&b.mul(sin)?)?, b.mul(cos)?.add(&a.mul(sin)?)?];
        Ok(Tensor::stack(&[&turned[0], &turned[1]], 4)?.reshape(&[batch, length, width])?)
    }
}

/// Keys and values of a block, `[B, n, W]`.
type Past = Option<[Tensor; 2]>;

/// One block. Parameters: `attention_norm`, `attention.wqkv` (rows of queries, keys, values), `attention.wo`, `ffn_norm`,
/// `feed_forward.w1`, `.w3`, `.w2`, each with `weight` alone.
#[derive(Debug, Clone)]
struct Layer {
    norms: [RmsNorm; 2],
    qkv: Linear,
    out: Linear,
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl Layer {
    fn new(params: &Params, config: &ArConfig) -> Result<Self> {
        let (width, hidden) = (config.width, swiglu_width(config.width, config.mlp_multiple));
        let linear = |name: &str, from: usize, to: usize| {
            Linear::with_init(&params.scope(name), from, to, config.init.weight(from), None)
        };
        Ok(Self {
            norms: [
                RmsNorm::new(&params.scope("attention_norm"), width)?,
                RmsNorm::new(&params.scope("ffn_norm"), width)?,
            ],
            qkv: linear("attention.wqkv", width, 3 * width)?,
            out: linear("attention.wo", width, width)?,
            gate: linear("feed_forward.w1", width, hidden)?,
            up: linear("feed_forward.w3", width, hidden)?,
            down: linear("feed_forward.w2", hidden, width)?,
        })
    }
}

/// Blocks in a row and the last norm. Parameters: `layers.0`, `layers.1`, .., `norm`.
#[derive(Debug, Clone)]
pub(crate) struct Llama {
    layers: Vec<Layer>,
    norm: RmsNorm,
    pub(crate) rotary: Rotary,
    heads: usize,
    dropout: f32,
}

impl Llama {
    pub(crate) fn new(params: &Params, config: &ArConfig, level: &LevelInfo) -> Result<Self> {
        let ArConfig { width, heads, layers, dropout, .. } = *config;
        if !width.is_multiple_of(4 * heads) {
            let message = format!(
                "{heads} heads of a width of {width} have no multiple of 4 channels, which rotary positions by row and column turn"
            );
            return Err(ConfigError::field("heads", message).into());
        }
        let layer = |i: usize| Layer::new(&params.scope("layers").scope(i), config);
        Ok(Self {
            layers: (0..layers).map(layer).collect::<Result<_>>()?,
            norm: RmsNorm::new(&params.scope("norm"), width)?,
            rotary: Rotary::new(level, width / heads, config.start_rotation)?,
            heads,
            dropout,
        })
    }

    /// Whole sequences `[B, T, W] -> [B, T, W]`.
    pub(crate) fn forward(&self, x: &Tensor, orders: &Orders, mode: &Mode) -> Result<Tensor> {
        let [_, length, _] = x.dims("llama")?;
        self.run(x, &self.rotary.of(0..length, orders)?, None, mode)
    }

    /// Inputs with their rotations, which see `past` and are added to it.
    fn run(&self, x: &Tensor, turns: &[Tensor; 2], mut past: Option<&mut Vec<Past>>, mode: &Mode) -> Result<Tensor> {
        let mut x = x.clone();
        let width = x.last_dim();
        for (i, layer) in self.layers.iter().enumerate() {
            let mode = mode.part("block", i);
            let qkv = layer.qkv.forward(&layer.norms[0].forward(&x)?)?;
            let third = |n: usize| qkv.slice(2, n * width..(n + 1) * width);
            let (q, k) = (Rotary::turn(&third(0)?, turns)?, Rotary::turn(&third(1)?, turns)?);
            let attended = match past.as_mut().and_then(|past| past.get_mut(i)) {
                None => attention(&q, &k, &third(2)?, self.heads, true)?,
                Some(past) => {
                    let [keys, values] = match past.take() {
                        None => [k, third(2)?],
                        Some([keys, values]) => {
                            [Tensor::concat(&[&keys, &k], 1)?, Tensor::concat(&[&values, &third(2)?], 1)?]
                        }
                    };
                    let attended = attention(&q, &keys, &values, self.heads, false)?;
                    *past = Some([keys, values]);
                    attended
                }
            };
            x = self.onto(&x, &layer.out, &attended, &mode.part("attention", 0))?;
            let y = layer.norms[1].forward(&x)?;
            let hidden = layer.gate.forward(&y)?.silu()?.mul(&layer.up.forward(&y)?)?;
            x = self.onto(&x, &layer.down, &hidden, &mode.part("mlp", 0))?;
        }
        self.norm.forward(&x)
    }

    fn onto(&self, x: &Tensor, linear: &Linear, hidden: &Tensor, mode: &Mode) -> Result<Tensor> {
        match mode {
            Mode::Train(_) if self.dropout > 0.0 => {
                Ok(x.add(&mode.dropout(&linear.forward(hidden)?, self.dropout, "added")?)?)
            }
            _ => linear.forward_add(hidden, x),
        }
    }
}

/// Sequences that are decoded a token at a time, with keys and values kept or everything computed anew.
#[derive(Debug)]
pub(crate) struct LlamaDecoding {
    model: Llama,
    orders: Orders,
    past: Option<Vec<Past>>,
    /// Inputs so far; with keys and values kept, none.
    inputs: Vec<Tensor>,
    tokens: usize,
}

impl LlamaDecoding {
    pub(crate) fn new(model: &Llama, orders: &Orders, cache: bool) -> Self {
        let past = cache.then(|| vec![None; model.layers.len()]);
        Self { model: model.clone(), orders: orders.clone(), past, inputs: Vec::new(), tokens: 0 }
    }

    /// The output `[B, 1, W]` at the next input `[B, 1, W]`.
    pub(crate) fn next(&mut self, input: Tensor) -> Result<Tensor> {
        let at = self.tokens;
        self.tokens += 1;
        if let Some(past) = &mut self.past {
            let turns = self.model.rotary.of(at..at + 1, &self.orders)?;
            return self.model.run(&input, &turns, Some(past), &Mode::Eval);
        }
        self.inputs.push(input);
        let whole = Tensor::concat(&self.inputs.iter().collect::<Vec<_>>(), 1)?;
        Ok(self.model.forward(&whole, &self.orders, &Mode::Eval)?.slice(1, at..at + 1)?)
    }
}
