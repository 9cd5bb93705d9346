//! One comparison: along an axis from one value to another, paired by seed and by all other axes.

use super::{Caveats, Finding, Method, Verdict, average, by_seed, find, finite, rest};
use crate::measure::{Quantity, TEST_IMAGES};
use crate::results::{Axis, Comparison, Status, Trial, Value};
use crate::stats::{self, Estimate};
use crate::study::{Column, Study, named, short};

/// What codes of fixed length take.
const RATE: &str = "bits_per_image";

/// A trial of one side, whether it finished or not.
#[derive(Clone, Copy)]
struct Planned<'a> {
    key: &'a [Option<&'a Value>],
    trial: &'a Trial,
}

/// Two trials that differ in the compared axis alone.
#[derive(Clone, Copy)]
struct Pair<'a> {
    before: Planned<'a>,
    after: Planned<'a>,
}

impl Pair<'_> {
    fn values(&self, of: &Quantity) -> Option<(f64, f64)> {
        Some((finite(self.before.trial, of)?, finite(self.after.trial, of)?))
    }

    fn is_done(&self) -> bool {
        [self.before, self.after].iter().all(|side| side.trial.status == Status::Done)
    }
}

/// Judges one comparison.
pub(super) fn compare(study: &Study<'_>, comparison: &Comparison) -> Verdict {
    let axes = &study.results.axes;
    let column = comparison.metric.clone().map_or_else(|| study.headline.clone(), Column::of);
    let unmeasured = Verdict {
        subject: subject(axes, comparison),
        column,
        estimate: None,
        sides: None,
        rates: None,
        method: Method::Paired,
        images: None,
        averaged: Vec::new(),
        pairs: (0, 0),
        finding: Finding::NotMeasured,
        p: None,
        margin: None,
        caveats: Vec::new(),
    };
    let Some(axis) = axes.iter().position(|axis| axis.path == comparison.axis) else { return unmeasured };
    let (before, after) =
        (side(study, comparison, axis, &comparison.from), side(study, comparison, axis, &comparison.to));
    let of = &unmeasured.column.quantity;
    let pairs = pair_up(&before, &after, axis);
    let measured: Vec<_> = pairs
        .iter()
        .filter(|pair| pair.is_done() && pair.values(of).is_some())
        .map(|pair| (pair.before.trial.seed, rest(pair.before.key, &[axis]), *pair))
        .collect();
    let rows = by_seed(&measured);
    let (estimate, method, used) = if rows.is_empty() {
        unpaired(&before, &after, axis, of)
    } else {
        (paired(&rows, of), Method::Paired, rows.iter().flatten().copied().collect())
    };
    let over_images = over_images(&rows.iter().map(|row| trials(row)).collect::<Vec<_>>(), of);
    let estimate = over_images.map_or(estimate, |(found, _)| Some(found));
    // A finished pair without the measure is not missing: the measure does not apply to it, or to one of its sides.
    let planned = pairs.iter().filter(|pair| !pair.is_done() || pair.values(of).is_some()).count();
    let missing = if planned > 0 && method == Method::Paired { planned - used.len().min(planned) } else { 0 };
    let Some(estimate) = estimate else { return Verdict { pairs: (planned, missing), ..unmeasured } };
    let caveats = Caveats::of(study, &unmeasured.column, &comparison.axis, &trials(&used));
    let sides = means(&used, of);
    let margin = sides.and_then(|(before, _)| Some(unmeasured.column.measure.margin?.at(before)));
    let finding = find(&unmeasured.column.measure, &estimate, margin, &caveats);
    let rate = Quantity::plain(RATE);
    Verdict {
        estimate: Some(estimate),
        sides,
        margin,
        rates: means(&used, &rate).filter(|(before, after)| *of != rate && before != after),
        method,
        images: over_images.map(|(_, images)| images),
        averaged: averaged(axes, comparison, &used),
        pairs: (planned, missing),
        finding,
        caveats: caveats.sentences,
        ..unmeasured
    }
}

/// The trials of one side.
fn side<'a>(study: &'a Study<'_>, comparison: &Comparison, axis: usize, wanted: &Value) -> Vec<Planned<'a>> {
    let axes = &study.results.axes;
    let held = |key: &[Option<&Value>]| {
        axes.iter()
            .zip(key)
            .all(|(axis, value)| comparison.fixed.get(&axis.path).is_none_or(|held| *value == Some(held)))
    };
    study
        .configurations
        .iter()
        .filter(|configuration| configuration.key[axis] == Some(wanted) && held(&configuration.key))
        .flat_map(|configuration| configuration.trials.iter().map(|trial| Planned { key: &configuration.key, trial }))
        .collect()
}

