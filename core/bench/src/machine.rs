//! What a run was measured on.

use crate::measure::other_cpu_fraction;
use rqlab::ui::counted;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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
        let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let line =
            text.lines().find_map(|line| line.strip_prefix("model name")).and_then(|rest| rest.split(':').nth(1));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self {
            cpu: line.map_or("unknown processor", str::trim).to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            instructions: rqlab_sdk::tensor::instructions().to_owned(),
            threads,
            device: device.to_owned(),
            dtype: "f32".to_owned(),
            versions: BTreeMap::from([("rqlab".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]),
            started: civil_time(now),
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

/// Seconds since 1970 as a date and time in UTC, `2026-11-22T05:35:48Z`. Days are counted from 1 March of year 0, so that
/// the leap day is the last of its year (Hinnant, "chrono-compatible low-level date algorithms").
pub fn civil_time(seconds: u64) -> String {
    let (days, rest) = (seconds / 86400 + 719_468, seconds % 86400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year_of_era = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use crate::{Machine, civil_time};

    #[test]
    fn others_are_warned_of_from_a_tenth_of_a_core_on() {
        let machine = |share| Machine { cores: 4, other_cpu_fraction: share, ..Machine::default() };
        assert_eq!(machine(None).warning(), None);
        assert_eq!(machine(Some(0.024)).warning(), None);
        let warning = machine(Some(0.3)).warning().unwrap_or_default();
        assert!(warning.starts_with("other processes use 1.2 of 4 cores: "), "{warning}");
        assert!(warning.contains("ratios beside peers cannot be trusted"), "{warning}");
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        for (seconds, wanted) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_709_251_200, "2024-03-01T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(civil_time(seconds), wanted);
        }
    }
}
