//! Normalisation layers.

use crate::Result;
use crate::config::ConfigError;
use crate::params::{Init, Params};
use crate::tensor::{Tensor, Var};

/// Normalises over the innermost axis. Parameters: `weight` and `bias` `[C]`, which start at one and zero.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    /// The scale `[C]`.
    pub weight: Var,
    /// The shift `[C]`.
    pub bias: Var,
    eps: f32,
}

impl LayerNorm {
    /// Over `width` numbers; `eps` is added to the variance (1e-5 in most transformers).
    ///
    /// # Errors
    /// A name that is taken.
    pub fn new(params: &Params, width: usize, eps: f32) -> Result<Self> {
        let weight = params.parameter("weight", &[width], Init::ONES)?;
        Ok(Self { weight, bias: params.parameter("bias", &[width], Init::ZEROS)?, eps })
    }

    /// `[.., C] -> [.., C]`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.layer_norm(&self.weight.get(), &self.bias.get(), self.eps)?)
    }
}

/// Normalises a map over all positions and the channels of a group (Wu and He, ECCV 2018). Parameters: `weight` and
/// `bias` `[C]`, which start at one and zero.
#[derive(Debug, Clone)]
pub struct GroupNorm {
    /// The scale `[C]`.
    pub weight: Var,
    /// The shift `[C]`.
    pub bias: Var,
    groups: usize,
    eps: f32,
}

impl GroupNorm {
    /// Over `channels` in `groups` of equal size; `eps` is added to the variance (1e-6 in VQGAN and RQ-VAE).
    ///
    /// # Errors
    /// [`ConfigError`] of the field `groups` if they do not divide the channels; a name that is taken.
    pub fn new(params: &Params, groups: usize, channels: usize, eps: f32) -> Result<Self> {
        if groups == 0 || !channels.is_multiple_of(groups) {
            let message = format!("group norm over {channels} channels cannot be in {groups} groups of equal size");
            return Err(ConfigError::field("groups", message).into());
        }
        let weight = params.parameter("weight", &[channels], Init::ONES)?;
        Ok(Self { weight, bias: params.parameter("bias", &[channels], Init::ZEROS)?, groups, eps })
    }

    /// `[B, .., C] -> [B, .., C]`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.group_norm(self.groups, &self.weight.get(), &self.bias.get(), self.eps)?)
    }

    /// The same followed by SiLU, in one pass.
    ///
    /// # Errors
    /// As for [`GroupNorm::forward`].
    pub fn forward_silu(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.group_norm_silu(self.groups, &self.weight.get(), &self.bias.get(), self.eps)?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::nn::testing::{every_parameter_learns, random};

    #[test]
    fn a_fresh_layer_norm_leaves_mean_zero_and_variance_one() {
        let layer = LayerNorm::new(&Params::new(0), 33, 1e-5).unwrap();
        let y = layer.forward(&random(&[4, 33], 5)).unwrap();
        for row in y.as_slice().chunks(33) {
            let mean = row.iter().sum::<f32>() / 33.0;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / 33.0;
            assert!(mean.abs() < 1e-5 && (variance - 1.0).abs() < 1e-3, "{mean} {variance}");
        }
    }

    #[test]
    fn gradients_reach_scale_and_shift() {
        let params = Params::new(0);
        let layer = LayerNorm::new(&params, 5, 1e-5).unwrap();
        every_parameter_learns(&params, &[3, 5], |x| layer.forward(x));
        let params = Params::new(0);
        let layer = GroupNorm::new(&params, 3, 9, 1e-6).unwrap();
        every_parameter_learns(&params, &[2, 3, 5, 9], |x| layer.forward(x));
        every_parameter_learns(&params, &[2, 3, 5, 9], |x| layer.forward_silu(x));
    }

    #[test]
    fn groups_must_divide_the_channels() {
        let complaint = GroupNorm::new(&Params::dry(), 32, 48, 1e-6).unwrap_err().to_string();
        assert!(complaint.contains("`groups`") && complaint.contains("48 channels"), "{complaint}");
        assert!(GroupNorm::new(&Params::dry(), 0, 48, 1e-6).is_err());
    }
}
