//! The residual block of VQGAN and RQ-VAE.

use crate::Result;
use crate::contracts::Mode;
use crate::nn::{Conv2d, GroupNorm};
use crate::params::Params;
use crate::tensor::Tensor;

/// `s(x) + conv2(dropout(silu(norm2(conv1(silu(norm1(x)))))))` with 3x3 convolutions and group norm of eps 1e-6; `s` is
/// the identity where the channels agree and the 1x1 convolution `nin_shortcut` where they do not (Esser et al. 2021).
#[derive(Debug, Clone)]
pub struct ResidualBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    norm2: GroupNorm,
    conv2: Conv2d,
    nin_shortcut: Option<Conv2d>,
    dropout: f32,
}

impl ResidualBlock {
    /// From `inputs` to `outputs` channels.
    ///
    /// # Errors
    /// Groups that do not divide the channels; a name that is taken.
    pub fn new(params: &Params, inputs: usize, outputs: usize, groups: usize, dropout: f32) -> Result<Self> {
        let shortcut = || Conv2d::new(&params.scope("nin_shortcut"), inputs, outputs, 1);
        Ok(Self {
            norm1: GroupNorm::new(&params.scope("norm1"), groups, inputs, 1e-6)?,
            conv1: Conv2d::new(&params.scope("conv1"), inputs, outputs, 3)?,
            norm2: GroupNorm::new(&params.scope("norm2"), groups, outputs, 1e-6)?,
            conv2: Conv2d::new(&params.scope("conv2"), outputs, outputs, 3)?,
            nin_shortcut: (inputs != outputs).then(shortcut).transpose()?,
            dropout,
        })
    }

    /// `[B, H, W, I] -> [B, H, W, O]`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn forward(&self, x: &Tensor, mode: &Mode) -> Result<Tensor> {
        let h = self.conv1.forward(&self.norm1.forward_silu(x)?)?;
        let h = mode.dropout(&self.norm2.forward_silu(&h)?, self.dropout, "residual")?;
        let h = self.conv2.forward(&h)?;
        match &self.nin_shortcut {
            Some(conv) => Ok(conv.forward(x)?.add(&h)?),
            None => Ok(x.add(&h)?),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::nn::testing::{every_parameter_learns, random};
    use crate::tensor::Rng;

    #[test]
    fn gradients_reach_every_parameter_on_odd_sizes() {
        for (inputs, outputs, tensors) in [(4, 4, 8), (4, 6, 10)] {
            let params = Params::new(0);
            let block = ResidualBlock::new(&params, inputs, outputs, 2, 0.0).unwrap();
            let y = every_parameter_learns(&params, &[2, 5, 3, inputs], |x| block.forward(x, &Mode::Eval));
            assert_eq!(y, [2, 5, 3, outputs]);
            assert_eq!(params.entries().len(), tensors);
        }
    }

    #[test]
    fn dropout_acts_in_training_alone() {
        let block = ResidualBlock::new(&Params::new(0), 4, 4, 2, 0.5).unwrap();
        let x = random(&[1, 3, 3, 4], 7);
        let run = |mode: &Mode| block.forward(&x, mode).unwrap().to_vec();
        let train = |step| Mode::Train(Rng::new(0, "dropout", step));
        assert_eq!(run(&Mode::Eval), run(&Mode::Eval));
        assert_eq!(run(&train(1)), run(&train(1)));
        assert_ne!(run(&train(1)), run(&train(2)));
        assert_ne!(run(&train(1)), run(&Mode::Eval));
    }
}
