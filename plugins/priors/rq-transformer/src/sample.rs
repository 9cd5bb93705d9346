//! Sampling: positions in raster order, at each the depths in order.

use crate::{ConditionPosition, RqTransformer};
use rqlab_sdk::nn::CodeSteps;
use rqlab_sdk::nn::codes::PackedClassifier;
use rqlab_sdk::nn::transformer::Decoding;
use rqlab_sdk::prelude::*;

/// Images of which [`RqTransformer`] has drawn some codes.
///
/// With a cache, the body's lasts over all positions and the head's over one. Without, body and head are run on all that
/// came before for each code.
#[derive(Debug)]
pub struct RqTransformerState {
    body: Decoding,
    head: Decoding,
    classifier: PackedClassifier,
    positions: PositionEmbedding,
    cache: bool,
    /// Codes that have been predicted so far.
    predicted: usize,
    /// What the head has read at this position but for the body's output, to be read again where nothing is cached.
    inputs: Vec<Tensor>,
    /// The sum of the vectors of this position's codes so far, `[B, 1, E]`.
    sum: Option<Tensor>,
}

impl CodeSteps for RqTransformer {
    type State = RqTransformerState;

    fn level(&self) -> &LevelInfo {
        &self.level
    }

    fn condition(&self) -> ConditionSpace {
        self.condition.space()
    }

    fn begin(&self, condition: &Condition, _above: &[Tokens], cache: bool) -> Result<RqTransformerState> {
        let images = condition.images();
        let length = self.condition.length() + self.level.positions() - 1;
        let positions = PositionEmbedding::new(self)?;
        let mut body = Decoding::new(&self.body, images, length, cache)?;
        body.push(match &positions.condition {
            Some(position) => self.prefix(condition)?.add(position)?,
            None => self.prefix(condition)?,
        });
        Ok(RqTransformerState {
            body,
            head: Decoding::new(&self.head, images, self.level.depth(), cache)?,
            classifier: self.classifier.packed(images)?,
            positions,
            cache,
            predicted: 0,
            inputs: Vec::new(),
            sum: None,
        })
    }

    fn next(&self, state: &mut RqTransformerState, last: Option<&Codes>) -> Result<Tensor> {
        if let Some(codes) = last {
            self.read(state, codes)?;
        }
        let d = state.predicted % self.level.depth();
        if d == 0 || !state.cache {
            state.head.clear();
            state.head.push(state.body.output()?.add(&state.positions.depth[0])?);
            state.inputs.iter().for_each(|input| state.head.push(input.clone()));
        }
        state.predicted += 1;
        state.classifier.logits(&state.head.output()?, d)
    }
}

impl RqTransformer {
    /// Hands the codes `[B]` of the last depth to the head, or, where they complete a position, to the body.
    fn read(&self, state: &mut RqTransformerState, codes: &Codes) -> Result<()> {
        let depth = self.level.depth();
        let last = state.predicted.saturating_sub(1);
        let (t, d) = (last / depth, last % depth);
        let vector = self.embedding.at(d, &codes.reshape(&[codes.len(), 1])?)?;
        let sum = match state.sum.take() {
            Some(sum) => sum.add(&vector)?,
            None => vector,
        };
        match &self.head_input {
            Some(head_input) if d + 1 < depth => {
                let input = sum.linear(&head_input.weight.get(), Some(&state.positions.depth[d + 1]))?;
                if state.cache {
                    state.head.push(input);
                } else {
                    state.inputs.push(input);
                }
                state.sum = Some(sum);
            }
            _ => {
                let finished = || Error::Unsupported("all codes of these images are there already".to_owned());
                let position = state.positions.body.get(t).ok_or_else(finished)?;
                state.body.push(sum.linear(&self.input.weight.get(), Some(position))?);
                state.inputs.clear();
            }
        }
        Ok(())
    }
}

/// Position embeddings `[W]`, with the bias of the linear map that comes before added, so that both are one operation.
#[derive(Debug)]
struct PositionEmbedding {
    /// Of the condition `[1, L, W]`, where it shares the table.
    condition: Option<Tensor>,
    /// Of each position's codes as the body reads them.
    body: Vec<Tensor>,
    /// Of each depth as the head reads it. The first is the context's and has no bias.
    depth: Vec<Tensor>,
}

impl PositionEmbedding {
    fn new(model: &RqTransformer) -> Result<Self> {
        let (positions, depth) = (model.level.positions(), model.level.depth());
        let width = model.config.width;
        let row = |table: &Tensor, i: usize, bias: Option<&Tensor>| -> Result<Tensor> {
            let row = table.slice(1, i..i + 1)?.reshape(&[width])?;
            Ok(match bias {
                Some(bias) => row.add(bias)?,
                None => row,
            })
        };
        let shared = model.config.condition_position == ConditionPosition::Shared;
        let first = if shared { model.condition.length() } else { 0 };
        let position = model.position.get();
        let bias = model.input.bias.as_ref().map(|b| b.get().mul_scalar(depth as f32)).transpose()?;
        let body = (0..positions - 1).map(|t| row(&position, first + t, bias.as_ref()));
        let depth_position = model.depth_position.get();
        let bias = model.head_input.as_ref().and_then(|l| l.bias.as_ref()).map(Var::get);
        let at = |d: usize| row(&depth_position, d, if d == 0 { None } else { bias.as_ref() });
        Ok(Self {
            condition: if shared { Some(position.slice(1, 0..first)?) } else { None },
            body: body.collect::<Result<_>>()?,
            depth: (0..depth).map(at).collect::<Result<_>>()?,
        })
    }
}
