//! Two reports side by side: which numbers moved.
//!
//! Configurations are the same if their axes have the same values. Within one, a number is judged by the seeds: see
//! `judge`.

mod judge;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::measure::{Better, Measure, Quantity};
use crate::results::{Results, Status, Trial};
use crate::stats::Estimate;
use crate::study::{Configuration, Study, columns};
use crate::{format, stats};

/// A corrected p-value below this is no chance.
const LEVEL: f64 = 0.05;

/// What became of a number from one report to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Movement {
    /// It was measured before, and is not measured now, though trials are done.
    Gone,
    /// Beyond what seeds explain: p < 0.05 after Holm's correction over all numbers that were judged.
    Moved,
    /// There is no noise that could explain it: it is counted, or both sides did the same work on the same kind of machine.
    Changed,
    /// Too few seeds to know the noise, but more than what matters.
    BeyondMargin,
    /// Equal.
    Same,
    /// Seeds explain it.
    WithinNoise,
    /// Not more than the margin that was asked for.
    WithinMargin,
    /// Too few seeds to know the noise, and no more than what matters as far as that is known.
    TooFewSeeds,
    /// Not measured before.
    New,
    /// The two sides were not measured with one yardstick; [`Change::reason`] says in what it differs.
    Withheld,
}

impl Movement {
    /// Whether the number is to be called moved.
    pub fn is_moved(self) -> bool {
        matches!(self, Self::Gone | Self::Moved | Self::Changed | Self::BeyondMargin)
    }

    /// Whether nothing can be said of it.
    pub fn is_unjudged(self) -> bool {
        matches!(self, Self::TooFewSeeds | Self::New | Self::Withheld)
    }

    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Gone => "no longer measured",
            Self::Moved => "beyond noise",
            Self::Changed => "changed",
            Self::BeyondMargin => "beyond the margin",
            Self::Same => "equal",
            Self::WithinNoise => "within noise",
            Self::WithinMargin => "within the margin",
            Self::TooFewSeeds => "too few seeds to tell",
            Self::New => "not measured before",
            Self::Withheld => "withheld",
        }
    }
}

/// One number of one configuration, in both reports.
#[derive(Clone, Debug, Serialize)]
pub struct Change {
    /// The axes' values, such as `depth 4, codebook 256`.
    pub configuration: String,
    /// The column's name, such as `usage_2`.
    pub quantity: String,
    /// Its label, such as `codebook usage (depth 2)`.
    pub label: String,
    /// Mean before, in the measure's unit, over the seeds that count; a share in [0, 1].
    pub before: Option<f64>,
    /// Mean after.
    pub after: Option<f64>,
    /// After less before.
    pub difference: Option<f64>,
    /// 95% confidence interval of the difference; none of fewer than three seeds.
    pub interval: Option<(f64, f64)>,
    /// P-value, corrected by Holm's method.
    pub p: Option<f64>,
    /// Difference in standard deviations (Cohen's d); none where there is no interval, or no spread.
    pub effect: Option<f64>,
    /// Seeds that it rests on; of two sets of seeds, the smaller number.
    pub seeds: usize,
    /// Test images that the interval is over, beside the seeds, where each one's measure is known and they are the same.
    pub images: Option<usize>,
    /// Whether differences were taken seed by seed.
    pub paired: bool,
    /// `Some(true)` if it is better now, `Some(false)` if worse; none for equal numbers, and where neither way is better.
    pub better: Option<bool>,
    /// What became of it.
    pub movement: Movement,
    /// Why it was withheld.
    pub reason: Option<String>,
}

/// A trial that is done on one side and not on the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unfinished {
    /// The axes' values.
    pub configuration: String,
    /// The seed.
    pub seed: Option<u64>,
    /// How it ended before.
    pub before: Status,
    /// How it ended after.
    pub after: Status,
}

/// A setting that differs between equal configurations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// Its path, such as `tokenizer_training.steps`.
    pub path: String,
    /// Its values before, between commas.
    pub before: String,
    /// Its values after.
    pub after: String,
}

/// What differs between two reports.
#[derive(Clone, Debug, Serialize)]
pub struct Changes {
    /// How many configurations both have.
    pub common: usize,
    /// Configurations that only the first report has.
    pub only_before: Vec<String>,
    /// Configurations that only the second report has.
    pub only_after: Vec<String>,
    /// Trials that both have and one of them did not finish.
    pub unfinished: Vec<Unfinished>,
    /// Settings that differ.
    pub settings: Vec<Setting>,
    /// The programs that computed each side.
    pub programs: (Vec<String>, Vec<String>),
    /// Every number of the common configurations: what moved first, the largest effects before smaller ones.
    pub numbers: Vec<Change>,
}

