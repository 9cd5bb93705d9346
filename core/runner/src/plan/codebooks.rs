//! What a plan says of codebooks that a batch cannot fill.

use super::{Model, Plan};
use crate::stages::TrainTokenizer;
use crate::ui::thousands;
use rqlab_sdk::contracts::{CodeSpace, LevelInfo};

/// A sentence for each codebook that has more codes than a batch of the tokenizer's training has tokens.
pub fn of_trials(plan: &Plan) -> Vec<String> {
    let mut sentences = Vec::new();
    for trial in &plan.trials {
        let training = trial.jobs.iter().find_map(|id| plan.job(id)?.stage.is::<TrainTokenizer>());
        if let (Some(model), Some(stage)) = (plan.models.get(&trial.id), training) {
            sentences.extend(unfilled(model, stage.training.batch));
        }
    }
    sentences.sort_unstable();
    sentences.dedup();
    sentences
}

fn unfilled(model: &Model, images: usize) -> impl Iterator<Item = String> {
    model.levels.iter().filter_map(move |level| {
        let space = level.code_space()?;
        let (codes, tokens) = largest(level, space, images)?;
        (tokens < codes).then(|| {
            format!(
                "Codebooks: a batch of {images} images has {} tokens for {} codes, of which a step uses {}% at most: more \
                 images (`tokenizer_training.batch`) or fewer codes (a smaller `codebook`; fewer `levels`, `bits`, or bits of a \
                 sub-token) fill them.",
                thousands(tokens),
                thousands(codes),
                100 * tokens / codes
            )
        })
    })
}

/// The size of the codebook with the most codes, and the tokens that a batch has for it.
fn largest(level: &LevelInfo, space: &CodeSpace, images: usize) -> Option<(usize, usize)> {
    let tokens = images * level.positions() * if space.shared { space.depth() } else { 1 };
    Some((*space.sizes.iter().max()?, tokens))
}
