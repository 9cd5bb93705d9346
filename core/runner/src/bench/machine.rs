//! What a run was measured on.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

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
    /// Billions of operations a second that these threads can do at most: independent fused multiply-adds in registers,
    /// timed in this run.
    #[serde(default)]
    pub peak_gflops: Option<f64>,
}

impl Machine {
    /// This machine, now.
    pub fn here(device: &str, threads: usize, peak_gflops: Option<f64>) -> Self {
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
            peak_gflops,
        }
    }

    /// The machine in a sentence, for a table's head.
    pub fn sentence(&self) -> String {
        let peak = self.peak_gflops.map_or(String::new(), |peak| format!(", at most {peak:.0} GFLOP/s"));
        let day = self.started.split('T').next().unwrap_or_default();
        format!("{}, {} cores, {}; {} threads{peak}. {day}.", self.cpu, self.cores, self.instructions, self.threads)
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
    use super::civil_time;

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
