//! What the experiment's results say: comparisons, main effects and the interaction, each paired by seed.
//!
//! The unit of replication is the seed. Differences are first averaged over the other axes within a seed, and the
//! interval is that of the seeds' averages, so that many cells of a grid do not pass for many repetitions.

use crate::format;
use crate::measure::{Better, Measure, Quantity};
use crate::results::{Axis, Comparison, Value};
use crate::stats::{self, Estimate};
use crate::study::{Column, Study, named, short};

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
    /// One side has no finished trial.
    NotMeasured,
}

/// A judged comparison.
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
    /// What it lets one say.
    pub(crate) finding: Finding,
}

impl Verdict {
    /// The verdict as one sentence.
    pub(crate) fn sentence(&self) -> String {
        let rates = self.rates_text().map(|rates| format!(", {rates}")).unwrap_or_default();
        format!("{}: {} {}{rates}.", self.subject, self.column.label(), self.effect())
    }

    /// The two sides' bits, if they differ.
    pub(crate) fn rates_text(&self) -> Option<String> {
        let (before, after) = self.rates?;
        let average = if self.averaged.is_empty() { "" } else { " on average" };
        let [before, after] = [before, after].map(|bits| format::number(bits.round()));
        Some(format!("at {before} → {after} bits per image{average}"))
    }

    /// The sentence without its subject: effect, interval, number of seeds, method.
    pub(crate) fn effect(&self) -> String {
        let Some(estimate) = self.estimate else { return "was not measured on both sides".to_owned() };
        let mut text = format::difference(&self.column.measure, &estimate);
        match estimate.interval {
            None => text.push_str(", no interval: one seed"),
            Some(_) => {
                text.push_str(&format!(", 95% CI {}", format::interval(&self.column.measure, &estimate)));
                text.push_str(&format!(", {} seeds", estimate.n));
            }
        }
        text.push_str(if self.method == Method::Paired { ", paired" } else { ", not paired" });
        if !self.averaged.is_empty() {
            text.push_str(&format!(", averaged over {}", self.averaged.join(" and ")));
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
            Finding::NotMeasured => "not measured",
        }
    }
}

/// What codes of fixed length take.
const RATE: &str = "bits_per_image";

/// One finished trial's value of a quantity.
struct Observation<'a> {
    key: &'a [Option<&'a Value>],
    seed: Option<u64>,
    value: f64,
}

impl Observation<'_> {
    /// The key without some axes: what a pair has in common.
    fn rest(&self, without: &[usize]) -> String {
        let parts: Vec<String> = (0..self.key.len())
            .filter(|axis| !without.contains(axis))
            .map(|axis| self.key[axis].map_or_else(String::new, |value| format!("{value:?}")))
            .collect();
        parts.join("\u{1f}")
    }
}

fn observations<'a>(study: &'a Study<'_>, of: &Quantity) -> Vec<Observation<'a>> {
    let mut found = Vec::new();
    for configuration in &study.configurations {
        for trial in configuration.done() {
            if let Some(value) = trial.value(of).filter(|value| value.is_finite()) {
                found.push(Observation { key: &configuration.key, seed: trial.seed, value });
            }
        }
    }
    found
}

/// Values of the same cells over all seeds: one row a seed, one column a cell; a cell that a seed lacks is left out
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

