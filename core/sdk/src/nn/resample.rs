//! Halving and doubling the size of maps.

use crate::Result;
use crate::choice;
use crate::nn::Conv2d;
use crate::params::Params;
use crate::tensor::Tensor;
use crate::tensor::ops::conv::Conv2d as Walk;

choice! {
    /// How a map is halved.
    pub enum Downsampling {
        /// 3x3 convolution of stride 2 with one row of zeros at the bottom and one column at the right, as in VQGAN and
        /// RQ-VAE.
        Published = "published",
        /// 3x3 convolution of stride 2 with zeros on every side.
        Symmetric = "symmetric",
        /// The mean of 2x2 cells; no parameters.
        Average = "average",
    }
}

/// Halves a map. Parameters: `conv.weight` `[C, C, 3, 3]`, `conv.bias` `[C]`, unless it takes means.
#[derive(Debug, Clone)]
pub struct Downsample {
    conv: Option<Conv2d>,
}

impl Downsample {
    /// Of maps of `channels`.
    ///
    /// # Errors
    /// A name that is taken.
    pub fn new(params: &Params, channels: usize, how: Downsampling) -> Result<Self> {
        let padding = match how {
            Downsampling::Published => [0, 1, 0, 1],
            Downsampling::Symmetric => [1; 4],
            Downsampling::Average => return Ok(Self { conv: None }),
        };
        let conv = Conv2d::with_walk(&params.scope("conv"), channels, channels, 3, Walk::new(2, padding))?;
        Ok(Self { conv: Some(conv) })
    }

    /// `[B, H, W, C] -> [B, H/2, W/2, C]`. Odd sizes are rounded down, or up by [`Downsampling::Symmetric`].
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match &self.conv {
            Some(conv) => conv.forward(x),
            None => Ok(x.avg_pool(2)?),
        }
    }
}

/// Doubles a map: every pixel becomes a 2x2 cell, then a 3x3 convolution. Parameters: `conv.weight` `[C, C, 3, 3]`,
/// `conv.bias` `[C]`.
#[derive(Debug, Clone)]
pub struct Upsample {
    conv: Conv2d,
}

impl Upsample {
    /// Of maps of `channels`.
    ///
    /// # Errors
    /// A name that is taken.
    pub fn new(params: &Params, channels: usize) -> Result<Self> {
        Ok(Self { conv: Conv2d::new(&params.scope("conv"), channels, channels, 3)? })
    }

    /// `[B, H, W, C] -> [B, 2H, 2W, C]`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.conv.forward_doubled(x)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::nn::testing::every_parameter_learns;

    #[test]
    fn sizes_are_halved() {
        for (how, odd, parameters) in [
            (Downsampling::Published, [2, 3], 2),
            (Downsampling::Symmetric, [3, 4], 2),
            (Downsampling::Average, [2, 3], 0),
        ] {
            let params = Params::new(0);
            let layer = Downsample::new(&params, 3, how).unwrap();
            assert_eq!(every_parameter_learns(&params, &[2, 4, 6, 3], |x| layer.forward(x)), [2, 2, 3, 3]);
            assert_eq!(params.entries().len(), parameters);
            let y = every_parameter_learns(&params, &[1, 5, 7, 3], |x| layer.forward(x));
            assert_eq!(y, [1, odd[0], odd[1], 3]);
        }
    }

    /// With all weights one and no bias, every output counts the pixels under the window.
    #[test]
    fn the_published_padding_is_at_the_bottom_and_the_right() {
        let layer = |how| {
            let params = Params::new(0);
            let layer = Downsample::new(&params, 1, how).unwrap();
            let conv = layer.conv.as_ref().unwrap();
            conv.weight.set(&Tensor::full(1.0, &[1, 1, 3, 3])).unwrap();
            conv.bias.as_ref().unwrap().set(&Tensor::zeros(&[1])).unwrap();
            layer.forward(&Tensor::full(1.0, &[1, 4, 4, 1])).unwrap().to_vec()
        };
        assert_eq!(layer(Downsampling::Published), [9.0, 6.0, 6.0, 4.0]);
        assert_eq!(layer(Downsampling::Symmetric), [4.0, 6.0, 6.0, 9.0]);
    }

    #[test]
    fn sizes_are_doubled() {
        let params = Params::new(0);
        let layer = Upsample::new(&params, 3).unwrap();
        assert_eq!(every_parameter_learns(&params, &[2, 3, 5, 3], |x| layer.forward(x)), [2, 6, 10, 3]);
    }
}
