//! Charts of a measure over the depths of one level or of several.

use super::parts::configuration_series;
use crate::chart::{Point, Scale, Series};
use crate::format;
use crate::setup::usage_ceiling;
use crate::stats::Estimate;
use crate::study::{Column, Configuration, Study};

/// Where a measure was taken, level by level and depth by depth: the columns of a chart.
pub(super) struct Depths {
    /// In the order across the chart; each has one depth, and a level where there are several.
    columns: Vec<Column>,
}

impl Depths {
    /// The depths that any finished trial has of a measure; `None` without any.
    pub(super) fn of(study: &Study<'_>, measure: &str) -> Option<Self> {
        let mut columns = study.taken(measure);
        columns.retain(|column| column.quantity.depths().count() == 1);
        // Those of an only level come first, then level by level.
        columns.sort_by_key(|column| (column.quantity.level(), column.quantity.depths().next()));
        (!columns.is_empty()).then_some(Self { columns })
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.columns.len()
    }

    /// The only one, of which no chart tells more than a number.
    pub(super) fn only(&self) -> Option<Column> {
        (self.columns.len() == 1).then(|| self.columns[0].clone())
    }

    /// Whether a configuration has any of them.
    pub(super) fn any(&self, configuration: &Configuration<'_>) -> bool {
        self.columns.iter().any(|column| !configuration.values(&column.quantity).is_empty())
    }

    /// The horizontal scale: depths, levels of one depth each, or depths within levels.
    pub(super) fn scale(&self) -> Scale {
        let levels = || self.columns.iter().map(|column| column.quantity.level());
        let depth = |column: &Column| column.quantity.depths().next().unwrap_or(1);
        let name = |column: &Column, only_levels: bool| match column.quantity.level() {
            None => depth(column).to_string(),
            Some(level) if only_levels => level.to_string(),
            Some(level) => format!("{level}.{}", depth(column)),
        };
        let only_levels = levels().all(|level| level.is_some()) && self.columns.iter().all(|column| depth(column) == 1);
        let title = if levels().all(|level| level.is_none()) {
            "depth"
        } else if only_levels {
            "level"
        } else {
            "level.depth"
        };
        Scale::names(title, self.columns.iter().map(|column| name(column, only_levels)).collect())
    }

    /// The same in words, for captions and descriptions.
    pub(super) fn words(&self) -> &'static str {
        if self.columns.iter().any(|column| column.quantity.level().is_some()) { "level and depth" } else { "depth" }
    }

    /// A line for each configuration and level. `range` says what bar an estimate has.
    pub(super) fn series(&self, study: &Study<'_>, range: impl Fn(&Estimate) -> Option<(f64, f64)>) -> Vec<Series> {
        let mut series = Vec::new();
        for configuration in &study.configurations {
            for level in self.columns.chunk_by(|a, b| a.quantity.level() == b.quantity.level()) {
                let points: Vec<Point> =
                    level.iter().filter_map(|column| self.point(configuration, column, &range)).collect();
                if points.is_empty() {
                    continue;
                }
                let mut one = configuration_series(study, configuration, points);
                if let Some(level) = level.first().and_then(|column| column.quantity.level()) {
                    one.name = format!("{}, level {level}", one.name);
                }
                series.push(Series { line: true, marks: true, ..one });
            }
        }
        series
    }

    /// The ceilings of usage that lie under 1: a line without marks for each configuration and level whose codes are more than the
    /// tokens that measure them.
    pub(super) fn ceilings(&self, study: &Study<'_>) -> Vec<Series> {
        let mut series = Vec::new();
        for configuration in &study.configurations {
            for level in self.columns.chunk_by(|a, b| a.quantity.level() == b.quantity.level()) {
                let ceiling = |column: &Column| {
                    configuration.mean(&column.quantity)?;
                    let sizes = &configuration.done().next()?.sizes;
                    let (codes, tokens) =
                        sizes.codes_and_tokens(column.quantity.level(), column.quantity.depths().next()?)?;
                    let place = self.columns.iter().position(|other| other.quantity == column.quantity)?;
                    (tokens < codes).then(|| (place as f64, usage_ceiling(codes, tokens).0))
                };
                // A line needs two ends, also at an only depth.
                let ends = level.iter().filter_map(ceiling).flat_map(|(x, y)| [-0.4, 0.4].map(|aside| (x + aside, y)));
                let points: Vec<Point> = ends.map(|(x, y)| Point { x, y, ..Point::default() }).collect();
                if !points.is_empty() {
                    let mut one = configuration_series(study, configuration, points);
                    one.name = format!("ceiling of {}", one.name);
                    series.push(Series { line: true, dash: 2, ..one });
                }
            }
        }
        series
    }

    fn point(
        &self,
        configuration: &Configuration<'_>,
        column: &Column,
        range: &impl Fn(&Estimate) -> Option<(f64, f64)>,
    ) -> Option<Point> {
        let found = configuration.mean(&column.quantity)?;
        let place = self.columns.iter().position(|other| other.quantity == column.quantity)?;
        let value = format::estimate(&column.measure, &found);
        Some(Point {
            x: place as f64,
            y: found.mean,
            range: range(&found),
            seeds: Vec::new(),
            note: format!("{}, {}: {value}", configuration.label, column.quantity.indices()),
            link: Some(format!("t-{}", configuration.id())),
        })
    }
}
