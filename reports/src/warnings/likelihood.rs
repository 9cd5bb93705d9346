//! A prior that codes images in more bits than no prior at all.

use super::{Found, Harm, Warning, each};
use crate::format;
use crate::measure::Quantity;
use crate::results::Trial;
use crate::study::Study;

/// With fewer tokens for each code, frequencies on test images promise less entropy than there is.
const TOKENS_PER_CODE: usize = 20;

pub(super) fn warnings(study: &Study<'_>) -> Vec<Warning> {
    each(study, judge)
}

fn judge(trial: &Trial) -> Option<Found> {
    let value = |measure: &str| trial.value(&Quantity::plain(measure));
    let (prior, nominal) = (value("prior_bits_per_image")?, value("bits_per_image")?);
    let bits = |bits: f64| format::number(bits.round());
    let found = |harm, text| Found { degree: prior / nominal.max(f64::MIN_POSITIVE), harm, text };
    if prior > nominal {
        let text = format!(
            "the prior needs {} bits for a test image whose codes take {} as they are: it has learned nothing that holds for \
             test images, or has overfitted",
            bits(prior),
            bits(nominal)
        );
        return Some(found(Harm::Grave, text));
    }
    let entropy =
        value("entropy_bits_per_image").filter(|_| (1..=trial.sizes.levels.len()).all(|level| enough(trial, level)))?;
    (prior > entropy && !trial.sizes.levels.is_empty()).then(|| {
        let text = format!(
            "the prior needs {} bits for a test image, more than the {} that the codes' frequencies alone give: it has not \
             learned how codes go together",
            bits(prior),
            bits(entropy)
        );
        // It may be on its way: what it draws can be better than codes of no prior.
        found(Harm::Caution, text)
    })
}

/// Whether the codes of a level were counted often enough for their entropy to be what it seems.
fn enough(trial: &Trial, level: usize) -> bool {
    let depths = trial.sizes.level(Some(level)).map_or(0, |codes| codes.codebooks.len());
    let counted = |depth| trial.sizes.codes_and_tokens(Some(level), depth);
    (1..=depths).all(|depth| counted(depth).is_some_and(|(codes, tokens)| tokens >= TOKENS_PER_CODE * codes))
}
