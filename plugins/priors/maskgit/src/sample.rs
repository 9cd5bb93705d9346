//! Sampling: an image is filled in over a few steps.

use crate::masks::{Masks, halton_order};
use crate::{MaskGit, MaskGitConfig};
use rqlab_sdk::nn::is_guided;
use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::no_grad;
use rqlab_sdk::tensor::ops::sampling::{Draw, probabilities, sample, top_k_logits};

rqlab_sdk::choice! {
    /// Which positions are kept at a step.
    pub enum Order {
        /// All that were proposed, but for those of the least confidence, which are masked again.
        Confidence = "confidence",
        /// The next cells of a Halton sequence, which lie far apart; the same in all images.
        Halton = "halton",
        /// The same, with the map rolled by a random offset in each image.
        RolledHalton = "rolled_halton",
        /// The next of a random order, drawn for each image.
        Random = "random",
    }
}

rqlab_sdk::choice! {
    /// How codes are proposed.
    pub enum Proposals {
        /// Drawn from their distribution (MaskGIT, MaskBit).
        Categorical = "categorical",
        /// Those of the largest logit with Gumbel noise, as strong as that on the confidences: the last step is greedy (TiTok,
        /// open-muse).
        Gumbel = "gumbel",
    }
}

rqlab_sdk::choice! {
    /// What a position's confidence is, before noise; summed over depths.
    pub enum Confidence {
        /// The log-probability of the proposed code (MaskGIT, MaskBit).
        LogProbability = "log_probability",
        /// Its logit (TiTok).
        Logit = "logit",
    }
}

/// Images that are being filled in. All is where the model is: nothing is read back from a GPU while they are.
#[derive(Debug, Clone)]
pub struct Canvas {
    /// The numbers of codes, `[B, T, D]`; those at masked positions mean nothing.
    codes: Tensor,
    masks: Masks,
    /// Masked positions of an image, but for those that stay masked since they are as sure as the last one that is.
    open: usize,
    /// The order in which positions are kept, `[B, T]`, where it does not follow from confidence.
    order: Vec<usize>,
}

impl Canvas {
    /// The codes `[B, T, D]`, row-major; those at masked positions mean nothing.
    pub fn codes(&self) -> Vec<u32> {
        self.codes.as_slice().iter().map(|&code| code as u32).collect()
    }

    /// Whether each position is masked, `[B, T]`.
    pub fn masked(&self) -> Vec<bool> {
        self.masks.masked.as_slice().iter().map(|&masked| masked > 0.0).collect()
    }
}

/// The uniform numbers of a step.
#[derive(Debug, Clone)]
pub struct Noise {
    /// Of the proposals, by depth: `[B, T]`, or `[B, T, K_d]` where they are Gumbel's.
    pub proposals: Vec<Vec<f32>>,
    /// Of the confidences, `[B, T]`.
    pub confidence: Vec<f32>,
}

impl MaskGit {
    /// `images` images of masks.
    pub fn canvas(&self, images: usize, rng: &Rng) -> Canvas {
        let LevelInfo { height, width, .. } = self.level;
        let cells = height * width;
        let order = match self.config.order {
            Order::Confidence => Vec::new(),
            Order::Random => (0..images).flat_map(|i| rng.part("order", i as u64).permutation(cells)).collect(),
            Order::Halton => halton_order(height, width).repeat(images),
            Order::RolledHalton => {
                let halton = halton_order(height, width);
                let offsets = rng.part("roll", 0).below(images, cells.max(1) as u32);
                let rolled = |offset: u32| {
                    let (down, right) = (offset as usize / width, offset as usize % width);
                    let roll = move |&cell: &usize| (cell / width + down) % height * width + (cell + right) % width;
                    halton.iter().map(roll).collect::<Vec<_>>()
                };
                offsets.into_iter().flat_map(rolled).collect()
            }
        };
        Canvas {
            codes: Tensor::zeros(&[images, cells, self.level.depth()]),
            masks: Masks { masked: Tensor::full(1.0, &[images, cells, 1]) },
            open: cells,
            order,
        }
    }

