//! What may lead to a wrong moral: one file for each kind, a function of the study alone.
//!
//! A warning names the configuration and the number that it rests on. It is said under the verdicts, since who reads those
//! needs it, and at the end of a sweep.

mod ceiling;
mod classifier;
mod collapse;
mod images;
mod likelihood;
mod mixture;
mod overfitting;
mod restarts;
mod seeds;
mod speed;
#[cfg(test)]
mod tests;
mod training;

use crate::results::Trial;
use crate::study::Study;

/// Lines of one kind; what is beyond them is counted.
const MOST: usize = 6;
/// Configurations that a line names; what is beyond them is counted.
const NAMED: usize = 2;

/// What a reader should know before drawing a moral.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Warning {
    /// Whom it concerns, such as `depth 4, seed 1`; empty for all.
    pub(crate) who: String,
    /// What is so, with its number, and what follows; without a full stop.
    pub(crate) text: String,
}

impl Warning {
    /// As a line.
    pub(crate) fn sentence(&self) -> String {
        if self.who.is_empty() { format!("{}.", self.text) } else { format!("{}: {}.", self.who, self.text) }
    }

    fn of_all(text: String) -> Self {
        Self { who: String::new(), text }
    }
}

/// The kinds, the gravest first.
const KINDS: [fn(&Study<'_>) -> Vec<Warning>; 11] = [
    training::warnings,
    collapse::warnings,
    classifier::warnings,
    likelihood::warnings,
    overfitting::warnings,
    ceiling::warnings,
    restarts::warnings,
    mixture::warnings,
    speed::warnings,
    seeds::warnings,
    images::warnings,
];

/// All that there is to warn of.
pub(crate) fn all(study: &Study<'_>) -> Vec<Warning> {
    let mut warnings = Vec::new();
    for kind in KINDS {
        let mut found = together(kind(study));
        let more = found.len().saturating_sub(MOST);
        found.truncate(MOST);
        if let Some(last) = found.last_mut().filter(|_| more > 0) {
            last.text.push_str(&format!("; and {more} more of this kind"));
        }
        warnings.append(&mut found);
    }
    warnings
}

/// What is said of several in equal words is said once.
fn together(found: Vec<Warning>) -> Vec<Warning> {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for Warning { who, text } in found {
        match groups.iter_mut().find(|(known, _)| *known == text) {
            Some((_, all)) => all.push(who),
            None => groups.push((text, vec![who])),
        }
    }
    let join = |(text, all): (String, Vec<String>)| {
        let more = all.len().saturating_sub(NAMED);
        let mut who = all.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join("; ");
        if more > 0 {
            who.push_str(&format!("; and {more} more"));
        }
        Warning { who, text }
    };
    groups.into_iter().map(join).collect()
}

/// A warning for each configuration of which `judge` finds fault with a finished trial: how bad it is, and the text. The worst
/// trial speaks for its configuration.
fn each(study: &Study<'_>, judge: impl Fn(&Trial) -> Option<(f64, String)>) -> Vec<Warning> {
    let mut warnings = Vec::new();
    for configuration in &study.configurations {
        let done = configuration.done().count();
        let mut found: Vec<(f64, String, &Trial)> =
            configuration.done().filter_map(|trial| judge(trial).map(|(bad, text)| (bad, text, trial))).collect();
        let count = found.len();
        found.sort_by(|a, b| b.0.total_cmp(&a.0));
        let Some((_, text, trial)) = found.into_iter().next() else { continue };
        let seed = trial.seed.filter(|_| done > 1).map(|seed| format!(", seed {seed}")).unwrap_or_default();
        let others = if count > 1 { format!(" (so in {count} of {done} seeds)") } else { String::new() };
        warnings.push(Warning { who: format!("{}{seed}", configuration.label), text: format!("{text}{others}") });
    }
    warnings
}

/// `at depth 2`, `at level 1, depth 2`.
fn place(level: Option<usize>, depth: usize) -> String {
    match level {
        Some(level) => format!("at level {level}, depth {depth}"),
        None => format!("at depth {depth}"),
    }
}
