//! Samples that are copies of training images.

use super::{Found, Harm, Warning, each};
use crate::format;
use crate::measure::Quantity;
use crate::results::Trial;
use crate::study::Study;

/// New images have a share of 5%; this is beyond what chance makes of some hundreds of samples.
const MOST: f64 = 0.15;

pub(super) fn warnings(study: &Study<'_>) -> Vec<Warning> {
    each(study, judge)
}

fn judge(trial: &Trial) -> Option<Found> {
    let share = |measure: &str| trial.value(&Quantity::plain(measure)).filter(|share| *share > MOST);
    let (features, pixels) = (share("near_training"), share("near_training_pixels"));
    let found = features.or(pixels)?;
    let measured = trial.value(&Quantity::plain("near_training"));
    let (harm, by, meaning) = match (features, measured) {
        // Where features say otherwise, pixels may be near because samples are smooth.
        (None, Some(measured)) => (
            Harm::Caution,
            "in pixels, ",
            format!(
                "by the classifier's features {}% of the samples are. They may be smooth, which comes near to many images, or repeat \
                 parts of what the prior learnt from",
                format::significant(100.0 * measured, 2)
            ),
        ),
        _ => (
            Harm::Grave,
            "",
            "the prior may repeat what it learnt from, which distances to test images do not show".to_owned(),
        ),
    };
    let text = format!(
        "{by}{}% of the samples are as near to a training image as the nearest 5% of the test images are; {meaning}",
        format::significant(100.0 * found, 2)
    );
    Some(Found { degree: found, text, harm })
}
