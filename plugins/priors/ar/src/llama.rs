//! The transformer of LlamaGen (Sun et al., "Autoregressive Model Beats Diffusion: Llama for Scalable Image Generation",
//! 2024): RMS norms, SwiGLU, rotary positions by row and column, no biases.

use crate::ArConfig;
use crate::body::last;
use crate::position::TokenMap;
use rqlab_sdk::config::ConfigError;
use rqlab_sdk::nn::{Linear, Orders};
use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::ops::attention::attention_qkv;
use rqlab_sdk::tensor::ops::decoder::{BlockWeights, Decoder};
use rqlab_sdk::tensor::ops::rotary::rotate_qk;

rqlab_sdk::choice! {
    /// How queries and keys of the condition are turned, whose tokens have no cell.
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
struct RmsNorm {
    weight: Var,
    eps: f32,
}

impl RmsNorm {
    fn new(params: &Params, config: &ArConfig) -> Result<Self> {
        Ok(Self { weight: params.parameter("weight", &[config.width], Init::ONES)?, eps: config.norm_eps })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.rms_norm(&self.weight.get(), self.eps)?)
    }
}

/// Rotations of pairs of neighbouring channels: the first half of a head's h/2 pairs turns by the row of a token's cell, the
/// second by its column, pair i of a half by the angle `place b^(-4 i / h)`, with b the base.
#[derive(Debug, Clone)]
pub struct Rotary {
    /// Of the condition's L tokens, then of all T codes in raster order, the cosines of a head's channels and the sines with the
    /// signs that [`rotate_qk`] wants: `[L + T, 2, h]`.
    turns: Tensor,
    /// L.
    tokens: usize,
}

impl Rotary {
    /// Of a condition of `tokens` tokens and all codes of a map. `head` is h, a multiple of 4, and `base` b.
    ///
    /// # Errors
    /// None in practice: the shape has its numbers.
    pub(crate) fn new(map: TokenMap, [head, tokens]: [usize; 2], base: f32, start: StartRotation) -> Result<Self> {
        let quarter = head / 4;
        let length = tokens + map.length();
        let angle = |code: usize, pair: usize| {
            let cell = code / map.depth;
            let place = if pair < quarter { cell / map.width } else { cell % map.width };
            place as f64 * f64::from(base).powf(-((pair % quarter) as f64) / quarter as f64)
        };
        let pairs = 2 * quarter;
        let turns = (0..length).flat_map(|token| {
            let turn = move |pair: usize| match (token.checked_sub(tokens), start) {
                (Some(code), _) => angle(code, pair).sin_cos(),
                (None, StartRotation::Zero) => (0.0, 0.0),
                (None, StartRotation::Identity) => (0.0, 1.0),
            };
            let cosines = (0..head).map(move |channel| turn(channel / 2).1 as f32);
            let sines = (0..head).map(move |channel| {
                let sine = turn(channel / 2).0 as f32;
                if channel.is_multiple_of(2) { -sine } else { sine }
            });
            cosines.chain(sines)
        });
        Ok(Self { turns: Tensor::from_vec(turns.collect(), &[length, 2, 2 * pairs])?, tokens })
    }

    /// The table `[L + T, h/2, 2]` of cosines and sines.
    ///
    /// # Errors
    /// None in practice: the shape has its numbers.
    pub fn table(&self) -> Result<Tensor> {
        let [length, _, head] = self.turns.dims("rotary")?;
        // Of each pair of channels the second, whose sine has the angle's sign.
        let pairs = self.turns.reshape(&[length, 2, head / 2, 2])?.slice(3, 1..2)?;
        Ok(pairs.reshape(&[length, 2, head / 2])?.permute(&[0, 2, 1])?)
    }

