//! How fast the laboratory is, on workloads that other implementations are measured on. No part of a sweep: `rqlab bench`
//! starts this program.
//!
//! Workloads run through the plugins' models and the sdk's optimizer, as a sweep does; data are random. Each runs in a
//! process of its own, so that its peak memory is its own. [`Workload`] says what is computed and counts it, [`prepare`]
//! makes it ready, [`measure`] times it; [`compare`] sets two runs side by side, [`scaling`] varies sizes.

mod adversarial;
pub mod check_gpu;
pub mod cli;
pub mod command;
pub mod compare;
mod count;
mod images;
mod machine;
mod measure;
mod models;
mod networks;
mod operations;
mod processes;
pub mod scaling;
mod show;
mod sweeps;
mod vector_priors;
mod workloads;

pub use machine::Machine;
pub use measure::{Row, Sampling, measure};
pub use models::prepare;
pub use processes::{Children, Peers};
pub use workloads::{
    Family, Format, ImageSizes, Network, Operation, PriorSizes, TokenizerCalls, TokenizerSizes, VectorPriorSizes,
    Workload, workloads,
};

use rqlab_sdk::Result;
use rqlab_sdk::tensor::wait_for_device;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// A workload that is ready to be timed.
pub struct Prepared {
    /// Trained parameters of the model, if there is one.
    pub params: Option<usize>,
    /// One call. Returns what it took, without what only prepares it.
    pub call: Box<dyn FnMut() -> Result<Duration>>,
    /// Where calls start processes: the most memory that one of these held, in MiB.
    pub children: Option<Rc<Cell<f64>>>,
}

impl Prepared {
    /// Work of which all is timed.
    fn new(params: Option<usize>, mut call: impl FnMut() -> Result<()> + 'static) -> Self {
        let timed = move || {
            let started = Instant::now();
            call()?;
            wait_for_device()?;
            Ok(started.elapsed())
        };
        Self { params, call: Box::new(timed), children: None }
    }
}

/// What a process that is started to measure is told to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Task {
    /// Times a workload, and says a [`Row`].
    Measure {
        /// Its name.
        name: String,
        /// What is computed.
        workload: Workload,
        /// How often.
        sampling: Sampling,
    },
    /// Writes the image files of a workload, and says nothing.
    Write {
        /// What they are.
        images: ImageSizes,
        /// Where they are written.
        folder: PathBuf,
    },
    /// Says what the processor can do at most, in operations per second.
    Peak,
    /// Loads all plugins, and says how much memory that took at most, in MiB.
    Load,
}

/// The figures of one run of ours over all workloads, with what they were measured on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Who ran.
    #[serde(flatten)]
    pub machine: Machine,
    /// A row per workload.
    pub rows: Vec<Row>,
}

/// A run of the peers, word for word as their program writes it: what it says of itself and the machine, and `rows`.
/// There is more in both than we read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerRun(serde_json::Map<String, Value>);

impl PeerRun {
    /// Of peers that say nothing of themselves.
    pub fn unnamed() -> Self {
        Self(serde_json::Map::from_iter([("rows".to_owned(), Value::Array(Vec::new()))]))
    }

    /// Takes what another program says of itself and the machine, where this does not say it yet; and its versions.
    pub fn describe(&mut self, run: Self) {
        for (field, value) in run.0 {
            match (self.0.get_mut(&field), value) {
                (Some(Value::Object(known)), Value::Object(more)) => known.extend(more),
                (Some(_), _) => {}
                (None, value) => drop(self.0.insert(field, value)),
            }
        }
    }

    /// Adds the row of a workload.
    pub fn push(&mut self, row: Value) {
        if let Some(rows) = self.0.get_mut("rows").and_then(Value::as_array_mut) {
            rows.push(row);
        }
    }

    /// Leaves out the rows whose name is not `wanted`.
    pub fn retain(&mut self, wanted: impl Fn(&str) -> bool) {
        if let Some(rows) = self.0.get_mut("rows").and_then(Value::as_array_mut) {
            rows.retain(|row| row["name"].as_str().is_some_and(&wanted));
        }
    }

    /// The rows that hold figures: what failed or was skipped has none.
    pub fn rows(&self) -> Vec<Row> {
        let rows = self.0.get("rows").and_then(Value::as_array).into_iter().flatten();
        rows.filter_map(|row| serde_json::from_value(row.clone()).ok()).collect()
    }
}

/// The file that figures are kept in: runs, one after another.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Runs {
    /// Ours and the peers'.
    pub runs: Vec<AnyRun>,
}

/// A run of ours, which is known by the version of rqlab, or one of the peers.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum AnyRun {
    /// Ours.
    Ours(Run),
    /// The peers'.
    Theirs(PeerRun),
}

impl<'de> Deserialize<'de> for AnyRun {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let run = Value::deserialize(deserializer)?;
        match run["versions"]["rqlab"].is_string() {
            true => serde_json::from_value(run).map(Self::Ours),
            false => serde_json::from_value(run).map(Self::Theirs),
        }
        .map_err(serde::de::Error::custom)
    }
}
