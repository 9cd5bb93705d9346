//! The small classifier whose features samples and reconstructions are compared on, and the comparisons.
//!
//! It is the lab's own, trained on the data set's labels. Distances on its features rank models of one data set; they
//! are not FID, which is defined on Inception's features.

use super::distances::{Values, frechet_infinite, kernel};
use super::training::batches::chunks;
use crate::needs::enough;
use crate::store::{StageDir, Store};
use rqlab_reports::Reading;
use rqlab_sdk::checkpoint::Checkpoint;
use rqlab_sdk::metrics::{Ball, Features, Moments, frechet_distance, inception_score, prdc, precision_recall};
use rqlab_sdk::networks::LabClassifier;
use rqlab_sdk::params::Params;
use rqlab_sdk::tensor::{Tensor, no_grad};
use rqlab_sdk::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;

/// How many features describe an image.
const FEATURES: usize = LabClassifier::CHANNELS[2];
/// Neighbours that span the manifold of precision and recall (Kynkäänniemi et al. 2019 take 3).
pub(crate) const NEIGHBOURS: usize = 3;
/// And of density and coverage (Naeem et al. 2020 take 5, and balls without their border).
pub(crate) const DENSITY_NEIGHBOURS: usize = 5;
/// Runs of rows that the inception-style score is averaged over.
const SPLITS: usize = 5;
/// Images that go through the net at once.
const BATCH: usize = 100;

/// The classifier of a data set, as images are described by it.
pub(super) struct FeatureNet(pub(super) LabClassifier);

impl FeatureNet {
    /// The trained one of a finished stage.
    pub(super) fn load(store: &Store, id: &str, channels: usize, classes: usize) -> Result<Self> {
        let params = Params::new(0);
        let net = LabClassifier::new(&params, channels, classes)?;
        params.load(&store.stage(id).load_result()?.tensors)?;
        Ok(Self(net))
    }

    /// Features and class probabilities of any number of images.
    pub(super) fn describe(&self, images: &Tensor) -> Result<Described> {
        let size: usize = images.shape()[1..].iter().product();
        let (mut features, mut probabilities, mut classes) = (Vec::new(), Vec::new(), 0);
        for range in chunks(images.shape()[0], BATCH) {
            let mut shape = images.shape().to_vec();
            shape[0] = range.len();
            let batch = Tensor::from_vec(images.as_slice()[range.start * size..range.end * size].to_vec(), &shape)?;
            let (found, logits) = no_grad(|| self.0.forward(&batch))?;
            features.extend_from_slice(found.as_slice());
            probabilities.extend_from_slice(logits.softmax()?.as_slice());
            classes = logits.last_dim();
        }
        Ok(Described { features, probabilities, classes })
    }
}

/// Images as the classifier sees them: 256 bytes of features per image, and its probabilities.
pub(super) struct Described {
    features: Vec<f32>,
    probabilities: Vec<f32>,
    classes: usize,
}

impl Described {
    /// No image yet.
    pub(super) fn new(classes: usize) -> Self {
        Self { features: Vec::new(), probabilities: Vec::new(), classes }
    }

    /// Adds the images that `other` describes.
    pub(super) fn extend(&mut self, other: &Self) {
        self.features.extend_from_slice(&other.features);
        self.probabilities.extend_from_slice(&other.probabilities);
    }

    /// The images `rows` of them.
    pub(super) fn rows(&self, rows: &[usize]) -> Self {
        let pick = |numbers: &[f32], size: usize| {
            rows.iter().flat_map(|&row| &numbers[row * size..(row + 1) * size]).copied().collect()
        };
        Self {
            features: pick(&self.features, FEATURES),
            probabilities: pick(&self.probabilities, self.classes),
            classes: self.classes,
        }
    }

    /// Writes it to a file.
    pub(super) fn save(&self, path: &Path) -> Result<()> {
        let images = self.images();
        let tensors = BTreeMap::from([
            ("features".to_owned(), Tensor::from_vec(self.features.clone(), &[images, FEATURES])?),
            ("probabilities".to_owned(), Tensor::from_vec(self.probabilities.clone(), &[images, self.classes])?),
        ]);
        Checkpoint { tensors, ..Checkpoint::default() }.save(path)
    }

    /// Reads what [`Described::save`] wrote as the result of a stage.
    pub(super) fn load(stage: &StageDir) -> Result<Self> {
        let kept = stage.load_result()?;
        match (kept.tensors.get("features"), kept.tensors.get("probabilities")) {
            (Some(features), Some(probabilities)) if features.last_dim() == FEATURES => Ok(Self {
                features: features.to_vec(),
                probabilities: probabilities.to_vec(),
                classes: probabilities.last_dim(),
            }),
            _ => {
                let message = format!("{} holds no features; delete its folder", stage.result().display());
                Err(Error::Checkpoint(message))
            }
        }
    }

    /// How many images.
    pub(super) fn images(&self) -> usize {
        self.features.len() / FEATURES
    }

    /// The features, 64 for each image.
    pub(super) fn view(&self) -> Result<Features<'_>> {
        Ok(Features::new(&self.features, FEATURES)?)
    }

    /// Fréchet distance between Gaussians fitted to the features of two sets.
    pub(super) fn frechet(&self, other: &Self) -> Result<f64> {
        let gaussian = |d: &Self| -> Result<_> { Ok(Moments::of(d.view()?).gaussian()?) };
        Ok(frechet_distance(&gaussian(self)?, &gaussian(other)?)?)
    }

    /// The measures of reconstructions against the images `real`; those that these are enough for.
    pub(super) fn of_reconstructions(&self, real: &Self) -> Result<Vec<Reading>> {
        let mut found = Vec::new();
        if enough("recon_frechet", real.images(), 0) {
            found.push(Reading::new("recon_frechet", [], self.frechet(real)?));
            found.push(Reading::new("recon_kernel", [], kernel(real.view()?, self.view()?)?));
        }
        Ok(found)
    }

    /// The measures of samples against the images `real`; those that these are enough for.
    pub(super) fn of_samples(&self, real: &Self) -> Result<Values> {
        let (images, samples) = (real.view()?, self.view()?);
        let enough = |measure| enough(measure, images.rows(), samples.rows());
        let mut found = Vec::new();
        if enough("sample_frechet") {
            found.push(("sample_frechet", self.frechet(real)?));
            found.push(("sample_kernel", kernel(images, samples)?));
        }
        if enough("sample_frechet_infinite") {
            let distance = frechet_infinite(&Moments::of(images).gaussian()?, samples)?;
            found.push(("sample_frechet_infinite", distance));
        }
        if enough("precision") {
            let measured = precision_recall(images, samples, NEIGHBOURS)?;
            found.extend([("precision", measured.precision), ("recall", measured.recall)]);
        }
        if enough("density") {
            let measured = prdc(images, samples, DENSITY_NEIGHBOURS, Ball::Open)?;
            found.extend([("density", measured.density), ("coverage", measured.coverage)]);
        }
        if enough("inception_style") {
            let score = inception_score(&self.probabilities, self.classes, SPLITS)?;
            found.push(("inception_style", score.mean));
        }
        Ok(found)
    }

    /// The share of images whose most probable class is the label.
    pub(super) fn accuracy(&self, labels: &[u32]) -> f64 {
        let right = self.probabilities.chunks(self.classes.max(1)).zip(labels).filter(|(row, label)| {
            let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(class, _)| class);
            best == Some(**label as usize)
        });
        right.count() as f64 / labels.len().max(1) as f64
    }
}
