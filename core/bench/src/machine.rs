//! What a run was measured on.

use crate::measure::other_cpu_fraction;
use rqlab::machine;
use rqlab::ui::counted;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Processor, program, and how it was run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name.
    #[serde(default)]
    pub cpu: String,
    /// Its cores.
    #[serde(default)]
    pub cores: usize,
    /// Vector instructions that the kernels use.
    #[serde(default)]
    pub instructions: String,
    /// Threads that a workload computes with.
    #[serde(default)]
    pub threads: usize,
    /// Where it computes.
    #[serde(default)]
    pub device: String,
    /// Type of the numbers.
    #[serde(default)]
    pub dtype: String,
    /// Programs and their versions.
    #[serde(default)]
    pub versions: BTreeMap<String, String>,
    /// When, in UTC.
    #[serde(default)]
    pub started: String,
    /// Billions of operations per second that these threads can do at most: independent fused multiply-adds in registers,
    /// timed in this run.
    #[serde(default)]
    pub peak_gflops: Option<f64>,
    /// Share of the machine that other processes used just before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_cpu_fraction: Option<f64>,
}

/// How long the machine is watched: fifty ticks of its clock of processor time.
const WATCH: Duration = Duration::from_millis(500);
/// Other processes that use more cores than this are worth a warning.
const BUSY_CORES: f64 = 0.1;

impl Machine {
    /// This machine, now, but for its peak. Watches it for half a second.
    pub fn here(device: &str, threads: usize) -> Self {
        Self {
            cpu: machine::processor().unwrap_or_else(|| "unknown processor".to_owned()),
            cores: machine::cores(),
            instructions: rqlab_sdk::tensor::instructions().to_owned(),
            threads,
            device: device.to_owned(),
            dtype: "f32".to_owned(),
            versions: BTreeMap::from([("rqlab".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]),
            started: machine::now(),
            peak_gflops: None,
            other_cpu_fraction: other_cpu_fraction(WATCH),
        }
    }

    /// What is wrong with measuring now, if something is.
    pub fn warning(&self) -> Option<String> {
        let busy = self.other_cpu_fraction? * self.cores as f64;
        (busy > BUSY_CORES).then(|| {
            format!(
                "other processes use {busy:.1} of {} cores: the figures will be too slow, and ratios beside peers cannot be \
                 trusted; end them, or wait, and measure again",
                self.cores
            )
        })
    }

    /// The machine in a sentence, for a table's head.
    pub fn sentence(&self) -> String {
        let peak = self.peak_gflops.map_or(String::new(), |peak| format!(", at most {peak:.0} GFLOP/s"));
        let day = self.started.split('T').next().unwrap_or_default();
        let (cores, threads) = (counted(self.cores, "core"), counted(self.threads, "thread"));
        format!("{}, {cores}, {}; {threads}{peak}. {day}.", self.cpu, self.instructions)
    }
}

#[cfg(test)]
mod tests {
    use super::Machine;

    #[test]
    fn others_are_warned_of_from_a_tenth_of_a_core_on() {
        let machine = |share| Machine { cores: 4, other_cpu_fraction: share, ..Machine::default() };
        assert_eq!(machine(None).warning(), None);
        assert_eq!(machine(Some(0.024)).warning(), None);
        let warning = machine(Some(0.3)).warning().unwrap_or_default();
        assert!(warning.starts_with("other processes use 1.2 of 4 cores: "), "{warning}");
        assert!(warning.contains("ratios beside peers cannot be trusted"), "{warning}");
    }
}
