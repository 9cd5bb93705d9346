//! What may lead to a wrong moral: one file for each kind, a function of the study alone.
//!
//! A warning names the configuration and the number that it rests on. It stands at the head of the page, before any verdict, and
//! at the end of a sweep. It knows the trials that it concerns: where one spoils a measure, no verdict is drawn from that.

mod ceiling;
mod classes;
mod classifier;
mod collapse;
mod copies;
mod critic;
mod images;
mod judged;
mod likelihood;
mod mixture;
mod norms;
mod overfitting;
mod restarts;
mod seeds;
mod speed;
#[cfg(test)]
mod tests;
mod training;
mod unused;

pub use speed::BUSY;

use crate::measure::{Comparable, Group, Measure};
use crate::results::{Curve, Trial};
use crate::study::{ALL, Study};

/// Lines of one kind; what is beyond them is counted.
const MOST: usize = 6;
/// Configurations that a line names; what is beyond them is counted.
const NAMED: usize = 2;
/// The last part of a curve, whose mean is its end.
const END: f64 = 0.25;

/// What a reader should know before drawing a moral.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Warning {
    /// Whom it concerns, such as `depth 4, seed 1`; empty for all.
    pub(crate) who: String,
    /// What is so, with its number, and what follows; without a full stop.
    pub(crate) text: String,
    /// The trials that it concerns, and how much it says against each.
    trials: Vec<(String, Harm)>,
}

/// How much a warning says against what it spoils.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Harm {
    /// A reader should know it.
    Caution,
    /// No verdict may be drawn.
    Grave,
}

/// Warnings of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heading {
    /// The kind in plain words, a clause without a full stop.
    pub(crate) title: &'static str,
    /// Each of them.
    pub(crate) warnings: Vec<Warning>,
}

/// What a kind of warning says against one trial.
#[derive(Clone)]
pub(crate) struct Fault {
    /// The trial's id.
    pub(crate) trial: String,
    /// The kind in plain words.
    pub(crate) title: &'static str,
    /// How much it says.
    pub(crate) harm: Harm,
    spoils: fn(&Measure) -> bool,
}

impl Fault {
    /// Whether a measure means less because of it.
    pub(crate) fn spoils(&self, measure: &Measure) -> bool {
        // What is counted from shapes is so however training went.
        !measure.is_counted() && (self.spoils)(measure)
    }
}

impl Warning {
    /// As a line.
    pub(crate) fn sentence(&self) -> String {
        if self.who.is_empty() { format!("{}.", self.text) } else { format!("{}: {}.", self.who, self.text) }
    }

    fn of(who: impl Into<String>, text: String) -> Self {
        Self { who: who.into(), text, trials: Vec::new() }
    }
}

