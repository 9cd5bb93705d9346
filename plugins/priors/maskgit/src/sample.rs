//! Sampling: an image is filled in over a few steps.

use crate::masks::{Masks, halton_order};
use crate::{MaskGit, MaskGitConfig};
use rqlab_sdk::nn::is_guided;
use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::no_grad;
use rqlab_sdk::tensor::ops::sampling::{Draw, probabilities, sample};

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

/// Images that are being filled in.
#[derive(Debug, Clone)]
pub struct Canvas {
    /// `[B, T, D]`; those at masked positions mean nothing.
    codes: Vec<u32>,
    masked: Vec<bool>,
    /// The order in which positions are kept, `[B, T]`, where it does not follow from confidence.
    order: Vec<usize>,
}

impl Canvas {
    /// The codes `[B, T, D]`, row-major; those at masked positions mean nothing.
    pub fn codes(&self) -> &[u32] {
        &self.codes
    }

    /// Whether each position is masked, `[B, T]`.
    pub fn masked(&self) -> &[bool] {
        &self.masked
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

fn gumbel(uniform: f32) -> f32 {
    -(-uniform.ln()).ln()
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
        Canvas { codes: vec![0; images * cells * self.level.depth()], masked: vec![true; images * cells], order }
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
        Ok(Tokens::Codes(Codes::from_vec(canvas.codes, &self.level.token_shape(images))?))
    }

    /// Logits `[B T, K_d]` of every depth at step `step`, guided and annealed. Guidance takes the share of the steps that are
    /// done as its progress, so that its schedule does not quite reach its end.
    ///
    /// # Errors
    /// Shapes that do not fit; guidance of a prior without conditions, or that never saw the null condition.
    pub fn guided_logits(&self, canvas: &Canvas, request: &SampleRequest, step: usize) -> Result<Vec<Tensor>> {
        let (images, positions) = (request.images(), self.level.positions());
        let guided = is_guided(&request.guidance, self.condition.space())?;
        let copies = if guided { 2 } else { 1 };
        let rows: Vec<usize> = (0..images).flat_map(|image| std::iter::repeat_n(image, copies)).collect();
        let codes = Tokens::Codes(Codes::from_vec(canvas.codes.clone(), &self.level.token_shape(images))?);
        let masked = canvas.masked.iter().map(|&masked| if masked { 1.0 } else { 0.0 }).collect();
        let masked = Tokens::Vectors(Tensor::from_vec(masked, &[images, positions, 1])?).rows(&rows)?;
        let masks = Masks { masked: masked.vectors()?.clone() };
        let condition = if guided { request.condition.paired()? } else { request.condition.clone() };
        let logits = no_grad(|| self.logits(codes.rows(&rows)?.codes()?, &masks, &condition, &Mode::Eval))?;
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
        let (depth, rows) = (self.level.depth(), canvas.masked.len());
        let left = 1.0 - (step + 1) as f32 / self.config.iterations as f32;
        let strength = self.config.noise * left;
        let mut confidence = vec![0.0f32; rows];
        for (d, logits) in self.guided_logits(canvas, request, step)?.iter().enumerate() {
            let (draw, uniforms) = (request.draw_at(d), &noise.proposals[d]);
            let proposed = match self.gumbel_proposals() {
                true => largest_with_noise(logits, &draw, strength, uniforms)?,
                false => sample(logits, &draw, uniforms)?,
            };
            let sure = match self.config.confidence {
                Confidence::LogProbability => logits.cross_entropy(&proposed)?.neg()?,
                Confidence::Logit => logits.gather_last(&proposed)?,
            };
            confidence.iter_mut().zip(sure.as_slice()).for_each(|(sum, x)| *sum += x);
            for (row, &code) in proposed.as_slice().iter().enumerate().filter(|(row, _)| canvas.masked[*row]) {
                canvas.codes[row * depth + d] = code;
            }
        }
        if strength > 0.0 {
            confidence.iter_mut().zip(&noise.confidence).for_each(|(x, &u)| *x += strength * gumbel(u));
        }
        self.mask_again(canvas, &confidence, step);
        Ok(())
    }

    /// Keeps the positions that step `step` is to keep.
    fn mask_again(&self, canvas: &mut Canvas, confidence: &[f32], step: usize) {
        let MaskGitConfig { iterations, schedule, .. } = self.config;
        let positions = self.level.positions();
        if step + 1 >= iterations {
            canvas.masked.fill(false);
            return;
        }
        let share = schedule.share((step + 1) as f64 / iterations as f64);
        let known = ((positions as f64 * (1.0 - share)) as usize).clamp(step + 1, positions);
        for (image, masked) in canvas.masked.chunks_mut(positions).enumerate() {
            if let Some(order) = canvas.order.get(image * positions..(image + 1) * positions) {
                order[..known].iter().for_each(|&cell| masked[cell] = false);
                continue;
            }
            let confidence = &confidence[image * positions..(image + 1) * positions];
            let mut open: Vec<f32> = confidence.iter().zip(&*masked).filter_map(|(&c, &m)| m.then_some(c)).collect();
            let count = schedule.masked_after(step, iterations, positions, open.len());
            open.sort_by(f32::total_cmp);
            let threshold = open.get(count - 1).or(open.last()).copied().unwrap_or(f32::INFINITY);
            masked.iter_mut().zip(confidence).for_each(|(masked, &c)| *masked &= c <= threshold);
        }
    }
}

/// Of every row of logits `[N, K]`, as `draw` leaves them, the code of the largest with Gumbel noise of `strength` from
/// `uniforms` `[N, K]`.
fn largest_with_noise(logits: &Tensor, draw: &Draw, strength: f32, uniforms: &[f32]) -> Result<Codes> {
    let mut noisy = if *draw == Draw::default() {
        logits.to_vec()
    } else {
        // Up to a constant per row what the draw makes of them; minus infinity where it leaves nothing.
        probabilities(logits, draw)?.to_vec().into_iter().map(f32::ln).collect()
    };
    if strength > 0.0 {
        noisy.iter_mut().zip(uniforms).for_each(|(z, &u)| *z += strength * gumbel(u));
    }
    Ok(Tensor::from_vec(noisy, logits.shape())?.argmax_last()?)
}
