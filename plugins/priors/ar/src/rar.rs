//! The transformer of RAR (Yu et al., "Randomized autoregressive visual generation", 2024): every layer norm is modulated by
//! the condition and the place in the sequence, and every input knows the position that is predicted next.

use crate::ArConfig;
use crate::position::TokenMap;
use rqlab_sdk::config::ConfigError;
use rqlab_sdk::nn::transformer::{WeightInit, attention_with_dropout};
use rqlab_sdk::nn::{LayerNorm, Linear, Orders};
use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::ops::attention::attention_qkv;
use rqlab_sdk::tensor::ops::key_values::KeyValues;
use std::ops::Range;

/// What layer norms add to the variance.
const EPS: f32 = 1e-6;

/// The start token and the condition come before the codes.
const BEFORE: usize = 2;

/// `normal (1 + scale) + shift`.
fn modulated(normal: &Tensor, scale: &Tensor, shift: &Tensor) -> Result<Tensor> {
    Ok(normal.mul(&scale.add_scalar(1.0)?)?.add(shift)?)
}

/// A linear map to what modulates: it starts at zero, so that blocks start as the identity.
fn modulation(params: &Params, width: usize, outputs: usize) -> Result<Linear> {
    Linear::with_init(&params.scope("adaLN_modulation.1"), width, outputs, Init::ZEROS, Some(Init::ZEROS))
}

/// Part `i` of the last axis, of parts of `width`.
fn part(x: &Tensor, i: usize, width: usize) -> Result<Tensor> {
    Ok(x.slice(2, i * width..(i + 1) * width)?)
}

/// One block: `x += gate1 attn(norm1(x) (1 + scale1) + shift1)`, `x += gate2 mlp(norm2(x) (1 + scale2) + shift2)`, where shift1,
/// scale1, gate1, shift2, scale2, gate2 are the sixths of `adaLN_modulation(silu c)`; queries and keys have a layer norm of
/// each head. Parameters: `norm1`, `attn.qkv`, `attn.q_norm`, `attn.k_norm`, `attn.proj`, `norm2`, `mlp.fc1`, `mlp.fc2`,
/// `adaLN_modulation.1`, each with `weight` and `bias`.
#[derive(Debug)]
struct Block {
    norms: [LayerNorm; 2],
    qkv: Linear,
    head_norms: [LayerNorm; 2],
    proj: Linear,
    expand: Linear,
    contract: Linear,
    modulation: Linear,
    heads: usize,
    dropout: f32,
    attention_dropout: f32,
}

impl Block {
    fn new(params: &Params, config: &ArConfig) -> Result<Self> {
        let ArConfig { width, heads, dropout, attention_dropout, init, .. } = *config;
        if !width.is_multiple_of(heads) {
            let message = format!("{heads} heads do not divide a width of {width}");
            return Err(ConfigError::field("heads", message).into());
        }
        let hidden = config.mlp_width.unwrap_or(4 * width);
        let linear = |name: &str, from: usize, to: usize| init.linear(&params.scope(name), from, to);
        let norm = |name: &str, width: usize| LayerNorm::new(&params.scope(name), width, EPS);
        Ok(Self {
            norms: [norm("norm1", width)?, norm("norm2", width)?],
            qkv: linear("attn.qkv", width, 3 * width)?,
            head_norms: [norm("attn.q_norm", width / heads)?, norm("attn.k_norm", width / heads)?],
            proj: linear("attn.proj", width, width)?,
            expand: linear("mlp.fc1", width, hidden)?,
            contract: linear("mlp.fc2", hidden, width)?,
            modulation: modulation(params, width, 6 * width)?,
            heads,
            dropout,
            attention_dropout,
        })
    }

    /// Inputs `[B, n, W]`, each with its `silu c`, which see `past`, are added to it, and see each other as far as they come
    /// before.
    fn forward(&self, x: &Tensor, c: &Tensor, past: Option<&mut KeyValues>, mode: &Mode) -> Result<Tensor> {
        let width = x.last_dim();
        let maps = self.modulation.forward(c)?;
        let map = |i: usize| part(&maps, i, width);
        let normal = modulated(&self.norms[0].forward(x)?, &map(1)?, &map(0)?)?;
        let attended = self.attend(&self.qkv.forward(&normal)?, past, mode)?;
        let attended = mode.dropout(&self.proj.forward(&attended)?, self.dropout, "attention")?;
        let x = x.add(&map(2)?.mul(&attended)?)?;
        let normal = modulated(&self.norms[1].forward(&x)?, &map(4)?, &map(3)?)?;
        let hidden = mode.dropout(&self.expand.forward_gelu(&normal)?, self.dropout, "hidden")?;
        let added = mode.dropout(&self.contract.forward(&hidden)?, self.dropout, "mlp")?;
        Ok(x.add(&map(5)?.mul(&added)?)?)
    }