impl Changes {
    /// Numbers that were set side by side, whatever came of it.
    pub fn compared(&self) -> usize {
        self.numbers.iter().filter(|change| !matches!(change.movement, Movement::New | Movement::Withheld)).count()
    }

    /// Whether anything moved, or a trial that is done on one side is not on the other.
    pub fn is_moved(&self) -> bool {
        !self.unfinished.is_empty() || self.numbers.iter().any(|change| change.movement.is_moved())
    }
}

impl Change {
    /// The means with their unit, as in a report; a dash for none.
    pub fn sides(&self) -> (String, String) {
        let side = |value: Option<f64>| value.map_or("–".to_owned(), |value| format::value(&self.measure(), value));
        (side(self.before), side(self.after))
    }

    /// The signed difference with its unit, and its interval if there is one; empty if there is no difference to tell.
    pub fn shown(&self) -> String {
        let Some(mean) = self.difference else { return String::new() };
        let estimate = Estimate { mean, interval: self.interval, n: self.seeds, error: None };
        let parts = [format::difference(&self.measure(), &estimate), format::interval(&self.measure(), &estimate)];
        parts.join(" ").trim_end().to_owned()
    }

    fn measure(&self) -> Measure {
        crate::measure::quantity(&self.quantity)
            .map_or_else(|_| crate::measure::measure(&self.quantity), |quantity| quantity.measure())
    }

    /// What stands first in the list, ascending: how it moved, then the effect, then the share by which it changed.
    fn rank(&self) -> (Movement, f64, f64) {
        let effect = match (self.movement, self.effect) {
            (Movement::Moved, None) => f64::INFINITY,
            (_, effect) => effect.unwrap_or(0.0).abs(),
        };
        let share = match (self.before, self.difference) {
            (Some(before), Some(difference)) if difference != 0.0 => (difference / before).abs(),
            _ => 0.0,
        };
        (self.movement, -effect, -share)
    }
}

/// Sets two reports side by side. Differences of not more than `margin`, as a share of the mean before, are left aside; where
/// seeds are too few to know the noise, it stands in for the registry's margin.
pub fn compare(before: &Results, after: &Results, margin: Option<f64>) -> Changes {
    let (first, second) = (Study::new(before), Study::new(after));
    let (mut old, mut new) = (keyed(&first), keyed(&second));
    let common: Vec<_> = old.keys().filter(|key| new.contains_key(*key)).cloned().collect();
    let pairs: Vec<_> = common.iter().filter_map(|key| Some((old.remove(key)?, new.remove(key)?))).collect();
    let left = |study: &Study<'_>, left: &BTreeMap<Key, &Configuration<'_>>| -> Vec<String> {
        let rest = study.configurations.iter().filter(|one| left.values().any(|other| std::ptr::eq(*one, *other)));
        rest.map(written).collect()
    };
    let mut judged: Vec<(Change, Option<Estimate>)> = Vec::new();
    let measured: BTreeSet<Quantity> =
        columns(before).into_iter().chain(columns(after)).map(|column| column.quantity).collect();
    for (old, new) in &pairs {
        let (old_done, new_done): (Vec<&Trial>, Vec<&Trial>) = (old.done().collect(), new.done().collect());
        if !old_done.is_empty() && !new_done.is_empty() {
            let of = |quantity: &Quantity| judge::number(old.label.clone(), quantity, &old_done, &new_done, margin);
            judged.extend(measured.iter().filter_map(of));
        }
    }
    let mut numbers = correct(judged);
    numbers.sort_by(|a, b| {
        let ((a_movement, a_effect, a_share), (b_movement, b_effect, b_share)) = (a.rank(), b.rank());
        let movement = (!a_movement.is_moved(), a_movement).cmp(&(!b_movement.is_moved(), b_movement));
        movement.then(a_effect.total_cmp(&b_effect)).then(a_share.total_cmp(&b_share))
    });
    Changes {
        common: pairs.len(),
        only_before: left(&first, &old),
        only_after: left(&second, &new),
        unfinished: pairs.iter().flat_map(|(old, new)| unfinished(old, new)).collect(),
        settings: settings(&pairs),
        programs: (programs(before), programs(after)),
        numbers,
    }
}

