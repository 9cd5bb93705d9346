//! Where tokens lie, and learned embeddings of that.

use crate::{ArConfig, BlockKind, Position};
use rqlab_sdk::config::ConfigError;
use rqlab_sdk::nn::Orders;
use rqlab_sdk::prelude::*;
use std::ops::Range;

/// The tokens of a sequence: D of each position of a map, which are its codes, or one vector.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TokenMap {
    pub(crate) height: usize,
    pub(crate) width: usize,
    /// D.
    pub(crate) depth: usize,
}

impl TokenMap {
    /// Positions, T.
    pub(crate) fn positions(self) -> usize {
        self.height * self.width
    }

    /// Tokens, T D.
    pub(crate) fn length(self) -> usize {
        self.positions() * self.depth
    }
}

/// What is added to inputs: an embedding of the position that is predicted there and, if orders vary, of the one whose code is
/// read there (RAR's target-aware positions). Input 0 is the last token of the condition, which has no position, as those before
/// it have none here.
///
/// T positions of the map, D depths. Parameters: `pos_emb` `[1, T D, W]` (or with as many rows as are asked for), or `pos_emb_hw`
/// `[1, T, 1, W]` and `pos_emb_d` `[1, 1, D, W]`; of llama blocks, whose rotations say where a code lies, the latter alone, if D
/// is above 1 and orders do not vary; with gpt's blocks, if orders vary, `own_pos_emb` `[1, T D, W]`.
#[derive(Debug)]
pub(crate) struct PositionEmbedding {
    next: Next,
    own: Option<Var>,
    positions: usize,
    depth: usize,
    width: usize,
}

#[derive(Debug)]
enum Next {
    Flat(Var),
    Factored { position: Var, depth: Var },
    Depth(Option<Var>),
}

impl PositionEmbedding {
    pub(crate) fn new(params: &Params, config: &ArConfig, map: TokenMap) -> Result<Self> {
        let (positions, depth, width) = (map.positions(), map.depth, config.width);
        let (llama, varies) = (config.block == BlockKind::Llama, config.order.varies());
        let table = |name: &str, shape: &[usize]| params.parameter(name, shape, Init::Normal(0.02));
        let next = match config.position {
            _ if llama && !varies => {
                Next::Depth((depth > 1).then(|| table("pos_emb_d", &[1, 1, depth, width])).transpose()?)
            }
            Position::Flat => Next::Flat(table("pos_emb", &[1, rows(config, positions * depth)?, width])?),
            Position::Factored => Next::Factored {
                position: table("pos_emb_hw", &[1, positions, 1, width])?,
                depth: table("pos_emb_d", &[1, 1, depth, width])?,
            },
        };
        let own = varies && !llama;
        let own = own.then(|| table("own_pos_emb", &[1, positions * depth, width])).transpose()?;
        Ok(Self { next, own, positions, depth, width })
    }

    /// The rows of all codes in raster order, `[T D, W]`.
    fn table(&self) -> Result<Option<Tensor>> {
        let (positions, depth, width) = (self.positions, self.depth, self.width);
        let table = match &self.next {
            Next::Depth(None) => return Ok(None),
            Next::Flat(table) => table.get().slice(1, 0..positions * depth)?,
            Next::Factored { position, depth } => position.get().add(&depth.get())?,
            Next::Depth(Some(table)) => table.get().broadcast_to(&[1, positions, depth, width])?,
        };
        Ok(Some(table.reshape(&[positions * depth, width])?))
    }

    /// Inputs `range` of a sequence with their embeddings, behind other tokens of the condition, if any: `[B, n, W]`.
    pub(crate) fn added(&self, inputs: &Tensor, range: Range<usize>, orders: &Orders) -> Result<Tensor> {
        let mut inputs = match self.table()? {
            Some(table) => inputs.add(&behind_zeros(&orders.rows(&table, range.clone())?, inputs.shape()[1])?)?,
            None => inputs.clone(),
        };
        let Some(own) = &self.own else { return Ok(inputs) };
        let read = range.start.saturating_sub(1)..range.end - 1;
        if !read.is_empty() {
            let own = orders.rows(&own.get().reshape(&[self.positions * self.depth, self.width])?, read)?;
            inputs = inputs.add(&behind_zeros(&own, inputs.shape()[1])?)?;
        }
        Ok(inputs)
    }
}

/// The rows of one table for `codes` codes.
fn rows(config: &ArConfig, codes: usize) -> Result<usize> {
    match config.position_rows {
        Some(rows) if rows < codes => {
            let message = format!("{rows} rows are too few for a map of {codes} codes; leave it out, or take more");
            Err(ConfigError::field("position_rows", message).into())
        }
        given => Ok(given.unwrap_or(codes)),
    }
}

/// Rows `[B, n, W]` behind rows of zeros, `length` in all.
fn behind_zeros(rows: &Tensor, length: usize) -> Result<Tensor> {
    let [images, given, width] = rows.dims("positions")?;
    if given == length {
        return Ok(rows.clone());
    }
    let zeros = Tensor::zeros(&[images, length - given, width]).to_device(rows.device())?;
    Ok(Tensor::concat(&[&zeros, rows], 1)?)
}
