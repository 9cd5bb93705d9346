//! What the two players minimise, as functions of the discriminator's logits.

use rqlab_sdk::tensor::Tensor;
use rqlab_sdk::{Result, choice};

choice! {
    /// The pair of losses. D is the discriminator, x an image, y its reconstruction.
    pub enum GanLoss {
        /// `(mean max(0, 1 - D(x)) + mean max(0, 1 + D(y))) / 2` against `-mean D(y)`: VQGAN, RQ-VAE, TiTok, LlamaGen.
        Hinge = "hinge",
        /// `(mean softplus(-D(x)) + mean softplus(D(y))) / 2` against `-mean D(y)`: `vanilla` of VQGAN's code.
        Vanilla = "vanilla",
        /// The same critic's loss against `mean softplus(-D(y))` (Goodfellow et al., NeurIPS 2014): BSQ-ViT.
        NonSaturating = "non_saturating",
    }
}

impl GanLoss {
    /// The critic's loss (rank 0) of logits of images and of reconstructions.
    ///
    /// # Errors
    /// None for logits.
    pub fn critic(self, real: &Tensor, fake: &Tensor) -> Result<Tensor> {
        let (real, fake) = match self {
            Self::Hinge => (real.neg()?.add_scalar(1.0)?.relu()?, fake.add_scalar(1.0)?.relu()?),
            Self::Vanilla | Self::NonSaturating => (real.neg()?.softplus()?, fake.softplus()?),
        };
        Ok(real.mean_all()?.add(&fake.mean_all()?)?.mul_scalar(0.5)?)
    }

    /// The tokenizer's loss (rank 0) of logits of reconstructions.
    ///
    /// # Errors
    /// None for logits.
    pub fn generator(self, fake: &Tensor) -> Result<Tensor> {
        match self {
            Self::Hinge | Self::Vanilla => Ok(fake.mean_all()?.neg()?),
            Self::NonSaturating => Ok(fake.neg()?.softplus()?.mean_all()?),
        }
    }
}
