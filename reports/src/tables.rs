//! The tables beside the page, one column per quantity.
//!
//! `results` has one row per trial: `trial`, `status`, a column for each axis under its path, `seed`, and a column for
//! every quantity, what varies from run to run last. `curves` has one row per step: `trial`, `stage`, `name`, `step`,
//! `value`. Names of quantities are written (`usage_2`, `level1_usage_2`), never read back.

use std::collections::{BTreeSet, HashSet};

use polars::prelude::{Column, CsvWriter, DataFrame, ParquetCompression, ParquetWriter, SerWriter};

use crate::error::{Error, Result};
use crate::measure::Reading;
use crate::results::{Results, Value};
use crate::study::columns;

const RESULTS: &str = "results";
const CURVES: &str = "curves";

/// One row per trial.
pub(crate) fn results(results: &Results) -> Result<DataFrame> {
    let trials = &results.trials;
    let mut table: Vec<Column> = vec![
        Column::new("trial".into(), trials.iter().map(|trial| trial.id.as_str()).collect::<Vec<_>>()),
        Column::new("status".into(), trials.iter().map(|trial| trial.status.as_str()).collect::<Vec<_>>()),
    ];
    for axis in &results.axes {
        table.push(axis_column(&axis.path, trials.iter().map(|trial| trial.axes.get(&axis.path)).collect()));
    }
    table.push(Column::new("seed".into(), trials.iter().map(|trial| trial.seed).collect::<Vec<Option<u64>>>()));
    for trial in trials {
        let mut seen = BTreeSet::new();
        if let Some(twice) = trial.readings.iter().map(Reading::quantity).find(|found| !seen.insert(found.clone())) {
            return Err(Error::Reading { trial: trial.id.clone(), quantity: twice.to_string() });
        }
    }
    for column in columns(results) {
        let values: Vec<Option<f64>> = trials.iter().map(|trial| trial.value(&column.quantity)).collect();
        table.push(Column::new(column.quantity.to_string().into(), values));
    }
    let mut names = HashSet::new();
    if let Some(twice) = table.iter().find(|column| !names.insert(column.name().clone())) {
        return Err(Error::Column { name: twice.name().to_string() });
    }
    DataFrame::new(table).map_err(|source| Error::Table { table: RESULTS, source })
}

/// Whole numbers, numbers, or text: the narrowest type that holds every value.
fn axis_column(path: &str, values: Vec<Option<&Value>>) -> Column {
    let numbers: Option<Vec<Option<f64>>> =
        values.iter().map(|value| value.map_or(Some(None), |value| value.number().map(Some))).collect();
    // Beyond 2^53 an f64 no longer tells whole numbers apart.
    let whole = |number: f64| number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0;
    match numbers {
        Some(numbers) if numbers.iter().flatten().all(|&number| whole(number)) => {
            let integers: Vec<Option<i64>> = numbers.iter().map(|number| number.map(|number| number as i64)).collect();
            Column::new(path.into(), integers)
        }
        Some(numbers) => Column::new(path.into(), numbers),
        None => {
            let text: Vec<Option<String>> = values.iter().map(|value| value.map(ToString::to_string)).collect();
            Column::new(path.into(), text)
        }
    }
}

/// One row per step of a curve of a trial.
pub(crate) fn curves(results: &Results) -> Result<DataFrame> {
    let (mut trials, mut stages, mut names, mut steps, mut values) = (vec![], vec![], vec![], vec![], vec![]);
    for trial in &results.trials {
        for curve in &trial.curves {
            if curve.steps.len() != curve.values.len() {
                return Err(Error::Curve {
                    trial: trial.id.clone(),
                    curve: format!("{}/{}", curve.stage, curve.quantity()),
                    steps: curve.steps.len(),
                    values: curve.values.len(),
                });
            }
            let name = curve.quantity().to_string();
            for (&step, &value) in curve.steps.iter().zip(&curve.values) {
                trials.push(trial.id.as_str());
                stages.push(curve.stage.as_str());
                names.push(name.clone());
                steps.push(step);
                values.push(value);
            }
        }
    }
    DataFrame::new(vec![
        Column::new("trial".into(), trials),
        Column::new("stage".into(), stages),
        Column::new("name".into(), names),
        Column::new("step".into(), steps),
        Column::new("value".into(), values),
    ])
    .map_err(|source| Error::Table { table: CURVES, source })
}

/// A table as CSV.
pub(crate) fn csv(table: &mut DataFrame) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    CsvWriter::new(&mut bytes).finish(table).map_err(|source| Error::Table { table: "csv", source })?;
    Ok(bytes)
}

/// A table as Parquet; uncompressed, since no compression is among polars' features that the lab builds.
pub(crate) fn parquet(table: &mut DataFrame) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    ParquetWriter::new(&mut bytes)
        .with_compression(ParquetCompression::Uncompressed)
        .finish(table)
        .map_err(|source| Error::Table { table: "parquet", source })?;
    Ok(bytes)
}
