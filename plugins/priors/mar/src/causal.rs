//! The causal network: a decoder that reads tokens in the order of prediction, and knows where the next one stands.

use crate::block::{Block, BlockSizes, EPS, modulated, modulation};
use crate::{CausalCondition, MarConfig, Order};
use rqlab_sdk::config::ConfigError;
use rqlab_sdk::nn::{LayerNorm, Linear, Orders};
use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::ops::decoder::{BlockWeights, Decoder};
use rqlab_sdk::tensor::ops::key_values::KeyValues;

/// A decoder. Its first input is the condition, of a text the last of its L tokens, behind the others; or a start token where the
/// condition modulates. Then come the tokens but the last. Each input has the position embedding of what is predicted there, and,
/// unless the order is raster and nothing is modulated, of what it is itself.
///
/// Parameters, of T tokens: `pos_embed` `[1, 1 + T, W]` and `target_pos_embed` `[1, T, W]`, `transformer.blocks.N`; with the
/// condition as the first token `norm`, and of a text `pos_embed_cond` `[1, L - 1, W]`; modulated, as published, `bos_token` `[1,
/// 1, W]`, `ln_pre`, `timesteps_embeddings` `[1, 1 + T, W]`, `final_layer.adaLN_modulation.1`.
#[derive(Debug)]
pub(crate) struct Causal {
    own_position: Option<Var>,
    next_position: Var,
    blocks: Vec<Block>,
    form: Form,
    /// The positions of a text's tokens but the last.
    prompt_position: Option<Var>,
    length: usize,
    width: usize,
    heads: usize,
}

#[derive(Debug)]
enum Form {
    Start { norm: LayerNorm },
    Modulated { start: Var, norm: LayerNorm, steps: Var, last: Linear },
}

/// Images of which some tokens are there.
#[derive(Debug)]
pub(crate) struct CausalState {
    cache: Cache,
    read: usize,
}

#[derive(Debug)]
enum Cache {
    /// Everything so far, `[B, n, W]` each, to be read anew.
    None(Vec<Tensor>),
    Decoder(Decoder),
    Blocks(Vec<KeyValues>),
}

impl Causal {
    /// Of `length` tokens, under a condition of `tokens`.
    pub(crate) fn new(params: &Params, config: &MarConfig, order: Order, length: usize, tokens: usize) -> Result<Self> {
        let MarConfig { width, heads, dropout, .. } = *config;
        let plain = config.causal_condition == CausalCondition::Start;
        if !plain && tokens > 1 {
            let message = "blocks are modulated by a condition of one token, such as a class; take `start` for texts";
            return Err(ConfigError::field("causal_condition", message).into());
        }
        let sizes = BlockSizes { width, heads, causal: true, dropout };
        let table = |name: &str, rows: usize| params.parameter(name, &[1, rows, width], Init::Normal(0.02));
        let form = if plain {
            Form::Start { norm: LayerNorm::new(&params.scope("norm"), width, EPS)? }
        } else {
            Form::Modulated {
                start: table("bos_token", 1)?,
                norm: LayerNorm::new(&params.scope("ln_pre"), width, EPS)?,
                steps: table("timesteps_embeddings", 1 + length)?,
                last: modulation(&params.scope("final_layer"), width, 2 * width)?,
            }
        };
        let layers = config.encoder_layers + config.decoder_layers;
        if layers == 0 {
            let message = "a causal network has as many blocks as encoder and decoder together, and these are none";
            return Err(ConfigError::field("encoder_layers", message).into());
        }
        let both = order == Order::Random || !plain;
        Ok(Self {
            own_position: both.then(|| table("pos_embed", 1 + length)).transpose()?,
            next_position: table("target_pos_embed", length)?,
            blocks: Block::stack(&params.scope("transformer.blocks"), layers, sizes, !plain)?,
            form,
            prompt_position: (tokens > 1).then(|| table("pos_embed_cond", tokens - 1)).transpose()?,
            length,
            width,
            heads,
        })
    }

