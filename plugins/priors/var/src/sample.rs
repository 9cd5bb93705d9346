//! Sampling: scale by scale.

use crate::NextScale;
use crate::block::Past;
use crate::model::Start;
use rqlab_sdk::nn::is_guided;
use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::no_grad;
use rqlab_sdk::tensor::ops::sampling::sample;

/// Images of which some scales are there.
#[derive(Debug)]
pub struct NextScaleState {
    start: Start,
    cache: Cache,
    next: usize,
}

#[derive(Debug)]
enum Cache {
    /// The inputs of all scales so far, to be read anew.
    None(Vec<Tensor>),
    /// Keys and values of each block.
    Blocks(Vec<Past>),
}

impl NextScale {
    /// Images of which no scale is there. With `cache`, keys and values of past scales are kept.
    ///
    /// # Errors
    /// Conditions that do not fit.
    pub fn begin(&self, condition: &Condition, cache: bool) -> Result<NextScaleState> {
        let start = self.begun(condition)?;
        let cache =
            if cache { Cache::Blocks(vec![Past::default(); self.blocks.len()]) } else { Cache::None(Vec::new()) };
        let mut state = NextScaleState { start, cache, next: 0 };
        if let (Cache::Blocks(past), Some(prefix)) = (&mut state.cache, &state.start.prefix) {
            self.read(&state.start, prefix.clone(), past)?;
        }
        Ok(state)
    }

    /// Logits `[B, n, K_d]` of every depth at all positions of the next scale, given what the scales before it stand for, in its
    /// size, `[B, h, w, C]`; nothing for the first.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn next(&self, state: &mut NextScaleState, seen: Option<&Tensor>) -> Result<Vec<Tensor>> {
        let input = self.input(&state.start, state.next, seen)?;
        let length = input.shape()[1];
        state.next += 1;
        let hidden = match &mut state.cache {
            Cache::Blocks(past) => self.read(&state.start, input, past)?,
            Cache::None(inputs) => {
                inputs.push(input);
                let hidden = self.hidden(&state.start, inputs, &Mode::Eval)?;
                hidden.slice(1, hidden.shape()[1] - length..hidden.shape()[1])?
            }
        };
        self.classify(&state.start, &hidden)
    }

    fn read(&self, start: &Start, mut x: Tensor, past: &mut [Past]) -> Result<Tensor> {
        for ((block, by), past) in self.blocks.iter().zip(&start.of_blocks).zip(past) {
            x = block.step(&x, by, past)?;
        }
        Ok(x)
    }

    /// The codes that a request asks for; `uniforms(scale, depth, n)` gives the n numbers in [0, 1) that the codes of a scale and
    /// depth are drawn with, image after image. The schedule of guidance goes over the scales.
    ///
    /// # Errors
    /// Guidance that is not a number, or of a prior without conditions or null condition; shapes that do not fit.
    pub fn generate(
        &self,
        request: &SampleRequest,
        mut uniforms: impl FnMut(usize, usize, usize) -> Vec<f32>,
    ) -> Result<Tokens> {
        let (images, depth, count) = (request.images(), self.level.depth(), self.scales.sizes().len());
        if images == 0 {
            return Ok(Tokens::Codes(Codes::from_vec(Vec::new(), &self.level.token_shape(0))?));
        }
        let guided = is_guided(&request.guidance, self.condition.space())?;
        no_grad(|| {
            let condition = if guided { request.condition.paired()? } else { request.condition.clone() };
            let mut state = self.begin(&condition, request.cache)?;
            let mut drawn: Option<Codes> = None;
            for scale in 0..count {
                let seen = drawn.as_ref().map(|codes| self.seen(codes, scale, guided)).transpose()?;
                let positions = self.scales.positions(scale).len();
                let mut columns = Vec::with_capacity(depth);
                for (d, logits) in self.next(&mut state, seen.as_ref())?.into_iter().enumerate() {
                    let size = logits.last_dim();
                    let logits = if guided {
                        let pairs = logits.reshape(&[images, 2, positions, size])?;
                        Guidance::mix(&pairs, request.guidance.at(scale, count))?
                    } else {
                        logits
                    };
                    let logits = logits.reshape(&[images * positions, size])?;
                    let codes = sample(&logits, &request.draw_at(d), &uniforms(scale, d, images * positions))?;
                    columns.push(codes.reshape(&[images, 1, positions])?);
                }
                let codes = Codes::stack(&columns)?;
                drawn = Some(match drawn {
                    Some(drawn) => Codes::concat(&[&drawn, &codes], 2)?,
                    None => codes,
                });
            }
            Ok(Tokens::Codes(drawn.ok_or_else(|| Error::Unsupported("there is no scale".to_owned()))?))
        })
    }

    /// What a scale sees of the codes before it, twice for each image that is guided.
    fn seen(&self, codes: &Codes, scale: usize, guided: bool) -> Result<Tensor> {
        let seen = self.scales.before(&Tokens::Codes(codes.clone()), scale..scale + 1)?;
        let seen = seen.into_iter().next().ok_or_else(|| Error::Unsupported("nothing is seen".to_owned()))?;
        if !guided {
            return Ok(seen);
        }
        let [images, height, width, channels] = seen.dims("var")?;
        Ok(Tensor::stack(&[&seen, &seen], 1)?.reshape(&[2 * images, height, width, channels])?)
    }
}
