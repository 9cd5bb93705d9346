//! Sampling: positions in raster order, at each the depths in order.

use crate::{ConditionPosition, RqTransformer};
use rqlab_sdk::nn::transformer::Rollout;
use rqlab_sdk::prelude::*;

/// Picks the codes of all images at (position, depth) from their logits `[B, 1, K]`.
pub type Choose<'a> = dyn FnMut(usize, usize, &Tensor) -> Result<Codes> + 'a;

impl RqTransformer {
    /// Codes `[images, h, w, D]`, each picked by `choose` from its logits given those before.
    ///
    /// With a cache, the body's lasts over all positions and the head's over one. Without, body and head are run on all
    /// that came before for each code.
    ///
    /// # Errors
    /// Shapes that do not fit, labels out of range, whatever `choose` returns.
    pub fn generate(&self, images: usize, labels: &Codes, cache: bool, choose: &mut Choose<'_>) -> Result<Codes> {
        let shape = &self.level.codes;
        let (positions, depth) = (shape.positions(), shape.depth());
        let wanted = [images, shape.height, shape.width, depth];
        if images == 0 {
            return Ok(Codes::from_vec(Vec::new(), &wanted)?);
        }
        let places = Places::new(self)?;
        let classifier = self.classifier.packed(images)?;
        let mut body = Rollout::new(&self.body, images, self.condition_length + positions - 1, cache)?;
        let mut head = Rollout::new(&self.head, images, depth, cache)?;
        body.push(match &places.prefix {
            Some(place) => self.prefix(labels, images)?.add(place)?,
            None => self.prefix(labels, images)?,
        });

        let mut drawn = Vec::with_capacity(positions * depth);
        for t in 0..positions {
            // What the head has read at this position, to be read again where nothing is cached.
            let mut inputs: Vec<Tensor> = Vec::new();
            let mut sum: Option<Tensor> = None;
            for d in 0..depth {
                if d == 0 || !cache {
                    head.clear();
                    head.push(body.output()?.add(&places.depth[0])?);
                    inputs.iter().for_each(|input| head.push(input.clone()));
                }
                let codes = choose(t, d, &classifier.logits(&head.output()?, d)?)?.reshape(&[images, 1])?;
                // Where a GPU drew them they stay there, and nothing waits for it.
                drawn.push(codes.reshape(&[images])?);
                let vector = self.embedding.at(d, &codes)?;
                let so_far = match sum {
                    Some(sum) => sum.add(&vector)?,
                    None => vector,
                };
                if let (true, Some(head_input)) = (d + 1 < depth, &self.head_input) {
                    let input = so_far.linear(&head_input.weight.get(), Some(&places.depth[d + 1]))?;
                    if cache {
                        head.push(input);
                    } else {
                        inputs.push(input);
                    }
                }
                sum = Some(so_far);
            }
            if let (true, Some(sum)) = (t + 1 < positions, sum) {
                body.push(sum.linear(&self.input.weight.get(), Some(&places.body[t]))?);
            }
        }
        Ok(Codes::stack(&drawn)?.reshape(&wanted)?)
    }
}

/// Position vectors `[W]`, with the bias of the linear map that comes before added, so that both are one operation.
struct Places {
    /// Of the condition `[1, L, W]`, where it shares the table.
    prefix: Option<Tensor>,
    /// Of each position's codes as the body reads them.
    body: Vec<Tensor>,
    /// Of each depth as the head reads it. The first is the context's and has no bias.
    depth: Vec<Tensor>,
}

impl Places {
    fn new(model: &RqTransformer) -> Result<Self> {
        let (positions, depth) = (model.level.codes.positions(), model.level.codes.depth());
        let width = model.config.width;
        let row = |table: &Tensor, i: usize, bias: Option<&Tensor>| -> Result<Tensor> {
            let row = table.slice(1, i..i + 1)?.reshape(&[width])?;
            Ok(match bias {
                Some(bias) => row.add(bias)?,
                None => row,
            })
        };
        let shared = model.config.condition_position == ConditionPosition::Shared;
        let first = if shared { model.condition_length } else { 0 };
        let position = model.position.get();
        let bias = model.input.bias.as_ref().map(|b| b.get().mul_scalar(depth as f32)).transpose()?;
        let body = (0..positions - 1).map(|t| row(&position, first + t, bias.as_ref()));
        let depth_position = model.depth_position.get();
        let bias = model.head_input.as_ref().and_then(|l| l.bias.as_ref()).map(Var::get);
        let at = |d: usize| row(&depth_position, d, if d == 0 { None } else { bias.as_ref() });
        Ok(Self {
            prefix: if shared { Some(position.slice(1, 0..first)?) } else { None },
            body: body.collect::<Result<_>>()?,
            depth: (0..depth).map(at).collect::<Result<_>>()?,
        })
    }
}
