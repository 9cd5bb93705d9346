//! A machine that was busy with something else while speeds were timed.

use super::{Found, Harm, Warning, each};
use crate::measure::Quantity;
use crate::results::Trial;
use crate::study::Study;

/// The share of the processors that other programs may use before speeds are in doubt.
pub const BUSY: f64 = 0.1;

pub(super) fn warnings(study: &Study<'_>) -> Vec<Warning> {
    each(study, judge)
}

fn judge(trial: &Trial) -> Option<Found> {
    let load = trial.value(&Quantity::plain("other_load"))?;
    (load > BUSY).then(|| {
        let text = format!(
            "other programs used {:.0}% of the processors while speeds were timed: they are too low, and compare with nothing",
            100.0 * load
        );
        Found { degree: load, harm: Harm::Grave, text }
    })
}
