//! Sampling: one code after another.

use crate::Ar;
use crate::body::BodyDecoding;
use rqlab_sdk::nn::CodeSteps;
use rqlab_sdk::prelude::*;

/// Images of which [`Ar`] has drawn some codes.
#[derive(Debug)]
pub struct ArState {
    decoding: BodyDecoding,
    /// The position embedding of the sequence, `[1, T D, W]`, if it has one.
    positions: Option<Tensor>,
    /// The embedded condition `[B, 1, W]`: what the first code is predicted from.
    start: Tensor,
    /// Codes that have been predicted so far.
    predicted: usize,
}

impl CodeSteps for Ar {
    type State = ArState;

    fn level(&self) -> &LevelInfo {
        &self.level
    }

    fn condition(&self) -> ConditionSpace {
        self.condition.space()
    }

    fn begin(&self, condition: &Condition, _above: &[Tokens], cache: bool) -> Result<ArState> {
        let images = condition.images();
        let length = self.level.positions() * self.level.depth();
        Ok(ArState {
            decoding: self.body.decoding(images, length, cache)?,
            positions: self.positions()?,
            start: self.condition.forward(condition)?,
            predicted: 0,
        })
    }

    fn next(&self, state: &mut ArState, last: Option<&Codes>) -> Result<Tensor> {
        let (n, depth) = (state.predicted, self.level.depth());
        let input = match last {
            None => state.start.clone(),
            Some(codes) => {
                let vectors = self.embedding.at(n.saturating_sub(1) % depth, &codes.reshape(&[codes.len(), 1])?)?;
                self.read(&vectors)?
            }
        };
        state.predicted += 1;
        let input = match &state.positions {
            Some(positions) => input.add(&positions.slice(1, n..n + 1)?)?,
            None => input,
        };
        state.decoding.next(input, n % depth)
    }
}
