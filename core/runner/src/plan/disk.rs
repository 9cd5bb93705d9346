//! What a plan takes on disk, as far as shapes tell: never more than that. Weights that are trained, and tokens of training images;
//! checkpoints of what is being trained, samples and pictures come on top.

use super::memory::{GIB, NUMBER, latents};
use super::{Model, Plan};
use crate::experiment::Diagnostic;
use crate::job::{Job, Trial};
use crate::stages::{EncodeTokens, TrainPrior, TrainTokenizer};
use crate::ui;
use rqlab_sdk::contracts::LevelInfo;
use std::collections::HashMap;
use std::path::Path;

/// Bytes that the jobs leave which are not done.
pub fn needed(plan: &Plan, is_done: impl Fn(&Job) -> bool) -> f64 {
    let mut files = HashMap::new();
    for trial in &plan.trials {
        let Some(model) = plan.models.get(&trial.id) else { continue };
        for job in trial.jobs.iter().filter_map(|id| plan.job(id)) {
            files.entry(&job.id).or_insert_with(|| if is_done(job) { 0.0 } else { of_job(plan, trial, model, job) });
        }
    }
    files.values().sum()
}

fn of_job(plan: &Plan, trial: &Trial, model: &Model, job: &Job) -> f64 {
    if job.stage.is::<TrainTokenizer>().is_some() {
        return NUMBER * (model.autoencoder + model.quantizer + model.buffers) as f64;
    }
    if is_prior(job) {
        // What the priors of all levels have is known of them together.
        let priors = trial.jobs.iter().filter(|id| plan.job(id).is_some_and(is_prior)).count();
        return NUMBER * model.prior.unwrap_or(0) as f64 / priors.max(1) as f64;
    }
    job.stage.is::<EncodeTokens>().map_or(0.0, |stage| {
        let tokens = |level: &LevelInfo| level.token_shape(1).iter().product::<usize>() as f64;
        let of = |level: &LevelInfo| if stage.latents { latents(level) } else { tokens(level) };
        let numbers: f64 = model.levels.iter().map(of).sum();
        NUMBER * numbers * (stage.images * stage.variants.count()) as f64
    })
}

fn is_prior(job: &Job) -> bool {
    job.stage.is::<TrainPrior>().is_some_and(|stage| !stage.probe)
}

/// A sentence where that is much, or more than there is room for in a folder.
pub fn sentence(needed: f64, runs: &Path) -> Option<String> {
    in_words(needed, free(runs))
}

fn in_words(needed: f64, free: Option<f64>) -> Option<String> {
    let is_too_much = free.is_some_and(|free| needed > free);
    (needed >= GIB || is_too_much).then(|| {
        let free = match free {
            Some(free) if is_too_much => {
                format!(", more than the {} that are free, so that a sweep refuses it", bytes(free))
            }
            Some(free) => format!(", of {} that are free", bytes(free)),
            None => String::new(),
        };
        format!("Disk: at least {} for weights and for tokens of training images{free}.", bytes(needed))
    })
}

/// Why the plan cannot be worked on in a folder of runs: its disk has too little room.
pub fn refusal(needed: f64, runs: &Path) -> Option<Diagnostic> {
    too_much(needed, free(runs)?)
}

fn too_much(needed: f64, free: f64) -> Option<Diagnostic> {
    (needed > free).then(|| {
        Diagnostic::error(format!(
            "the results take at least {} on disk, and {} are free in the folder of runs",
            bytes(needed),
            bytes(free)
        ))
        .help("name a folder on a larger disk with --runs, free some room (`rqlab gc`), or take fewer trials or smaller models")
    })
}

fn bytes(count: f64) -> String {
    ui::bytes(count as u64)
}

/// Bytes that this user may write in a folder, or in the nearest one above it that exists; none where it is not told.
#[cfg(unix)]
fn free(folder: &Path) -> Option<f64> {
    let absolute = std::path::absolute(folder).ok()?;
    let found = rustix::fs::statvfs(absolute.ancestors().find(|dir| dir.exists())?).ok()?;
    // What is no disk, such as /proc, has no blocks, and says by itself that it cannot be written.
    (found.f_blocks > 0).then_some(found.f_bavail as f64 * found.f_frsize as f64)
}

#[cfg(not(unix))]
fn free(_: &Path) -> Option<f64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_is_set_beside_what_is_free() {
        assert_eq!(in_words(0.5 * GIB, Some(2.0 * GIB)), None);
        let said = |needed: f64, free| in_words(needed * GIB, free).unwrap_or_default();
        assert_eq!(
            said(2.5, Some(48.0 * GIB)),
            "Disk: at least 2.5 GiB for weights and for tokens of training images, of 48.0 GiB that are free."
        );
        assert!(said(0.5, Some(0.25 * GIB)).contains("more than the 256.0 MiB that are free"));
        assert!(said(2.5, None).ends_with("images."));
        assert_eq!(too_much(2.5 * GIB, 48.0 * GIB), None);
        let refused = too_much(64.0 * GIB, 48.0 * GIB).map(|complaint| complaint.message).unwrap_or_default();
        assert_eq!(refused, "the results take at least 64.0 GiB on disk, and 48.0 GiB are free in the folder of runs");
    }

    #[test]
    #[cfg(unix)]
    fn the_room_of_a_folder_that_is_yet_to_be_made_is_known() {
        assert!(free(Path::new("to be made/in here")).is_some_and(|bytes| bytes >= 0.0));
    }
}