/// The axes' values as text; behind them, which of several configurations with these values it is.
type Key = (BTreeMap<String, String>, usize);

fn keyed<'s, 'a>(study: &'s Study<'a>) -> BTreeMap<Key, &'s Configuration<'a>> {
    let mut found = BTreeMap::new();
    for configuration in &study.configurations {
        let axes = configuration.trials.first().map(|trial| &trial.axes).into_iter().flatten();
        let values: BTreeMap<String, String> = axes.map(|(path, value)| (path.clone(), value.to_string())).collect();
        let place = (0..).find(|&place| !found.contains_key(&(values.clone(), place))).unwrap_or_default();
        found.insert((values, place), configuration);
    }
    found
}

/// A configuration by the values of all its axes, which the other report need not have.
fn written(configuration: &Configuration<'_>) -> String {
    let axes = configuration.trials.first().map(|trial| &trial.axes).into_iter().flatten();
    let values: Vec<String> = axes.map(|(path, value)| format!("{path} {value}")).collect();
    if values.is_empty() { configuration.label.clone() } else { values.join(", ") }
}

/// Decides by the p-values of all numbers together.
fn correct(judged: Vec<(Change, Option<Estimate>)>) -> Vec<Change> {
    let p_values: Vec<f64> = judged.iter().filter_map(|(_, estimate)| estimate.as_ref()?.p_value()).collect();
    let mut corrected = stats::holm(&p_values).into_iter();
    let decide = |(mut change, estimate): (Change, Option<Estimate>)| {
        if estimate.is_some_and(|estimate| estimate.p_value().is_some()) {
            change.p = corrected.next();
            if change.movement == Movement::WithinNoise && change.p.is_some_and(|p| p < LEVEL) {
                change.movement = Movement::Moved;
            }
        }
        change
    };
    judged.into_iter().map(decide).collect()
}

/// Trials of equal seeds of which one is done and the other is not.
fn unfinished(old: &Configuration<'_>, new: &Configuration<'_>) -> Vec<Unfinished> {
    let is_done = |trial: &Trial| trial.status == Status::Done;
    let pairs = old.trials.iter().filter_map(|trial| Some((trial, new.trials.iter().find(|t| t.seed == trial.seed)?)));
    let differ = pairs.filter(|(before, after)| is_done(before) != is_done(after));
    let tell = |(before, after): (&&Trial, &&Trial)| Unfinished {
        configuration: old.label.clone(),
        seed: before.seed,
        before: before.status,
        after: after.status,
    };
    differ.map(tell).collect()
}

/// The settings that differ between the first trials of equal configurations.
fn settings(pairs: &[(&Configuration<'_>, &Configuration<'_>)]) -> Vec<Setting> {
    let mut found: BTreeMap<&str, [BTreeSet<&str>; 2]> = BTreeMap::new();
    for (old, new) in pairs {
        let (Some(old), Some(new)) = (old.trials.first(), new.trials.first()) else { continue };
        if old.settings.is_empty() || new.settings.is_empty() {
            continue;
        }
        for path in old.settings.keys().chain(new.settings.keys()) {
            let [before, after] = [old, new].map(|trial| trial.settings.get(path).map_or("–", String::as_str));
            if before != after {
                let [befores, afters] = found.entry(path).or_default();
                befores.insert(before);
                afters.insert(after);
            }
        }
    }
    let joined = |values: &BTreeSet<&str>| values.iter().copied().collect::<Vec<_>>().join(", ");
    let setting = |(path, [before, after]): (&str, [BTreeSet<&str>; 2])| Setting {
        path: path.to_owned(),
        before: joined(&before),
        after: joined(&after),
    };
    found.into_iter().map(setting).collect()
}

/// The programs that computed the trials of a report, each once.
fn programs(results: &Results) -> Vec<String> {
    let origins = results.trials.iter().flat_map(|trial| &trial.origins);
    let programs: BTreeSet<String> = origins.map(|origin| origin.environment.versioned()).collect();
    programs.into_iter().collect()
}

/// Whether a difference is for the better; none where there is no better.
fn is_better(measure: &Measure, difference: f64) -> Option<bool> {
    match measure.better {
        Better::Higher if difference != 0.0 => Some(difference > 0.0),
        Better::Lower if difference != 0.0 => Some(difference < 0.0),
        _ => None,
    }
}