    fn attend(&self, qkv: &Tensor, past: Option<&mut KeyValues>, mode: &Mode) -> Result<Tensor> {
        let [images, length, packed] = qkv.dims("attention")?;
        let width = packed / 3;
        let normal = |i: usize| -> Result<Tensor> {
            let heads = part(qkv, i, width)?.reshape(&[images, length, self.heads, width / self.heads])?;
            Ok(self.head_norms[i].forward(&heads)?.reshape(&[images, length, width])?)
        };
        let qkv = Tensor::concat(&[&normal(0)?, &normal(1)?, &part(qkv, 2, width)?], 2)?;
        match (past, mode) {
            (Some(past), _) => Ok(past.attend(&qkv)?),
            (None, Mode::Train(_)) if self.attention_dropout > 0.0 => {
                attention_with_dropout(&qkv, self.heads, true, self.attention_dropout, mode)
            }
            _ => Ok(attention_qkv(&qkv, self.heads, true)?),
        }
    }
}

/// The sequence is a start token, the condition, then the codes in their order. L codes. Parameters: `cls_token` `[1, 1, W]`,
/// `pos_embed`, `target_aware_pos_embed`, `timesteps_embeddings` `[1, 2 + L, W]`, of which the first two go by position (that
/// of the input itself and that of what is predicted there) and the last by place in the sequence, `blocks.0`, `blocks.1`, ..,
/// `adaln_before_head.adaLN_modulation.1`.
#[derive(Debug)]
pub(crate) struct Rar {
    start: Var,
    own: Var,
    next: Var,
    steps: Var,
    blocks: Vec<Block>,
    last: Linear,
    width: usize,
}

impl Rar {
    pub(crate) fn new(params: &Params, config: &ArConfig, map: TokenMap) -> Result<Self> {
        let ArConfig { width, layers, init, .. } = *config;
        let length = map.length();
        let first = match init {
            WeightInit::Gpt => init.embedding(),
            // The published tables are of this size, whatever else is.
            WeightInit::Published => Init::Normal(0.02),
        };
        let table = |name: &str, rows: usize| params.parameter(name, &[1, rows, width], first);
        let block = |i: usize| Block::new(&params.scope("blocks").scope(i), config);
        Ok(Self {
            start: table("cls_token", 1)?,
            own: table("pos_embed", BEFORE + length)?,
            next: table("target_aware_pos_embed", BEFORE + length)?,
            steps: table("timesteps_embeddings", BEFORE + length)?,
            blocks: (0..layers).map(block).collect::<Result<_>>()?,
            last: modulation(&params.scope("adaln_before_head"), width, 2 * width)?,
            width,
        })
    }

    /// What every code is predicted from, `[B, L, W]` in the order of prediction, given all but the last, embedded `[B, L - 1,
    /// W]`, and the condition `[B, 1, W]`.
    pub(crate) fn forward(&self, condition: &Tensor, known: &Tensor, orders: &Orders, mode: &Mode) -> Result<Tensor> {
        let x = Tensor::concat(&[&self.begin(condition)?, known], 1)?;
        let length = x.shape()[1];
        let hidden = self.run(&x, condition, 0..length, orders, None, mode)?;
        Ok(hidden.slice(1, 1..length)?)
    }

    /// The start token and the condition, `[B, 2, W]`.
    fn begin(&self, condition: &Tensor) -> Result<Tensor> {
        let start = self.start.get().broadcast_to(condition.shape())?;
        Ok(Tensor::concat(&[&start, condition], 1)?)
    }

