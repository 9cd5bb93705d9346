//! The linear layer.

use crate::Result;
use crate::params::{Init, Params};
use crate::tensor::ops::packed::PackedLinear;
use crate::tensor::{Tensor, Var};

/// `x W' + b` over the innermost axis. Parameters: `weight` `[O, I]`, `bias` `[O]`.
#[derive(Debug, Clone)]
pub struct Linear {
    /// The weight `[O, I]`.
    pub weight: Var,
    /// The bias `[O]`.
    pub bias: Option<Var>,
}

impl Linear {
    /// A layer from `inputs` to `outputs` numbers.
    ///
    /// # Errors
    /// A name that is taken.
    pub fn new(params: &Params, inputs: usize, outputs: usize, bias: bool) -> Result<Self> {
        let init = Init::fan_in(inputs);
        Self::with_init(params, inputs, outputs, init, bias.then_some(init))
    }

    /// The same with other first values; no bias if its own are `None`.
    ///
    /// # Errors
    /// As for [`Linear::new`].
    pub fn with_init(params: &Params, inputs: usize, outputs: usize, weight: Init, bias: Option<Init>) -> Result<Self> {
        let weight = params.parameter("weight", &[outputs, inputs], weight)?;
        let bias = bias.map(|init| params.parameter("bias", &[outputs], init)).transpose()?;
        Ok(Self { weight, bias })
    }

    /// `[.., I] -> [.., O]`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.linear(&self.weight.get(), self.bias.as_ref().map(Var::get).as_ref())?)
    }

    /// [`Linear::forward`] followed by the exact GELU, in one operation.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn forward_gelu(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.linear_gelu(&self.weight.get(), self.bias.as_ref().map(Var::get).as_ref())?)
    }

    /// `residual` plus [`Linear::forward`], in one operation.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn forward_add(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        Ok(x.linear_add(&self.weight.get(), self.bias.as_ref().map(Var::get).as_ref(), residual)?)
    }

    /// The map as it is now, for many products of about `rows` rows without gradients.
    ///
    /// # Errors
    /// Those of [`PackedLinear::new`].
    pub fn packed(&self, rows: usize) -> Result<PackedLinear> {
        Ok(PackedLinear::new(&self.weight.get(), self.bias.as_ref().map(Var::get).as_ref(), rows)?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::nn::testing::every_parameter_learns;

    #[test]
    fn weights_start_within_one_over_root_fan_in() {
        let params = Params::new(0);
        Linear::new(&params.scope("l"), 100, 50, true).unwrap();
        for (name, var) in params.trained() {
            let largest = var.get().to_vec().into_iter().fold(0.0f32, |m, x| m.max(x.abs()));
            assert!((0.08..=0.1).contains(&largest), "{name}: {largest}");
        }
    }

    #[test]
    fn gradients_reach_weight_and_bias() {
        let params = Params::new(0);
        let layer = Linear::new(&params, 3, 5, true).unwrap();
        let y = every_parameter_learns(&params, &[2, 7, 3], |x| layer.forward(x));
        assert_eq!(y, [2, 7, 5]);
        every_parameter_learns(&params, &[2, 7, 3], |x| layer.forward_gelu(x));
        let residual = Tensor::zeros(&[2, 7, 5]);
        every_parameter_learns(&params, &[2, 7, 3], |x| layer.forward_add(x, &residual));
    }

    #[test]
    fn a_layer_without_bias_has_none() {
        let params = Params::dry();
        Linear::new(&params, 3, 5, false).unwrap();
        assert_eq!(params.count(), 15);
    }
}
