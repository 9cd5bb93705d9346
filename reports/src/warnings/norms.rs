//! Codes that were thrown far outside the latents, where no image will ever choose them.

use super::{Found, Harm, Warning, each, place};
use crate::format;
use crate::results::Trial;
use crate::study::Study;

/// Restarted codes of a depth whose residuals are small lie up to some 15 times as far out as those in use; thrown ones, thousands.
const FAR: f64 = 50.0;

pub(super) fn warnings(study: &Study<'_>) -> Vec<Warning> {
    each(study, judge)
}

fn judge(trial: &Trial) -> Option<Found> {
    let read = trial.readings.iter().filter(|reading| reading.measure == "largest_code_norm" && reading.value > FAR);
    let farthest = read.max_by(|a, b| a.value.total_cmp(&b.value))?;
    let quantity = farthest.quantity();
    let place =
        quantity.depths().next().map_or_else(String::new, |depth| format!(" {}", place(quantity.level(), depth)));
    let text = format!(
        "the farthest code{place} has {} times the norm of the codes that images use: no image will choose it, and the codebook is \
         smaller than it seems (restart codes, or take fewer)",
        format::significant(farthest.value, 2)
    );
    Some(Found { degree: farthest.value, harm: Harm::Caution, text })
}
