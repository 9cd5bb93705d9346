//! Distance on the features of a network that is not trained for it: images count as alike if the network sees the same in
//! them, not if their pixels agree.

#[cfg(test)]
mod tests;

use rqlab_sdk::choice;
use rqlab_sdk::config::ConfigError;
use rqlab_sdk::contracts::{Network, NetworkRequest};
use rqlab_sdk::networks::{LabClassifier, Lpips, Resnet50, directions};
use rqlab_sdk::prelude::*;

declare_plugin! {
    objective "perceptual": PerceptualConfig => Perceptual::new;
}

choice! {
    /// Whose features are compared.
    pub enum Features {
        /// The laboratory's own classifier, trained once per data set on its labels.
        Lab = "lab",
        /// VGG16 with the heads of LPIPS, from a file.
        Lpips = "lpips",
        /// ResNet-50, whose logits are compared, from a file.
        Resnet50 = "resnet50",
    }
}

config! {
    /// Distance of features: what a network sees in two images, compared.
    ///
    /// `lab` compares the three maps of the small classifier that the laboratory trains on the data set's labels: it needs no
    /// file and no network connection, and its values mean something for one data set alone. `lpips` is LPIPS 0.1 on VGG16
    /// (Zhang et al., CVPR 2018), the perceptual loss of VQGAN, RQ-VAE, LlamaGen and most others, all with weight 1. Both take the
    /// squared difference of the features' directions at every position. `resnet50` is the mean squared difference of the 1000
    /// logits of torchvision's ResNet-50: MaskBit, with weight 0.1.
    pub struct PerceptualConfig {
        /// Whose features are compared.
        features: Features = Features::Lab;
        /// What it counts beside other objectives.
        weight: f32 = 1.0, in 0.0..=1e6;
        /// The safetensors file of VGG16 and the heads (`lpips`) or of ResNet-50 (`resnet50`), seen from the experiment file;
        /// docs/weights.md tells how to make it.
        weights: Option<String> = None, local;
        /// The SHA-256 of that file.
        digest: Option<String> = None;
    }
}

/// The objective. It has no parameters: the network is given.
#[derive(Debug)]
pub struct Perceptual {
    config: PerceptualConfig,
    /// None where a plan is made.
    measure: Option<Measure>,
}

#[derive(Debug)]
enum Measure {
    Lab(LabClassifier, Vec<Var>),
    Lpips(Lpips),
    Resnet50(Box<Resnet50>),
}

/// Pixels of a side that VGG16 halves four times.
const LPIPS_SIDE: usize = 16;

impl Perceptual {
    /// An objective that measures with the network of the context.
    ///
    /// # Errors
    /// Settings that do not go together; images that LPIPS cannot see; a file of another network.
    pub fn new(config: PerceptualConfig, cx: &ObjectiveContext) -> Result<Self> {
        let complain = |field: &str, message: &str| Err(ConfigError::field(field, message.to_owned()).into());
        let MapShape { height, width, channels } = cx.image;
        match (config.features, &config.weights, &config.digest) {
            (Features::Lab, None, None) => {}
            (Features::Lab, Some(_), _) => {
                return complain(
                    "weights",
                    "the laboratory's classifier has no file: write `features: lpips` or `resnet50`, or leave it out",
                );
            }
            (Features::Lab, None, Some(_)) => {
                return complain("digest", "`features: lab` has no file to have a digest");
            }
            (_, None, _) => {
                return complain(
                    "weights",
                    "these features need their weights: docs/weights.md tells how to make the file",
                );
            }
            (_, _, None) => {
                return complain(
                    "digest",
                    "the SHA-256 of `weights` is not given: docs/weights.md tells how it is found",
                );
            }
            (Features::Resnet50, ..) if channels != 3 => {
                let message = format!("ResNet-50 sees images of 3 channels, and these have {channels}");
                return complain("features", &message);
            }
            (Features::Lpips, ..) if channels != 3 || height.min(width) < LPIPS_SIDE => {
                let message = format!(
                    "LPIPS sees images of 3 channels and at least {LPIPS_SIDE} x {LPIPS_SIDE} pixels, and these are {height} x \
                     {width} of {channels}"
                );
                return complain("features", &message);
            }
            (Features::Lpips | Features::Resnet50, ..) => {}
        }
        let measure = match (&cx.network, config.features) {
            (Some(Network::Classifier(net)), Features::Lab) => Some(Measure::Lab(net.clone(), net.parameters())),
            (Some(Network::Weights(weights)), Features::Lpips) => Some(Measure::Lpips(Lpips::new(weights.clone())?)),
            (Some(Network::Weights(weights)), Features::Resnet50) => {
                Some(Measure::Resnet50(Box::new(Resnet50::new(weights.clone())?)))
            }
            _ => None,
        };
        Ok(Self { config, measure })
    }
}

impl Objective for Perceptual {
    fn loss(&mut self, reconstruction: &Reconstruction<'_>) -> Result<Loss> {
        let Reconstruction { images, output, .. } = reconstruction;
        match &self.measure {
            Some(Measure::Lab(net, parameters)) => {
                let loss = Var::frozen(parameters, || lab_distance(net, images, output))?;
                Ok(Loss { terms: vec![("lab_distance", loss.detach())], loss })
            }
            Some(Measure::Lpips(lpips)) => {
                let loss = lpips.distance(output, images)?.mean_all()?;
                Ok(Loss { terms: vec![("lpips", loss.detach())], loss })
            }
            Some(Measure::Resnet50(net)) => {
                let loss = net.logits(output)?.mse(&net.logits(images)?)?;
                Ok(Loss { terms: vec![("logit_distance", loss.detach())], loss })
            }
            None => Err(Error::Unsupported("`perceptual` was given no network to measure with".to_owned())),
        }
    }

    fn weight(&self, _step: u64) -> Weight {
        Weight::Fixed(self.config.weight)
    }

    fn network(&self) -> Option<NetworkRequest> {
        match (&self.config.features, &self.config.weights, &self.config.digest) {
            (Features::Lab, ..) => Some(NetworkRequest::Classifier),
            (_, Some(path), Some(digest)) => {
                Some(NetworkRequest::Weights { path: path.clone(), digest: digest.clone() })
            }
            _ => None,
        }
    }
}

/// The squared difference of the directions of features, summed over channels and averaged over positions, images and the
/// classifier's three maps: between 0 and 4.
fn lab_distance(net: &LabClassifier, images: &Tensor, output: &Tensor) -> Result<Tensor> {
    let (seen, wanted) = (net.maps(output)?, net.maps(images)?);
    let mut distances = Vec::new();
    for (seen, wanted) in seen.iter().zip(&wanted) {
        distances.push(directions(seen)?.sub(&directions(wanted)?)?.square()?.sum(&[3], false)?.mean_all()?);
    }
    Ok(Tensor::stack(&distances.iter().collect::<Vec<_>>(), 0)?.mean_all()?)
}