/// Judges one comparison.
pub(crate) fn compare(study: &Study<'_>, comparison: &Comparison) -> Verdict {
    let axes = &study.results.axes;
    let column = comparison.metric.clone().map_or_else(|| study.headline.clone(), Column::of);
    let subject = subject(axes, comparison);
    let unknown = Verdict {
        column: column.clone(),
        subject: subject.clone(),
        estimate: None,
        sides: None,
        rates: None,
        method: Method::Paired,
        averaged: Vec::new(),
        finding: Finding::NotMeasured,
    };
    let Some(axis) = axes.iter().position(|axis| axis.path == comparison.axis) else { return unknown };
    let fixed: Vec<(usize, &Value)> = axes
        .iter()
        .enumerate()
        .filter_map(|(place, axis)| comparison.fixed.get(&axis.path).map(|value| (place, value)))
        .collect();
    let all = observations(study, &column.quantity);
    let side = |wanted: &Value| -> Vec<&Observation<'_>> {
        all.iter()
            .filter(|o| o.key[axis] == Some(wanted) && fixed.iter().all(|(place, value)| o.key[*place] == Some(value)))
            .collect()
    };
    let (before, after) = (side(&comparison.from), side(&comparison.to));
    let mut pairs = Vec::new();
    for first in &before {
        let rest = first.rest(&[axis]);
        for second in after.iter().filter(|second| second.seed == first.seed && second.rest(&[axis]) == rest) {
            pairs.push((first.seed, rest.clone(), (first.value, second.value)));
        }
    }
    let rows = by_seed(&pairs);
    let (estimate, method, sides) = if rows.is_empty() {
        let values = |side: &[&Observation<'_>]| side.iter().map(|o| o.value).collect::<Vec<f64>>();
        let (first, second) = (values(&before), values(&after));
        let sides =
            (!first.is_empty() && !second.is_empty()).then(|| (average(first.clone()), average(second.clone())));
        (stats::welch(&first, &second), Method::Unpaired, sides)
    } else {
        let differences: Vec<f64> =
            rows.iter().map(|row| average(row.iter().map(|(first, second)| second - first))).collect();
        let sides =
            (average(rows.iter().flatten().map(|pair| pair.0)), average(rows.iter().flatten().map(|pair| pair.1)));
        (stats::mean(&differences), Method::Paired, Some(sides))
    };
    let Some(estimate) = estimate else { return unknown };
    let free = |place: usize| place != axis && fixed.iter().all(|(other, _)| *other != place);
    let averaged = (0..axes.len())
        .filter(|&place| {
            let mut seen: Vec<&Option<&Value>> = before.iter().map(|o| &o.key[place]).collect();
            seen.dedup();
            free(place) && seen.len() > 1
        })
        .map(|place| axes[place].title().to_owned())
        .collect();
    let finding = read(&column.measure, &estimate);
    let rate = Quantity::plain(RATE);
    let rates = if column.quantity == rate {
        None
    } else {
        let rate = Comparison { metric: Some(rate), ..comparison.clone() };
        compare(study, &rate).sides.filter(|(before, after)| before != after)
    };
    Verdict { estimate: Some(estimate), sides, rates, method, averaged, finding, ..unknown }
}

fn read(measure: &Measure, estimate: &Estimate) -> Finding {
    match (estimate.excludes_zero(), measure.better) {
        (None, _) => Finding::OneSeed,
        (Some(false), _) => Finding::Unclear,
        (Some(true), Better::Neither) => Finding::Differs,
        (Some(true), better) if (estimate.mean > 0.0) == (better == Better::Higher) => Finding::Better,
        (Some(true), _) => Finding::Worse,
    }
}

fn subject(axes: &[Axis], comparison: &Comparison) -> String {
    let is_flag = |value: &Value| matches!(value, Value::Text(text) if text == "true" || text == "false");
    let mut text = match axes.iter().find(|axis| axis.path == comparison.axis) {
        Some(axis) if is_flag(&comparison.from) && is_flag(&comparison.to) => {
            format!("{} → {}", named(axis, &comparison.from), named(axis, &comparison.to))
        }
        Some(axis) => {
            format!("{} {} → {}", axis.title(), short(axis, &comparison.from), short(axis, &comparison.to))
        }
        None => format!("{} {} → {}", comparison.axis, comparison.from, comparison.to),
    };
    let fixed = axes.iter().filter_map(|axis| comparison.fixed.get(&axis.path).map(|value| (axis, value)));
    let (flags, places): (Vec<_>, Vec<_>) = fixed.partition(|(_, value)| is_flag(value));
    for (word, list) in [(" at ", places), (", ", flags)] {
        if !list.is_empty() {
            let names: Vec<String> = list.iter().map(|(axis, value)| named(axis, value)).collect();
            text.push_str(&format!("{word}{}", names.join(", ")));
        }
    }
    text
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

/// Whether what the priors draw is closer to the test images than codes without a prior are.
fn against_shuffled(study: &Study<'_>) -> Option<Verdict> {
    let (column, baseline) = (Column::plain("sample_frechet"), Quantity::plain("shuffled_frechet"));
    let mut cells = Vec::new();
    for configuration in &study.configurations {
        for trial in configuration.done() {
            let value = |of| trial.value(of).filter(|value| value.is_finite());
            if let (Some(shuffled), Some(sample)) = (value(&baseline), value(&column.quantity)) {
                cells.push((trial.seed, configuration.label.clone(), (shuffled, sample)));
            }
        }
    }
    let rows = by_seed(&cells);
    let differences: Vec<f64> = rows.iter().map(|row| average(row.iter().map(|pair| pair.1 - pair.0))).collect();
    let estimate = stats::mean(&differences)?;
    let sides = (average(rows.iter().flatten().map(|p| p.0)), average(rows.iter().flatten().map(|p| p.1)));
    let several = rows.iter().any(|row| row.len() > 1);
    Some(Verdict {
        finding: read(&column.measure, &estimate),
        column,
        subject: "shuffled codes → the prior's samples".to_owned(),
        estimate: Some(estimate),
        sides: Some(sides),
        rates: None,
        method: Method::Paired,
        averaged: if several { vec!["all priors".to_owned()] } else { Vec::new() },
    })
}

/// The effect of one axis on the headline, over complete blocks: combinations of the other axes and a seed in which
/// every value of the axis finished.
pub(crate) struct Effect<'a> {
    /// The axis.
    pub(crate) axis: &'a Axis,
    /// The mean at each of its values; the interval is of the deviation from the block's mean, over seeds.
    pub(crate) levels: Vec<Estimate>,
    /// Number of complete combinations of the other axes.
    pub(crate) blocks: usize,
}

