//! What the experiment's results say: comparisons, main effects and the interaction, each paired by seed.
//!
//! The unit of replication is the seed. Differences are first averaged over the other axes within a seed, and the
//! interval is that of the seeds' averages, so that many cells of a grid do not pass for many repetitions.

mod caveats;
mod compare;
mod effects;
#[cfg(test)]
mod tests;

use crate::format;
use crate::measure::{Better, Measure, Quantity};
use crate::results::{Axis, Comparison, Trial, Value};
use crate::stats::{self, Estimate};
use crate::study::{Column, Study};

use caveats::Caveats;
use compare::compare;
pub(crate) use effects::{Effect, Interaction, effect, interaction};

/// How an estimate was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    /// From differences within a seed.
    Paired,
    /// Welch: the two sides share no seed.
    Unpaired,
}

/// What an estimate lets one say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// The interval excludes zero, on the better side.
    Better,
    /// The interval excludes zero, on the worse side.
    Worse,
    /// The interval excludes zero; the measure has no better side.
    Differs,
    /// The interval holds zero.
    Unclear,
    /// One seed: a difference without an interval.
    OneSeed,
    /// The measure does not compare between the two sides; [`Verdict::caveats`] says why.
    Incomparable,
    /// One side has no finished trial.
    NotMeasured,
}

/// A judged comparison.
#[derive(Clone)]
pub(crate) struct Verdict {
    /// What is compared.
    pub(crate) column: Column,
    /// What changes, such as `depth 1 → 4 at codebook 256`.
    pub(crate) subject: String,
    /// Mean difference, after minus before.
    pub(crate) estimate: Option<Estimate>,
    /// Means of the two sides.
    pub(crate) sides: Option<(f64, f64)>,
    /// Nominal bits per image of the two sides, where they differ: what the effect is paid with.
    pub(crate) rates: Option<(f64, f64)>,
    /// How it was made.
    pub(crate) method: Method,
    /// Labels of the axes averaged over.
    pub(crate) averaged: Vec<String>,
    /// How many pairs the experiment plans, and how many of them the estimate lacks.
    pub(crate) pairs: (usize, usize),
    /// What it lets one say.
    pub(crate) finding: Finding,
    /// Why the difference may be of something else than what was varied, a sentence each.
    pub(crate) caveats: Vec<String>,
}

impl Verdict {
    /// The verdict as one sentence, and its caveats.
    pub(crate) fn sentence(&self) -> String {
        let rates = self.rates_text().map(|rates| format!(", {rates}")).unwrap_or_default();
        let caveats: String = self.caveats.iter().map(|caveat| format!(" Caution: {caveat}")).collect();
        format!("{}: {} {}{rates}.{caveats}", self.subject, self.column.label(), self.effect())
    }

    /// The two sides' bits, if they differ.
    pub(crate) fn rates_text(&self) -> Option<String> {
        let (before, after) = self.rates?;
        let average = if self.averaged.is_empty() { "" } else { " on average" };
        let [before, after] = [before, after].map(|bits| format::number(bits.round()));
        Some(format!("at {before} → {after} bits per image{average}"))
    }

    /// The sentence without its subject: the difference, and how it was found.
    pub(crate) fn effect(&self) -> String {
        match &self.estimate {
            Some(estimate) => format!("{}{}", format::difference(&self.column.measure, estimate), self.basis()),
            None => "was not measured on both sides".to_owned(),
        }
    }

    /// Interval, number of seeds, method; what was averaged over and what is missing. Begins with a comma, unless empty.
    pub(crate) fn basis(&self) -> String {
        let Some(estimate) = self.estimate else { return String::new() };
        let mut text = match estimate.interval {
            None => ", no interval: one seed".to_owned(),
            Some(_) => {
                format!(", 95% CI {}, {} seeds", format::interval(&self.column.measure, &estimate), estimate.n)
            }
        };
        text.push_str(if self.method == Method::Paired { ", paired" } else { ", not paired" });
        if !self.averaged.is_empty() {
            text.push_str(&format!(", averaged over {}", self.averaged.join(" and ")));
        }
        if let (planned, missing @ 1..) = self.pairs {
            text.push_str(&format!(", {missing} of {planned} pairs missing"));
        }
        text
    }

    /// The finding in words.
    pub(crate) fn finding_text(&self) -> &'static str {
        match self.finding {
            Finding::Better => "better",
            Finding::Worse => "worse",
            Finding::Differs => "differs",
            Finding::Unclear => "no difference shown: the interval holds zero",
            Finding::OneSeed => "one seed: an observation, not a finding",
            Finding::Incomparable => "not comparable",
            Finding::NotMeasured => "not measured",
        }
    }
}