/// A kind of warning.
struct Kind {
    title: &'static str,
    spoils: fn(&Measure) -> bool,
    find: fn(&Study<'_>) -> Vec<Warning>,
}

/// What a tokenizer decides: all but what it took.
fn of_tokens(measure: &Measure) -> bool {
    matches!(measure.group, Group::Reconstruction | Group::Rate | Group::Codebook | Group::Prior)
}

/// The kinds, the gravest first.
const KINDS: [Kind; 17] = [
    Kind { title: "A tokenizer has learned nothing", spoils: of_tokens, find: training::warnings },
    Kind {
        title: "A codebook has collapsed",
        // How its codes are used is what a collapse is.
        spoils: |measure| of_tokens(measure) && measure.group != Group::Codebook,
        find: collapse::warnings,
    },
    Kind {
        title: "Codes do not depend on the image",
        spoils: |measure| of_tokens(measure) && measure.group != Group::Codebook,
        find: unused::warnings,
    },
    Kind {
        title: "Codes lie where no image is",
        spoils: |measure| measure.group == Group::Codebook,
        find: norms::warnings,
    },
    Kind {
        title: "The feature classifier knows little",
        spoils: |measure| measure.comparable == Comparable::Features,
        find: classifier::warnings,
    },
    Kind {
        title: "A prior is no better than none",
        spoils: |measure| measure.group == Group::Prior,
        find: likelihood::warnings,
    },
    Kind { title: "A prior overfits", spoils: |measure| measure.group == Group::Prior, find: overfitting::warnings },
    Kind {
        title: "Samples are near training images",
        spoils: |measure| measure.group == Group::Prior && measure.comparable == Comparable::Features,
        find: copies::warnings,
    },
    Kind {
        title: "A tokenizer was trained on what measures it",
        spoils: |measure| measure.comparable == Comparable::Features,
        find: judged::warnings,
    },
    Kind {
        title: "A critic tells nothing",
        spoils: |measure| measure.group == Group::Reconstruction,
        find: critic::warnings,
    },
    Kind {
        title: "A codebook is larger than the tokens that measure it",
        spoils: |measure| measure.group == Group::Codebook || measure.name == "entropy_bits_per_image",
        find: ceiling::warnings,
    },
    Kind { title: "Codes never settle", spoils: of_tokens, find: restarts::warnings },
    Kind { title: "Samples are mixed in different ways", spoils: |_| false, find: mixture::warnings },
    Kind { title: "Classes are of unequal size", spoils: |_| false, find: classes::warnings },
    Kind { title: "The machine was busy", spoils: |measure| measure.group == Group::Speed, find: speed::warnings },
    Kind { title: "Too few seeds", spoils: |_| false, find: seeds::warnings },
    Kind { title: "A small part of the test images", spoils: |_| false, find: images::warnings },
];

/// All that there is to warn of.
pub(crate) fn all(study: &Study<'_>) -> Vec<Heading> {
    let headings = KINDS.iter().map(|kind| {
        let mut warnings = together(study, (kind.find)(study));
        let more = warnings.len().saturating_sub(MOST);
        warnings.truncate(MOST);
        if let Some(last) = warnings.last_mut().filter(|_| more > 0) {
            last.text.push_str(&format!("; and {more} more of this kind"));
        }
        Heading { title: kind.title, warnings }
    });
    headings.filter(|heading| !heading.warnings.is_empty()).collect()
}

/// What is to be held against single trials.
pub(crate) fn faults(study: &Study<'_>) -> Vec<Fault> {
    let of_kind = |kind: &Kind| {
        let trials = (kind.find)(study).into_iter().flat_map(|warning| warning.trials);
        let (title, spoils) = (kind.title, kind.spoils);
        trials.map(move |(trial, harm)| Fault { trial, title, harm, spoils }).collect::<Vec<_>>()
    };
    KINDS.iter().flat_map(of_kind).collect()
}

/// What is said of several in equal words is said once; of all, without naming each.
fn together(study: &Study<'_>, found: Vec<Warning>) -> Vec<Warning> {
    let mut groups: Vec<(Warning, Vec<String>)> = Vec::new();
    for warning in found {
        match groups.iter_mut().find(|(known, _)| known.text == warning.text) {
            Some((known, all)) => {
                all.push(warning.who);
                known.trials.extend(warning.trials);
            }
            None => groups.push((warning.clone(), vec![warning.who])),
        }
    }
    let every = |all: &[String]| {
        all.len() > 1 && all.iter().eq(study.configurations.iter().map(|configuration| &configuration.label))
    };
    let who = |all: &[String]| if every(all) { ALL.to_owned() } else { listed(all) };
    groups.into_iter().map(|(warning, all)| Warning { who: who(&all), ..warning }).collect()
}

/// The first few names, and how many more there are.
pub(crate) fn listed(names: &[String]) -> String {
    let (shown, rest) = names.split_at(names.len().min(NAMED));
    let rest = if rest.is_empty() { String::new() } else { format!("; and {} more", rest.len()) };
    format!("{}{rest}", shown.join("; "))
}

/// What is found wrong with a trial.
struct Found {
    /// How bad it is, to choose the trial that is told of.
    degree: f64,
    harm: Harm,
    text: String,
}

/// A warning for each configuration of which `judge` finds fault with a finished trial. The worst trial speaks for its
/// configuration.
fn each(study: &Study<'_>, judge: impl Fn(&Trial) -> Option<Found>) -> Vec<Warning> {
    let mut warnings = Vec::new();
    for configuration in &study.configurations {
        let done = configuration.done().count();
        let mut found: Vec<(Found, &Trial)> =
            configuration.done().filter_map(|trial| judge(trial).map(|found| (found, trial))).collect();
        found.sort_by(|a, b| b.0.degree.total_cmp(&a.0.degree));
        let Some((worst, trial)) = found.first() else { continue };
        let seed = trial.seed.filter(|_| done > 1).map(|seed| format!(", seed {seed}")).unwrap_or_default();
        let others = if found.len() > 1 { format!(" (so in {} of {done} seeds)", found.len()) } else { String::new() };
        warnings.push(Warning {
            who: format!("{}{seed}", configuration.label),
            text: format!("{}{others}", worst.text),
            trials: found.iter().map(|(found, trial)| (trial.id.clone(), found.harm)).collect(),
        });
    }
    warnings
}

/// A warning for each text that is so of some finished trials, and of those trials.
fn by_text(study: &Study<'_>, harm: Harm, judge: impl Fn(&Trial) -> Option<String>) -> Vec<Warning> {
    let mut warnings: Vec<Warning> = Vec::new();
    for trial in study.results.done() {
        let Some(text) = judge(trial) else { continue };
        let found = (trial.id.clone(), harm);
        match warnings.iter_mut().find(|known| known.text == text) {
            Some(known) => known.trials.push(found),
            None => warnings.push(Warning { trials: vec![found], ..Warning::of("", text) }),
        }
    }
    warnings
}

/// The mean over the last part of a curve.
fn at_the_end(curve: &Curve) -> Option<f64> {
    let last = ((curve.values.len() as f64 * END).ceil() as usize).max(1);
    let values = curve.values.get(curve.values.len().checked_sub(last)?..)?;
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// `at depth 2`, `at level 1, depth 2`.
fn place(level: Option<usize>, depth: usize) -> String {
    match level {
        Some(level) => format!("at level {level}, depth {depth}"),
        None => format!("at depth {depth}"),
    }
}
