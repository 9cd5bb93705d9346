//! The convolution layer.

use crate::Result;
use crate::params::{Init, Params};
use crate::tensor::ops::conv::Conv2d as Walk;
use crate::tensor::{Tensor, Var};

/// A convolution over maps `[B, H, W, I]`. Parameters: `weight` `[O, I, kh, kw]` and, if it has one, `bias` `[O]`.
#[derive(Debug, Clone)]
pub struct Conv2d {
    /// The weight `[O, I, kh, kw]`.
    pub weight: Var,
    /// The bias `[O]`.
    pub bias: Option<Var>,
    walk: Walk,
}

impl Conv2d {
    /// A `kernel` x `kernel` convolution of stride 1 that keeps the size of the map (odd kernels).
    ///
    /// # Errors
    /// A name that is taken.
    pub fn new(params: &Params, inputs: usize, outputs: usize, kernel: usize) -> Result<Self> {
        Self::with_walk(params, inputs, outputs, kernel, Walk::same(kernel))
    }

    /// The same with any stride and padding.
    ///
    /// # Errors
    /// As for [`Conv2d::new`].
    pub fn with_walk(params: &Params, inputs: usize, outputs: usize, kernel: usize, walk: Walk) -> Result<Self> {
        let init = Init::fan_in(inputs * kernel * kernel);
        let bias = params.parameter("bias", &[outputs], init)?;
        Ok(Self { bias: Some(bias), ..Self::without_bias(params, inputs, outputs, kernel, walk)? })
    }

    /// The same without a bias.
    ///
    /// # Errors
    /// As for [`Conv2d::new`].
    pub fn without_bias(params: &Params, inputs: usize, outputs: usize, kernel: usize, walk: Walk) -> Result<Self> {
        let init = Init::fan_in(inputs * kernel * kernel);
        let weight = params.parameter("weight", &[outputs, inputs, kernel, kernel], init)?;
        Ok(Self { weight, bias: None, walk })
    }

    /// `[B, H, W, I] -> [B, H2, W2, O]`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.conv2d(&self.weight.get(), self.bias.as_ref().map(Var::get).as_ref(), self.walk)?)
    }

    /// The same of the map doubled to the nearest pixel, `[B, H, W, I] -> [B, 2H, 2W, O]`, without making that map: for
    /// kernels of 3x3.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn forward_doubled(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.upsample_conv2d(&self.weight.get(), self.bias.as_ref().map(Var::get).as_ref())?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::nn::testing::every_parameter_learns;

    #[test]
    fn gradients_reach_weight_and_bias_on_odd_sizes() {
        for (kernel, size) in [(1, [5, 3]), (3, [5, 3]), (3, [1, 1]), (5, [7, 2])] {
            let params = Params::new(0);
            let layer = Conv2d::new(&params, 3, 2, kernel).unwrap();
            let y = every_parameter_learns(&params, &[2, size[0], size[1], 3], |x| layer.forward(x));
            assert_eq!(y, [2, size[0], size[1], 2]);
            let params = Params::new(0);
            let layer = Conv2d::without_bias(&params, 3, 2, kernel, Walk::same(kernel)).unwrap();
            assert_eq!(every_parameter_learns(&params, &[2, size[0], size[1], 3], |x| layer.forward(x)), y);
            assert_eq!(params.entries().len(), 1);
        }
    }

    #[test]
    fn the_bound_of_first_values_counts_the_window() {
        let params = Params::new(0);
        Conv2d::new(&params, 4, 64, 5).unwrap();
        for (name, var) in params.trained() {
            let largest = var.get().to_vec().into_iter().fold(0.0f32, |m, x| m.max(x.abs()));
            assert!((0.085..=0.1).contains(&largest), "{name}: {largest}");
        }
    }
}
