//! Codes that are the same whatever the image is: a map that no decoder asks for.

use super::{Found, Harm, Warning, each, place};
use crate::format;
use crate::results::Trial;
use crate::study::Study;

/// What a prior needs less than this share of a depth's bits for is known before the image is seen.
const SHARE: f64 = 0.01;

pub(super) fn warnings(study: &Study<'_>) -> Vec<Warning> {
    each(study, judge)
}

fn judge(trial: &Trial) -> Option<Found> {
    let read = trial.readings.iter().filter(|reading| reading.measure == "prior_bits");
    let constant = read.filter_map(|reading| {
        let quantity = reading.quantity();
        let (level, depth) = (quantity.level(), quantity.depths().next()?);
        let codes = trial.sizes.level(level)?;
        let nominal = codes.positions as f64 * (*codes.codebooks.get(depth.checked_sub(1)?)? as f64).log2();
        (reading.value < SHARE * nominal).then(|| (reading.value, nominal, place(level, depth)))
    });
    let (bits, nominal, place) = constant.min_by(|a, b| (a.0 / a.1).total_cmp(&(b.0 / b.1)))?;
    let (bits, nominal) = (format::significant(bits, 2), format::number(nominal.round()));
    Some(Found {
        degree: 1.0,
        harm: Harm::Grave,
        text: format!(
            "the prior needs {bits} of {nominal} bits for the codes {place}: they are the same whatever the image is, and carry \
             nothing of it"
        ),
    })
}
