//! A codebook of which hardly any code is used.

use super::{Found, Harm, Warning, each, place};
use crate::format;
use crate::results::Trial;
use crate::study::Study;

/// A perplexity below this is as good as one code.
const ONE_CODE: f64 = 1.5;
/// Less than this share of the codes that could show, weighed by how often they occur, is a collapse, too.
const SHARE: f64 = 0.05;
/// Below this share no verdict is drawn, as of one code.
const GRAVE: f64 = 0.01;

pub(super) fn warnings(study: &Study<'_>) -> Vec<Warning> {
    each(study, judge)
}

fn judge(trial: &Trial) -> Option<Found> {
    let read = trial.readings.iter().filter(|reading| reading.measure == "perplexity");
    let worst = read.filter_map(|reading| {
        let quantity = reading.quantity();
        let (level, depth) = (quantity.level(), quantity.depths().next()?);
        let sizes = trial.sizes.codes_and_tokens(level, depth);
        let possible = sizes.map(|(codes, tokens)| codes.min(tokens) as f64);
        // A codebook of one or two codes has nothing to lose.
        let collapsed = possible.is_none_or(|possible| possible > 2.0)
            && (reading.value < ONE_CODE || possible.is_some_and(|possible| reading.value < SHARE * possible));
        let grave = reading.value < ONE_CODE || possible.is_some_and(|possible| reading.value < GRAVE * possible);
        collapsed.then(|| (reading.value, grave, place(level, depth), sizes.map(|(codes, _)| codes)))
    });
    let (perplexity, grave, place, codes) = worst.min_by(|a, b| a.0.total_cmp(&b.0))?;
    let of = codes.map(|codes| format!(" of {} codes", format::number(codes as f64))).unwrap_or_default();
    let harm = if grave { Harm::Grave } else { Harm::Caution };
    let meaning = if perplexity < ONE_CODE {
        "the codebook has collapsed to one code, and carries nothing".to_owned()
    } else {
        let few = format::significant(perplexity, 2);
        format!("the codebook carries no more than {few} equally frequent codes would")
    };
    Some(Found { degree: -perplexity, harm, text: format!("perplexity {perplexity:.1}{of} {place}: {meaning}") })
}