    /// The numbers of step `step` of `images` images.
    pub(crate) fn noise(&self, images: usize, step: usize, rng: &Rng) -> Noise {
        let (rng, rows) = (rng.part("step", step as u64), images * self.level.positions());
        let each = |&size: &usize| if self.gumbel_proposals() { rows * size } else { rows };
        let proposals = self.level.sizes().iter().enumerate();
        let proposals = proposals.map(|(d, size)| rng.part("code", d as u64).uniform(each(size))).collect();
        Noise { proposals, confidence: rng.part("confidence", 0).uniform(rows) }
    }

    fn gumbel_proposals(&self) -> bool {
        self.config.proposals == Proposals::Gumbel && self.config.order == Order::Confidence
    }

    /// Fills in all codes of a request.
    pub(crate) fn fill_in(&self, request: &SampleRequest, rng: &Rng) -> Result<Tokens> {
        let images = request.images();
        let mut canvas = self.canvas(images, rng);
        if images > 0 {
            for step in 0..self.config.iterations {
                self.step(&mut canvas, request, step, &self.noise(images, step, rng))?;
            }
        }
        Ok(Tokens::Codes(self.codes(&canvas)?))
    }

    /// The codes `[B, h, w, D]` of images.
    fn codes(&self, canvas: &Canvas) -> Result<Codes> {
        let [images, positions, _] = canvas.codes.dims("codes")?;
        let column = |(d, &size): (usize, &usize)| -> Result<Codes> {
            Ok(canvas.codes.slice(2, d..d + 1)?.reshape(&[images, positions])?.to_codes(size)?)
        };
        let columns = self.level.sizes().iter().enumerate().map(column).collect::<Result<Vec<_>>>()?;
        Ok(Codes::stack(&columns)?.reshape(&self.level.token_shape(images))?)
    }

    /// Logits `[B T, K_d]` of every depth at step `step`, guided and annealed. Guidance takes the share of the steps that are
    /// done as its progress, so that its schedule does not quite reach its end.
    ///
    /// # Errors
    /// Shapes that do not fit; guidance of a prior without conditions, or that never saw the null condition.
    pub fn guided_logits(&self, canvas: &Canvas, request: &SampleRequest, step: usize) -> Result<Vec<Tensor>> {
        let (images, positions) = (request.images(), self.level.positions());
        let guided = is_guided(&request.guidance, self.condition.space())?;
        let (codes, masks) = (self.codes(canvas)?, &canvas.masks);
        let logits = no_grad(|| {
            if !guided {
                return self.logits(&codes, masks, &request.condition, &Mode::Eval);
            }
            let pairs = Codes::concat(&[&codes, &codes], 1)?.reshape(&self.level.token_shape(2 * images))?;
            let masked = Tensor::concat(&[&masks.masked, &masks.masked], 1)?.reshape(&[2 * images, positions, 1])?;
            self.logits(&pairs, &Masks { masked }, &request.condition.paired()?, &Mode::Eval)
        })?;
        let MaskGitConfig { iterations, annealed_logits, .. } = self.config;
        let scale = request.guidance.at_progress(step as f32 / iterations as f32);
        let left = 1.0 - (step + 1) as f32 / iterations as f32;
        let finished = |logits: Tensor| -> Result<Tensor> {
            let size = logits.last_dim();
            let logits = match guided {
                true => Guidance::mix(&logits.reshape(&[images, 2, positions, size])?, scale)?,
                false => logits,
            };
            let logits = logits.reshape(&[images * positions, size])?;
            Ok(if annealed_logits { logits.mul_scalar(1.0 / (0.5 + 0.8 * left))? } else { logits })
        };
        logits.into_iter().map(finished).collect()
    }

