//! A validation curve that rises again: what is measured is the last step, not the best.

use super::{Found, Harm, Warning, each};
use crate::format;
use crate::results::{Curve, Trial};
use crate::study::Study;

/// A rise of less than this share of the lowest loss is noise.
const RISE: f64 = 0.02;
/// From this share on, the last step says more of how long was trained than of the prior.
const GRAVE: f64 = 0.1;

pub(super) fn warnings(study: &Study<'_>) -> Vec<Warning> {
    each(study, judge)
}

fn judge(trial: &Trial) -> Option<Found> {
    let curves = trial.curves.iter().filter(|curve| curve.measure == "validation_loss");
    curves.filter_map(rise).max_by(|a, b| a.degree.total_cmp(&b.degree))
}

fn rise(curve: &Curve) -> Option<Found> {
    let mut points = curve.steps.iter().zip(&curve.values).filter(|(_, value)| value.is_finite());
    let (first, lowest) = points.clone().min_by(|a, b| a.1.total_cmp(b.1))?;
    let (end, last) = points.next_back()?;
    let rise = (last - lowest) / lowest.abs().max(f64::MIN_POSITIVE);
    (rise > RISE).then(|| {
        let [lowest, last] = [*lowest, *last].map(format::number);
        let text = format!(
            "the {}'s validation loss rises from {lowest} at step {first} to {last} at step {end}: it overfits, and the last step \
             is what was measured",
            curve.stage
        );
        Found { degree: rise, harm: if rise > GRAVE { Harm::Grave } else { Harm::Caution }, text }
    })
}
