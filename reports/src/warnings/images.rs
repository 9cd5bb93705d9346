//! Fewer images measured than there are.

use super::Warning;
use crate::format;
use crate::study::Study;

/// A part of the test images that is larger than this stands for all of them.
const MOST: f64 = 0.5;

pub(super) fn warnings(study: &Study<'_>) -> Vec<Warning> {
    let mut texts: Vec<String> = Vec::new();
    for trial in study.results.done() {
        let (Some(measured), Some(all)) = (trial.sizes.measured_images, trial.sizes.test_images) else { continue };
        if (measured as f64) < MOST * all as f64 {
            let [measured, all] = [measured, all].map(|count| format::number(count as f64));
            let text = format!(
                "{measured} of {all} test images are measured (evaluation.images): of intervals, only those that name \
                 images hold for others, too"
            );
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
    }
    texts.into_iter().map(Warning::of_all).collect()
}
