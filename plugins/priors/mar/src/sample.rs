//! Sampling: step by step, the next tokens in the order of prediction.

use crate::head::Head;
use crate::model::{Input, Mar, Net};
use rqlab_sdk::nn::codes::PackedClassifier;
use rqlab_sdk::nn::diffusion::{DiffusionHead, HeadNoise, HeadRequest, HeadSampler, TokenVectors};
use rqlab_sdk::nn::{Orders, is_guided, unpatchify};
use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::no_grad;
use rqlab_sdk::tensor::ops::sampling::sample;

/// Where a sample's randomness comes from.
pub trait Draws {
    /// The noise of `vectors` vectors in step `step`.
    ///
    /// # Errors
    /// Noise that does not fit.
    fn noise(&mut self, head: &DiffusionHead, step: usize, vectors: usize) -> Result<HeadNoise>;

    /// Numbers in [0, 1) that `codes` codes of step `step` are drawn with.
    fn uniforms(&mut self, step: usize, codes: usize) -> Vec<f32>;
}

/// Streams of random numbers, one for each step.
#[derive(Debug)]
pub struct Streams<'a>(pub &'a Rng);

impl Draws for Streams<'_> {
    fn noise(&mut self, head: &DiffusionHead, step: usize, vectors: usize) -> Result<HeadNoise> {
        head.noise(vectors, &self.0.part("noise", step as u64))
    }

    fn uniforms(&mut self, step: usize, codes: usize) -> Vec<f32> {
        self.0.part("code", step as u64).uniform(codes)
    }
}

/// The head as it is now.
enum Drawer<'a> {
    Codes { classifier: PackedClassifier, input: &'a rqlab_sdk::nn::codes::CodeEmbedding },
    Vectors { sampler: Box<HeadSampler>, head: &'a DiffusionHead, tokens: &'a TokenVectors, how: HeadRequest },
}

/// Tokens of a step: `[B, n]` codes, or `[B, n, C]` vectors.
enum Drawn {
    Codes(Codes),
    Vectors(Tensor),
}

impl Mar {
    /// The tokens that a request asks for, in these orders. The tokens of a step are drawn image by image, in the order of
    /// prediction. The scale of guidance follows its schedule by the share of tokens that are known after the step, at most
    /// all but one, as published; of a causal model by that of tokens known before.
    ///
    /// # Errors
    /// Guidance that is not a number, or of a prior without conditions or null condition; `top_k` or `top_p` of vectors; shapes
    /// that do not fit.
    pub fn generate(&self, request: &SampleRequest, orders: &Orders, draws: &mut dyn Draws) -> Result<Tokens> {
        let (images, length, width) = (request.images(), self.length(), self.config.width);
        let guided = is_guided(&request.guidance, self.condition.space())?;
        if images == 0 {
            return self.assembled(Vec::new(), orders);
        }
        no_grad(|| {
            let group = if guided { 2 } else { 1 };
            let condition = if guided { request.condition.paired()? } else { request.condition.clone() };
            let condition = self.embed_condition(&condition)?;
            let all_orders = if guided { orders.paired() } else { orders.clone() };
            let drawer = self.drawer(request, group * images * length.div_ceil(self.steps.len()))?;
            let mut state = match &self.net {
                Net::Causal(net) => Some(net.begin(group * images, request.cache)?),
                Net::Masked(_) => None,
            };
            // As the network reads them, each with its pair.
            let mut known: Vec<Tensor> = Vec::new();
            let mut drawn: Vec<Drawn> = Vec::new();
            let mut from = 0;
            for (step, &to) in self.steps.iter().enumerate() {
                let (z, progress) = match (&self.net, &mut state) {
                    (Net::Causal(net), Some(state)) => {
                        (net.next(state, known.last(), &condition, &all_orders)?, from as f32 / length as f32)
                    }
                    (Net::Masked(net), _) => {
                        let known = match known.as_slice() {
                            [] => Tensor::zeros(&[group * images, 0, width]).to_device(condition.device())?,
                            _ => Tensor::concat(&known.iter().collect::<Vec<_>>(), 1)?,
                        };
                        let encoded = net.encode(&known, &condition, &all_orders, &Mode::Eval)?;
                        let z = net.decode(&encoded, from..to, &all_orders, &Mode::Eval)?;
                        (z, to.min(length - 1) as f32 / length as f32)
                    }
                    (Net::Causal(_), None) => return Err(Error::Unsupported("nothing was begun".to_owned())),
                };
                let (new, outputs) = (to - from, z.last_dim());
                let z = if guided {
                    let pairs = z.reshape(&[images, 2, new, outputs])?.permute(&[0, 2, 1, 3])?;
                    pairs.reshape(&[images * new, 2, outputs])?
                } else {
                    z.reshape(&[images * new, outputs])?
                };
                let scale = request.guidance.at_progress(progress);
                let tokens = drawer.draw(&z, scale, request, [step, images, new], draws)?;
                let read = self.read_drawn(&tokens, &drawer)?;
                known.push(if guided {
                    Tensor::stack(&[&read, &read], 1)?.reshape(&[2 * images, new, width])?
                } else {
                    read
                });
                drawn.push(tokens);
                from = to;
            }
            self.assembled(drawn, orders)
        })
    }

