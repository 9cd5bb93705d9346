//! Timing a workload.

use crate::{Prepared, Workload};
use rqlab::machine::{Usage, cores};
use rqlab_sdk::Result;
use serde::{Deserialize, Serialize};
use std::thread::sleep;
use std::time::Duration;

/// One workload's figures.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The workload.
    pub name: String,
    /// Median wall time of a call.
    pub median_ms: f64,
    /// The shortest call.
    pub min_ms: f64,
    /// The first call, with everything that happens once.
    #[serde(default)]
    pub first_ms: f64,
    /// Processor time of a call, over all threads.
    pub cpu_ms: f64,
    /// Units per second, by the median.
    pub throughput: f64,
    /// Unit of the throughput: `images/s`, `codes/s`, ...
    pub unit: String,
    /// Wall time of a unit.
    #[serde(default)]
    pub ms_per_unit: f64,
    /// The most memory that the process held.
    pub peak_rss_mib: f64,
    /// Times taken.
    #[serde(default)]
    pub samples: usize,
    /// Calls in each of them.
    #[serde(default)]
    pub inner: usize,
    /// Trained parameters of the model.
    #[serde(default)]
    pub params: Option<usize>,
    /// Share of the machine that other processes used meanwhile.
    #[serde(default)]
    pub other_cpu_fraction: f64,
    /// Operations of a call, see [`Workload::flop`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flop: Option<u64>,
    /// Billions of them per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gflops: Option<f64>,
    /// Share of what the machine can do at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_fraction: Option<f64>,
}

/// How often a workload is called.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// Samples are taken for this long at least...
    pub seconds: f64,
    /// ...and this many at least, or three if a call takes over four seconds.
    pub samples: usize,
    /// Calls that are not counted go on for this long.
    pub warm_up: f64,
}

impl Sampling {
    /// The rule that PyTorch is measured by.
    pub fn usual(seconds: f64) -> Self {
        Self { seconds, samples: 5, warm_up: 1.0 }
    }

    /// For a curve of many points.
    pub fn brief() -> Self {
        Self { seconds: 0.25, samples: 3, warm_up: 0.2 }
    }

    /// For what takes many seconds and starts from nothing each time: one call warms up, one counts.
    pub fn once() -> Self {
        Self { seconds: 0.0, samples: 1, warm_up: 0.0 }
    }
}

/// Short calls are grouped, so that a sample lasts as long as this.
const SAMPLE_SECONDS: f64 = 0.02;
/// A call that takes longer is repeated less.
const LONG_SECONDS: f64 = 4.0;
/// More samples than this say no more.
const MOST_SAMPLES: usize = 200;

/// Times a workload that is ready.
///
/// # Errors
/// Those of the workload.
pub fn measure(name: &str, workload: &Workload, mut prepared: Prepared, sampling: Sampling) -> Result<Row> {
    let mut time = |calls: usize| -> Result<f64> {
        let mut total = Duration::ZERO;
        for _ in 0..calls {
            total += (prepared.call)()?;
        }
        Ok(total.as_secs_f64())
    };
    let first = time(1)?;
    let (mut warm, mut once) = (first, first);
    while warm < sampling.warm_up {
        once = time(1)?;
        warm += once;
    }
    let inner = (SAMPLE_SECONDS / once).ceil().max(1.0) as usize;
    let least = if once < LONG_SECONDS { sampling.samples } else { sampling.samples.min(3) };
    let ours = || cpu_seconds(prepared.children.is_some());
    let (cpu, busy) = (ours(), busy_seconds().unwrap_or_default());
    let (mut times, mut total) = (Vec::new(), 0.0);
    while times.len() < least || (total < sampling.seconds && times.len() < MOST_SAMPLES) {
        let seconds = time(inner)?;
        times.push(seconds / inner as f64);
        total += seconds;
    }
    let cpu = ours() - cpu;
    let others = (busy_seconds().unwrap_or_default() - busy - cpu).max(0.0);
    let median = median(&mut times);
    let (units, unit) = workload.units();
    let memory = prepared.children.map(|most| most.get()).or_else(rqlab::jobs::peak_memory_mib);
    Ok(Row {
        name: name.to_owned(),
        median_ms: 1e3 * median,
        min_ms: 1e3 * times.first().copied().unwrap_or_default(),
        first_ms: 1e3 * first,
        cpu_ms: 1e3 * cpu / (inner * times.len()) as f64,
        throughput: units / median,
        unit: format!("{unit}/s"),
        ms_per_unit: 1e3 * median / units,
        peak_rss_mib: memory.unwrap_or(0.0),
        samples: times.len(),
        inner,
        params: prepared.params,
        other_cpu_fraction: others / (total * cores() as f64),
        flop: workload.flop(),
        gflops: workload.flop().map(|flop| flop as f64 / median / 1e9),
        peak_fraction: None,
    })
}

/// Share of the machine that other processes use during `span`, where the system tells.
pub(crate) fn other_cpu_fraction(span: Duration) -> Option<f64> {
    let before = Usage::now()?;
    sleep(span);
    before.others_until(&Usage::now()?)
}

/// The middle one, or the mean of the middle two; sorts them.
fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    let middle = times.len() / 2;
    match times {
        [] => 0.0,
        times if times.len() % 2 == 1 => times[middle],
        times => 0.5 * (times[middle - 1] + times[middle]),
    }
}

/// Ticks of a second in which Linux tells processor time.
const TICKS: f64 = 100.0;

/// Processor time so far of this process or of its children that have ended, where the system tells.
fn cpu_seconds(children: bool) -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name, in brackets, may hold anything. Two fields after it, from the 12th, are this process's user and system
    // time; the next two are its children's.
    let after = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    sum_of_ticks(after.split_whitespace().skip(if children { 13 } else { 11 }).take(2))
}

/// Processor time that the whole machine spent so far, where the system tells.
fn busy_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let fields = stat.lines().next().unwrap_or_default().split_whitespace().skip(1).take(8);
    // The 4th is idle, the 5th waits for disks.
    Some(sum_of_ticks(fields.enumerate().filter(|(i, _)| *i != 3 && *i != 4).map(|(_, ticks)| ticks)))
}

fn sum_of_ticks<'a>(fields: impl Iterator<Item = &'a str>) -> f64 {
    fields.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::rc::Rc;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 3.0, 2.0]), 2.5);
        assert_eq!(median(&mut []), 0.0);
    }

    #[test]
    fn every_call_is_counted_once() {
        let calls = Rc::new(Cell::new(0));
        let counter = calls.clone();
        let prepared = Prepared::new(Some(7), move || {
            counter.set(counter.get() + 1);
            Ok(())
        });
        let sampling = Sampling { seconds: 0.0, samples: 4, warm_up: 0.0 };
        let row = measure("nothing", &Workload::StartUp, prepared, sampling).unwrap();
        assert_eq!(row.samples, 4);
        assert_eq!(calls.get(), 1 + row.samples * row.inner);
        assert_eq!((row.unit.as_str(), row.params, row.flop), ("starts/s", Some(7), None));
        assert!(row.min_ms <= row.median_ms);
    }
}
