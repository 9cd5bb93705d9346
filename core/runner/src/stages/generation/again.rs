//! Speeds of finished priors, timed again.

use super::{MeasurePrior, speed};
use crate::plugins::Plugins;
use crate::stages::{load_prior, load_tokenizer};
use crate::store::{StageDir, Store};
use rqlab_reports::Reading;
use rqlab_sdk::Result;

impl MeasurePrior {
    /// Whether it times sampling.
    pub fn is_timed(&self) -> bool {
        !self.probe && !self.evaluation.speed.is_empty()
    }

    /// Times sampling and decoding as the stage does, whose result is in `dir`, of the tokenizer and priors that are done.
    ///
    /// # Errors
    /// Results that are missing or damaged, and those of the plugins.
    pub fn time_again(&self, plugins: &Plugins, store: &Store, dir: &StageDir) -> Result<Vec<Reading>> {
        let (dataset, model) = load_tokenizer(plugins, store, &self.tokenizer)?;
        let sampler = load_prior(plugins, store, self.levels(), &model, dataset.info().classes.len())?;
        let how = self.how(dataset.as_ref(), sampler.conditions(), self.tuned(dir)?)?;
        speed::measure(&model, &sampler, &how, &self.evaluation.speed)
    }
}
