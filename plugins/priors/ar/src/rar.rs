//! The transformer of RAR (Yu et al., "Randomized autoregressive visual generation", 2024): every layer norm is modulated by
//! the condition and the place in the sequence, and every input knows the position that is predicted next.
//!
//! A condition of several tokens, such as a text, comes before the codes as a class does, and modulates by its mean.

use crate::ArConfig;
use crate::position::TokenMap;
use rqlab_sdk::config::ConfigError;
use rqlab_sdk::nn::transformer::{WeightInit, attention_with_dropout};
use rqlab_sdk::nn::{LayerNorm, Linear, Orders};
use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::ops::attention::attention_qkv;
use rqlab_sdk::tensor::ops::key_values::KeyValues;
use rqlab_sdk::tensor::ops::packed::PackedLinear;
use std::ops::Range;

/// What layer norms add to the variance.
const EPS: f32 = 1e-6;

/// Rows of modulation that sampling computes at once: they follow from condition and place alone, and few rows cost as much as
/// one.
const ROWS_AHEAD: usize = 64;

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

/// The linear maps of a block as they are trained, or laid out for sampling.
#[derive(Debug)]
struct Maps<L> {
    qkv: L,
    proj: L,
    expand: L,
    contract: L,
}

trait LinearMap {
    fn of(&self, x: &Tensor) -> Result<Tensor>;

    fn gelu_of(&self, x: &Tensor) -> Result<Tensor>;
}

impl LinearMap for Linear {
    fn of(&self, x: &Tensor) -> Result<Tensor> {
        self.forward(x)
    }

    fn gelu_of(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_gelu(x)
    }
}

impl LinearMap for PackedLinear {
    fn of(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.forward(x)?)
    }

    fn gelu_of(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.forward(x)?.gelu()?)
    }
}

/// One block: `x += gate1 attn(norm1(x) (1 + scale1) + shift1)`, `x += gate2 mlp(norm2(x) (1 + scale2) + shift2)`, where shift1,
/// scale1, gate1, shift2, scale2, gate2 are the sixths of `adaLN_modulation(silu c)`; queries and keys have a layer norm of
/// each head. Parameters: `norm1`, `attn.qkv`, `attn.q_norm`, `attn.k_norm`, `attn.proj`, `norm2`, `mlp.fc1`, `mlp.fc2`,
/// `adaLN_modulation.1`, each with `weight` and `bias`.
#[derive(Debug)]
struct Block {
    norms: [LayerNorm; 2],
    head_norms: [LayerNorm; 2],
    maps: Maps<Linear>,
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
            head_norms: [norm("attn.q_norm", width / heads)?, norm("attn.k_norm", width / heads)?],
            maps: Maps {
                qkv: linear("attn.qkv", width, 3 * width)?,
                proj: linear("attn.proj", width, width)?,
                expand: linear("mlp.fc1", width, hidden)?,
                contract: linear("mlp.fc2", hidden, width)?,
            },
            modulation: modulation(params, width, 6 * width)?,
            heads,
            dropout,
            attention_dropout,
        })
    }

    /// Inputs `[B, n, W]`, each modulated by its row of `[B, n, 6W]`, which see `past`, are added to it, and see each other as
    /// far as they come before.
    fn forward<L: LinearMap>(
        &self,
        maps: &Maps<L>,
        x: &Tensor,
        modulation: &Tensor,
        past: Option<&mut KeyValues>,
        mode: &Mode,
    ) -> Result<Tensor> {
        let map = |i: usize| part(modulation, i, x.last_dim());
        let normal = modulated(&self.norms[0].forward(x)?, &map(1)?, &map(0)?)?;
        let attended = self.attend(&maps.qkv.of(&normal)?, past, mode)?;
        let attended = mode.dropout(&maps.proj.of(&attended)?, self.dropout, "attention")?;
        let x = x.add(&map(2)?.mul(&attended)?)?;
        let normal = modulated(&self.norms[1].forward(&x)?, &map(4)?, &map(3)?)?;
        let hidden = mode.dropout(&maps.expand.gelu_of(&normal)?, self.dropout, "hidden")?;
        let added = mode.dropout(&maps.contract.of(&hidden)?, self.dropout, "mlp")?;
        Ok(x.add(&map(5)?.mul(&added)?)?)
    }

    /// The maps as they are now, to sample `images` at a time.
    fn packed(&self, images: usize) -> Result<Maps<PackedLinear>> {
        let Maps { qkv, proj, expand, contract } = &self.maps;
        let packed = |linear: &Linear| linear.packed(images);
        Ok(Maps { qkv: packed(qkv)?, proj: packed(proj)?, expand: packed(expand)?, contract: packed(contract)? })
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

/// The sequence is a start token, the condition of L tokens, then the N codes in their order. Parameters: `cls_token` `[1, 1, W]`,
/// `pos_embed`, `target_aware_pos_embed`, `timesteps_embeddings` `[1, 1 + L + N, W]`, of which the first two go by position (that
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
    /// Inputs before the codes, 1 + L.
    before: usize,
}

