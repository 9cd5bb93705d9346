//! Classes of very unequal size: a mean over images is that of the largest class.

use super::{Harm, Warning, by_text};
use crate::format;
use crate::results::Trial;
use crate::study::Study;

/// How many times as large as its even share the largest class may be.
const LARGE: f64 = 1.5;

pub(super) fn warnings(study: &Study<'_>) -> Vec<Warning> {
    by_text(study, Harm::Caution, judge)
}

fn judge(trial: &Trial) -> Option<String> {
    let each = &trial.sizes.test_by_class;
    let all: usize = each.iter().sum();
    let (least, largest) = (*each.iter().min()?, *each.iter().max()?);
    (each.len() > 1 && (largest * each.len()) as f64 > LARGE * all as f64).then(|| {
        let [least_shown, largest_shown] = [least, largest].map(|images| format::number(images as f64));
        format!(
            "The test split has {least_shown} to {largest_shown} images in a class: what is averaged over images is mostly what the \
             largest class gives, {:.0}% of them",
            100.0 * largest as f64 / all as f64
        )
    })
}
