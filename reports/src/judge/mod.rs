//! What the experiment's results say: comparisons, main effects and the interaction, each paired by seed.
//!
//! The unit of replication is the seed. Differences are first averaged over the other axes within a seed, and the
//! interval is that of the seeds' averages, so that many cells of a grid do not pass for many repetitions.

mod by_protocol;
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
pub(crate) use compare::over_images;
pub(crate) use effects::{Effect, Interaction, effect, interaction};

/// Why a quantity does not compare between the two sides of pairs of trials; `None` if it does.
pub(crate) fn withheld(column: &Column, pairs: &[(&Trial, &Trial)]) -> Option<String> {
    Caveats::withheld(column, pairs)
}

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
    /// The interval excludes zero, and the correction for the number of verdicts does not let that stand.
    Uncorrected,
    /// Two one-sided tests show the difference to be smaller than what matters.
    Equivalent,
    /// A difference without an interval: fewer seeds than an interval takes.
    FewSeeds,
    /// The measure does not compare between the two sides; [`Verdict::caveats`] says why.
    Incomparable,
    /// A warning is to be held against a side that spoils the measure; [`Verdict::caveats`] names it.
    Unsound,
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
    /// How many test images the interval is over, beside the seeds, where each one's measure is known.
    pub(crate) images: Option<usize>,
    /// Labels of the axes averaged over.
    pub(crate) averaged: Vec<String>,
    /// How many pairs the experiment plans, and how many of them the estimate lacks.
    pub(crate) pairs: (usize, usize),
    /// What it lets one say.
    pub(crate) finding: Finding,
    /// The p-value, corrected for the number of verdicts that are judged together (Holm).
    pub(crate) p: Option<f64>,
    /// Below what a difference does not matter, in the measure's unit.
    pub(crate) margin: Option<f64>,
    /// Why the difference may be of something else than what was varied, a sentence each.
    pub(crate) caveats: Vec<String>,
}

impl Verdict {
    /// Whether the difference is told without a verdict on it.
    pub(crate) fn is_withheld(&self) -> bool {
        matches!(self.finding, Finding::Incomparable | Finding::Unsound)
    }

    /// The verdict as one sentence, and its caveats.
    pub(crate) fn sentence(&self) -> String {
        let rates = self.rates_text().map(|rates| format!(", {rates}")).unwrap_or_default();
        let caveats: String = self.caveats.iter().map(|caveat| format!(" Caution: {caveat}")).collect();
        let none = if self.is_withheld() { ", and no verdict" } else { "" };
        format!("{}: {} {}{rates}{none}.{caveats}", self.subject, self.column.label(), self.effect())
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
            None if estimate.n == 1 => ", no interval: one seed".to_owned(),
            None => format!(", no interval: {} seeds", estimate.n),
            Some(_) => {
                format!(", 95% CI {}, {} seeds", format::interval(&self.column.measure, &estimate), estimate.n)
            }
        };
        if let (Some(images), Some(_)) = (self.images, estimate.interval) {
            text.push_str(&format!(" and {images} images"));
        }
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
    pub(crate) fn finding_text(&self) -> String {
        match self.finding {
            Finding::Better => "better".to_owned(),
            Finding::Worse => "worse".to_owned(),
            Finding::Differs => "differs".to_owned(),
            Finding::Unclear => format!("no difference shown: the interval holds zero{}", self.needed()),
            Finding::Uncorrected => {
                let p = self.p.map_or(String::new(), |p| format!(", p = {p:.2}"));
                format!(
                    "no difference shown: what the interval shows does not stand the correction for all verdicts{p}"
                )
            }
            Finding::Equivalent => format!("equivalent within {}", self.margin_text()),
            Finding::FewSeeds => match self.estimate.map_or(0, |estimate| estimate.n) {
                1 => "one seed: an observation, not a finding".to_owned(),
                n => format!("{n} seeds: too few for an interval, an observation, not a finding"),
            },
            Finding::Incomparable => "no verdict: not comparable".to_owned(),
            Finding::Unsound => "no verdict: what is compared is not sound".to_owned(),
            Finding::NotMeasured => "not measured".to_owned(),
        }
    }

    /// How many seeds would show a difference that matters.
    fn needed(&self) -> String {
        let (Some(estimate), Some(margin)) = (self.estimate, self.margin) else { return String::new() };
        let Some((error, _)) = estimate.error else { return String::new() };
        match stats::seeds_to_show(margin, error * (estimate.n as f64).sqrt()) {
            Some(seeds) if seeds > estimate.n => {
                format!("; about {seeds} seeds would show one of {} (4 times out of 5)", self.margin_text())
            }
            Some(_) => String::new(),
            None => format!("; more than 1000 seeds would be needed to show one of {}", self.margin_text()),
        }
    }

