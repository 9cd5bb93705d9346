//! Attention between the positions of a map.

use crate::Result;
use crate::nn::{Conv2d, GroupNorm};
use crate::params::Params;
use crate::tensor::Tensor;
use crate::tensor::ops::attention::attention;

/// The `AttnBlock` of VQGAN and RQ-VAE: one head over all positions of a map, `x + proj_out(A v)` with
/// `A = softmax(q k' / sqrt(C))`, where `q`, `k` and `v` are 1x1 convolutions of `norm(x)` (Esser et al. 2021).
#[derive(Debug, Clone)]
pub struct SpatialAttention {
    norm: GroupNorm,
    q: Conv2d,
    k: Conv2d,
    v: Conv2d,
    proj_out: Conv2d,
}

impl SpatialAttention {
    /// Over maps of `channels`.
    ///
    /// # Errors
    /// Groups that do not divide the channels; a name that is taken.
    pub fn new(params: &Params, channels: usize, groups: usize) -> Result<Self> {
        let pointwise = |name: &str| Conv2d::new(&params.scope(name), channels, channels, 1);
        Ok(Self {
            norm: GroupNorm::new(&params.scope("norm"), groups, channels, 1e-6)?,
            q: pointwise("q")?,
            k: pointwise("k")?,
            v: pointwise("v")?,
            proj_out: pointwise("proj_out")?,
        })
    }

    /// `[B, H, W, C] -> [B, H, W, C]`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let [batch, height, width, channels] = x.dims("spatial attention")?;
        let h = self.norm.forward(x)?;
        let rows =
            |conv: &Conv2d| Ok::<_, crate::Error>(conv.forward(&h)?.reshape(&[batch, height * width, channels])?);
        let seen = attention(&rows(&self.q)?, &rows(&self.k)?, &rows(&self.v)?, 1, false)?;
        Ok(x.add(&self.proj_out.forward(&seen.reshape(x.shape())?)?)?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::nn::testing::{largest_gradients, random};

    #[test]
    fn gradients_reach_all_that_matters() {
        let params = Params::new(0);
        let block = SpatialAttention::new(&params, 6, 3).unwrap();
        let (shape, gradients) = largest_gradients(&params, &[2, 3, 5, 6], |x| block.forward(x));
        assert_eq!(shape, [2, 3, 5, 6]);
        for (name, gradient) in gradients {
            // The bias of k adds one number to all scores of a query, which softmax does not see.
            assert_eq!(gradient > 1e-4, name != "k.bias", "{name}: {gradient}");
        }
    }

    #[test]
    fn positions_have_no_order() {
        let block = SpatialAttention::new(&Params::new(0), 4, 2).unwrap();
        let x = random(&[1, 2, 3, 4], 3);
        let reversed = |t: &Tensor| t.as_slice().chunks(4).rev().flatten().copied().collect::<Vec<_>>();
        let y = block.forward(&x).unwrap();
        let z = block.forward(&Tensor::from_vec(reversed(&x), x.shape()).unwrap()).unwrap();
        for (a, b) in reversed(&y).iter().zip(z.as_slice()) {
            assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
    }
}
