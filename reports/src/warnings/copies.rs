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
    let share = |measure: &str| trial.value(&Quantity::plain(measure));
    let found = ["near_training", "near_training_pixels"].into_iter().filter_map(share).fold(0.0, f64::max);
    let text = format!(
        "{}% of the samples are as near to a training image as 5% of test images are: the prior may repeat what it learnt from, \
         which distances to test images do not show",
        format::significant(100.0 * found, 2)
    );
    (found > MOST).then_some(Found { degree: found, text, harm: Harm::Grave })
}
