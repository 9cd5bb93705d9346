//! Too few seeds for an interval.

use super::Warning;
use crate::study::Study;

/// From this many on, a spread says something of its own precision.
const ENOUGH: usize = 3;

pub(super) fn warnings(study: &Study<'_>) -> Vec<Warning> {
    let counts =
        study.configurations.iter().map(|configuration| configuration.done().count()).filter(|&count| count > 0);
    let few: Vec<usize> = counts.clone().filter(|&count| count < ENOUGH).collect();
    let (Some(least), Some(most)) = (few.iter().min(), few.iter().max()) else { return Vec::new() };
    let who = if few.len() == counts.count() {
        String::new()
    } else {
        format!("{} of {} configurations", few.len(), study.configurations.len())
    };
    let seeds = match (least, most) {
        (1, 1) => "one seed".to_owned(),
        (least, most) if least == most => format!("{least} seeds"),
        (least, most) => format!("{least} to {most} seeds"),
    };
    let text =
        format!("{seeds}, fewer than {ENOUGH}: differences are observations, and another seed may turn them round");
    let capital = if who.is_empty() { crate::format::capitalized(&text) } else { text };
    vec![Warning::of(who, capital)]
}
