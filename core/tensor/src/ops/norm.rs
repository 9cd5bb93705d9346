//! Normalisation.

use crate::cpu::norm::{self, Maps};
use crate::tape::{GradKey, record};
use crate::{Error, Result, Tensor};

impl Tensor {
    /// Layer norm over the innermost axis: [.., C], weight and bias [C] (Ba et al., "Layer normalization", 2016).
    ///
    /// # Errors
    /// [`Error::Shape`] unless weight and bias have shape [C].
    pub fn layer_norm(&self, weight: &Tensor, bias: &Tensor, eps: f32) -> Result<Tensor> {
        check_parameters("layer_norm", self, weight, bias)?;
        let (data, moments) = norm::layer_norm(self.as_slice(), weight.as_slice(), bias.as_slice(), eps);
        let keys = [self.tracked(), weight.tracked(), bias.tracked()];
        let key = keys.iter().any(Option::is_some).then(GradKey::new);
        let out = Tensor::output(data, self.shape(), key.clone());
        if let Some(key) = key {
            let (x, weight) = (self.detach(), weight.detach());
            record(&key, move |mut grad, flow| {
                let mut sums = norm::layer_norm_backward(&mut grad, x.as_slice(), &moments, weight.as_slice());
                let bias_sums = sums.split_off(weight.len());
                let [x_key, weight_key, bias_key] = keys;
                for (key, grad) in [(x_key, grad), (weight_key, sums), (bias_key, bias_sums)] {
                    if let Some(key) = key {
                        flow.add(&key, grad)?;
                    }
                }
                Ok(())
            });
        }
        Ok(out)
    }

    /// Group norm of a map [B, .., C], over all positions and the C / groups channels of a group, with the biased
    /// variance; weight and bias [C] (Wu and He, "Group normalization", ECCV 2018).
    ///
    /// # Errors
    /// [`Error::Shape`] unless weight and bias have shape [C] and `groups` divides C.
    pub fn group_norm(&self, groups: usize, weight: &Tensor, bias: &Tensor, eps: f32) -> Result<Tensor> {
        self.group_norm_then("group_norm", groups, weight, bias, eps, false)
    }

    /// [`group_norm`](Self::group_norm) followed by [`silu`](Self::silu), in one pass: the GroupNorm and swish of the
    /// residual block.
    ///
    /// # Errors
    /// As of `group_norm`.
    pub fn group_norm_silu(&self, groups: usize, weight: &Tensor, bias: &Tensor, eps: f32) -> Result<Tensor> {
        self.group_norm_then("group_norm_silu", groups, weight, bias, eps, true)
    }

    fn group_norm_then(
        &self,
        op: &'static str,
        groups: usize,
        weight: &Tensor,
        bias: &Tensor,
        eps: f32,
        silu: bool,
    ) -> Result<Tensor> {
        check_parameters(op, self, weight, bias)?;
        let channels = self.last_dim();
        if self.rank() < 2 || groups == 0 || !channels.is_multiple_of(groups) {
            return Err(Error::shape(
                op,
                format!("wanted [B, .., C] with C a multiple of {groups} groups, found {:?}", self.shape()),
            ));
        }
        let positions = self.shape()[1..self.rank() - 1].iter().product();
        let maps = Maps { positions, channels, groups, eps, silu };
        if self.is_empty() {
            return Ok(self.detach());
        }
        let (data, moments) = norm::group_norm(self.as_slice(), weight.as_slice(), bias.as_slice(), maps);
        let keys = [self.tracked(), weight.tracked(), bias.tracked()];
        let key = keys.iter().any(Option::is_some).then(GradKey::new);
        let out = Tensor::output(data, self.shape(), key.clone());
        if let Some(key) = key {
            let (x, weight, bias) = (self.detach(), weight.detach(), bias.detach());
            record(&key, move |mut grad, flow| {
                let (weight, bias) = (weight.as_slice(), bias.as_slice());
                let mut sums = norm::group_norm_backward(&mut grad, x.as_slice(), &moments, weight, bias, maps);
                let bias_sums = sums.split_off(channels);
                let [x_key, weight_key, bias_key] = keys;
                for (key, grad) in [(x_key, grad), (weight_key, sums), (bias_key, bias_sums)] {
                    if let Some(key) = key {
                        flow.add(&key, grad)?;
                    }
                }
                Ok(())
            });
        }
        Ok(out)
    }
}

/// Weight and bias of a normalisation are [C], and C is not zero.
fn check_parameters(op: &'static str, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<()> {
    let channels = x.last_dim();
    if x.rank() == 0 || channels == 0 || weight.shape() != [channels] || bias.shape() != [channels] {
        return Err(Error::shape(
            op,
            format!(
                "wanted [.., C] with weight and bias [C], found {:?}, {:?} and {:?}",
                x.shape(),
                weight.shape(),
                bias.shape()
            ),
        ));
    }
    Ok(())
}