    /// What every token is predicted from, `[B, T, W]` in the order of prediction, given all of them but the last, embedded
    /// `[B, T - 1, W]`, and the condition `[B, L, W]`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub(crate) fn forward(&self, known: &Tensor, condition: &Tensor, orders: &Orders, mode: &Mode) -> Result<Tensor> {
        let start = self.start(condition)?;
        let sequence = if self.length > 1 { Tensor::concat(&[&start, known], 1)? } else { start };
        let sequence = self.prompted(&self.placed(&sequence, 0, orders)?, condition)?;
        let out = self.whole(&sequence, condition, mode)?;
        match self.prompt() {
            0 => Ok(out),
            prompt => Ok(out.slice(1, prompt..prompt + self.length)?),
        }
    }

    /// Tokens of a text before its last.
    fn prompt(&self) -> usize {
        self.prompt_position.as_ref().map_or(0, |position| position.get().shape()[1])
    }

    /// What the first token is predicted at, `[B, 1, W]`.
    fn start(&self, condition: &Tensor) -> Result<Tensor> {
        match &self.form {
            Form::Start { .. } => match self.prompt() {
                0 => Ok(condition.clone()),
                prompt => Ok(condition.slice(1, prompt..prompt + 1)?),
            },
            Form::Modulated { start, .. } => Ok(start.get().broadcast_to(condition.shape())?),
        }
    }

    /// A sequence from its beginning, behind the tokens of a text but the last.
    fn prompted(&self, sequence: &Tensor, condition: &Tensor) -> Result<Tensor> {
        let Some(position) = &self.prompt_position else { return Ok(sequence.clone()) };
        let prompt = condition.slice(1, 0..self.prompt())?.add(&position.get())?;
        Ok(Tensor::concat(&[&prompt, sequence], 1)?)
    }

    /// Inputs `from..` of the sequence, `[B, n, W]`, with their position embeddings.
    fn placed(&self, inputs: &Tensor, from: usize, orders: &Orders) -> Result<Tensor> {
        let to = from + inputs.shape()[1];
        let next = self.next_position.get().reshape(&[self.length, self.width])?;
        let inputs = inputs.add(&next.embedding(&orders.positions(from..to)?)?)?;
        let Some(own) = &self.own_position else { return Ok(inputs) };
        let table = own.get().reshape(&[1 + self.length, self.width])?;
        // The start's own position is the first row, those of tokens follow.
        let mut rows = Vec::with_capacity(orders.images() * (to - from));
        let earlier = orders.positions(from.saturating_sub(1)..to - 1)?;
        let each = to - 1 - from.saturating_sub(1);
        for image in 0..orders.images() {
            rows.extend((from == 0).then_some(0));
            rows.extend(earlier.as_slice()[image * each..(image + 1) * each].iter().map(|position| position + 1));
        }
        Ok(inputs.add(&table.embedding(&Codes::from_vec(rows, &[orders.images(), to - from])?)?)?)
    }

    /// The whole sequence `[B, n, W]`, placed, from its beginning.
    fn whole(&self, sequence: &Tensor, condition: &Tensor, mode: &Mode) -> Result<Tensor> {
        match &self.form {
            Form::Start { norm } => norm.forward(&Block::through(&self.blocks, sequence, None, mode)?),
            Form::Modulated { norm, steps, .. } => {
                let c = condition.add(&steps.get().slice(1, 0..sequence.shape()[1])?)?.silu()?;
                let x = Block::through(&self.blocks, &norm.forward(sequence)?, Some(&c), mode)?;
                self.finished(&x, condition)
            }
        }
    }

    /// The modulated layer norm at the end: by the condition alone.
    fn finished(&self, x: &Tensor, condition: &Tensor) -> Result<Tensor> {
        match &self.form {
            Form::Start { norm } => norm.forward(x),
            Form::Modulated { last, .. } => {
                let [ones, zeros] = [1.0, 0.0].map(|value| Tensor::full(value, &[self.width]).to_device(x.device()));
                let maps = last.forward(&condition.silu()?)?;
                let part = |i: usize| maps.slice(2, i * self.width..(i + 1) * self.width);
                modulated(&x.layer_norm(&ones?, &zeros?, EPS)?, Some(part(0)?), Some(part(1)?))
            }
        }
    }

    /// Images of which no token is there.
    pub(crate) fn begin(&self, images: usize, cache: bool) -> Result<CausalState> {
        let cache = match (&self.form, cache) {
            (_, false) => Cache::None(Vec::new()),
            (Form::Start { .. }, true) => {
                let weights: Vec<BlockWeights> = self.blocks.iter().map(Block::weights).collect();
                Cache::Decoder(Decoder::new(&weights, self.heads, EPS, images, self.prompt() + self.length)?)
            }
            (Form::Modulated { start, .. }, true) => {
                let kept = KeyValues::new(&start.get(), [images, self.length, self.width], self.heads)?;
                Cache::Blocks(vec![kept; self.blocks.len()])
            }
        };
        Ok(CausalState { cache, read: 0 })
    }

    /// What the next token is predicted from, `[B, 1, W]`, given the one before, embedded `[B, 1, W]`; none at the first.
    pub(crate) fn next(
        &self,
        state: &mut CausalState,
        last: Option<&Tensor>,
        condition: &Tensor,
        orders: &Orders,
    ) -> Result<Tensor> {
        let at = state.read;
        state.read += 1;
        let input = match last {
            Some(token) => token.clone(),
            None => self.start(condition)?,
        };
        let mut input = self.placed(&input, at, orders)?;
        if at == 0 {
            input = self.prompted(&input, condition)?;
        }
        match &mut state.cache {
            Cache::None(inputs) => {
                inputs.push(input);
                let sequence = Tensor::concat(&inputs.iter().collect::<Vec<_>>(), 1)?;
                newest(&self.whole(&sequence, condition, &Mode::Eval)?)
            }
            Cache::Decoder(decoder) => self.finished(&newest(&decoder.step(&input)?)?, condition),
            Cache::Blocks(pasts) => {
                let Form::Modulated { norm, steps, .. } = &self.form else { return Ok(input) };
                let c = condition.add(&steps.get().slice(1, at..at + 1)?)?.silu()?;
                let mut x = norm.forward(&input)?;
                for (block, past) in self.blocks.iter().zip(pasts) {
                    x = block.step(&x, Some(&c), past)?;
                }
                self.finished(&x, condition)
            }
        }
    }
}

/// The last of a sequence, `[B, 1, W]`.
fn newest(sequence: &Tensor) -> Result<Tensor> {
    match sequence.shape()[1] {
        1 => Ok(sequence.clone()),
        length => Ok(sequence.slice(1, length - 1..length)?),
    }
}
