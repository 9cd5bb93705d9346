//! Speeds of finished priors, timed again.

use super::labels::Mixture;
use super::samples::How;
use super::{MeasurePrior, speed};
use crate::plugins::Plugins;
use crate::stages::subset::subset;
use crate::stages::{load_prior, load_tokenizer};
use crate::store::Store;
use rqlab_reports::Reading;
use rqlab_sdk::Result;
use rqlab_sdk::tensor::ops::sampling::Draw;

impl MeasurePrior {
    /// Whether it times sampling.
    pub fn is_timed(&self) -> bool {
        !self.probe && !self.evaluation.speed.is_empty()
    }

    /// Times sampling and decoding as the stage does, of the tokenizer and priors that are done.
    ///
    /// # Errors
    /// Results that are missing or damaged, and those of the plugins.
    pub fn time_again(&self, plugins: &Plugins, store: &Store) -> Result<Vec<Reading>> {
        let (dataset, model) = load_tokenizer(plugins, store, &self.tokenizer)?;
        let (info, evaluation) = (dataset.info(), &self.evaluation);
        let classes = info.classes.len();
        let sampler = load_prior(plugins, store, &self.priors, &model, classes)?;
        let draw = [Draw { temperature: evaluation.temperature, top_k: evaluation.top_k, top_p: evaluation.top_p }];
        let mixture = Mixture::of(&evaluation.labels, dataset.as_ref(), &subset(info.test, evaluation.images))?;
        let (guidance, count, keep) = (evaluation.guidance(), evaluation.samples, evaluation.pictures);
        let how = How { count, classes, draw: &draw, guidance, keep, mixture };
        speed::measure(&model, &sampler, &how, &evaluation.speed)
    }
}