    fn drawer(&self, request: &SampleRequest, rows: usize) -> Result<Drawer<'_>> {
        Ok(match (&self.head, &self.input) {
            (Head::Codes(classifier), Input::Codes(input)) => {
                Drawer::Codes { classifier: classifier.packed(rows)?, input }
            }
            (Head::Vectors(head), Input::Vectors { tokens, .. }) => {
                let how = HeadRequest::new(request)?;
                Drawer::Vectors { sampler: Box::new(head.sampler(rows)?), head, tokens, how }
            }
            _ => return Err(Error::Unsupported("head and input of this prior do not fit".to_owned())),
        })
    }

    /// Tokens of a step as the network reads them, `[B, n, W]`.
    fn read_drawn(&self, tokens: &Drawn, drawer: &Drawer<'_>) -> Result<Tensor> {
        match (tokens, &self.input, drawer) {
            (Drawn::Codes(codes), _, Drawer::Codes { input, .. }) => input.at(0, codes),
            (Drawn::Vectors(vectors), Input::Vectors { projection, .. }, _) => projection.forward(vectors),
            _ => Err(Error::Unsupported("these tokens are not what the prior models".to_owned())),
        }
    }

    /// Tokens of all steps in their places.
    fn assembled(&self, drawn: Vec<Drawn>, orders: &Orders) -> Result<Tokens> {
        let images = orders.images();
        let wanted = self.level.token_shape(images);
        if images == 0 {
            return Ok(match self.level.space {
                TokenSpace::Codes(_) => Tokens::Codes(Codes::from_vec(Vec::new(), &wanted)?),
                TokenSpace::Vectors { .. } => Tokens::Vectors(Tensor::from_vec(Vec::new(), &wanted)?),
            });
        }
        let of_step = |step: &Drawn| match step {
            Drawn::Vectors(vectors) => Ok(vectors.clone()),
            Drawn::Codes(codes) => Ok(codes.to_numbers()?.reshape(&[images, codes.last_dim(), 1])?),
        };
        let parts = drawn.iter().map(of_step).collect::<Result<Vec<_>>>()?;
        let all = orders.restore(&Tensor::concat(&parts.iter().collect::<Vec<_>>(), 1)?)?;
        if let Input::Codes(_) = &self.input {
            let size = self.level.sizes().first().copied().unwrap_or(1);
            return Ok(Tokens::Codes(all.to_codes(size)?.reshape(&wanted)?));
        }
        let squares = all.reshape(&[images, self.map[0], self.map[1], all.last_dim()])?;
        let vectors = unpatchify(&squares, self.config.patch)?;
        match &self.input {
            Input::Vectors { tokens, .. } => tokens.tokens(&vectors),
            Input::Codes(_) => Ok(Tokens::Vectors(vectors)),
        }
    }
}

impl Drawer<'_> {
    /// Tokens from what they are predicted from: `[N, W]`, or `[N, 2, W]` with pairs to be guided.
    fn draw(
        &self,
        z: &Tensor,
        scale: f32,
        request: &SampleRequest,
        [step, images, new]: [usize; 3],
        draws: &mut dyn Draws,
    ) -> Result<Drawn> {
        match self {
            Self::Codes { classifier, .. } => {
                let mut logits = classifier.logits(z, 0)?;
                if z.rank() == 3 {
                    logits = Guidance::mix(&logits, scale)?;
                }
                let codes = sample(&logits, &request.draw_at(0), &draws.uniforms(step, images * new))?;
                Ok(Drawn::Codes(codes.reshape(&[images, new])?))
            }
            Self::Vectors { sampler, head, tokens, how } => {
                let how = HeadRequest { guidance: scale, ..*how };
                let vectors = tokens.settled(&sampler.sample(z, &how, &draws.noise(head, step, images * new)?)?)?;
                let channels = vectors.last_dim();
                Ok(Drawn::Vectors(vectors.reshape(&[images, new, channels])?))
            }
        }
    }
}
