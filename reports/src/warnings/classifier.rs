//! A feature classifier that knows little more than chance: the distances that rest on it say little.

use super::{Harm, Warning, by_text};
use crate::measure::Quantity;
use crate::results::Trial;
use crate::study::Study;

/// How much of the way from chance to certainty a classifier should have gone.
const LEARNED: f64 = 0.2;

pub(super) fn warnings(study: &Study<'_>) -> Vec<Warning> {
    by_text(study, Harm::Grave, judge)
}

fn judge(trial: &Trial) -> Option<String> {
    let found = trial.value(&Quantity::plain("classifier_accuracy"))?;
    let classes = trial.sizes.classes.filter(|&classes| classes > 1)?;
    let all: usize = trial.sizes.test_by_class.iter().sum();
    let largest = trial.sizes.test_by_class.iter().max().filter(|_| all > 0);
    let (chance, how) = match largest {
        // Always naming the most frequent class.
        Some(&largest) if largest * classes > all => {
            (largest as f64 / all as f64, "that of always naming the largest class")
        }
        _ => (1.0 / classes as f64, "chance"),
    };
    (found < chance + LEARNED * (1.0 - chance)).then(|| {
        format!(
            "The feature classifier is right on {:.1}% of the test images, hardly more than {how} ({:.1}% of {classes} classes): \
             Fréchet distances, precision and recall on its features say little; train it longer (evaluation.classifier_steps)",
            100.0 * found,
            100.0 * chance
        )
    })
}
