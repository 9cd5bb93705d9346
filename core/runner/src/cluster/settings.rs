//! How work is put into a cluster's queue: from a file of the user's, and the command line.

use crate::experiment::Diagnostic;
use clap::ValueEnum;
use rqlab_sdk::files;
use serde::{Deserialize, Serialize};
use std::env;
use std::path::{Path, PathBuf};

/// Seconds before its time limit at which a task is told to end. Slurm looks at limits once a minute.
pub(super) const GRACE: u64 = 90;
/// The most tasks at once if nothing is said.
const WORKERS: usize = 16;
/// Longest file of settings that is read, in bytes.
const LONGEST: u64 = 1 << 20;

/// Where jobs run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LauncherKind {
    /// In processes of this machine.
    #[default]
    Local,
    /// In tasks of a Slurm cluster.
    Slurm,
}

/// How work is put into a queue. What is not said is left to the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where jobs run.
    pub launcher: Option<LauncherKind>,
    /// Partitions, as `sbatch --partition` takes them.
    pub partition: Option<String>,
    /// The time limit of a task, as `sbatch --time` takes it: what is not done by then goes on in the next task.
    pub time: Option<String>,
    /// GPUs of a task, as `sbatch --gpus` takes them: `1`, `a100:2`.
    pub gpus: Option<String>,
    /// Processors of a task.
    pub cpus: Option<u16>,
    /// Memory of a task, as `sbatch --mem` takes it: `32G`.
    pub mem: Option<String>,
    /// Whom it is charged to.
    pub account: Option<String>,
    /// The most tasks at once.
    pub workers: Option<usize>,
    /// Jobs at once in a task.
    pub jobs: Option<u16>,
    /// Further options of sbatch, each as one writes it after `#SBATCH`: `--constraint=a100`.
    pub sbatch: Vec<String>,
    /// Lines of the shell before rqlab is started, such as `module load cuda`.
    pub setup: Vec<String>,
    /// Processes that train a stage together.
    pub ranks: Option<u16>,
    /// What starts them, but for `-n N`: `mpirun -x RQLAB_GPU`.
    pub mpirun: Option<String>,
}

impl Settings {
    /// The user's file: `$XDG_CONFIG_HOME/rqlab/launcher.ron`, or `~/.config/rqlab/launcher.ron`.
    pub fn file() -> Option<PathBuf> {
        let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let folder = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")))?;
        Some(folder.join("rqlab/launcher.ron"))
    }

    /// What the user's file says; nothing if there is none.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of_user() -> Result<Self, Diagnostic> {
        match Self::file() {
            Some(path) if path.exists() => Self::read(&path),
            _ => Ok(Self::default()),
        }
    }

    fn read(path: &Path) -> Result<Self, Diagnostic> {
        let bytes = files::read(path, LONGEST).map_err(|error| Diagnostic::error(error.to_string()))?;
        let options = ron::Options::default().with_default_extension(ron::extensions::Extensions::IMPLICIT_SOME);
        options.from_bytes(&bytes).map_err(|error| {
            Diagnostic::error(format!("{}:{}: {}", path.display(), error.span.start, error.code)).help(
                "it says how work is put into a cluster's queue, such as \
                 `(launcher: slurm, partition: \"gpu\", time: \"4:00:00\", gpus: \"1\", cpus: 8, mem: \"32G\")`; \
                 `rqlab sweep --help` tells what each is",
            )
        })
    }

    /// With what `more` says in the place of what this says; lines are added.
    pub fn with(self, more: Self) -> Self {
        Self {
            launcher: more.launcher.or(self.launcher),
            partition: more.partition.or(self.partition),
            time: more.time.or(self.time),
            gpus: more.gpus.or(self.gpus),
            cpus: more.cpus.or(self.cpus),
            mem: more.mem.or(self.mem),
            account: more.account.or(self.account),
            workers: more.workers.or(self.workers),
            jobs: more.jobs.or(self.jobs),
            sbatch: [self.sbatch, more.sbatch].concat(),
            setup: [self.setup, more.setup].concat(),
            ranks: more.ranks.or(self.ranks),
            mpirun: more.mpirun.or(self.mpirun),
        }
    }

    /// The most tasks at once.
    pub fn workers(&self) -> usize {
        self.workers.unwrap_or(WORKERS).max(1)
    }

    /// The bytes of memory that a task is to have; none where that is left to the cluster, or is all that a node has (`0`).
    ///
    /// # Errors
    /// What is no amount of memory.
    pub fn memory(&self) -> Result<Option<f64>, Diagnostic> {
        let Some(text) = &self.mem else { return Ok(None) };
        let bytes = bytes(text).ok_or_else(|| {
            Diagnostic::error(format!("`{text}` is no amount of memory"))
                .help("write a whole number and its unit, K, M, G or T, as sbatch takes it: 32G; a task does one stage at a time unless `--jobs` says more")
        })?;
        Ok(Some(bytes).filter(|&bytes| bytes > 0.0))
    }

    /// Checks what can be checked before anything is submitted.
    ///
    /// # Errors
    /// Memory that is none; a time limit that is none, or that leaves no time to work.
    pub fn check(&self) -> Result<(), Diagnostic> {
        self.memory()?;
        let Some(time) = &self.time else { return Ok(()) };
        let Some(seconds) = seconds(time) else {
            return Err(Diagnostic::error(format!("`{time}` is no time limit"))
                .help("write minutes, hours:minutes:seconds, or days-hours: 90, 4:00:00, 1-12"));
        };
        if seconds < 2 * GRACE {
            return Err(Diagnostic::error(format!(
                "a time limit of {seconds} s leaves no time to work: checkpoints are kept from {GRACE} s before it on"
            ))
            .help("give the tasks more `--time`: five minutes at the least, hours if you can; it is no limit of a training"));
        }
        Ok(())
    }
}

