//! What a tokenizer is trained for: distances between an image and its reconstruction, and critics that learn to tell them
//! apart.

use crate::Result;
use crate::contracts::{Components, MapShape};
use crate::networks::{LabClassifier, Weights};
use crate::params::Params;
use crate::tensor::{Rng, Tensor};

/// What the runner tells an objective when it builds it.
#[derive(Debug, Clone)]
pub struct ObjectiveContext {
    /// Shape of the images.
    pub image: MapShape,
    /// Where its own parameters are made: those of a critic, or of a network that measures distance.
    pub params: Params,
    /// Builds the components that its configuration calls.
    pub components: Components,
    /// The network that it measures with ([`Objective::network`]). Where a plan is made there is none yet.
    pub network: Option<Network>,
}

impl ObjectiveContext {
    /// Of images of that shape, with no components and no network: all that most objectives need.
    pub fn new(image: MapShape, params: Params) -> Self {
        Self { image, params, components: Components::none(), network: None }
    }
}

/// A network that others trained, which an objective measures with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkRequest {
    /// The classifier that the laboratory trains on the labels of the data set, in a stage of its own.
    Classifier,
    /// A safetensors file of published weights.
    Weights {
        /// Where it lies, seen from the experiment file.
        path: String,
        /// The SHA-256 that it must have, in hexadecimal.
        digest: String,
    },
}

/// What is given for a [`NetworkRequest`].
#[derive(Debug, Clone)]
pub enum Network {
    /// The trained classifier.
    Classifier(LabClassifier),
    /// The tensors of the file, whose digest was checked.
    Weights(Weights),
}

/// A batch of images and what the autoencoder makes of them, at one training step.
#[derive(Debug, Clone, Copy)]
pub struct Reconstruction<'a> {
    /// The images `[B, H, W, C]` in [-1, 1].
    pub images: &'a Tensor,
    /// Their reconstructions `[B, H, W, C]`, not clamped; in [`Objective::critic`] without a gradient.
    pub output: &'a Tensor,
    /// The optimizer step, from 0.
    pub step: u64,
    /// Randomness of this step and this objective.
    pub rng: &'a Rng,
}

/// A loss and what it consists of.
#[derive(Debug, Clone)]
pub struct Loss {
    /// What is minimised (rank 0).
    pub loss: Tensor,
    /// Parts of it by name, of rank 0 and without gradients, for the curves. They stay on a GPU until somebody reads them.
    pub terms: Vec<(&'static str, Tensor)>,
}

/// How much an objective counts beside the others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Weight {
    /// This much.
    Fixed(f32),
    /// `scale` times a ratio of gradient norms at the decoder's last layer: that of the weighted sum of the objectives of
    /// fixed weight, over that of this one. The ratio is at most `limit` (Esser et al., "Taming transformers for
    /// high-resolution image synthesis", CVPR 2021, equation 7). The weight counts as a constant: no gradient flows through it.
    Adaptive {
        /// What the ratio is multiplied by.
        scale: f32,
        /// The largest ratio.
        limit: f32,
    },
}

/// How a critic is trained where it differs from the tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct CriticTraining {
    /// Peak learning rate; the tokenizer's if none.
    pub lr: Option<f32>,
    /// Decay rates of the optimizer's two moments; the tokenizer's if none.
    pub betas: Option<[f32; 2]>,
}

/// One term of what a tokenizer is trained for. The loss of a training step is the weighted sum of all its objectives and of
/// what the quantizers add.
///
/// Whatever the weights, one backward pass goes through the autoencoder: where one is adaptive, each objective is evaluated on
/// the output as a leaf, which gives its gradient there, and the weighted sum of these gradients seeds that pass.
///
/// An objective with trained parameters of its own is a critic: a player with an optimizer of its own, which steps after the
/// tokenizer, on outputs that have no gradient. A network that is not trained, such as one that measures distance, keeps its
/// parameters as buffers.
pub trait Objective {
    /// The loss of a batch, unweighted. Parameters of a critic are constants here.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn loss(&mut self, reconstruction: &Reconstruction<'_>) -> Result<Loss>;

    /// How much [`Objective::loss`] counts at a step; 0 spares its evaluation.
    fn weight(&self, step: u64) -> Weight {
        let _ = step;
        Weight::Fixed(1.0)
    }

    /// What the critic minimises on this batch; `None` if there is no critic, or at steps at which it does not learn.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn critic(&mut self, reconstruction: &Reconstruction<'_>) -> Result<Option<Loss>> {
        let _ = reconstruction;
        Ok(None)
    }

    /// The network that it measures with and does not train. The runner has it there before training begins, and says in the
    /// plan what is missing.
    fn network(&self) -> Option<NetworkRequest> {
        None
    }

    /// How the critic is trained.
    fn critic_training(&self) -> CriticTraining {
        CriticTraining::default()
    }
}
