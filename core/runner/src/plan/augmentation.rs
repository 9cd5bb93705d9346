//! What a plan says of the augmentation that priors see, and of what it costs.

use super::{Model, Plan};
use crate::job::Job;
use crate::settings::Augmentation;
use crate::stages::{EncodeTokens, TrainPrior};
use rqlab_sdk::contracts::LevelInfo;

/// A sentence for each way in which the priors of a plan see, or do not see, that images are augmented; none of data sets
/// without augmentation.
pub fn of_priors(plan: &Plan) -> Vec<String> {
    let mut sentences = Vec::new();
    for trial in &plan.trials {
        let Some(model) = plan.models.get(&trial.id).filter(|model| model.variants != Some(1)) else { continue };
        let jobs = || trial.jobs.iter().filter_map(|id| plan.job(id));
        let tokens = jobs().find_map(|job: &Job| job.stage.is::<EncodeTokens>());
        let prior = jobs().filter_map(|job: &Job| job.stage.is::<TrainPrior>()).find(|prior| !prior.probe);
        if let (Some(tokens), Some(prior)) = (tokens, prior) {
            sentences.push(sentence(tokens, prior, model));
        }
    }
    sentences.sort_unstable();
    sentences.dedup();
    sentences
}

fn sentence(tokens: &EncodeTokens, prior: &TrainPrior, model: &Model) -> String {
    match (prior.training.augmentation, tokens.variants.count()) {
        (Augmentation::OnTheWay, _) => format!(
            "Priors see augmented images: each of {} steps encodes {} anew.",
            prior.training.steps, prior.training.batch
        ),
        (Augmentation::None, _) => "Priors do not see the data set's augmentation: `prior_training.augmentation` is \
                                    `none`."
            .to_owned(),
        (_, variants) => {
            let numbers: usize =
                model.levels.iter().map(|level: &LevelInfo| level.token_shape(1).iter().product::<usize>()).sum();
            let mib = 4.0 * (numbers * variants) as f64 * tokens.images as f64 / f64::from(1 << 20);
            let kept = if tokens.latents { String::new() } else { format!(" and kept in {mib:.1} MiB") };
            format!(
                "Priors see augmented images: {variants} variants of each of {} images are encoded{kept}.",
                tokens.images
            )
        }
    }
}
