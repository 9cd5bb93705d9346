//! A prior of vectors.

use crate::Result;
use crate::nn::ConditionEmbedding;
use crate::nn::transformer::WeightInit;
use crate::prelude::*;
use crate::tensor::no_grad;

crate::config! {
    /// Vectors drawn independently at each position from a Gaussian: its mean follows from the condition, its deviation is
    /// one per channel.
    pub struct ToyGaussianConfig {
        /// The deviation before training.
        std: f32 = 1.0, in 1e-3..=1e3;
    }
}

/// The prior. Parameters: `mean.*` (see [`ConditionEmbedding`]) and `log_std` `[C]`.
#[derive(Debug)]
pub struct ToyGaussian {
    level: LevelInfo,
    channels: usize,
    mean: ConditionEmbedding,
    log_std: Var,
}

impl ToyGaussian {
    /// A prior of the vectors of the context's level.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if its tokens are codes, or if the condition has several tokens.
    pub fn new(config: ToyGaussianConfig, cx: &PriorContext) -> Result<Self> {
        let level = cx.own()?.clone();
        let channels = level.vector_channels()?;
        if cx.condition.length() != 1 {
            return Err(Error::Unsupported("a mean follows from one condition token, such as a class".to_owned()));
        }
        let (scope, null) = (cx.params.scope("mean"), cx.null_condition);
        let mean = ConditionEmbedding::new(&scope, cx.condition, null, channels, WeightInit::Published)?;
        let log_std = cx.params.parameter("log_std", &[channels], Init::Constant(config.std.ln()))?;
        Ok(Self { level, channels, mean, log_std })
    }

    /// Negative log-density in nats of each element, `[B, T, C]`: `((x - m) / s)² / 2 + ln s + ln(2 pi) / 2`.
    fn nats(&self, batch: &TokenBatch) -> Result<Tensor> {
        let (images, positions) = (batch.tokens.images(), self.level.positions());
        let x = batch.tokens.vectors()?.reshape(&[images, positions, self.channels])?;
        let log_std = self.log_std.get();
        let z = x.sub(&self.mean.forward(&batch.condition)?)?.mul(&log_std.neg()?.exp()?)?;
        let half_ln_2_pi = 0.5 * std::f32::consts::TAU.ln();
        Ok(z.square()?.mul_scalar(0.5)?.add(&log_std)?.add_scalar(half_ln_2_pi)?)
    }
}

impl Prior for ToyGaussian {
    fn wants(&self) -> TokenRequest {
        TokenRequest { posterior_draws: true, ..TokenRequest::default() }
    }

    fn loss(&self, batch: &TokenBatch, _mode: &Mode) -> Result<PriorLoss> {
        Ok(PriorLoss { loss: self.nats(batch)?.mean_all()?, terms: vec![] })
    }

    fn likelihood(&self, batch: &TokenBatch) -> Result<Option<Tensor>> {
        let nats = no_grad(|| self.nats(batch))?;
        Ok(Some(nats.sum(&[1, 2], false)?.reshape(&[batch.tokens.images(), 1])?))
    }

    fn sample(&self, request: &SampleRequest, rng: &Rng) -> Result<Tokens> {
        let (images, positions) = (request.images(), self.level.positions());
        no_grad(|| {
            let mean = if request.guidance.is_on() {
                if self.mean.space() == ConditionSpace::None {
                    return Err(Error::Unsupported("an unconditional prior has nothing to be guided by".to_owned()));
                }
                let pairs = self.mean.forward(&request.condition.paired()?)?.reshape(&[images, 2, 1, self.channels])?;
                Guidance::mix(&pairs, request.guidance.at(0, 1))?
            } else {
                self.mean.forward(&request.condition)?
            };
            let shape = [images, positions, self.channels];
            let noise = Tensor::from_vec(rng.normal(shape.iter().product()), &shape)?.to_device(mean.device())?;
            let vectors = noise.mul(&self.log_std.get().exp()?)?.add(&mean)?;
            Ok(Tokens::Vectors(vectors.reshape(&self.level.token_shape(images))?))
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::testing::PriorCase;

    #[test]
    fn it_keeps_the_contract_with_classes_and_without() {
        let config = ToyGaussianConfig::parse("toy_gaussian(std: 0.5)").unwrap();
        let case = PriorCase::vectors(4);
        crate::testing::prior(&case, |cx| ToyGaussian::new(config.clone(), cx));
        crate::testing::prior(&case.clone().under(ConditionSpace::None), |cx| ToyGaussian::new(config.clone(), cx));
        crate::testing::prior(&case.below(PriorCase::codes(&[7])), |cx| ToyGaussian::new(config.clone(), cx));
    }
}