/// The main effect of the axis at a place; `None` without a complete block.
pub(crate) fn effect<'a>(study: &Study<'a>, place: usize) -> Option<Effect<'a>> {
    let axis = &study.results.axes[place];
    let all = observations(study, &study.headline.quantity);
    let mut blocks: Vec<(Option<u64>, String, Vec<f64>)> = Vec::new();
    for first in all.iter().filter(|o| o.key[place] == axis.values.first()) {
        let rest = first.rest(&[place]);
        let levels: Option<Vec<f64>> = axis
            .values
            .iter()
            .map(|value| {
                let same = |o: &&Observation<'_>| {
                    o.key[place] == Some(value) && o.seed == first.seed && o.rest(&[place]) == rest
                };
                all.iter().find(same).map(|o| o.value)
            })
            .collect();
        blocks.extend(levels.map(|levels| (first.seed, rest, levels)));
    }
    let rows = by_seed(&blocks);
    let used = rows.first()?.len();
    let levels = (0..axis.values.len())
        .map(|level| {
            let grand = average(rows.iter().flatten().map(|block| block[level]));
            let deviations: Vec<f64> = rows
                .iter()
                .map(|row| average(row.iter().map(|block| block[level] - average(block.iter().copied()))))
                .collect();
            let spread = stats::mean(&deviations)?;
            let shift = grand - spread.mean;
            Some(Estimate {
                mean: grand,
                interval: spread.interval.map(|(low, high)| (low + shift, high + shift)),
                n: spread.n,
            })
        })
        .collect::<Option<Vec<_>>>()?;
    Some(Effect { axis, levels, blocks: used })
}

/// How two axes act together on the headline.
pub(crate) struct Interaction<'a> {
    /// The axis along the chart.
    pub(crate) across: &'a Axis,
    /// The axis with a line for each value.
    pub(crate) lines: &'a Axis,
    /// Mean of each cell, `[lines][across]`.
    pub(crate) cells: Vec<Vec<Option<Estimate>>>,
    /// By how much the effect of `across`, first value to last, is larger at the last value of `lines` than at its
    /// first.
    pub(crate) contrast: Option<Estimate>,
}

/// The interaction of two axes; each cell is a mean over seeds of the averages over what else varies.
pub(crate) fn interaction<'a>(study: &Study<'a>, across: usize, lines: usize) -> Interaction<'a> {
    let (a, b) = (&study.results.axes[across], &study.results.axes[lines]);
    let all = observations(study, &study.headline.quantity);
    let both = [across, lines];
    let cell = |x: &Value, y: &Value| -> Vec<(Option<u64>, String, f64)> {
        all.iter()
            .filter(|o| o.key[across] == Some(x) && o.key[lines] == Some(y))
            .map(|o| (o.seed, o.rest(&both), o.value))
            .collect()
    };
    // Combinations of the remaining axes that fill the whole grid; an average over others would not be comparable.
    let full = |rest: &str| {
        a.values.iter().all(|x| b.values.iter().all(|y| cell(x, y).iter().any(|(_, other, _)| other == rest)))
    };
    let any_full = all.iter().any(|o| full(&o.rest(&both)));
    let seeds_of = |x: &Value, y: &Value| -> Vec<Vec<f64>> {
        let kept: Vec<_> = cell(x, y).into_iter().filter(|(_, rest, _)| !any_full || full(rest)).collect();
        by_seed(&kept)
    };
    let cells = b
        .values
        .iter()
        .map(|y| {
            a.values
                .iter()
                .map(|x| stats::mean(&seeds_of(x, y).into_iter().map(average).collect::<Vec<f64>>()))
                .collect()
        })
        .collect();
    let contrast = (|| {
        let (x0, x1, y0, y1) = (a.values.first()?, a.values.last()?, b.values.first()?, b.values.last()?);
        let corners = [cell(x0, y0), cell(x1, y0), cell(x0, y1), cell(x1, y1)];
        let mut complete = Vec::new();
        for (seed, rest, first) in &corners[0] {
            let find = |corner: &[(Option<u64>, String, f64)]| {
                corner.iter().find(|(s, r, _)| s == seed && r == rest).map(|found| found.2)
            };
            if let (Some(second), Some(third), Some(fourth)) = (find(&corners[1]), find(&corners[2]), find(&corners[3]))
            {
                complete.push((*seed, rest.clone(), (fourth - third) - (second - first)));
            }
        }
        stats::mean(&by_seed(&complete).into_iter().map(average).collect::<Vec<f64>>())
    })();
    Interaction { across: a, lines: b, cells, contrast }
}
