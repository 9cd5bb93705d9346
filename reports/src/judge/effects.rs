//! Main effects and the interaction of two axes on the headline measure.

use super::{Observation, average, by_seed, observations, rest};
use crate::results::{Axis, Value};
use crate::stats::{self, Estimate};
use crate::study::Study;

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
        let common = rest(first.key, &[place]);
        let levels: Option<Vec<f64>> = axis
            .values
            .iter()
            .map(|value| {
                let same = |o: &&Observation<'_>| {
                    o.key[place] == Some(value) && o.seed == first.seed && rest(o.key, &[place]) == common
                };
                all.iter().find(same).map(|o| o.value)
            })
            .collect();
        blocks.extend(levels.map(|levels| (first.seed, common, levels)));
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
            Some(stats::mean(&deviations)?.at(grand))
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
            .map(|o| (o.seed, rest(o.key, &both), o.value))
            .collect()
    };
    // Combinations of the remaining axes that fill the whole grid; an average over others would not be comparable.
    let full = |rest: &str| {
        a.values.iter().all(|x| b.values.iter().all(|y| cell(x, y).iter().any(|(_, other, _)| other == rest)))
    };
    let any_full = all.iter().any(|o| full(&rest(o.key, &both)));
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
