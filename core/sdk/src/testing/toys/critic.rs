//! An objective with a critic.

use crate::Result;
use crate::nn::Linear;
use crate::prelude::*;

crate::config! {
    /// A critic that judges each pixel by its colour alone: hinge loss, with an adaptive weight from a step on.
    pub struct ToyCriticConfig {
        /// The step from which it counts and learns.
        start: u64 = 0;
        /// What the adaptive weight is multiplied by.
        weight: f32 = 0.1, in 0.0..=100.0;
        /// Peak learning rate of the critic; that of the tokenizer if none.
        lr: Option<f32> = None, in 0.0..=1.0;
        /// Hidden units.
        width: usize = 8, in 1..=1024;
    }
}

/// The objective: `-mean D(output)` for the tokenizer, `mean relu(1 - D(images)) + mean relu(1 + D(output))` for the critic.
/// Parameters: `hidden`, `score`.
#[derive(Debug)]
pub struct ToyCritic {
    config: ToyCriticConfig,
    hidden: Linear,
    score: Linear,
}

impl ToyCritic {
    /// A critic of images of the context's channels.
    ///
    /// # Errors
    /// A name that is taken.
    pub fn new(config: ToyCriticConfig, cx: &ObjectiveContext) -> Result<Self> {
        let hidden = Linear::new(&cx.params.scope("hidden"), cx.image.channels, config.width, true)?;
        let score = Linear::new(&cx.params.scope("score"), config.width, 1, true)?;
        Ok(Self { config, hidden, score })
    }

    /// How real each pixel of `[B, H, W, C]` looks: `[B, H, W, 1]`.
    fn scores(&self, images: &Tensor) -> Result<Tensor> {
        self.score.forward(&self.hidden.forward(images)?.silu()?)
    }
}

impl Objective for ToyCritic {
    fn loss(&mut self, reconstruction: &Reconstruction<'_>) -> Result<Loss> {
        let loss = self.scores(reconstruction.output)?.mean_all()?.neg()?;
        Ok(Loss { terms: vec![("fake_score", loss.detach().neg()?)], loss })
    }

    fn weight(&self, step: u64) -> Weight {
        if step < self.config.start {
            return Weight::Fixed(0.0);
        }
        Weight::Adaptive { scale: self.config.weight, limit: 1e4 }
    }

    fn critic(&mut self, reconstruction: &Reconstruction<'_>) -> Result<Option<Loss>> {
        if reconstruction.step < self.config.start {
            return Ok(None);
        }
        let (real, fake) = (self.scores(reconstruction.images)?, self.scores(reconstruction.output)?);
        let hinge = real.neg()?.add_scalar(1.0)?.relu()?.mean_all()?;
        let loss = hinge.add(&fake.add_scalar(1.0)?.relu()?.mean_all()?)?;
        let score = |scores: &Tensor| Ok::<_, Error>(scores.detach().mean_all()?);
        Ok(Some(Loss { loss, terms: vec![("real_score", score(&real)?), ("fake_score", score(&fake)?)] }))
    }

    fn critic_training(&self) -> CriticTraining {
        CriticTraining { lr: self.config.lr, betas: Some([0.5, 0.9]) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn it_keeps_the_contract_and_waits_for_its_start() {
        let image = MapShape { height: 4, width: 6, channels: 3 };
        let config = ToyCriticConfig::parse("toy_critic(start: 5)").unwrap();
        crate::testing::objective(image, |cx| ToyCritic::new(config.clone(), cx));

        let cx = ObjectiveContext::new(image, Params::new(1));
        let mut critic = ToyCritic::new(config, &cx).unwrap();
        assert_eq!(critic.weight(4), Weight::Fixed(0.0));
        assert!(matches!(critic.weight(5), Weight::Adaptive { .. }));
        let images = Tensor::zeros(&[1, 4, 6, 3]);
        let rng = Rng::new(0, "objective", 0);
        for (step, learns) in [(4, false), (5, true)] {
            let asked = Reconstruction { images: &images, output: &images, step, rng: &rng };
            assert_eq!(critic.critic(&asked).unwrap().is_some(), learns);
        }
    }
}
