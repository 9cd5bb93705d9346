//! How fast training and sampling are, on the workloads that other implementations are measured on.
//!
//! Workloads run through the plugins' models and the sdk's optimizer, as a sweep does; data are random. Each runs in a
//! process of its own, so that its peak memory is its own.

mod workloads;

pub use workloads::{NAMES, prepare};

use rqlab_sdk::Result;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// One workload's figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The workload.
    pub name: String,
    /// Median wall time of a call.
    pub median_ms: f64,
    /// The shortest call.
    pub min_ms: f64,
    /// Processor time of a call, over all threads.
    pub cpu_ms: f64,
    /// Units a second, by the median.
    pub throughput: f64,
    /// What is counted.
    pub unit: String,
    /// The most memory that the process held.
    pub peak_rss_mib: f64,
    /// Trained numbers of the model.
    pub params: usize,
}

/// Something to be timed.
pub struct Workload {
    /// Trained numbers of the model.
    pub params: usize,
    /// Units a call.
    pub units: f64,
    /// What is counted.
    pub unit: &'static str,
    /// One call.
    pub call: Box<dyn FnMut() -> Result<()>>,
}

/// Calls are repeated at least this often...
const SAMPLES: usize = 5;
/// ...and for at least this long.
const SAMPLING: Duration = Duration::from_secs(3);
/// Calls that are not counted go on for this long, and are two at least.
const WARM_UP: Duration = Duration::from_secs(1);

/// Times a workload.
///
/// # Errors
/// Those of the workload.
pub fn measure(name: &str, mut workload: Workload) -> Result<Row> {
    let started = Instant::now();
    (workload.call)()?;
    (workload.call)()?;
    while started.elapsed() < WARM_UP {
        (workload.call)()?;
    }
    let (started, cpu) = (Instant::now(), cpu_seconds());
    let mut times = Vec::new();
    while times.len() < SAMPLES || started.elapsed() < SAMPLING {
        let call = Instant::now();
        (workload.call)()?;
        times.push(call.elapsed().as_secs_f64() * 1e3);
    }
    let cpu_ms = (cpu_seconds() - cpu) * 1e3 / times.len() as f64;
    times.sort_by(f64::total_cmp);
    let median_ms = times[times.len() / 2];
    Ok(Row {
        name: name.to_owned(),
        median_ms,
        min_ms: times[0],
        cpu_ms,
        throughput: workload.units / median_ms * 1e3,
        unit: workload.unit.to_owned(),
        peak_rss_mib: crate::jobs::peak_memory_mib().unwrap_or(0.0),
        params: workload.params,
    })
}

/// Processor time of this process so far, where the system tells (Linux: ticks of a hundredth of a second).
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name, in brackets, may hold anything; user and system time are the 12th and 13th field after it.
    let after = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    after.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}
