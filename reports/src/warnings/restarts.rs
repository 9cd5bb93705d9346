//! Codes that are restarted faster than they can settle: a batch too small for the codebook and its restart threshold.

use super::{Warning, each, place};
use crate::format;
use crate::results::{Curve, Trial};
use crate::study::Study;

/// The share of the codes that may restart in a step at the end of training.
const SHARE: f64 = 0.05;
/// The last part of a curve.
const END: f64 = 0.25;

pub(super) fn warnings(study: &Study<'_>) -> Vec<Warning> {
    each(study, judge)
}

fn judge(trial: &Trial) -> Option<(f64, String)> {
    let curves = trial.curves.iter().filter(|curve| curve.measure == "restarted_codes");
    let shares = curves.filter_map(|curve| {
        let quantity = curve.quantity();
        let level = quantity.level();
        let depth = quantity.depths().next();
        let codes = match depth {
            Some(depth) => *trial.sizes.level(level)?.codebooks.get(depth.checked_sub(1)?)?,
            None => {
                let codes = trial.sizes.level(level)?;
                if codes.shared { codes.codebooks.first().copied()? } else { codes.codebooks.iter().sum() }
            }
        };
        let restarted = at_the_end(curve)?;
        let share = restarted / codes.max(1) as f64;
        let place = depth.map_or_else(String::new, |depth| format!(" {}", place(level, depth)));
        (share > SHARE).then_some((share, restarted, codes, place))
    });
    let (share, restarted, codes, place) = shares.max_by(|a, b| a.0.total_cmp(&b.0))?;
    let text = format!(
        "{} of {} codes{place} restart at each step to the end of training: the batch has too few tokens for such a codebook and \
         restart threshold, and codes do not settle",
        format::significant(restarted, 2),
        format::number(codes as f64)
    );
    Some((share, text))
}

/// The mean over the last part of a curve.
fn at_the_end(curve: &Curve) -> Option<f64> {
    let last = ((curve.values.len() as f64 * END).ceil() as usize).max(1);
    let values = curve.values.get(curve.values.len().checked_sub(last)?..)?;
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}
