//! The laboratory's own classifier: small, trained on the labels of the data set at hand.
//!
//! Distances on its features rank models of one data set; they are not FID or LPIPS, which are defined on published
//! networks.

use crate::Result;
use crate::nn::{Conv2d, GroupNorm, Linear};
use crate::params::Params;
use crate::tensor::ops::conv::Conv2d as Strides;
use crate::tensor::{Tensor, Var};

/// Three strided convolutions with group norm and SiLU, the mean over positions, and a linear layer. Parameters:
/// `stage.N.conv`, `stage.N.norm`, `classifier`.
#[derive(Debug, Clone)]
pub struct LabClassifier {
    stages: Vec<(Conv2d, GroupNorm)>,
    classifier: Linear,
}

impl LabClassifier {
    /// Channels of the three maps; the last is the number of features.
    pub const CHANNELS: [usize; 3] = [32, 48, 64];

    /// A fresh one.
    ///
    /// # Errors
    /// A name that is taken.
    pub fn new(params: &Params, channels: usize, classes: usize) -> Result<Self> {
        let mut inputs = channels;
        let stages = Self::CHANNELS
            .iter()
            .enumerate()
            .map(|(i, &outputs)| {
                let scope = params.scope(format!("stage.{i}"));
                let conv = Conv2d::with_walk(&scope.scope("conv"), inputs, outputs, 3, Strides::new(2, [1; 4]))?;
                inputs = outputs;
                Ok((conv, GroupNorm::new(&scope.scope("norm"), 8, outputs, 1e-6)?))
            })
            .collect::<Result<_>>()?;
        Ok(Self { stages, classifier: Linear::new(&params.scope("classifier"), inputs, classes, true)? })
    }

    /// Its parameters, which an objective that measures with it keeps frozen.
    pub fn parameters(&self) -> Vec<Var> {
        let of_stage = |(conv, norm): &(Conv2d, GroupNorm)| {
            [Some(&conv.weight), conv.bias.as_ref(), Some(&norm.weight), Some(&norm.bias)].map(Option::<&Var>::cloned)
        };
        self.stages.iter().flat_map(of_stage).flatten().collect()
    }

    /// The maps of images `[B, H, W, C]`: a half, a quarter and an eighth of their size, rounded up.
    ///
    /// # Errors
    /// Images of other channels.
    pub fn maps(&self, images: &Tensor) -> Result<Vec<Tensor>> {
        let mut maps: Vec<Tensor> = Vec::new();
        for (conv, norm) in &self.stages {
            let map = norm.forward_silu(&conv.forward(maps.last().unwrap_or(images))?)?;
            maps.push(map);
        }
        Ok(maps)
    }

    /// Features `[B, 64]` and logits `[B, classes]` of images `[B, H, W, C]`.
    ///
    /// # Errors
    /// As for [`LabClassifier::maps`].
    pub fn forward(&self, images: &Tensor) -> Result<(Tensor, Tensor)> {
        let maps = self.maps(images)?;
        let features = maps.last().unwrap_or(images).mean(&[1, 2], false)?;
        let logits = self.classifier.forward(&features)?;
        Ok((features, logits))
    }
}
