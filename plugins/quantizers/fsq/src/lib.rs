//! Finite scalar quantization (Mentzer et al., "Finite scalar quantization: VQ-VAE made simple", ICLR 2024): each channel is
//! bounded and rounded to a few values; a code is the number with these digits. There is no codebook, and no loss.
//!
//! Shapes: latents `[.., C]`, usually `[B, h, w, C]`; vectors that are rounded `[.., c]`, c the number of levels; codes
//! `[.., D]`, D the number of sub-tokens.

#[cfg(test)]
mod tests;

use rqlab_sdk::config::ConfigError;
use rqlab_sdk::nn::{BitOrder, Estimator, GridAxis, GridCodes, GridSettings};
use rqlab_sdk::prelude::*;

declare_plugin! {
    quantizer "fsq": FsqConfig => Fsq::new;
}

config! {
    /// Finite scalar quantization (Mentzer et al. 2024): each channel is bounded by a tanh and rounded to one of a few levels.
    /// The code is the number whose digits these are, the first channel the lowest. It has neither codebook nor loss.
    ///
    /// Levels that the paper takes for about K codes: 2^8 `[8, 6, 5]`, 2^10 `[8, 5, 5, 5]`, 2^12 `[7, 5, 5, 5, 5]`,
    /// 2^14 `[8, 8, 8, 6, 5]`, 2^16 `[8, 8, 8, 5, 5, 5]`. It advises at least 5 levels per channel.
    pub struct FsqConfig {
        /// Values of each channel; the number of codes is their product.
        levels: Vec<usize> = vec![8, 5, 5, 5], in 2..=65_536;
        /// Whether latents of any width are mapped to one channel per level, and back. Without, the autoencoder must make as many
        /// (`code_channels`).
        projection: bool = false;
        /// How much wider the bounds are than the outer values, as a share, so that these can be reached (the published code
        /// has 1e-3). Below 1 / (L - 1) for L levels: beyond, there would be more.
        eps: f32 = 1e-3, in 1e-6..=0.5;
        /// Whether an even number of levels is spread evenly about 0, from -1 to 1, as vector-quantize-pytorch has it by
        /// `preserve_symmetry`. Without, as published, 0 is one of the values, and there is one more below it than above.
        symmetric: bool = false;
        /// How gradients pass the rounding.
        estimator: Estimator = Estimator::StraightThrough;
        /// Channels of each sub-token, so that a position holds as many codes: `[3, 3]` splits 6 levels in two. If not given, one.
        sub_tokens: Option<Vec<usize>> = None, in 1..=64;
    }
}

/// A finite scalar quantizer.
#[derive(Debug)]
pub struct Fsq {
    config: FsqConfig,
    codes: GridCodes,
}

impl Fsq {
    /// A quantizer without parameters, or with those of its projection.
    ///
    /// # Errors
    /// No levels, more codes than a code can be chosen among, latents that do not fit.
    pub fn new(config: FsqConfig, cx: &QuantizerContext) -> Result<Self> {
        let axis = |&levels: &usize| {
            if config.symmetric {
                GridAxis { levels, first: -1.0, step: 2.0 / (levels - 1) as f32 }
            } else {
                GridAxis { levels, first: -1.0, step: 1.0 / (levels / 2) as f32 }
            }
        };
        let settings = GridSettings {
            axes: config.levels.iter().map(axis).collect(),
            order: BitOrder::LsbFirst,
            sub_tokens: config.sub_tokens.as_deref(),
            projection: config.projection,
            field: "levels",
        };
        let codes = GridCodes::new(cx, settings)?;
        let most = config.levels.iter().max().copied().unwrap_or(2);
        if !config.symmetric && config.eps * (most - 1) as f32 >= 1.0 {
            let message = format!("{} lets {most} levels become more; take less than 1 / {}", config.eps, most - 1);
            return Err(ConfigError::field("eps", message).into());
        }
        Ok(Self { config, codes })
    }

    /// One number per channel that depends on its levels L: `[c]`.
    fn by_levels(&self, number: impl Fn(f32, usize) -> f32) -> Result<Tensor> {
        let numbers: Vec<f32> = self.config.levels.iter().map(|&levels| number(levels as f32, levels)).collect();
        Ok(Tensor::from_vec(numbers, &[self.config.levels.len()])?)
    }

    /// What vectors `[.., c]` are bounded to, and the digits `[.., c]` that this is rounded to. With
    /// `h = (L - 1)(1 + eps) / 2`, and o = 1/2 where L is even, else 0, the bound is `tanh(z + atanh(o / h)) h - o`, a value
    /// of which is `1 / (L div 2)`; the symmetric bound is `tanh z`.
    fn round(&self, vectors: &Tensor) -> Result<(Tensor, Tensor)> {
        if self.config.symmetric {
            let bounded = vectors.tanh()?;
            let half = self.by_levels(|l, _| (l - 1.0) / 2.0)?;
            let digits = bounded.detach().add_scalar(1.0)?.mul(&half)?.add_scalar(0.5)?.floor()?;
            return Ok((bounded, digits));
        }
        let half_width = |l: f32| (l - 1.0) * (1.0 + self.config.eps) / 2.0;
        let offset = |levels: usize| if levels.is_multiple_of(2) { 0.5f32 } else { 0.0 };
        let shift = self.by_levels(|l, levels| (offset(levels) / half_width(l)).atanh())?;
        let (width, offset) = (self.by_levels(|l, _| half_width(l))?, self.by_levels(|_, levels| offset(levels))?);
        let bounded = vectors.add(&shift)?.tanh()?.mul(&width)?.sub(&offset)?;
        let half = self.by_levels(|_, levels| (levels / 2) as f32)?;
        Ok((bounded.div(&half)?, bounded.detach().round()?.add(&half)?))
    }
}

impl Quantizer for Fsq {
    fn level(&self) -> LevelInfo {
        self.codes.level()
    }

    /// A level's share of the whole, as vector-quantize-pytorch's residual FSQ has it.
    fn residual_scale(&self) -> Vec<f32> {
        if self.config.projection { vec![] } else { self.config.levels.iter().map(|&l| 1.0 / l as f32).collect() }
    }

    fn quantize(&self, latents: &Tensor) -> Result<Quantized> {
        let (bounded, digits) = self.round(&self.codes.projection().project_in(latents)?)?;
        let points = self.codes.points(&digits)?;
        let passed = self.config.estimator.pass(&bounded, &points)?;
        Ok(Quantized {
            latents: self.codes.projection().project_out(&passed)?,
            tokens: Tokens::Codes(self.codes.codes(&digits)?),
            loss: Tensor::scalar(0.0),
            terms: Vec::new(),
            bits: None,
            residual_energy: self.codes.residual_energy(&bounded, &points)?,
            events: Vec::new(),
        })
    }

    fn tokens(&self, latents: &Tensor, request: &TokenRequest, rng: &Rng) -> Result<(Tokens, Targets)> {
        let (bounded, digits) = self.round(&self.codes.projection().project_in(latents)?)?;
        self.codes.tokens(&bounded, request, rng, || self.codes.codes(&digits))
    }

    fn embed(&self, tokens: &Tokens, depth: Option<usize>) -> Result<Tensor> {
        self.codes.embed(tokens, depth)
    }
}
