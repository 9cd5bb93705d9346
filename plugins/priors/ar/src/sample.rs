//! Sampling: one token after another.

use crate::Ar;
use crate::body::BodyDecoding;
use crate::head::PackedHead;
use rqlab_sdk::nn::diffusion::{DiffusionHead, HeadRequest, TokenVectors};
use rqlab_sdk::nn::{CodeSteps, Linear, Orders, is_guided};
use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::no_grad;

/// Images of which [`Ar`] has drawn some codes.
#[derive(Debug)]
pub struct ArState {
    decoding: BodyDecoding,
    head: PackedHead,
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
        let images = condition.images();
        let orders = self.reading.orders(images, &Mode::Eval)?;
        let start = self.start(condition)?;
        let decoding = self.body.begin(&start, &orders, cache)?;
        Ok(ArState { decoding, head: self.head.packed(images)?, orders, start, predicted: 0 })
    }

    fn next(&self, state: &mut ArState, last: Option<&Codes>) -> Result<Tensor> {
        let (n, depth) = (state.predicted, self.depth);
        let input = match last {
            None => state.start.clone(),
            Some(codes) => self.input.at(n.saturating_sub(1) % depth, &codes.reshape(&[codes.len(), 1])?)?,
        };
        state.predicted += 1;
        let hidden = self.body.next(&mut state.decoding, input, n, &state.orders)?;
        state.head.logits(&hidden, n % depth)
    }
}

impl Ar {
    /// The tokens that a request asks for, drawn as vectors: with guidance and its schedule as
    /// [`sample_codes`](rqlab_sdk::nn::sample_codes) has them, and the noise of vector n from the n-th stream of `rng`.
    pub(crate) fn draw_vectors(
        &self,
        request: &SampleRequest,
        (tokens, map): (&TokenVectors, &Linear),
        head: &DiffusionHead,
        rng: &Rng,
    ) -> Result<Tokens> {
        let how = HeadRequest::new(request)?;
        let guided = is_guided(&request.guidance, self.condition.space())?;
        let (images, positions, width) = (request.images(), self.level.positions(), map.weight.get().shape()[0]);
        if images == 0 {
            return tokens.tokens(&Tensor::zeros(&[0, self.level.height, self.level.width, tokens.channels()]));
        }
        no_grad(|| {
            let condition = if guided { request.condition.paired()? } else { request.condition.clone() };
            let orders = self.reading.orders(condition.images(), &Mode::Eval)?;
            let mut input = self.start(&condition)?;
            let mut decoding = self.body.begin(&input, &orders, request.cache)?;
            let sampler = head.sampler(condition.images())?;
            let mut drawn: Vec<Tensor> = Vec::with_capacity(positions);
            for n in 0..positions {
                let hidden = self.body.next(&mut decoding, input, n, &orders)?;
                let mut z = self.head.conditions(&hidden)?;
                if guided {
                    z = z.reshape(&[images, 2, width])?;
                }
                let how = HeadRequest { guidance: request.guidance.at_progress(n as f32 / positions as f32), ..how };
                let noise = head.noise(images, &rng.part("noise", n as u64))?;
                let vectors = tokens.settled(&sampler.sample(&z, &how, &noise)?)?;
                let read = map.forward(&vectors)?;
                input = if guided { Tensor::stack(&[&read, &read], 1)? } else { read };
                input = input.reshape(&[condition.images(), 1, width])?;
                drawn.push(vectors);
            }
            let drawn = Tensor::stack(&drawn.iter().collect::<Vec<_>>(), 1)?;
            let vectors = orders.of_all(images).restore(&drawn)?;
            tokens.tokens(&vectors.reshape(&[images, self.level.height, self.level.width, tokens.channels()])?)
        })
    }
}