impl Rar {
    /// Of the tokens of a map, under conditions of `tokens` tokens.
    pub(crate) fn new(params: &Params, config: &ArConfig, map: TokenMap, tokens: usize) -> Result<Self> {
        let ArConfig { width, layers, init, .. } = *config;
        let before = 1 + tokens;
        let first = match init {
            WeightInit::Gpt => init.embedding(),
            // The published tables are of this size, whatever else is.
            WeightInit::Published => Init::Normal(0.02),
        };
        let table = |name: &str, rows: usize| params.parameter(name, &[1, rows, width], first);
        let block = |i: usize| Block::new(&params.scope("blocks").scope(i), config);
        Ok(Self {
            start: table("cls_token", 1)?,
            own: table("pos_embed", before + map.length())?,
            next: table("target_aware_pos_embed", before + map.length())?,
            steps: table("timesteps_embeddings", before + map.length())?,
            blocks: (0..layers).map(block).collect::<Result<_>>()?,
            last: modulation(&params.scope("adaln_before_head"), width, 2 * width)?,
            width,
            before,
        })
    }

    /// What every code is predicted from, `[B, N, W]` in the order of prediction, given all but the last, embedded `[B, N - 1,
    /// W]`, and the condition `[B, L, W]`.
    pub(crate) fn forward(&self, condition: &Tensor, known: &Tensor, orders: &Orders, mode: &Mode) -> Result<Tensor> {
        let x = Tensor::concat(&[&self.begin(condition)?, known], 1)?;
        let length = x.shape()[1];
        Ok(self.whole(&x, &pooled(condition)?, orders, mode)?.slice(1, self.before - 1..length)?)
    }

    /// The start token and the condition, `[B, 1 + L, W]`.
    fn begin(&self, condition: &Tensor) -> Result<Tensor> {
        let start = self.start.get().broadcast_to(&[condition.shape()[0], 1, self.width])?;
        Ok(Tensor::concat(&[&start, condition], 1)?)
    }

