//! Sampling: one code after another.

use crate::Ar;
use crate::body::BodyDecoding;
use rqlab_sdk::nn::{CodeSteps, Orders};
use rqlab_sdk::prelude::*;

/// Images of which [`Ar`] has drawn some codes.
#[derive(Debug)]
pub struct ArState {
    decoding: BodyDecoding,
    orders: Orders,
    /// The embedded condition `[B, L, W]`: what the first code is predicted from.
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

    fn order(&self) -> Option<&[u32]> {
        Some(&self.reading.evaluation)
    }

    fn begin(&self, condition: &Condition, _above: &[Tokens], cache: bool) -> Result<ArState> {
        let orders = self.reading.orders(condition.images(), &Mode::Eval)?;
        let start = self.start(condition)?;
        Ok(ArState { decoding: self.body.begin(&start, &orders, cache)?, orders, start, predicted: 0 })
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
        self.body.next(&mut state.decoding, input, (n, n % depth), &state.orders)
    }
}
