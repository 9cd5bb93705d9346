//! `results.json`, a report for programs: what every trial is, how it ended, what it was computed by and what it measured.
//! [`crate::compare()`] sets two of them side by side.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::measure::Reading;
use crate::origin::Origin;
use crate::results::{Axis, Results, Status, Trial};

/// The file's name in a report's folder.
pub const RECORD: &str = "results.json";

/// Raised where an older file would be misread.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Record {
    format: u32,
    name: String,
    question: String,
    axes: Vec<Axis>,
    trials: Vec<Recorded>,
}

/// What stays of a trial.
#[derive(Serialize, Deserialize)]
struct Recorded {
    id: String,
    axes: BTreeMap<String, crate::results::Value>,
    seed: Option<u64>,
    configuration: String,
    status: Status,
    error: Option<String>,
    settings: BTreeMap<String, String>,
    parts: BTreeMap<String, String>,
    origins: Vec<Origin>,
    /// Only what is finite: JSON has no other numbers.
    readings: Vec<Reading>,
    /// Measures of each test image, the numbers of one between spaces.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    per_image: BTreeMap<String, String>,
}

/// The file's bytes.
pub(crate) fn write(results: &Results) -> Result<Vec<u8>> {
    let record = Record {
        format: FORMAT,
        name: results.name.clone(),
        question: results.question.clone(),
        axes: results.axes.clone(),
        trials: results.trials.iter().map(Recorded::from).collect(),
    };
    let mut bytes = serde_json::to_vec_pretty(&record).map_err(|source| Error::Encode { name: RECORD, source })?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Reads the record in a report's folder. Pictures and curves are not in it.
///
/// # Errors
/// If it cannot be read, or is damaged, or of another version.
pub fn read(folder: &Path) -> Result<Results> {
    let path = folder.join(RECORD);
    let bytes = fs::read(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
    let damaged = |message: String| Error::Record { path: path.clone(), message };
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    let Version { format } = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    if format != FORMAT {
        return Err(damaged(format!("its format is {format}, and this version reads {FORMAT}")));
    }
    let record: Record = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    Ok(Results {
        name: record.name,
        question: record.question,
        axes: record.axes,
        trials: record.trials.into_iter().map(Trial::from).collect(),
        ..Results::default()
    })
}

/// Numbers between spaces, with the digits that they were measured with.
fn listed(values: &[f64]) -> String {
    values.iter().map(|value| (*value as f32).to_string()).collect::<Vec<_>>().join(" ")
}

/// What [`listed`] wrote; `None` if something in it is no number.
fn numbers(text: &str) -> Option<Vec<f64>> {
    text.split_whitespace().map(|word| word.parse::<f32>().ok().map(f64::from)).collect()
}

impl From<&Trial> for Recorded {
    fn from(trial: &Trial) -> Self {
        Self {
            id: trial.id.clone(),
            axes: trial.axes.clone(),
            seed: trial.seed,
            configuration: trial.configuration.clone(),
            status: trial.status,
            error: trial.error.clone(),
            settings: trial.settings.clone(),
            parts: trial.parts.clone(),
            origins: trial.origins.clone(),
            readings: trial.readings.iter().filter(|reading| reading.value.is_finite()).cloned().collect(),
            per_image: trial.per_image.iter().map(|(measure, values)| (measure.clone(), listed(values))).collect(),
        }
    }
}

impl From<Recorded> for Trial {
    fn from(recorded: Recorded) -> Self {
        let read = |(measure, text): (String, String)| Some((measure, numbers(&text)?));
        let per_image = recorded.per_image.into_iter().filter_map(read).collect();
        Self {
            id: recorded.id,
            axes: recorded.axes,
            seed: recorded.seed,
            configuration: recorded.configuration,
            status: recorded.status,
            error: recorded.error,
            settings: recorded.settings,
            parts: recorded.parts,
            origins: recorded.origins,
            readings: recorded.readings,
            per_image,
            ..Self::default()
        }
    }
}
