//! A quantizer that holds another.

use crate::Result;
use crate::config::QuantizerCall;
use crate::prelude::*;

crate::config! {
    /// Another quantizer, of latents that are divided by a constant.
    pub struct ToyScaledConfig {
        /// The quantizer that it holds.
        of: QuantizerCall;
        /// The constant.
        scale: f32 = 2.0, in 1e-3..=1e3;
    }
}

/// The quantizer. The parameters of the inner one are under `of`.
pub struct ToyScaled {
    scale: f32,
    inner: Box<dyn Quantizer>,
}

impl ToyScaled {
    /// Builds the inner quantizer with the context's components.
    ///
    /// # Errors
    /// Those of the inner quantizer.
    pub fn new(config: ToyScaledConfig, cx: &QuantizerContext) -> Result<Self> {
        let inner = QuantizerContext { params: cx.params.scope("of"), ..cx.clone() };
        Ok(Self { scale: config.scale, inner: cx.components.quantizer(&config.of.0, &inner)? })
    }

    fn shrink(&self, latents: &Tensor) -> Result<Tensor> {
        Ok(latents.mul_scalar(1.0 / self.scale)?)
    }

    /// What the inner quantizer made, in the scale of the outer latents. Its losses stay as they are.
    fn grow(&self, inner: Quantized) -> Result<Quantized> {
        Ok(Quantized {
            latents: inner.latents.mul_scalar(self.scale)?,
            residual_energy: inner.residual_energy.mul_scalar(self.scale.powi(2))?,
            ..inner
        })
    }
}

impl Quantizer for ToyScaled {
    fn level(&self) -> LevelInfo {
        let mut level = self.inner.level();
        if let TokenSpace::Codes(space) = &mut level.space {
            let scaled = space.tables.iter().map(|table| table.mul_scalar(self.scale));
            // A table that cannot be scaled is left out, as where there is none.
            space.tables = scaled.collect::<std::result::Result<_, _>>().unwrap_or_default();
        }
        level
    }

    fn quantize(&self, latents: &Tensor) -> Result<Quantized> {
        self.grow(self.inner.quantize(&self.shrink(latents)?)?)
    }

    fn quantize_train(&mut self, latents: &Tensor, rng: &Rng) -> Result<Quantized> {
        let inner = self.inner.quantize_train(&self.shrink(latents)?, rng)?;
        self.grow(inner)
    }

    fn tokens(&self, latents: &Tensor, request: &TokenRequest, rng: &Rng) -> Result<(Tokens, Targets)> {
        self.inner.tokens(&self.shrink(latents)?, request, rng)
    }

    fn embed(&self, tokens: &Tokens, depth: Option<usize>) -> Result<Tensor> {
        Ok(self.inner.embed(tokens, depth)?.mul_scalar(self.scale)?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::super::ToyQuantizers;
    use super::*;

    #[test]
    fn it_keeps_the_contract_with_what_it_holds() {
        let latents = MapShape { height: 2, width: 3, channels: 4 };
        let config = ToyScaledConfig::parse("toy_scaled(of: toy_noise(std: 0.5), scale: 4.0)").unwrap();
        crate::testing::quantizer(latents, |cx| {
            ToyScaled::new(
                config.clone(),
                &QuantizerContext { components: Components::new(ToyQuantizers), ..cx.clone() },
            )
        });
        let cx = QuantizerContext { latents, params: Params::new(1), components: Components::none() };
        assert!(ToyScaled::new(config, &cx).is_err());
    }
}
