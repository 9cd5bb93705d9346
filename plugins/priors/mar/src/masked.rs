//! The masked, bidirectional network: an encoder of what is known, and a decoder of all positions.

use crate::MarConfig;
use crate::block::{Block, BlockSizes, EPS, linear};
use rqlab_sdk::nn::{LayerNorm, Linear, Orders};
use rqlab_sdk::prelude::*;
use std::ops::Range;

/// An encoder and a decoder of a masked autoencoder's kind, M buffer tokens before L tokens, all in the order of prediction:
/// attention does not ask where a token stands, its position embedding says it.
///
/// Parameters, as published: `z_proj_ln`, `encoder_pos_embed_learned` `[1, M + L, W]`, `encoder_blocks.N`, `encoder_norm`,
/// `decoder_embed`, `mask_token` `[1, 1, V]`, `decoder_pos_embed_learned` `[1, M + L, V]`, `decoder_blocks.N`, `decoder_norm`,
/// `diffusion_pos_embed_learned` `[1, L, V]`, with W the encoder's width and V the decoder's.
#[derive(Debug)]
pub struct Masked {
    input_norm: LayerNorm,
    encoder_position: Var,
    encoder: Vec<Block>,
    encoder_norm: LayerNorm,
    bridge: Linear,
    mask: Var,
    decoder_position: Var,
    decoder: Vec<Block>,
    decoder_norm: LayerNorm,
    head_position: Var,
    buffer: usize,
    length: usize,
    width: usize,
    decoder_width: usize,
}

impl Masked {
    pub(crate) fn new(params: &Params, config: &MarConfig, buffer: usize, length: usize) -> Result<Self> {
        let (width, decoder_width) = (config.width, config.output_width()?);
        let sizes = BlockSizes { width, heads: config.heads, causal: false, dropout: config.dropout };
        let heads = config.decoder_heads.unwrap_or(config.heads);
        let decoder = BlockSizes { width: decoder_width, heads, ..sizes };
        let table =
            |name: &str, rows: usize, width: usize| params.parameter(name, &[1, rows, width], Init::Normal(0.02));
        let norm = |name: &str, width: usize| LayerNorm::new(&params.scope(name), width, EPS);
        Ok(Self {
            input_norm: norm("z_proj_ln", width)?,
            encoder_position: table("encoder_pos_embed_learned", buffer + length, width)?,
            encoder: Block::stack(&params.scope("encoder_blocks"), config.encoder_layers, sizes, false)?,
            encoder_norm: norm("encoder_norm", width)?,
            bridge: linear(&params.scope("decoder_embed"), width, decoder_width)?,
            mask: table("mask_token", 1, decoder_width)?,
            decoder_position: table("decoder_pos_embed_learned", buffer + length, decoder_width)?,
            decoder: Block::stack(&params.scope("decoder_blocks"), config.decoder_layers, decoder, false)?,
            decoder_norm: norm("decoder_norm", decoder_width)?,
            head_position: table("diffusion_pos_embed_learned", length, decoder_width)?,
            buffer,
            length,
            width,
            decoder_width,
        })
    }

    /// What the encoder makes of the first v tokens, embedded `[B, v, W]`, behind the condition `[B, 1 or M, W]`: `[B, M + v, W]`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn encode(&self, known: &Tensor, condition: &Tensor, orders: &Orders, mode: &Mode) -> Result<Tensor> {
        let [images, visible, _] = known.dims("encode")?;
        let table = self.encoder_position.get();
        let buffer = condition.broadcast_to(&[images, self.buffer, self.width])?;
        let buffer = buffer.add(&table.slice(1, 0..self.buffer)?)?;
        let sequence = if visible == 0 {
            buffer
        } else {
            let known = known.add(&self.positions(&table, orders, 0..visible)?)?;
            Tensor::concat(&[&buffer, &known], 1)?
        };
        let sequence = self.input_norm.forward(&sequence)?;
        self.encoder_norm.forward(&Block::through(&self.encoder, &sequence, None, &mode.part("encoder", 0))?)
    }

    /// What the tokens `wanted` are predicted from, `[B, n, V]`: the encoder's output in their places, and the mask token in
    /// those of all others.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn decode(&self, encoded: &Tensor, wanted: Range<usize>, orders: &Orders, mode: &Mode) -> Result<Tensor> {
        let [images, seen, _] = encoded.dims("decode")?;
        let table = self.decoder_position.get();
        let places = self.positions(&table, orders, 0..self.length)?;
        let front = table.slice(1, 0..self.buffer)?.broadcast_to(&[images, self.buffer, self.decoder_width])?;
        let table = Tensor::concat(&[&front, &places], 1)?;
        let masked = self.buffer + self.length - seen;
        let known = self.bridge.forward(encoded)?;
        let sequence = if masked == 0 {
            known
        } else {
            let masks = self.mask.get().broadcast_to(&[images, masked, self.decoder_width])?;
            Tensor::concat(&[&known, &masks], 1)?
        };
        let rows = self.buffer + wanted.start..self.buffer + wanted.end;
        let hidden = Block::through_to(&self.decoder, &sequence.add(&table)?, rows, &mode.part("decoder", 0))?;
        let position = self.head_position.get().reshape(&[self.length, self.decoder_width])?;
        Ok(self.decoder_norm.forward(&hidden)?.add(&position.embedding(&orders.positions(wanted)?)?)?)
    }

    /// The rows of a table `[1, M + L, W]` for the positions of tokens `range`, `[B, n, W]`.
    fn positions(&self, table: &Tensor, orders: &Orders, range: Range<usize>) -> Result<Tensor> {
        let rows = table.slice(1, self.buffer..self.buffer + self.length)?.reshape(&[self.length, table.last_dim()])?;
        Ok(rows.embedding(&orders.positions(range)?)?)
    }
}
