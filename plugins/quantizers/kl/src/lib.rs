//! The Gaussian bottleneck of variational autoencoders (Kingma and Welling, "Auto-encoding variational Bayes", ICLR 2014), as
//! latent diffusion models and MAR have it.
//!
//! Shapes: latents `[B, h, w, 2C]`, means and log-variances; tokens are vectors `[B, h, w, C]`.

mod gaussian;
#[cfg(test)]
mod tests;

pub use gaussian::DiagonalGaussian;
use rqlab_sdk::choice;
use rqlab_sdk::config::ConfigError;
use rqlab_sdk::prelude::*;
use std::f32::consts::LN_2;

declare_plugin! {
    quantizer "kl": KlConfig => Kl::new;
}

choice! {
    /// What stands for a posterior.
    pub enum Point {
        /// Its mean, which is its mode.
        Mode = "mode",
        /// A draw.
        Sample = "sample",
    }
}

config! {
    /// A Gaussian posterior over the latents instead of codes: the autoencoder encodes a mean and a log-variance for each
    /// channel that it decodes (`double_z: true`). Training decodes draws and weighs the KL divergence from N(0, 1); its
    /// rate in bits is that divergence. Tokens are vectors, which priors get as draws if they ask for them.
    ///
    /// The published KL-16 of MAR (Li et al., NeurIPS 2024) is `kl` under
    /// `resnet(width: 128, multipliers: [1, 1, 2, 2, 4], blocks: 2, attention: [16], decoder_attention: [], latent: 16,
    /// double_z: true)`; KL-8 of latent diffusion (Rombach et al., CVPR 2022) has the same weight.
    pub struct KlConfig {
        /// Weight of the KL divergence: in nats, summed over an image's latents, averaged over the batch. Latent diffusion has
        /// 1e-6 beside errors that are summed over an image, too: where these are means, as `l1` and `mse` of weight 1, that is
        /// 5e-12 for 256x256 pixels. Larger ones trade distortion for rate.
        weight: f32 = 1e-6, in 0.0..=1e6;
        /// Bits per position that each channel may tell at no cost: the loss counts the larger of this and the channel's
        /// divergence, averaged over positions and batch (Kingma et al., "Improved variational inference with inverse
        /// autoregressive flow", NeurIPS 2016, equation 15). The published autoencoders have 0.
        free_bits: f32 = 0.0, in 0.0..=64.0;
        /// What stands for a posterior in evaluation. LightningDiT and MAR draw; others take the mode. A draw is made with the
        /// same noise for every image.
        evaluation: Point = Point::Mode;
    }
}

/// A Gaussian bottleneck, without parameters.
#[derive(Debug)]
pub struct Kl {
    config: KlConfig,
    /// What it makes of its latents.
    map: MapShape,
}

impl Kl {
    /// A bottleneck for latents of an even number of channels.
    ///
    /// # Errors
    /// An odd number.
    pub fn new(config: KlConfig, cx: &QuantizerContext) -> Result<Self> {
        let channels = cx.latents.channels;
        if !channels.is_multiple_of(2) || channels == 0 {
            let message = format!(
                "a posterior has a mean and a log-variance for each channel, and {channels} channels are encoded: let the \
                 autoencoder encode two for each that it decodes (`double_z: true`)"
            );
            return Err(ConfigError::whole(message).into());
        }
        Ok(Self { config, map: MapShape { channels: channels / 2, ..cx.latents } })
    }

    /// Quantizes with given noise from N(0, 1), `[B, h, w, C]`; without any, the mode stands for the posterior.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn quantize_with(&self, latents: &Tensor, noise: Option<&Tensor>) -> Result<Quantized> {
        let posterior = DiagonalGaussian::of_moments(latents)?;
        let value = match noise {
            Some(noise) => posterior.sample(noise)?,
            None => posterior.mean.clone(),
        };
        let kl = posterior.kl()?;
        let images = latents.shape()[0].max(1) as f32;
        let per_image = kl.sum_all()?.mul_scalar(1.0 / images)?;
        let weighed = if self.config.free_bits > 0.0 { self.above_free_bits(&kl)? } else { per_image.clone() };
        let nats = per_image.detach();
        Ok(Quantized {
            tokens: Tokens::Vectors(value.detach()),
            latents: value,
            loss: weighed.mul_scalar(self.config.weight)?,
            bits: Some(nats.mul_scalar(1.0 / LN_2)?),
            terms: vec![("kl", nats)],
            residual_energy: Tensor::zeros(&[0]),
            events: vec![],
        })
    }

    /// The divergence of an image in nats, of each channel no less than its free bits: of `kl` `[B, h, w, C]`.
    fn above_free_bits(&self, kl: &Tensor) -> Result<Tensor> {
        let free = self.config.free_bits * LN_2;
        let channels = kl.mean(&[0, 1, 2], false)?;
        // The larger of the two: what exceeds the free bits, and these.
        let counted = channels.add_scalar(-free)?.relu()?.add_scalar(free)?;
        Ok(counted.sum_all()?.mul_scalar((self.map.height * self.map.width) as f32)?)
    }

    /// Noise for a batch of latents.
    fn noise(&self, latents: &Tensor, rng: &Rng) -> Result<Tensor> {
        let [batch, height, width, channels] = latents.dims("a posterior's moments")?;
        let shape = [batch, height, width, channels / 2];
        let noise = rng.part("posterior", 0).normal(shape.iter().product());
        Ok(Tensor::from_vec(noise, &shape)?.to_device(latents.device())?)
    }
}

impl Quantizer for Kl {
    fn level(&self) -> LevelInfo {
        let MapShape { height, width, channels } = self.map;
        LevelInfo { height, width, channels, space: TokenSpace::Vectors { channels }, scales: None }
    }

    fn quantize(&self, latents: &Tensor) -> Result<Quantized> {
        match self.config.evaluation {
            Point::Mode => self.quantize_with(latents, None),
            Point::Sample => {
                // An image's draw must not depend on its place in the batch.
                let one = self.noise(&latents.slice(0, 0..1)?, &Rng::new(0, "evaluation", 0))?;
                let shape = [&latents.shape()[..1], &one.shape()[1..]].concat();
                self.quantize_with(latents, Some(&one.broadcast_to(&shape)?))
            }
        }
    }

    fn quantize_train(&mut self, latents: &Tensor, rng: &Rng) -> Result<Quantized> {
        self.quantize_with(latents, Some(&self.noise(latents, rng)?))
    }

    fn tokens(&self, latents: &Tensor, request: &TokenRequest, rng: &Rng) -> Result<(Tokens, Targets)> {
        if request.soft_targets.is_some() || request.stochastic_codes.is_some() {
            let message = "this bottleneck makes vectors, which have neither soft targets nor stochastic codes";
            return Err(Error::Unsupported(message.to_owned()));
        }
        let tokens = if request.posterior_draws {
            let latents = latents.detach();
            let noise = self.noise(&latents, rng)?;
            Tokens::Vectors(DiagonalGaussian::of_moments(&latents)?.sample(&noise)?)
        } else {
            self.quantize(&latents.detach())?.tokens
        };
        Ok((tokens, Targets::Hard))
    }

    fn embed(&self, tokens: &Tokens, depth: Option<usize>) -> Result<Tensor> {
        match depth {
            None => Ok(tokens.vectors()?.clone()),
            Some(depth) => Err(Error::Unsupported(format!("vectors have no depths; asked for depth {depth}"))),
        }
    }
}
