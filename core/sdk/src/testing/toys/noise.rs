//! A continuous bottleneck.

use crate::Result;
use crate::prelude::*;

crate::config! {
    /// A Gaussian bottleneck whose mean is the latents and whose deviation is fixed: what a variational autoencoder would
    /// learn, as a constant.
    pub struct ToyNoiseConfig {
        /// Standard deviation of the noise.
        std: f32 = 0.1, in 1e-6..1.0;
        /// Weight of the KL divergence, in nats per element.
        weight: f32 = 1e-3, in 0.0..=100.0;
    }
}

/// The bottleneck. Its tokens are the latents: the mean in evaluation, draws in training.
#[derive(Debug)]
pub struct ToyNoise {
    config: ToyNoiseConfig,
    latents: MapShape,
}

impl ToyNoise {
    /// A bottleneck without parameters.
    ///
    /// # Errors
    /// None.
    pub fn new(config: ToyNoiseConfig, cx: &QuantizerContext) -> Result<Self> {
        Ok(Self { config, latents: cx.latents })
    }

    fn draw(&self, latents: &Tensor, rng: &Rng) -> Result<Tensor> {
        let noise = rng.part("posterior", 0).normal(latents.len()).into_iter().map(|x| x * self.config.std).collect();
        Ok(latents.add(&Tensor::from_vec(noise, latents.shape())?.to_device(latents.device())?)?)
    }

    /// `KL(N(z, s²) || N(0, 1)) = (z² + s² - 1) / 2 - ln s`, summed over elements, of each image and averaged over the batch.
    fn assemble(&self, latents: &Tensor, tokens: &Tensor) -> Result<Quantized> {
        let images = latents.shape().first().copied().unwrap_or(1).max(1);
        let per_image = latents.len() / images;
        let constant = (self.config.std.powi(2) - 1.0) / 2.0 - self.config.std.ln();
        let mean = latents.square()?.mean_all()?.mul_scalar(0.5)?.add_scalar(constant)?;
        let bits = mean.detach().mul_scalar(per_image as f32 / std::f32::consts::LN_2)?;
        Ok(Quantized {
            latents: tokens.clone(),
            tokens: Tokens::Vectors(tokens.detach()),
            loss: mean.mul_scalar(self.config.weight)?,
            terms: vec![("kl", mean.detach())],
            bits: Some(bits),
            residual_energy: Tensor::zeros(&[0]),
            events: vec![],
        })
    }
}

impl Quantizer for ToyNoise {
    fn level(&self) -> LevelInfo {
        let MapShape { height, width, channels } = self.latents;
        LevelInfo { height, width, channels, space: TokenSpace::Vectors { channels }, scales: None }
    }

    fn quantize(&self, latents: &Tensor) -> Result<Quantized> {
        self.assemble(latents, latents)
    }

    fn quantize_train(&mut self, latents: &Tensor, rng: &Rng) -> Result<Quantized> {
        self.assemble(latents, &self.draw(latents, rng)?)
    }

    fn tokens(&self, latents: &Tensor, request: &TokenRequest, rng: &Rng) -> Result<(Tokens, Targets)> {
        if request.soft_targets.is_some() || request.stochastic_codes.is_some() {
            let message = "this bottleneck makes vectors, which have neither soft targets nor stochastic codes";
            return Err(Error::Unsupported(message.to_owned()));
        }
        let latents = latents.detach();
        let tokens = if request.posterior_draws { self.draw(&latents, rng)? } else { latents };
        Ok((Tokens::Vectors(tokens), Targets::Hard))
    }

    fn embed(&self, tokens: &Tokens, depth: Option<usize>) -> Result<Tensor> {
        match depth {
            None => Ok(tokens.vectors()?.clone()),
            Some(depth) => Err(Error::Unsupported(format!("vectors have no depths; asked for depth {depth}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn it_keeps_the_contract_and_draws_from_its_posterior() {
        let latents = MapShape { height: 8, width: 8, channels: 4 };
        let config = ToyNoiseConfig::parse("toy_noise(std: 0.5)").unwrap();
        crate::testing::quantizer(latents, |cx| ToyNoise::new(config.clone(), cx));

        let cx = QuantizerContext { latents, params: Params::new(1), components: Components::none() };
        let noise = ToyNoise::new(config, &cx).unwrap();
        let zeros = Tensor::zeros(&[4, 8, 8, 4]);
        // 256 elements of N(0, 1/4) against N(0, 1): each (1/4 - 1) / 2 + ln 2 nats.
        let bits = noise.quantize(&zeros).unwrap().bits.unwrap().item().unwrap();
        assert!((bits - 256.0 * (-0.375 + 2f32.ln()) / 2f32.ln()).abs() < 1e-3);
        let request = TokenRequest { posterior_draws: true, ..TokenRequest::default() };
        let (drawn, _) = noise.tokens(&zeros, &request, &Rng::new(1, "draw", 0)).unwrap();
        let variance = drawn.vectors().unwrap().square().unwrap().mean_all().unwrap().item().unwrap();
        // Five standard errors of a variance of 1/4 over 1024 numbers are 0.055.
        assert!((variance - 0.25).abs() < 0.055, "{variance}");
    }
}