/// All verdicts: what the experiment asks for, or else each axis from its first value to its last; then, where a prior
/// was sampled, its samples against shuffled codes.
pub(crate) fn verdicts(study: &Study<'_>) -> Vec<Verdict> {
    let asked = &study.results.comparisons;
    let mut verdicts: Vec<Verdict> = if asked.is_empty() {
        study.varied.iter().filter_map(|&place| ends(&study.results.axes[place])).map(|c| compare(study, &c)).collect()
    } else {
        asked.iter().map(|comparison| compare(study, comparison)).collect()
    };
    verdicts.extend(against_shuffled(study));
    verdicts
}

fn ends(axis: &Axis) -> Option<Comparison> {
    Some(Comparison {
        metric: None,
        axis: axis.path.clone(),
        from: axis.values.first()?.clone(),
        to: axis.values.last()?.clone(),
        fixed: Default::default(),
    })
}

/// Whether what the priors draw is closer to the test images than codes without a prior are. Both are of one trial, so
/// that origins cannot differ.
fn against_shuffled(study: &Study<'_>) -> Option<Verdict> {
    let (column, baseline) = (Column::plain("sample_frechet"), Quantity::plain("shuffled_frechet"));
    let mut cells = Vec::new();
    for configuration in &study.configurations {
        for trial in configuration.done() {
            if let (Some(shuffled), Some(sample)) = (finite(trial, &baseline), finite(trial, &column.quantity)) {
                cells.push((trial.seed, configuration.label.clone(), (shuffled, sample)));
            }
        }
    }
    let rows = by_seed(&cells);
    let differences: Vec<f64> = rows.iter().map(|row| average(row.iter().map(|pair| pair.1 - pair.0))).collect();
    let estimate = stats::mean(&differences)?;
    let used = || rows.iter().flatten();
    let several = rows.iter().any(|row| row.len() > 1);
    Some(Verdict {
        finding: find(&column.measure, &estimate),
        column,
        subject: "shuffled codes → the prior's samples".to_owned(),
        estimate: Some(estimate),
        sides: Some((average(used().map(|pair| pair.0)), average(used().map(|pair| pair.1)))),
        rates: None,
        method: Method::Paired,
        averaged: if several { vec!["all priors".to_owned()] } else { Vec::new() },
        pairs: (cells.len(), cells.len() - used().count()),
        caveats: Vec::new(),
    })
}

/// What an estimate lets one say of a measure that compares.
fn find(measure: &Measure, estimate: &Estimate) -> Finding {
    match (estimate.excludes_zero(), measure.better) {
        (None, _) => Finding::OneSeed,
        (Some(false), _) => Finding::Unclear,
        (Some(true), Better::Neither) => Finding::Differs,
        (Some(true), better) if (estimate.mean > 0.0) == (better == Better::Higher) => Finding::Better,
        (Some(true), _) => Finding::Worse,
    }
}

/// One finished trial's value of a quantity.
struct Observation<'a> {
    key: &'a [Option<&'a Value>],
    seed: Option<u64>,
    value: f64,
}

fn observations<'a>(study: &'a Study<'_>, of: &Quantity) -> Vec<Observation<'a>> {
    let mut found = Vec::new();
    for configuration in &study.configurations {
        for trial in configuration.done() {
            if let Some(value) = finite(trial, of) {
                found.push(Observation { key: &configuration.key, seed: trial.seed, value });
            }
        }
    }
    found
}

fn finite(trial: &Trial, of: &Quantity) -> Option<f64> {
    trial.value(of).filter(|value| value.is_finite())
}

/// A configuration without some of its axes: what the two sides of a pair have in common.
fn rest(key: &[Option<&Value>], without: &[usize]) -> String {
    let parts: Vec<String> = (0..key.len())
        .filter(|axis| !without.contains(axis))
        .map(|axis| key[axis].map_or_else(String::new, |value| format!("{value:?}")))
        .collect();
    parts.join("\u{1f}")
}

/// Values of the same cells over all seeds: one row per seed, one column per cell; a cell that a seed lacks is left out
/// for every seed, so that seeds are comparable. If no cell is in all seeds, the seeds' own cells stand.
fn by_seed<T: Clone>(cells: &[(Option<u64>, String, T)]) -> Vec<Vec<T>> {
    let mut seeds: Vec<Option<u64>> = cells.iter().map(|(seed, _, _)| *seed).collect();
    seeds.sort_unstable();
    seeds.dedup();
    let everywhere = |rest: &str| seeds.iter().all(|seed| cells.iter().any(|(s, r, _)| s == seed && r == rest));
    let any_complete = cells.iter().any(|(_, rest, _)| everywhere(rest));
    seeds
        .iter()
        .map(|seed| {
            cells
                .iter()
                .filter(|(s, rest, _)| s == seed && (!any_complete || everywhere(rest)))
                .map(|(_, _, value)| value.clone())
                .collect()
        })
        .collect()
}

fn average(values: impl IntoIterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.into_iter().collect();
    values.iter().sum::<f64>() / values.len() as f64
}
