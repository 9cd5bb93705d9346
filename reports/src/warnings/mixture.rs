//! Samples whose labels are mixed in different ways: their distances compare the mixtures as much as the priors.

use super::Warning;
use crate::setup::LABELS;
use crate::study::Study;

pub(super) fn warnings(study: &Study<'_>) -> Vec<Warning> {
    let facts = study.results.done().flat_map(|trial| &trial.setup).filter(|fact| fact.name == LABELS);
    let mut mixtures: Vec<&str> = facts.map(|fact| fact.text.as_str()).collect();
    mixtures.sort_unstable();
    mixtures.dedup();
    if mixtures.len() < 2 {
        return Vec::new();
    }
    let text = format!(
        "Samples are drawn in different mixtures of classes ({}): distances to the test images compare the mixtures as much as the \
         priors",
        mixtures.join("; ")
    );
    vec![Warning::of("", text)]
}