    /// A sequence from its beginning, as embedded, to what is predicted from each input.
    fn whole(&self, inputs: &Tensor, pooled: &Tensor, orders: &Orders, mode: &Mode) -> Result<Tensor> {
        let all = 0..inputs.shape()[1];
        let c = self.conditions(pooled, all.clone())?;
        let mut x = self.placed(inputs, all, orders)?;
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(&block.maps, &x, &block.modulation.forward(&c)?, None, &mode.part("block", i))?;
        }
        self.finished(&x, &self.last.forward(&c)?)
    }

    /// What modulates inputs `range`, `silu c` `[B, n, W]`.
    fn conditions(&self, pooled: &Tensor, range: Range<usize>) -> Result<Tensor> {
        Ok(pooled.add(&self.steps.get().slice(1, range)?)?.silu()?)
    }

    /// Inputs `range` with the embeddings of their positions and of those that are predicted there.
    fn placed(&self, inputs: &Tensor, range: Range<usize>, orders: &Orders) -> Result<Tensor> {
        Ok(inputs.add(&self.own_positions(range.clone(), orders)?)?.add(&self.next_positions(range, orders)?)?)
    }

    /// The modulated layer norm at the end, by rows of `[B, n, 2W]`.
    fn finished(&self, x: &Tensor, maps: &Tensor) -> Result<Tensor> {
        let [ones, zeros] = [1.0, 0.0].map(|value| Tensor::full(value, &[self.width]).to_device(x.device()));
        // Scale before shift here, unlike in the blocks.
        modulated(&x.layer_norm(&ones?, &zeros?, EPS)?, &part(maps, 0, self.width)?, &part(maps, 1, self.width)?)
    }

    /// The positions of the inputs themselves.
    fn own_positions(&self, range: Range<usize>, orders: &Orders) -> Result<Tensor> {
        let before = self.before;
        let front = (range.start < before).then(|| self.own.get().slice(1, range.start..before)).transpose()?;
        self.rows(&self.own, front, range.start.saturating_sub(before)..range.end - before, orders)
    }

    /// The positions of what follows each input: nothing is said of it before the last token of the condition.
    fn next_positions(&self, range: Range<usize>, orders: &Orders) -> Result<Tensor> {
        let front = self.before - 1;
        let zeros = || Tensor::zeros(&[1, front, self.width]).to_device(self.next.get().device());
        let zeros = (range.start == 0).then(zeros).transpose()?;
        self.rows(&self.next, zeros, range.start.saturating_sub(front)..range.end - front, orders)
    }

    /// Rows of a table for codes `codes` in the order of prediction, behind those of `front` `[1, n, W]`.
    fn rows(&self, table: &Var, front: Option<Tensor>, codes: Range<usize>, orders: &Orders) -> Result<Tensor> {
        let codes_of = table.get().slice(1, self.before..self.before + orders.length())?;
        let table = codes_of.reshape(&[orders.length(), self.width])?;
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

/// The condition as what modulates, `[B, L, W] -> [B, 1, W]`: the mean of its tokens.
pub(crate) fn pooled(condition: &Tensor) -> Result<Tensor> {
    Ok(if condition.shape()[1] == 1 { condition.clone() } else { condition.mean(&[1], true)? })
}

/// Sequences that are decoded a code at a time, with keys and values kept or everything computed anew.
#[derive(Debug)]
pub(crate) struct RarDecoding {
    orders: Orders,
    /// What modulates of the condition, `[B, 1, W]`.
    pooled: Tensor,
    kept: Option<Kept>,
    /// Inputs that are not kept, `[B, n, W]` each.
    inputs: Vec<Tensor>,
    read: usize,
}

/// The blocks laid out for sampling, with the keys and values of what they have read.
#[derive(Debug)]
struct Kept {
    blocks: Vec<(Maps<PackedLinear>, KeyValues)>,
    modulations: Vec<PackedLinear>,
    /// What modulates inputs `ahead`, by block, then at the end: `[B, n, 6W]` and `[B, n, 2W]`.
    modulating: Vec<Tensor>,
    ahead: Range<usize>,
}

impl Kept {
    fn new(model: &Rar, condition: &Tensor, orders: &Orders) -> Result<Self> {
        let images = orders.images();
        let sizes = [images, model.before + orders.length() - 1, model.width];
        let block = |block: &Block| Ok((block.packed(images)?, KeyValues::new(condition, sizes, block.heads)?));
        let modulations = model.blocks.iter().map(|block| &block.modulation).chain([&model.last]);
        Ok(Self {
            blocks: model.blocks.iter().map(block).collect::<Result<_>>()?,
            modulations: modulations.map(|linear| linear.packed(images)).collect::<Result<_>>()?,
            modulating: Vec::new(),
            ahead: 0..0,
        })
    }

    /// What is predicted from inputs `range` of a sequence, as embedded.
    fn read(
        &mut self,
        model: &Rar,
        inputs: &Tensor,
        range: Range<usize>,
        decoding: (&Tensor, &Orders),
    ) -> Result<Tensor> {
        let (pooled, orders) = decoding;
        if range.end > self.ahead.end {
            let end = range.start + (ROWS_AHEAD / orders.images().max(1)).max(range.len());
            self.ahead = range.start..end.min(model.before + orders.length());
            let c = model.conditions(pooled, self.ahead.clone())?;
            self.modulating = self.modulations.iter().map(|map| Ok(map.forward(&c)?)).collect::<Result<_>>()?;
        }
        let from = range.start - self.ahead.start;
        let rows = |maps: &Tensor| maps.slice(1, from..from + range.len());
        let Some((end, of_blocks)) = self.modulating.split_last() else {
            return Err(Error::Unsupported("nothing modulates".to_owned()));
        };
        let mut x = model.placed(inputs, range.clone(), orders)?;
        for ((block, (maps, past)), modulation) in model.blocks.iter().zip(&mut self.blocks).zip(of_blocks) {
            x = block.forward(maps, &x, &rows(modulation)?, Some(past), &Mode::Eval)?;
        }
        model.finished(&x, &rows(end)?)
    }
}

impl RarDecoding {
    pub(crate) fn new(model: &Rar, condition: &Tensor, orders: &Orders, cache: bool) -> Result<Self> {
        Ok(Self {
            orders: orders.clone(),
            pooled: pooled(condition)?,
            kept: cache.then(|| Kept::new(model, condition, orders)).transpose()?,
            inputs: vec![model.begin(condition)?],
            read: model.before,
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
        let hidden = match &mut self.kept {
            Some(kept) => {
                self.inputs.clear();
                kept.read(model, &x, self.read - new..self.read, (&self.pooled, &self.orders))?
            }
            None => model.whole(&x, &self.pooled, &self.orders, &Mode::Eval)?,
        };
        Ok(hidden.slice(1, new - 1..new)?)
    }
}
