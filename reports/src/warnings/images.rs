//! Fewer images measured than there are.

use super::{Harm, Warning, by_text};
use crate::format;
use crate::results::Trial;
use crate::study::Study;

/// A part of the test images that is larger than this stands for all of them.
const MOST: f64 = 0.5;

pub(super) fn warnings(study: &Study<'_>) -> Vec<Warning> {
    by_text(study, Harm::Caution, judge)
}

fn judge(trial: &Trial) -> Option<String> {
    let (measured, all) = (trial.sizes.measured_images?, trial.sizes.test_images?);
    ((measured as f64) < MOST * all as f64).then(|| {
        let [measured, all] = [measured, all].map(|count| format::number(count as f64));
        format!(
            "{measured} of {all} test images are measured (evaluation.images). Only intervals over seeds and images tell \
             what other test images would give; those over seeds alone are for these images"
        )
    })
}
