//! A quantizer of codes, and what builds the toys that quantizers hold.

use crate::config::Call;
use crate::contracts::Builder;
use crate::prelude::*;
use crate::tensor::ops::nearest::nearest;
use crate::testing::toys::{ToyNoise, ToyNoiseConfig};
use crate::{Error, Result};

crate::config! {
    /// The nearest of a few codewords, which the optimizer trains.
    pub struct ToyCodesConfig {
        /// Codewords.
        codebook: usize = 8, in 2..=4096;
    }
}

/// The quantizer. Its parameter is `codebook` `[K, C]`.
#[derive(Debug)]
pub struct ToyCodes {
    codebook: Var,
    size: usize,
    latents: MapShape,
    dry: bool,
}

impl ToyCodes {
    /// A quantizer of the context's latents.
    ///
    /// # Errors
    /// A name that is taken.
    pub fn new(config: ToyCodesConfig, cx: &QuantizerContext) -> Result<Self> {
        let shape = [config.codebook, cx.latents.channels];
        let codebook = cx.params.parameter("codebook", &shape, Init::Normal(1.0))?;
        Ok(Self { codebook, size: config.codebook, latents: cx.latents, dry: cx.params.is_dry() })
    }
}

impl Quantizer for ToyCodes {
    fn level(&self) -> LevelInfo {
        let MapShape { height, width, channels } = self.latents;
        let tables = if self.dry { vec![] } else { vec![self.codebook.get().detach()] };
        let space = CodeSpace { sizes: vec![self.size], tables, shared: false };
        LevelInfo { height, width, channels, space: TokenSpace::Codes(space), scales: None }
    }

    fn activations(&self) -> usize {
        self.level().positions() * self.size
    }

    fn quantize(&self, latents: &Tensor) -> Result<Quantized> {
        let codes = nearest(&latents.detach(), &self.codebook.get().detach())?;
        let codeword = self.codebook.get().embedding(&codes)?;
        let loss = codeword.mse(&latents.detach())?;
        Ok(Quantized {
            latents: latents.straight_through(&codeword.detach())?,
            tokens: Tokens::Codes(Codes::stack(&[codes])?),
            terms: vec![("codebook", loss.detach())],
            residual_energy: loss.detach().reshape(&[1])?,
            loss,
            bits: None,
            events: Vec::new(),
        })
    }

    fn embed(&self, tokens: &Tokens, depth: Option<usize>) -> Result<Tensor> {
        Ok(self.codebook.get().embedding(&tokens.codes_of_depth_1(depth)?)?)
    }
}

/// Builds the toys that a quantizer may hold in a test: `toy_codes` and `toy_noise`.
#[derive(Debug)]
pub struct ToyQuantizers;

fn refused<T>(call: &Call) -> Result<T> {
    Err(Error::Unsupported(format!("there is no toy `{}` to hold", call.name)))
}

impl Builder for ToyQuantizers {
    fn autoencoder(&self, call: &Call, _: &AutoencoderContext) -> Result<Box<dyn Autoencoder>> {
        refused(call)
    }

    fn quantizer(&self, call: &Call, cx: &QuantizerContext) -> Result<Box<dyn Quantizer>> {
        match call.name.as_str() {
            "toy_codes" => Ok(Box::new(ToyCodes::new(ToyCodesConfig::parse(&call.text)?, cx)?)),
            "toy_noise" => Ok(Box::new(ToyNoise::new(ToyNoiseConfig::parse(&call.text)?, cx)?)),
            _ => refused(call),
        }
    }

    fn prior(&self, call: &Call, _: &PriorContext) -> Result<Box<dyn Prior>> {
        refused(call)
    }

    fn objective(&self, call: &Call, _: &ObjectiveContext) -> Result<Box<dyn Objective>> {
        refused(call)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn it_keeps_the_contract_of_a_quantizer() {
        let latents = MapShape { height: 2, width: 3, channels: 4 };
        crate::testing::quantizer(latents, |cx| ToyCodes::new(ToyCodesConfig::parse("toy_codes").unwrap(), cx));
    }
}
