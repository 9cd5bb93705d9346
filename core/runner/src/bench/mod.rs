//! How fast the laboratory is, on the workloads that other implementations are measured on.
//!
//! Workloads run through the plugins' models and the sdk's optimizer, as a sweep does; data are random. Each runs in a
//! process of its own, so that its peak memory is its own. [`Work`] says what is computed and counts it, [`prepare`] makes
//! it ready, [`measure`] times it; [`compare`] sets two runs side by side, [`scaling`] varies sizes.

pub mod compare;
mod count;
mod machine;
mod measure;
mod models;
mod operations;
mod processes;
pub mod scaling;
mod sweeps;
mod work;

pub use machine::{Machine, civil_time};
pub use measure::{Row, Sampling, measure};
pub use models::prepare;
pub use processes::{Children, Peers};
pub use work::{Family, Operation, PriorSizes, TokenizerSizes, Work, workloads};

use rqlab_sdk::Result;
use rqlab_sdk::tensor::wait_for_device;
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Something to be timed.
pub struct Workload {
    /// Trained numbers of the model, if there is one.
    pub params: Option<usize>,
    /// One call. Returns what it took, without what only prepares it.
    pub call: Box<dyn FnMut() -> Result<Duration>>,
    /// Where calls start processes: the most memory that one of these held, in MiB.
    pub children: Option<Rc<Cell<f64>>>,
}

impl Workload {
    /// A workload of which all is timed.
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
        work: Work,
        /// How often.
        sampling: Sampling,
    },
    /// Says what the processor can do at most, in operations a second.
    Peak,
    /// Loads all plugins, and says how much memory that took at most, in MiB.
    Load,
}

/// The figures of one run over all workloads, with what they were measured on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Who ran.
    #[serde(flatten)]
    pub machine: Machine,
    /// A row a workload.
    pub rows: Vec<Row>,
}

/// The file that figures are kept in.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Runs {
    /// One after another.
    pub runs: Vec<Run>,
}
