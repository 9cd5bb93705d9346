//! The learned perceptual image patch similarity (Zhang et al., "The unreasonable effectiveness of deep features as a
//! perceptual metric", 2018), version 0.1 on VGG16. It has gradients in the images.

use super::Weights;
use crate::tensor::Tensor;
use crate::tensor::ops::conv::Conv2d as Strides;
use crate::{Error, Result};

/// Outputs of the trunk's convolutions, and the maps that are halved before one.
const CHANNELS: [usize; 13] = [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512];
const HALVED: [usize; 4] = [2, 4, 7, 10];
/// The convolutions whose rectified results are compared.
const TAPS: [usize; 5] = [1, 3, 6, 9, 12];
/// Where the convolutions stand among torchvision's layers, `features.0` and so on.
const LAYERS: [usize; 13] = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28];
/// What images in [-1, 1] are shifted and divided by.
const SHIFT: [f32; 3] = [-0.030, -0.088, -0.188];
const SCALE: [f32; 3] = [0.458, 0.448, 0.450];

/// The convolutions of VGG16, up to the last whose features are compared.
#[derive(Debug)]
pub struct Vgg16 {
    layers: Vec<[Tensor; 2]>,
}

impl Vgg16 {
    /// The convolutions, from torchvision's `features.N.weight` and `features.N.bias`.
    ///
    /// # Errors
    /// Tensors that are missing or have another shape.
    pub fn new(weights: &mut Weights) -> Result<Self> {
        let mut inputs = 3;
        let mut layer = |(&outputs, place): (&usize, &usize)| -> Result<[Tensor; 2]> {
            let weight = weights.take(&format!("features.{place}.weight"), &[outputs, inputs, 3, 3])?;
            inputs = outputs;
            Ok([weight, weights.take(&format!("features.{place}.bias"), &[outputs])?])
        };
        Ok(Self { layers: CHANNELS.iter().zip(&LAYERS).map(&mut layer).collect::<Result<_>>()? })
    }

    /// The five maps that are compared, of scaled images `[B, H, W, 3]`.
    ///
    /// # Errors
    /// Images of fewer than 16 x 16 pixels, or not of three channels.
    pub fn taps(&self, images: &Tensor) -> Result<Vec<Tensor>> {
        let (mut x, mut taps) = (images.clone(), Vec::new());
        for (i, [weight, bias]) in self.layers.iter().enumerate() {
            if HALVED.contains(&i) {
                x = x.max_pool(2, 2, 0)?;
            }
            x = x.conv2d(weight, Some(bias), Strides::same(3))?.relu()?;
            if TAPS.contains(&i) {
                taps.push(x.clone());
            }
        }
        Ok(taps)
    }
}

/// The distance: VGG16 and a non-negative weight for each compared channel.
#[derive(Debug)]
pub struct Lpips {
    trunk: Vgg16,
    heads: Vec<Tensor>,
}

impl Lpips {
    /// From torchvision's VGG16 (`features.N.weight`, `features.N.bias`; its classifier, if it is there, is not used) and
    /// the package's heads (`lin0.model.1.weight` and so on, `[1, C, 1, 1]`), in one file.
    ///
    /// # Errors
    /// Tensors that are missing, have another shape, or are no part of it.
    pub fn new(mut weights: Weights) -> Result<Self> {
        weights.leave_out(|name| name.starts_with("classifier."));
        let trunk = Vgg16::new(&mut weights)?;
        let head = |(i, tap): (usize, &usize)| -> Result<Tensor> {
            let channels = CHANNELS[*tap];
            Ok(weights.take(&format!("lin{i}.model.1.weight"), &[1, channels, 1, 1])?.reshape(&[channels])?)
        };
        let heads = TAPS.iter().enumerate().map(head).collect::<Result<_>>()?;
        weights.finish()?;
        Ok(Self { trunk, heads })
    }

    /// The compared maps of images `[B, H, W, 3]` in [-1, 1].
    ///
    /// # Errors
    /// As for [`Vgg16::taps`].
    pub fn features(&self, images: &Tensor) -> Result<Vec<Tensor>> {
        if images.last_dim() != 3 {
            return Err(Error::Data(format!("LPIPS sees images of 3 channels, not of {}", images.last_dim())));
        }
        let [shift, scale] = [SHIFT, SCALE].map(|values| Tensor::from_vec(values.to_vec(), &[3]));
        self.trunk.taps(&images.sub(&shift?)?.div(&scale?)?)
    }

    /// The distance of each image of `x` to that of `y`, both `[B, H, W, 3]` in [-1, 1], at each of the five maps:
    /// `[B, 5]`. Its sum over the maps is LPIPS.
    ///
    /// # Errors
    /// As for [`Vgg16::taps`]; shapes that differ.
    pub fn by_map(&self, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        let (x, y) = (self.features(x)?, self.features(y)?);
        let mut distances = Vec::new();
        for ((x, y), head) in x.iter().zip(&y).zip(&self.heads) {
            let square = directions(x)?.sub(&directions(y)?)?.square()?;
            distances.push(square.mul(head)?.sum(&[3], false)?.mean(&[1, 2], false)?);
        }
        Ok(Tensor::stack(&distances.iter().collect::<Vec<_>>(), 1)?)
    }

    /// The distance of each image: `[B]`.
    ///
    /// # Errors
    /// As for [`Lpips::by_map`].
    pub fn distance(&self, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        Ok(self.by_map(x, y)?.sum(&[1], false)?)
    }
}

/// Every pixel's channels divided by their length plus 1e-10. Where all are 0, so is the result, and its gradient.
///
/// # Errors
/// None for maps.
pub fn directions(map: &Tensor) -> Result<Tensor> {
    // Far below the rounding of any other sum of squares, and keeps the root's slope finite.
    let length = map.square()?.sum(&[3], true)?.add_scalar(1e-20)?.sqrt()?;
    Ok(map.div(&length.add_scalar(1e-10)?)?)
}
