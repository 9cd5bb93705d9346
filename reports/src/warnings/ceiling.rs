//! A codebook that is larger than the tokens that measure its use.

use super::{Found, Harm, Warning, each};
use crate::format;
use crate::results::Trial;
use crate::setup::usage_ceiling;
use crate::study::Study;

/// With this many tokens for each code, equally frequent codes show 98 % of themselves.
const TOKENS_PER_CODE: usize = 4;

pub(super) fn warnings(study: &Study<'_>) -> Vec<Warning> {
    each(study, judge)
}

fn judge(trial: &Trial) -> Option<Found> {
    let read = trial.readings.iter().filter(|reading| reading.measure == "usage");
    let small = read.filter_map(|reading| {
        let quantity = reading.quantity();
        let sizes = match quantity.depths().next() {
            Some(depth) => trial.sizes.codes_and_tokens(quantity.level(), depth),
            None => trial.sizes.all_codes_and_tokens(quantity.level()),
        };
        sizes.filter(|(codes, tokens)| *tokens < TOKENS_PER_CODE * codes)
    });
    // Depth by depth is the stricter.
    let (codes, tokens) = small.max_by(|a, b| (a.0 * b.1).cmp(&(b.0 * a.1)))?;
    let (most, even) = usage_ceiling(codes, tokens);
    let percent = |share: f64| format!("{}%", format::significant(100.0 * share, 2));
    let bound = if most < 1.0 {
        format!("usage cannot exceed {}, and would be {}", percent(most), percent(even))
    } else {
        format!("usage would be {}", percent(even))
    };
    let text = format!(
        "{} tokens measure the use of {} codes: {bound} if all codes were equally frequent; measure more images \
         (evaluation.images)",
        format::number(tokens as f64),
        format::number(codes as f64)
    );
    Some(Found { degree: 1.0 - even, harm: Harm::Caution, text })
}
