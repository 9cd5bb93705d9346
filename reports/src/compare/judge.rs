//! One number of one configuration.
//!
//! From three common seeds on, the differences of each seed are judged (paired t), and those of each test image with them where
//! both sides tell the measure of each and these are the same images; otherwise, from three seeds on each side, the two means
//! (Welch). With fewer the noise is unknown, unless there is none: counts have none, and equal work on equal machines gives equal
//! bits, so that a difference there is the program's.

use super::{Change, Movement, is_better};
use crate::judge::{over_images, withheld};
use crate::measure::{Measure, Quantity};
use crate::results::Trial;
use crate::stats::{self, Estimate, FEWEST};
use crate::study::Column;

/// A trial with its value.
type Valued<'a> = (&'a Trial, f64);

/// Judges a quantity by the finished trials of both sides, as far as it can be before all p-values are known:
/// [`Movement::WithinNoise`] is what the estimate decides. `None` if neither side measured it.
pub(super) fn number(
    configuration: String,
    of: &Quantity,
    before: &[&Trial],
    after: &[&Trial],
    margin: Option<f64>,
) -> Option<(Change, Option<Estimate>)> {
    let column = Column::of(of.clone());
    let (old, new) = (with_values(before, of), with_values(after, of));
    let mut change = Change {
        configuration,
        quantity: of.to_string(),
        label: column.label(),
        before: average(old.iter()),
        after: average(new.iter()),
        difference: None,
        interval: None,
        p: None,
        effect: None,
        seeds: old.len().max(new.len()),
        images: None,
        paired: false,
        better: None,
        movement: Movement::Withheld,
        reason: None,
    };
    match (old.is_empty(), new.is_empty()) {
        (true, true) => return None,
        (false, true) => return Some((Change { movement: Movement::Gone, ..change }, None)),
        (true, false) => return Some((Change { movement: Movement::New, ..change }, None)),
        (false, false) => {}
    }
    let shared = shared(&old, &new);
    let sides: Vec<(&Trial, &Trial)> = match shared.is_empty() {
        false => shared.iter().map(|(before, after)| (before.0, after.0)).collect(),
        true => old.iter().flat_map(|before| new.iter().map(|after| (before.0, after.0))).collect(),
    };
    change.reason = withheld(&column, &sides);
    if change.reason.is_some() {
        return Some((change, None));
    }
    change.paired = shared.len() >= FEWEST || (!shared.is_empty() && old.len().min(new.len()) < FEWEST);
    let estimate = if change.paired {
        change.before = average(shared.iter().map(|(before, _)| before));
        change.after = average(shared.iter().map(|(_, after)| after));
        let rows: Vec<_> = shared.iter().map(|(before, after)| vec![(before.0, after.0)]).collect();
        let over_images = over_images(&rows, of);
        change.images = over_images.map(|(_, images)| images);
        let of_seeds = || stats::mean(&shared.iter().map(|(before, after)| after.1 - before.1).collect::<Vec<f64>>());
        over_images.map(|(estimate, _)| estimate).or_else(of_seeds)
    } else {
        let values = |side: &[Valued<'_>]| -> Vec<f64> { side.iter().map(|(_, value)| *value).collect() };
        stats::welch(&values(&old), &values(&new))
    }?;
    let counted = column.measure.is_counted();
    change.difference = Some(estimate.mean);
    change.interval = estimate.interval.filter(|_| !counted);
    change.effect = estimate.standardised().filter(|effect| effect.is_finite());
    change.seeds = estimate.n;
    change.better = is_better(&column.measure, estimate.mean);
    let equal = change.paired && shared.iter().all(|(before, after)| before.1 == after.1);
    let size = change.before.unwrap_or_default();
    let small = margin.is_some_and(|margin| estimate.mean.abs() <= margin * size.abs());
    change.movement = match () {
        () if equal => Movement::Same,
        () if small => Movement::WithinMargin,
        () if counted && estimate.mean == 0.0 => Movement::Same,
        () if counted => Movement::Changed,
        () if estimate.interval.is_some() => Movement::WithinNoise,
        () => by_few(&column.measure, estimate.mean, size, &shared, margin),
    };
    Some((change, (!equal && !counted).then_some(estimate)))
}

/// A difference whose noise is unknown.
fn by_few(
    measure: &Measure,
    difference: f64,
    before: f64,
    shared: &[(Valued<'_>, Valued<'_>)],
    margin: Option<f64>,
) -> Movement {
    if measure.is_timing() {
        return Movement::TooFewSeeds;
    }
    if !shared.is_empty() && shared.iter().all(|(before, after)| same_work(before.0, after.0)) {
        return Movement::Changed;
    }
    let matters = margin.map(|share| share * before.abs()).or_else(|| Some(measure.margin?.at(before)));
    match matters {
        Some(matters) if difference.abs() > matters => Movement::BeyondMargin,
        _ => Movement::TooFewSeeds,
    }
}

/// Whether two trials did the same in the same way, so that their results are equal unless the program changed.
fn same_work(before: &Trial, after: &Trial) -> bool {
    let stages = before.origins.iter().map(|origin| &origin.stage).eq(after.origins.iter().map(|origin| &origin.stage));
    let machines = || before.origins.iter().zip(&after.origins).all(|(a, b)| a.environment.computes_as(&b.environment));
    !before.configuration.is_empty()
        && before.configuration == after.configuration
        && !before.origins.is_empty()
        && stages
        && machines()
}

/// The trials of seeds that both sides have.
fn shared<'a>(old: &[Valued<'a>], new: &[Valued<'a>]) -> Vec<(Valued<'a>, Valued<'a>)> {
    let partner = |trial: &Trial| new.iter().find(|(other, _)| trial.seed.is_some() && other.seed == trial.seed);
    old.iter().filter_map(|before| Some((*before, *partner(before.0)?))).collect()
}

fn with_values<'a>(trials: &[&'a Trial], of: &Quantity) -> Vec<Valued<'a>> {
    trials.iter().filter_map(|trial| Some((*trial, trial.value(of)?))).collect()
}

fn average<'a, 'b: 'a>(values: impl ExactSizeIterator<Item = &'a Valued<'b>>) -> Option<f64> {
    let count = values.len();
    (count > 0).then(|| values.map(|(_, value)| value).sum::<f64>() / count as f64)
}