    fn margin_text(&self) -> String {
        format::amount(&self.column.measure, self.margin.unwrap_or(0.0))
    }
}

/// All verdicts: what the experiment asks for, or else each axis from its first value to its last, by the headline and what is
/// judged beside it; then, where a prior
/// was sampled, its samples against shuffled codes.
pub(crate) fn verdicts(study: &Study<'_>) -> Vec<Verdict> {
    let asked = &study.results.comparisons;
    let mut verdicts: Vec<Verdict> = if asked.is_empty() {
        let metrics = || {
            let also = study.results.judged_also.iter().filter(|also| study.has(also));
            std::iter::once(None).chain(also.cloned().map(Some))
        };
        let ends = study.varied.iter().filter_map(|&place| ends(&study.results.axes[place]));
        let each = ends.flat_map(|ends| metrics().map(move |metric| Comparison { metric, ..ends.clone() }));
        each.map(|comparison| compare(study, &comparison)).collect()
    } else {
        asked.iter().map(|comparison| compare(study, comparison)).collect()
    };
    verdicts.extend(against_shuffled(study));
    correct(&mut verdicts);
    by_effect(verdicts)
}

/// Corrects for the number of verdicts: what is called a difference stands with all the others.
fn correct(verdicts: &mut [Verdict]) {
    let tested = |verdict: &Verdict| {
        let judged = !matches!(
            verdict.finding,
            Finding::Incomparable | Finding::Unsound | Finding::NotMeasured | Finding::FewSeeds
        );
        verdict.estimate.filter(|_| judged).and_then(|estimate| estimate.p_value())
    };
    let places: Vec<(usize, f64)> =
        verdicts.iter().enumerate().filter_map(|(place, verdict)| Some((place, tested(verdict)?))).collect();
    let corrected = stats::holm(&places.iter().map(|(_, p)| *p).collect::<Vec<f64>>());
    for ((place, _), p) in places.into_iter().zip(corrected) {
        let verdict = &mut verdicts[place];
        verdict.p = Some(p);
        if p >= 0.05 && matches!(verdict.finding, Finding::Better | Finding::Worse | Finding::Differs) {
            verdict.finding = Finding::Uncorrected;
        }
    }
}

/// In the order of their effects, in standard deviations from seed to seed; the first one is at equal bits, if there is one.
fn by_effect(mut verdicts: Vec<Verdict>) -> Vec<Verdict> {
    let size = |verdict: &Verdict| {
        verdict
            .estimate
            .filter(|_| !verdict.is_withheld())
            .and_then(|estimate| estimate.standardised())
            .map_or(-1.0, f64::abs)
    };
    verdicts.sort_by(|a, b| size(b).total_cmp(&size(a)));
    if let Some(first) = verdicts.iter().position(|verdict| verdict.rates.is_none() && size(verdict) >= 0.0) {
        verdicts[..=first].rotate_right(1);
    }
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
    let trials: Vec<&Trial> = study.results.done().filter(|trial| trial.value(&baseline).is_some()).collect();
    let rows = by_seed(&cells);
    let differences: Vec<f64> = rows.iter().map(|row| average(row.iter().map(|pair| pair.1 - pair.0))).collect();
    let estimate = stats::mean(&differences)?;
    let used = || rows.iter().flatten();
    let several = rows.iter().any(|row| row.len() > 1);
    let sides = (average(used().map(|pair| pair.0)), average(used().map(|pair| pair.1)));
    let margin = column.measure.margin.map(|margin| margin.at(sides.0));
    let mut caveats = Caveats::default();
    caveats.faults(study, &column, &trials);
    Some(Verdict {
        finding: find(&column.measure, &estimate, margin, &caveats),
        p: None,
        margin,
        column,
        subject: "shuffled codes → the prior's samples".to_owned(),
        estimate: Some(estimate),
        sides: Some(sides),
        rates: None,
        method: Method::Paired,
        images: None,
        averaged: if several { vec!["all priors".to_owned()] } else { Vec::new() },
        pairs: (cells.len(), cells.len() - used().count()),
        caveats: caveats.sentences,
    })
}

/// What an estimate lets one say.
fn find(measure: &Measure, estimate: &Estimate, margin: Option<f64>, caveats: &Caveats) -> Finding {
    let equivalent = margin.and_then(|margin| estimate.within(margin)).unwrap_or(false);
    match (estimate.excludes_zero(), measure.better) {
        _ if caveats.incomparable => Finding::Incomparable,
        _ if caveats.unsound => Finding::Unsound,
        (None, _) => Finding::FewSeeds,
        (Some(_), _) if equivalent => Finding::Equivalent,
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