    /// Step `step`: codes are proposed for all masked positions, and some of them are kept.
    ///
    /// # Errors
    /// As for [`MaskGit::guided_logits`]; too few random numbers.
    pub fn step(&self, canvas: &mut Canvas, request: &SampleRequest, step: usize, noise: &Noise) -> Result<()> {
        let shape = canvas.masks.masked.shape().to_vec();
        let left = 1.0 - (step + 1) as f32 / self.config.iterations as f32;
        let strength = self.config.noise * left;
        let mut confidence = gumbel_noise(&noise.confidence, strength, &shape[..2])?;
        let mut proposed = Vec::with_capacity(self.level.depth());
        for (d, logits) in self.guided_logits(canvas, request, step)?.iter().enumerate() {
            let (draw, uniforms) = (request.draw_at(d), &noise.proposals[d]);
            let codes = match self.gumbel_proposals() {
                true => largest_with_noise(logits, &draw, strength, uniforms)?,
                false => sample(logits, &draw, uniforms)?,
            };
            let sure = match self.config.confidence {
                Confidence::LogProbability => logits.cross_entropy(&codes)?.neg()?,
                Confidence::Logit => logits.gather_last(&codes)?,
            };
            confidence = confidence.add(&sure.reshape(&shape[..2])?)?;
            proposed.push(codes.to_numbers()?.reshape(&shape)?);
        }
        let proposed = Tensor::concat(&proposed.iter().collect::<Vec<_>>(), 2)?;
        canvas.codes = canvas.codes.add(&proposed.sub(&canvas.codes)?.mul(&canvas.masks.masked)?)?;
        self.mask_again(canvas, &confidence, step)
    }

    /// Keeps the positions that step `step` is to keep: those of the order, or all that were masked but for the least of the
    /// confidences `[B, T]`.
    fn mask_again(&self, canvas: &mut Canvas, confidence: &Tensor, step: usize) -> Result<()> {
        let MaskGitConfig { iterations, schedule, .. } = self.config;
        let positions = self.level.positions();
        let shape = canvas.masks.masked.shape().to_vec();
        let masked = if step + 1 >= iterations {
            Tensor::zeros(&shape)
        } else if canvas.order.is_empty() {
            let count = schedule.masked_after(step, iterations, positions, canvas.open);
            canvas.open = count;
            let masked = canvas.masks.masked.reshape(&shape[..2])?;
            let doubts = confidence.neg()?.clamp(-LARGEST, LARGEST)?;
            // A known position is surer than any other.
            let doubts = doubts.mul(&masked)?.add(&masked.add_scalar(-1.0)?.mul_scalar(4.0 * LARGEST)?)?;
            top_k_logits(&doubts, count)?.add_scalar(2.0 * LARGEST)?.heaviside()?.reshape(&shape)?
        } else {
            let share = schedule.share((step + 1) as f64 / iterations as f64);
            let known = ((positions as f64 * (1.0 - share)) as usize).clamp(step + 1, positions);
            let mut masked = vec![1.0; canvas.order.len()];
            for (order, masked) in canvas.order.chunks(positions).zip(masked.chunks_mut(positions)) {
                order[..known].iter().for_each(|&cell| masked[cell] = 0.0);
            }
            Tensor::from_vec(masked, &shape)?
        };
        canvas.masks = Masks { masked };
        Ok(())
    }
}

/// Larger than any confidence, such that four of them are a number.
const LARGEST: f32 = 1e30;

/// Gumbel noise of a strength from uniform numbers.
fn gumbel_noise(uniforms: &[f32], strength: f32, shape: &[usize]) -> Result<Tensor> {
    let gumbel = |&u: &f32| -(-u.ln()).ln();
    let noise = |u: &f32| if strength > 0.0 { strength * gumbel(u) } else { 0.0 };
    Ok(Tensor::from_vec(uniforms.iter().map(noise).collect(), shape)?)
}

/// Of every row of logits `[N, K]`, as `draw` leaves them, the code of the largest with Gumbel noise of `strength` from
/// `uniforms` `[N, K]`.
fn largest_with_noise(logits: &Tensor, draw: &Draw, strength: f32, uniforms: &[f32]) -> Result<Codes> {
    // Up to a constant per row what the draw makes of them; minus infinity where it leaves nothing.
    let left = if *draw == Draw::default() { logits.clone() } else { probabilities(logits, draw)?.ln()? };
    Ok(left.add(&gumbel_noise(uniforms, strength, logits.shape())?)?.argmax_last()?)
}
