//! Normalisation layers.

use crate::Result;
use crate::config::ConfigError;
use crate::params::{Init, Params};
use crate::tensor::ranks::Step;
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

/// Normalises a map by the statistics of the batch and of all positions, per channel (Ioffe and Szegedy, ICML 2015), and keeps
/// running ones. Parameters: `weight` and `bias` `[C]`; buffers: `running_mean` and `running_var` `[C]`, which start at zero
/// and one.
#[derive(Debug, Clone)]
pub struct BatchNorm {
    /// The scale `[C]`.
    pub weight: Var,
    /// The shift `[C]`.
    pub bias: Var,
    running_mean: Var,
    running_var: Var,
}

impl BatchNorm {
    /// Added to the variance, as PyTorch does.
    pub const EPS: f32 = 1e-5;
    /// The share of a batch in the running statistics.
    const MOMENTUM: f32 = 0.1;

    /// Over `channels`; the scale starts as `weight` says.
    ///
    /// # Errors
    /// A name that is taken.
    pub fn new(params: &Params, channels: usize, weight: Init) -> Result<Self> {
        Ok(Self {
            weight: params.parameter("weight", &[channels], weight)?,
            bias: params.parameter("bias", &[channels], Init::ZEROS)?,
            running_mean: params.buffer("running_mean", &[channels], Init::ZEROS)?,
            running_var: params.buffer("running_var", &[channels], Init::ONES)?,
        })
    }

    /// By the batch's own statistics, which are those of all ranks that work on it, and those of a part where a step has several
    /// parts: `[B, .., C] -> [B, .., C]`, with the mean and the variance `[C]`.
    ///
    /// # Errors
    /// Shapes that do not fit; an empty batch.
    pub fn normalize(&self, x: &Tensor) -> Result<(Tensor, [Tensor; 2])> {
        let (step, weight, bias) = (Step::current(), self.weight.get(), self.bias.get());
        if step.ranks() == 1 {
            return Ok(x.batch_norm(&weight, &bias, Self::EPS)?);
        }
        let channels = x.last_dim();
        let rows = x.reshape(&[x.len() / channels.max(1), channels])?;
        let mean = step.mean(&rows.mean(&[0], false)?)?;
        let centred = rows.sub(&mean)?;
        let variance = step.mean(&centred.square()?.mean(&[0], false)?)?;
        let out = centred.div(&variance.add_scalar(Self::EPS)?.sqrt()?)?.mul(&weight)?.add(&bias)?;
        Ok((out.reshape(x.shape())?, [mean.detach(), variance.detach()]))
    }

    /// As [`BatchNorm::normalize`], and a tenth of the statistics moves the running ones (of the variance the unbiased one).
    ///
    /// # Errors
    /// Shapes that do not fit; an empty batch.
    pub fn forward_train(&self, x: &Tensor) -> Result<Tensor> {
        let (out, [mean, variance]) = self.normalize(x)?;
        let n = (x.len() / x.last_dim() * Step::current().ranks()) as f32;
        let unbiased = variance.mul_scalar(n / (n - 1.0).max(1.0))?;
        for (running, batch) in [(&self.running_mean, mean), (&self.running_var, unbiased)] {
            let kept = running.get().mul_scalar(1.0 - Self::MOMENTUM)?;
            running.set(&kept.add(&batch.mul_scalar(Self::MOMENTUM)?)?)?;
        }
        Ok(out)
    }

    /// By the running statistics: `[.., C] -> [.., C]`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let deviation = self.running_var.get().add_scalar(Self::EPS)?.sqrt()?;
        let normal = x.sub(&self.running_mean.get())?.div(&deviation)?;
        Ok(normal.mul(&self.weight.get())?.add(&self.bias.get())?)
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
    fn batch_norm_learns_and_its_running_statistics_approach_those_of_the_batches() {
        let params = Params::new(0);
        let layer = BatchNorm::new(&params, 5, Init::ONES).unwrap();
        every_parameter_learns(&params, &[3, 2, 5], |x| layer.forward_train(x));
        every_parameter_learns(&params, &[3, 2, 5], |x| layer.forward(x));
        let x = random(&[64, 5], 6).mul_scalar(3.0).unwrap().add_scalar(2.0).unwrap();
        let mut normal = layer.forward_train(&x).unwrap();
        for _ in 0..200 {
            normal = layer.forward_train(&x).unwrap();
        }
        let found = layer.forward(&x).unwrap();
        // The running variance is the unbiased one: 64/63 of that which normalises.
        for (found, normal) in found.as_slice().iter().zip(normal.as_slice()) {
            assert!((found - normal * (63.0f32 / 64.0).sqrt()).abs() < 1e-3, "{found}, {normal}");
        }
    }

    #[test]
    fn groups_must_divide_the_channels() {
        let complaint = GroupNorm::new(&Params::dry(), 32, 48, 1e-6).unwrap_err().to_string();
        assert!(complaint.contains("`groups`") && complaint.contains("48 channels"), "{complaint}");
        assert!(GroupNorm::new(&Params::dry(), 0, 48, 1e-6).is_err());
    }
}
