//! The codebook, moved by averages or by gradients.

use crate::config::{Anchor, CodebookUpdate, DeadCodes, Normalize, VqConfig};
use rqlab_sdk::nn::{CodebookInit, EmaCodebook, FirstBatch, k_means, sample_vectors, soft_codes};
use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::ops::averages::update_averages;
use rqlab_sdk::tensor::ops::nearest::nearest;
use rqlab_sdk::tensor::ranks::Step;

#[derive(Debug)]
pub(crate) enum Book {
    Ema(EmaCodebook),
    Gradient { weight: Var, first: Option<FirstBatch>, anchors: Option<Anchors> },
}

impl Book {
    /// The codebook `codebooks.0` (moving averages) or the parameter `embedding.weight` `[K, C]`.
    pub(crate) fn new(config: &VqConfig, channels: usize, params: &Params) -> Result<Self> {
        let (size, dead_codes) = (config.codebook, config.dead_codes()?);
        Ok(match config.codebook_update {
            CodebookUpdate::Ema => {
                let init = config.init.unwrap_or(CodebookInit::Normal);
                let params = params.scope("codebooks").scope(0);
                Self::Ema(EmaCodebook::new(&params, size, channels, init, config.rule(dead_codes))?)
            }
            CodebookUpdate::Gradient => {
                let init = config.init.unwrap_or(CodebookInit::Uniform);
                let own = params.scope("embedding");
                Self::Gradient {
                    weight: own.parameter("weight", &[size, channels], init.of(size, channels))?,
                    first: FirstBatch::new(&own, init)?,
                    anchors: (dead_codes == DeadCodes::Anchored).then(|| Anchors::new(config, params)).transpose()?,
                }
            }
        })
    }

    /// The codes as they are `[K, C]`.
    pub(crate) fn weight(&self) -> Tensor {
        match self {
            Self::Ema(book) => book.weight(),
            Self::Gradient { weight, .. } => weight.get(),
        }
    }

    /// Starts the codebook from its first vectors, if it waits for them.
    pub(crate) fn start(&self, vectors: &Tensor, config: &VqConfig, rng: &Rng) -> Result<()> {
        match self {
            Self::Ema(book) => book.start(vectors, config.kmeans_iterations, rng),
            Self::Gradient { weight, first: Some(first), .. } if first.is_now()? => {
                let spherical = config.normalize == Normalize::Always;
                let clusters = k_means(vectors, config.codebook, config.kmeans_iterations, spherical, rng)?;
                Ok(weight.set(&clusters.means)?)
            }
            Self::Gradient { .. } => Ok(()),
        }
    }
}

/// Anchors of codes that few vectors use (Zheng and Vedaldi, "Online clustered codebook", ICCV 2023, section 3.2).
#[derive(Debug)]
pub(crate) struct Anchors {
    choice: Anchor,
    decay: f64,
    /// The average share of the vectors that each code gets, u `[K]`.
    used: Var,
}

impl Anchors {
    fn new(config: &VqConfig, params: &Params) -> Result<Self> {
        let used = params.buffer("embed_prob", &[config.codebook], Init::ZEROS)?;
        Ok(Self { choice: config.anchor, decay: config.anchor_decay, used })
    }

    /// Takes the codes of a batch into the averages of use, and moves every code by `exp(-10 K u / (1 - decay) - 0.001)`
    /// of the way to its anchor among `raw` `[N, C]`. Anchors are chosen by the distance of `codewords` `[K, C]` to
    /// `compared` `[N, C]`, which are the same vectors, perhaps divided by their lengths. In a training step, these are the vectors
    /// of all ranks, and of the last part alone.
    pub(crate) fn pull(
        &self,
        weight: &Var,
        (raw, compared): (&Tensor, &Tensor),
        codewords: &Tensor,
        codes: &Codes,
        rng: &Rng,
    ) -> Result<()> {
        let step = Step::current();
        if !step.is_last() {
            return Ok(());
        }
        let size = codewords.shape()[0];
        let zeros = |shape: &[usize]| Ok::<_, Error>(Var::buffer(&Tensor::zeros(shape).to_device(raw.device())?));
        let (counts, sums) = (zeros(&[size])?, zeros(codewords.shape())?);
        update_averages(compared, codes, 0.0, &counts, &sums)?;
        let (raw, compared) = (&step.gather(raw)?, &step.gather(compared)?);
        let share = step.sum(&counts.get())?.mul_scalar((1.0 - self.decay) as f32 / raw.shape()[0].max(1) as f32)?;
        self.used.set(&self.used.get().mul_scalar(self.decay as f32)?.add(&share)?)?;
        let rate = self.used.get().mul_scalar((-10.0 * size as f64 / (1.0 - self.decay)) as f32)?;
        let rate = rate.add_scalar(-1e-3)?.exp()?.reshape(&[size, 1])?;
        let anchors = match self.choice {
            Anchor::Closest => raw.embedding(&nearest(codewords, compared)?)?,
            Anchor::Random => sample_vectors(raw, size, rng)?,
            Anchor::ByDistance => raw.embedding(&drawn_by_distance(codewords, compared, rng)?)?,
        };
        let now = weight.get().detach();
        Ok(weight.set(&now.add(&anchors.sub(&now)?.mul(&rate)?)?)?)
    }
}

/// Distances that are in memory at a time: 32 MiB.
const DISTANCES: usize = 1 << 23;

/// For each of `codewords` `[K, C]` the index of one of `vectors` `[N, C]`, drawn by softmax(-d²).
fn drawn_by_distance(codewords: &Tensor, vectors: &Tensor, rng: &Rng) -> Result<Codes> {
    let [size, rows] = [codewords.shape()[0], vectors.shape()[0]];
    let group = (DISTANCES / rows.max(1)).max(1);
    let uniforms = rng.whole().uniform(size);
    let mut drawn = Vec::with_capacity(size);
    for (group, uniforms) in (0..size).step_by(group).zip(uniforms.chunks(group)) {
        let some = codewords.slice(0, group..group + uniforms.len())?;
        drawn.extend_from_slice(soft_codes(&some, vectors, 1.0, Some(uniforms))?.0.as_slice());
    }
    Ok(Codes::from_vec(drawn, &[size])?)
}
