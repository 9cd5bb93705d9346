//! No bottleneck: a plain autoencoder.

use rqlab_sdk::prelude::*;

declare_plugin! {
    quantizer "none": NoneConfig => Unquantized::new;
}

config! {
    /// No quantizer: the decoder reads the latents as they are. How well an autoencoder does without a bottleneck is the
    /// ceiling for every quantizer in its place. There is neither a loss nor a rate; tokens are the latents, vectors.
    pub struct NoneConfig {
    }
}

/// The identity.
#[derive(Debug)]
pub struct Unquantized {
    latents: MapShape,
}

impl Unquantized {
    /// Without parameters.
    ///
    /// # Errors
    /// None.
    pub fn new(_: NoneConfig, cx: &QuantizerContext) -> Result<Self> {
        Ok(Self { latents: cx.latents })
    }
}

impl Quantizer for Unquantized {
    fn level(&self) -> LevelInfo {
        let MapShape { height, width, channels } = self.latents;
        LevelInfo { height, width, channels, space: TokenSpace::Vectors { channels }, scales: None }
    }

    fn quantize(&self, latents: &Tensor) -> Result<Quantized> {
        Ok(Quantized {
            latents: latents.clone(),
            tokens: Tokens::Vectors(latents.detach()),
            loss: Tensor::scalar(0.0).to_device(latents.device())?,
            terms: vec![],
            bits: None,
            residual_energy: Tensor::zeros(&[0]),
            events: vec![],
        })
    }

    /// A posterior draw is the latents: nothing is uncertain of them.
    fn tokens(&self, latents: &Tensor, request: &TokenRequest, _: &Rng) -> Result<(Tokens, Targets)> {
        if request.soft_targets.is_some() || request.stochastic_codes.is_some() {
            let message = "latents as they are have neither soft targets nor stochastic codes";
            return Err(Error::Unsupported(message.to_owned()));
        }
        Ok((Tokens::Vectors(latents.detach()), Targets::Hard))
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
    fn it_keeps_the_contract_of_a_quantizer_and_changes_nothing() {
        let latents = MapShape { height: 3, width: 2, channels: 5 };
        rqlab_sdk::testing::quantizer(latents, |cx| Unquantized::new(NoneConfig::parse("none").unwrap(), cx));

        let cx = QuantizerContext { latents, params: Params::new(1), components: Components::none() };
        let none = Unquantized::new(NoneConfig::parse("none").unwrap(), &cx).unwrap();
        let x = Tensor::from_vec(Rng::new(1, "test", 0).normal(30), &[1, 3, 2, 5]).unwrap();
        let quantized = none.quantize(&x).unwrap();
        assert_eq!((quantized.latents.to_vec(), quantized.loss.item().unwrap()), (x.to_vec(), 0.0));
        assert_eq!((quantized.bits.is_none(), cx.params.count()), (true, 0));

        // A prior of vectors asks for draws of their posterior, which is a point here.
        let rng = Rng::new(0, "tokens", 0);
        let drawn = TokenRequest { posterior_draws: true, ..TokenRequest::default() };
        assert_eq!(none.tokens(&x, &drawn, &rng).unwrap().0.vectors().unwrap().to_vec(), x.to_vec());
        let soft = TokenRequest { soft_targets: Some(1.0), ..TokenRequest::default() };
        assert!(none.tokens(&x, &soft, &rng).is_err());
    }
}