/// The bytes of memory as sbatch takes it: a number of MiB, or of what its unit says.
fn bytes(text: &str) -> Option<f64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_uppercase().trim_end_matches('B') {
        "K" => 10,
        "" | "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return None,
    };
    Some(digits.parse::<u32>().ok()? as f64 * (1_u64 << unit) as f64)
}

/// The seconds of a time limit as sbatch takes it: minutes, minutes:seconds, hours:minutes:seconds, days-hours,
/// days-hours:minutes, days-hours:minutes:seconds; none of what is no such.
fn seconds(text: &str) -> Option<u64> {
    let numbers = |text: &str| text.split(':').map(|part| part.parse().ok()).collect::<Option<Vec<u64>>>();
    if ["UNLIMITED", "INFINITE"].contains(&text.to_uppercase().as_str()) {
        return Some(u64::MAX);
    }
    let (days, rest) = match text.split_once('-') {
        Some((days, rest)) => (Some(days.parse::<u64>().ok()?), rest),
        None => (None, text),
    };
    let [hours, minutes, seconds] = match (days, numbers(rest)?.as_slice()) {
        (None, &[minutes]) => [0, minutes, 0],
        (None, &[minutes, seconds]) => [0, minutes, seconds],
        (Some(_), &[hours]) => [hours, 0, 0],
        (Some(_), &[hours, minutes]) => [hours, minutes, 0],
        (_, &[hours, minutes, seconds]) => [hours, minutes, seconds],
        _ => return None,
    };
    Some(((days.unwrap_or(0) * 24 + hours) * 60 + minutes) * 60 + seconds)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn time_limits_are_read_as_sbatch_reads_them() {
        let texts = ["90", "2:30", "4:00:00", "1-12", "1-12:30", "1-00:00:10"];
        assert_eq!(texts.map(seconds), [5400, 150, 14_400, 129_600, 131_400, 86_410].map(Some));
        assert_eq!(["", "x", "1:2:3:4", "1-", "-1"].map(seconds), [None; 5]);
        let of = |time: &str| Settings { time: Some(time.to_owned()), ..Settings::default() }.check();
        assert_eq!((of("5"), of("UNLIMITED")), (Ok(()), Ok(())));
        assert!(of("2:30").unwrap_err().message.contains("leaves no time to work"));
        assert!(of("soon").unwrap_err().message.contains("is no time limit"));
    }

    #[test]
    fn memory_is_read_as_sbatch_reads_it() {
        let of = |mem: &str| Settings { mem: Some(mem.to_owned()), ..Settings::default() }.memory();
        let mib = f64::from(1 << 20);
        assert_eq!(
            [of("4096"), of("4G"), of("4gb"), of("1T")].map(Result::unwrap),
            [4096.0, 4096.0, 4096.0, f64::from(1 << 20)].map(|n| Some(n * mib))
        );
        assert_eq!(of("0").unwrap(), None);
        assert_eq!(Settings::default().memory().unwrap(), None);
        for text in ["", "G", "much", "-1G", "4P"] {
            assert!(of(text).unwrap_err().message.contains("is no amount of memory"), "{text}");
        }
    }

    #[test]
    fn the_command_line_comes_before_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("launcher.ron");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Settings::read(&path)
        };
        let file = read("(launcher: slurm, partition: \"gpu\", cpus: 8, sbatch: [\"--constraint=a100\"])").unwrap();
        let line =
            Settings { partition: Some("cpu".to_owned()), sbatch: vec!["--nice".to_owned()], ..Settings::default() };
        let both = file.with(line);
        assert_eq!(
            (both.launcher, both.partition.as_deref(), both.cpus),
            (Some(LauncherKind::Slurm), Some("cpu"), Some(8))
        );
        assert_eq!(both.sbatch, ["--constraint=a100", "--nice"]);
        let said = read("(partition: \"gpu\", cpu: 8)").unwrap_err().message;
        assert!(said.contains("launcher.ron:1") && said.contains("`cpu`"), "{said}");
    }
}
