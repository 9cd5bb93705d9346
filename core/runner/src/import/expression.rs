//! The components of a trial, as what expresses a published file that has no configuration.

use super::systems::{Facts, Parts, System};
use super::{shapes, tokenizer};
use crate::job::{Call, Trial};
use crate::plan::{Model, Plan};
use crate::plugins::Plugins;
use crate::stages::{Told, TrainPrior, TrainTokenizer};
use rqlab_sdk::params::Params;
use rqlab_sdk::{Error, Result};
use std::sync::Arc;

/// The components of a trial.
#[derive(Debug, Clone)]
pub struct Expression {
    autoencoder: Call,
    quantizers: Vec<Call>,
    /// Of the first level, if there is one, and what it is told of images.
    prior: Option<(Call, Told)>,
    model: Arc<Model>,
}

impl Expression {
    /// Those of a trial of a plan.
    ///
    /// # Errors
    /// A plan of other trials.
    pub fn of_trial(plan: &Plan, trial: &Trial) -> Result<Self> {
        let none = || Error::Unsupported("this trial has no tokenizer".to_owned());
        let jobs = || trial.jobs.iter().filter_map(|id| plan.job(id));
        let stage = jobs().find_map(|job| job.stage.is::<TrainTokenizer>()).ok_or_else(none)?;
        let priors = || jobs().filter_map(|job| job.stage.is::<TrainPrior>());
        let model = plan.models.get(&trial.id).ok_or_else(none)?.clone();
        let classes = model.data.info.classes.len();
        let prior = priors().find(|stage| stage.level == 0);
        Ok(Self {
            autoencoder: stage.autoencoder.clone(),
            quantizers: stage.quantizers.clone(),
            prior: prior.map(|stage| (stage.prior.clone(), stage.told(classes))),
            model,
        })
    }

    /// What a file of a system is made of, if it is made of these: a tokenizer, or a prior if the system has no names for the
    /// tokenizer's parameters.
    ///
    /// # Errors
    /// Levels that have quantizers of their own, which no imported file has; a system of priors, and a trial without one.
    pub(super) fn parts(&self, system: &System, plugins: &Plugins) -> Result<Parts> {
        let [quantizer] = &self.quantizers[..] else {
            let message = "an imported tokenizer has one quantizer for all its levels, and this trial one for each";
            return Err(Error::Unsupported(message.to_owned()));
        };
        let (autoencoder, quantizer) = (text(&self.autoencoder), text(quantizer));
        let image = self.model.data.info.image;
        let components = [("autoencoder", autoencoder.clone()), ("quantizer", quantizer.clone())];
        let built = tokenizer(plugins, &components, image, Params::dry())?;
        let ours = shapes(&built.params);
        let facts = Facts::of(&ours, built.depth());
        if ours.keys().any(|name| (system.rule)(name, &facts).is_some()) {
            return Ok(Parts::Tokenizer { image, autoencoder, quantizer });
        }
        match (&self.prior, self.model.levels.first()) {
            (Some((prior, told)), Some(level)) => Ok(Parts::Prior {
                prior: text(prior),
                levels: vec![level.clone()],
                condition: told.space,
                null: told.null,
            }),
            _ => Err(Error::Unsupported(format!("a file of `{}` holds a prior, and this trial has none", system.name))),
        }
    }
}

/// A component as an experiment calls it, with all its fields.
fn text(call: &Call) -> String {
    format!("{}{}", call.name, call.config)
}
