//! Codes that are restarted faster than they can settle: a batch too small for the codebook and its restart threshold.

use super::{Found, Harm, Warning, at_the_end, each, place};
use crate::format;
use crate::results::{Curve, Trial};
use crate::study::Study;

/// The share of the codes that may restart in a step at the end of training.
const SHARE: f64 = 0.05;

pub(super) fn warnings(study: &Study<'_>) -> Vec<Warning> {
    each(study, judge)
}

fn judge(trial: &Trial) -> Option<Found> {
    let curves = trial.curves.iter().filter(|curve| curve.measure == "restarted_codes");
    let shares = curves.filter_map(|curve| {
        let (codes, place) = codebook(trial, curve)?;
        let restarted = at_the_end(curve)?;
        let share = restarted / codes.max(1) as f64;
        (share > SHARE).then_some((share, restarted, codes, place))
    });
    let (share, restarted, codes, place) = shares.max_by(|a, b| a.0.total_cmp(&b.0))?;
    let text = format!(
        "{} of {} codes{place} restart at each step to the end of training: the batch has too few tokens for such a codebook and \
         restart threshold, and codes do not settle",
        format::significant(restarted, 2),
        format::number(codes as f64)
    );
    Some(Found { degree: share, harm: Harm::Caution, text })
}

/// How many codes can restart in a step, and where they are. A codebook that all depths share is restarted at each of them.
fn codebook(trial: &Trial, curve: &Curve) -> Option<(usize, String)> {
    let quantity = curve.quantity();
    let level = quantity.level();
    let codes = trial.sizes.level(level)?;
    let depths = codes.codebooks.len();
    Some(match quantity.depths().next() {
        Some(depth) => (*codes.codebooks.get(depth.checked_sub(1)?)?, format!(" {}", place(level, depth))),
        None if codes.shared && depths > 1 => {
            (codes.codebooks.iter().sum(), format!(" (one codebook at {depths} depths)"))
        }
        None => (codes.codebooks.iter().sum(), String::new()),
    })
}