    /// The rotations of the condition and the codes that follow it, `n` inputs in all, as [`rotate_qk`] takes them: `[1 or B, n, 2,
    /// h]`.
    fn of(&self, n: usize, orders: &Orders) -> Result<Tensor> {
        let ([all, two, head], tokens) = (self.turns.dims("rotary")?, self.tokens);
        let table = self.turns.reshape(&[all, two * head])?;
        let first = table.slice(0, 0..tokens)?.reshape(&[1, tokens, two * head])?;
        if n == tokens {
            return Ok(first.reshape(&[1, n, two, head])?);
        }
        let codes = orders.rows(&table.slice(0, tokens..all)?, 0..n - tokens)?;
        let images = codes.shape()[0];
        let rows = Tensor::concat(&[&first.broadcast_to(&[images, tokens, two * head])?, &codes], 1)?;
        Ok(rows.reshape(&[images, n, two, head])?)
    }
}

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
                RmsNorm::new(&params.scope("attention_norm"), config)?,
                RmsNorm::new(&params.scope("ffn_norm"), config)?,
            ],
            qkv: linear("attention.wqkv", width, 3 * width)?,
            out: linear("attention.wo", width, width)?,
            gate: linear("feed_forward.w1", width, hidden)?,
            up: linear("feed_forward.w3", width, hidden)?,
            down: linear("feed_forward.w2", hidden, width)?,
        })
    }

    /// What a decoder reads of it.
    fn weights(&self) -> BlockWeights {
        let norm = |norm: &RmsNorm| [norm.weight.get(), zeros(&norm.weight)];
        let linear = |linear: &Linear| [linear.weight.get(), zeros(&linear.weight)];
        BlockWeights {
            norm1: norm(&self.norms[0]),
            qkv: linear(&self.qkv),
            proj: linear(&self.out),
            norm2: norm(&self.norms[1]),
            gate: Some(linear(&self.gate)),
            expand: linear(&self.up),
            contract: linear(&self.down),
        }
    }
}

/// A bias of zeros for the rows of a weight.
fn zeros(weight: &Var) -> Tensor {
    Tensor::zeros(&weight.get().shape()[..1])
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
    /// For conditions of `tokens` tokens.
    pub(crate) fn new(params: &Params, config: &ArConfig, map: TokenMap, tokens: usize) -> Result<Self> {
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
            norm: RmsNorm::new(&params.scope("norm"), config)?,
            rotary: Rotary::new(map, [width / heads, tokens], config.rotary_base, config.start_rotation)?,
            heads,
            dropout,
        })
    }

    /// Whole sequences `[B, T, W] -> [B, T, W]`.
    pub(crate) fn forward(&self, x: &Tensor, orders: &Orders, mode: &Mode) -> Result<Tensor> {
        let turns = self.rotary.of(x.shape()[1], orders)?.to_device(x.device())?;
        let mut x = x.clone();
        for (i, layer) in self.layers.iter().enumerate() {
            let mode = mode.part("block", i);
            let qkv = rotate_qk(&layer.qkv.forward(&layer.norms[0].forward(&x)?)?, &turns)?;
            let attended = attention_qkv(&qkv, self.heads, true)?;
            x = self.onto(&x, &layer.out, &attended, &mode.part("attention", 0))?;
            let y = layer.norms[1].forward(&x)?;
            let hidden = layer.gate.forward(&y)?.silu_mul(&layer.up.forward(&y)?)?;
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
pub(crate) enum LlamaDecoding {
    Kept(Decoder),
    /// All inputs so far.
    Anew {
        inputs: Vec<Tensor>,
        orders: Orders,
    },
}

impl LlamaDecoding {
    pub(crate) fn new(model: &Llama, orders: &Orders, cache: bool) -> Result<Self> {
        if !cache {
            return Ok(Self::Anew { inputs: Vec::new(), orders: orders.clone() });
        }
        let weights: Vec<BlockWeights> = model.layers.iter().map(Layer::weights).collect();
        // All images are read in one order.
        let turns = model.rotary.of(model.rotary.tokens - 1 + orders.length(), orders)?;
        let [_, length, two, head] = turns.dims("rotary")?;
        let turns = turns.reshape(&[length, two, head])?.to_device(model.norm.weight.get().device())?;
        Ok(Self::Kept(Decoder::rotary(&weights, model.heads, model.norm.eps, orders.images(), &turns)?))
    }

    /// The output `[B, 1, W]` at the last of the next inputs `[B, n, W]`.
    pub(crate) fn next(&mut self, model: &Llama, input: Tensor) -> Result<Tensor> {
        match self {
            Self::Kept(decoder) => model.norm.forward(&last(&decoder.step(&input)?, 1)?),
            Self::Anew { inputs, orders } => {
                inputs.push(input);
                let whole = Tensor::concat(&inputs.iter().collect::<Vec<_>>(), 1)?;
                last(&model.forward(&whole, orders, &Mode::Eval)?, 1)
            }
        }
    }
}