fn pair_up<'a>(before: &[Planned<'a>], after: &[Planned<'a>], axis: usize) -> Vec<Pair<'a>> {
    let mut pairs = Vec::new();
    for first in before {
        let common = rest(first.key, &[axis]);
        let fitting = after.iter().filter(|other| other.trial.seed == first.trial.seed);
        pairs.extend(
            fitting
                .filter(|other| rest(other.key, &[axis]) == common)
                .map(|other| Pair { before: *first, after: *other }),
        );
    }
    pairs
}

/// The mean of the seeds' mean differences.
fn paired(rows: &[Vec<Pair<'_>>], of: &Quantity) -> Option<Estimate> {
    let difference = |row: &Vec<Pair<'_>>| {
        average(row.iter().filter_map(|pair| pair.values(of)).map(|(before, after)| after - before))
    };
    stats::mean(&rows.iter().map(difference).collect::<Vec<f64>>())
}

/// The mean of the seeds' mean differences where both sides of every pair, a row for each seed, tell the measure of each test
/// image, and these are the same images: its interval holds for other images, too. With the number of images.
pub(crate) fn over_images(rows: &[Vec<(&Trial, &Trial)>], of: &Quantity) -> Option<(Estimate, usize)> {
    if !of.at.is_empty() {
        return None;
    }
    let images = |trial: &Trial| trial.parts.get(TEST_IMAGES).cloned();
    let first = images(rows.first()?.first()?.0)?;
    let difference = |(before, after): &(&Trial, &Trial)| -> Option<Vec<f64>> {
        if images(before)? != first || images(after)? != first {
            return None;
        }
        let (before, after) = (before.per_image.get(&of.measure)?, after.per_image.get(&of.measure)?);
        (before.len() == after.len()).then(|| before.iter().zip(after).map(|(before, after)| after - before).collect())
    };
    let of_seed = |row: &Vec<(&Trial, &Trial)>| -> Option<Vec<f64>> {
        let cells = row.iter().map(difference).collect::<Option<Vec<_>>>()?;
        let images = cells.first()?.len();
        let same = cells.iter().all(|cell| cell.len() == images);
        same.then(|| (0..images).map(|image| average(cells.iter().map(|cell| cell[image]))).collect())
    };
    let seeds = rows.iter().map(of_seed).collect::<Option<Vec<_>>>()?;
    let seeds: Vec<&[f64]> = seeds.iter().map(Vec::as_slice).collect();
    Some((stats::crossed(&seeds)?, seeds[0].len()))
}

/// Where no cell is on both sides: the seeds' means over the cells that both sides have, or over all if they have none in common.
/// They are paired by seed where sides share seeds, and Welch's interval is taken where they share none. Returns each trial of one
/// side with each of the other.
fn unpaired<'a>(
    before: &[Planned<'a>],
    after: &[Planned<'a>],
    axis: usize,
    of: &Quantity,
) -> (Option<Estimate>, Method, Vec<Pair<'a>>) {
    let cells = |side: &[Planned<'a>]| -> Vec<(Option<u64>, String, Planned<'a>)> {
        let done = side.iter().filter(|one| one.trial.status == Status::Done && finite(one.trial, of).is_some());
        done.map(|one| (one.trial.seed, rest(one.key, &[axis]), *one)).collect()
    };
    let (mut first, mut second) = (cells(before), cells(after));
    let common = |rest: &str, other: &[(Option<u64>, String, Planned<'a>)]| other.iter().any(|(_, r, _)| r == rest);
    if first.iter().any(|(_, rest, _)| common(rest, &second)) {
        first.retain(|(_, rest, _)| common(rest, &second));
        second.retain(|(_, rest, _)| common(rest, &first));
    }
    let (first, second) = (by_seed(&first), by_seed(&second));
    let means = |rows: &[Vec<Planned<'a>>]| -> Vec<(Option<u64>, f64)> {
        let seed = |row: &Vec<Planned<'a>>| row.first().and_then(|one| one.trial.seed);
        let mean = |row: &Vec<Planned<'a>>| average(row.iter().filter_map(|one| finite(one.trial, of)));
        rows.iter().filter(|row| !row.is_empty()).map(|row| (seed(row), mean(row))).collect()
    };
    let (before, after) = (means(&first), means(&second));
    let of_seed = |seed: Option<u64>| after.iter().find(|(other, _)| *other == seed).map(|(_, mean)| *mean);
    let differences: Vec<f64> = before.iter().filter_map(|(seed, mean)| Some(of_seed(*seed)? - mean)).collect();
    let values = |side: &[(Option<u64>, f64)]| -> Vec<f64> { side.iter().map(|(_, mean)| *mean).collect() };
    let (estimate, method) = match differences.is_empty() {
        false => (stats::mean(&differences), Method::Paired),
        true => (stats::welch(&values(&before), &values(&after)), Method::Unpaired),
    };
    let pairs = first
        .iter()
        .flatten()
        .flat_map(|before| second.iter().flatten().map(|after| Pair { before: *before, after: *after }));
    (estimate, method, pairs.collect())
}

fn trials<'a>(pairs: &[Pair<'a>]) -> Vec<(&'a Trial, &'a Trial)> {
    pairs.iter().map(|pair| (pair.before.trial, pair.after.trial)).collect()
}

/// Means of both sides over the pairs that have a quantity on both.
fn means(pairs: &[Pair<'_>], of: &Quantity) -> Option<(f64, f64)> {
    let values: Vec<(f64, f64)> = pairs.iter().filter_map(|pair| pair.values(of)).collect();
    let side = |take: fn(&(f64, f64)) -> f64| average(values.iter().map(take));
    (!values.is_empty()).then(|| (side(|pair| pair.0), side(|pair| pair.1)))
}

/// The axes that are neither compared nor held and take several values among the pairs.
fn averaged(axes: &[Axis], comparison: &Comparison, pairs: &[Pair<'_>]) -> Vec<String> {
    let varies = |place: usize| pairs.windows(2).any(|two| two[0].before.key[place] != two[1].before.key[place]);
    let free = |axis: &Axis| axis.path != comparison.axis && !comparison.fixed.contains_key(&axis.path);
    let averaged = axes.iter().enumerate().filter(|(place, axis)| free(axis) && varies(*place));
    averaged.map(|(_, axis)| axis.title().to_owned()).collect()
}

/// What changes, in words: `depth 1 → 4 at codebook 256, shared`.
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