    /// Inputs `range` of the sequence, as embedded, to what is predicted from each.
    fn run(
        &self,
        inputs: &Tensor,
        condition: &Tensor,
        range: Range<usize>,
        orders: &Orders,
        mut past: Option<&mut Vec<KeyValues>>,
        mode: &Mode,
    ) -> Result<Tensor> {
        let c = condition.add(&self.steps.get().slice(1, range.clone())?)?.silu()?;
        let mut x = inputs.add(&self.own_positions(range.clone(), orders)?)?;
        x = x.add(&self.next_positions(range, orders)?)?;
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(&x, &c, past.as_mut().and_then(|past| past.get_mut(i)), &mode.part("block", i))?;
        }
        let maps = self.last.forward(&c)?;
        let [ones, zeros] = [1.0, 0.0].map(|value| Tensor::full(value, &[self.width]).to_device(x.device()));
        // Scale before shift here, unlike in the blocks.
        modulated(&x.layer_norm(&ones?, &zeros?, EPS)?, &part(&maps, 0, self.width)?, &part(&maps, 1, self.width)?)
    }

    /// The positions of the inputs themselves.
    fn own_positions(&self, range: Range<usize>, orders: &Orders) -> Result<Tensor> {
        let front = (range.start < BEFORE).then(|| self.own.get().slice(1, range.start..BEFORE)).transpose()?;
        self.rows(&self.own, front, range.start.saturating_sub(BEFORE)..range.end - BEFORE, orders)
    }

    /// The positions of what follows each input: nothing is said of it at the start token, which the condition follows.
    fn next_positions(&self, range: Range<usize>, orders: &Orders) -> Result<Tensor> {
        let zeros = || Tensor::zeros(&[1, 1, self.width]).to_device(self.next.get().device());
        let front = (range.start == 0).then(zeros).transpose()?;
        self.rows(&self.next, front, range.start.saturating_sub(1)..range.end - 1, orders)
    }

    /// Rows of a table for codes `codes` in the order of prediction, behind those of `front` `[1, n, W]`.
    fn rows(&self, table: &Var, front: Option<Tensor>, codes: Range<usize>, orders: &Orders) -> Result<Tensor> {
        let table = table.get().slice(1, BEFORE..BEFORE + orders.length())?.reshape(&[orders.length(), self.width])?;
        match front {
            None => orders.rows(&table, codes),
            Some(front) if codes.is_empty() => Ok(front),
            Some(front) => {
                let rows = orders.rows(&table, codes)?;
                let front = front.broadcast_to(&[rows.shape()[0], front.shape()[1], self.width])?;
                Ok(Tensor::concat(&[&front, &rows], 1)?)
            }
        }
    }
}

/// Sequences that are decoded a code at a time, with keys and values kept or everything computed anew.
#[derive(Debug)]
pub(crate) struct RarDecoding {
    orders: Orders,
    /// The condition `[B, 1, W]`.
    condition: Tensor,
    /// Keys and values of the blocks, if they are kept.
    past: Option<Vec<KeyValues>>,
    /// Inputs that are not in `past`, `[B, n, W]` each.
    inputs: Vec<Tensor>,
    read: usize,
}

impl RarDecoding {
    pub(crate) fn new(model: &Rar, condition: &Tensor, orders: &Orders, cache: bool) -> Result<Self> {
        let sizes = [orders.images(), BEFORE + orders.length() - 1, model.width];
        let kept = |block: &Block| KeyValues::new(condition, sizes, block.heads);
        let kept = cache.then(|| model.blocks.iter().map(kept).collect::<Result<_, _>>());
        Ok(Self {
            orders: orders.clone(),
            condition: condition.clone(),
            past: kept.transpose()?,
            inputs: vec![model.begin(condition)?],
            read: BEFORE,
        })
    }

    /// What the next code is predicted from, `[B, 1, W]`, given the one before, embedded `[B, 1, W]`; `None` at the first.
    pub(crate) fn next(&mut self, model: &Rar, last: Option<Tensor>) -> Result<Tensor> {
        if let Some(last) = last {
            self.inputs.push(last);
            self.read += 1;
        }
        let x = Tensor::concat(&self.inputs.iter().collect::<Vec<_>>(), 1)?;
        let new = x.shape()[1];
        let range = self.read - new..self.read;
        if self.past.is_some() {
            self.inputs.clear();
        }
        let hidden = model.run(&x, &self.condition, range, &self.orders, self.past.as_mut(), &Mode::Eval)?;
        Ok(hidden.slice(1, new - 1..new)?)
    }
}
