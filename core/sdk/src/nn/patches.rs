//! Maps as sequences of square patches, in the order of features that convolution weights have.

use crate::Result;
use crate::tensor::{Error, Tensor};

/// Each square of `patch` x `patch` pixels as one vector, `[B, H, W, C] -> [B, H/p, W/p, C p p]`: channel by channel, row by
/// row, as the weight of a convolution of that kernel and stride counts its inputs (`patchify` of MAR). Not the order of
/// [`Tensor::space_to_depth`], in which the channel changes fastest.
///
/// # Errors
/// A patch that does not divide the map.
pub fn patchify(map: &Tensor, patch: usize) -> Result<Tensor> {
    let [batch, height, width, channels] = map.dims("patchify")?;
    let folded = map.space_to_depth(patch, patch)?;
    if patch == 1 || channels == 1 {
        return Ok(folded);
    }
    let square = patch * patch;
    let rows = batch * (height / patch) * (width / patch);
    let turned = folded.reshape(&[rows, square, channels])?.permute(&[0, 2, 1])?;
    Ok(turned.reshape(folded.shape())?)
}

/// The inverse of [`patchify`].
///
/// # Errors
/// Vectors that are not those of whole patches.
pub fn unpatchify(patches: &Tensor, patch: usize) -> Result<Tensor> {
    let [batch, height, width, features] = patches.dims("unpatchify")?;
    let square = patch * patch;
    if square == 0 || !features.is_multiple_of(square) {
        let message = format!("{features} features are not those of patches of {patch} x {patch}");
        return Err(Error::shape("unpatchify", message).into());
    }
    let turned = patches.reshape(&[batch * height * width, features / square, square])?.permute(&[0, 2, 1])?;
    Ok(turned.reshape(patches.shape())?.depth_to_space(patch, patch)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::nn::Conv2d;
    use crate::nn::testing::random;
    use crate::params::Params;
    use crate::tensor::ops::conv::Conv2d as Walk;

    #[test]
    fn unpatchify_undoes_patchify() {
        for (shape, patch) in [([2, 4, 6, 3], 2), ([1, 3, 3, 5], 3), ([2, 5, 7, 2], 1), ([1, 4, 4, 1], 4)] {
            let map = random(&shape, 1);
            let patches = patchify(&map, patch).unwrap();
            assert_eq!(patches.shape(), [shape[0], shape[1] / patch, shape[2] / patch, shape[3] * patch * patch]);
            assert_eq!(unpatchify(&patches, patch).unwrap().to_vec(), map.to_vec());
        }
        assert!(patchify(&random(&[1, 4, 6, 3], 1), 4).is_err());
        assert!(unpatchify(&random(&[1, 2, 2, 6], 1), 2).is_err());
    }

    /// A convolution whose windows do not overlap is a linear map of patches.
    #[test]
    fn the_features_have_the_order_of_convolution_weights() {
        let map = random(&[2, 6, 9, 2], 1);
        let layer = Conv2d::without_bias(&Params::new(0), 2, 5, 3, Walk::new(3, [0; 4])).unwrap();
        let wanted = layer.forward(&map).unwrap();
        let weight = layer.weight.get().reshape(&[5, 18]).unwrap();
        let got = patchify(&map, 3).unwrap().linear(&weight, None).unwrap();
        assert_eq!(got.shape(), wanted.shape());
        for (a, b) in got.as_slice().iter().zip(wanted.as_slice()) {
            assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
    }
}
