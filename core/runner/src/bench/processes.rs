//! The processes that measure: ours, and the peers' that ours is set beside.

use super::compare::same_workload;
use super::{Row, Sampling, Task, Work};
use rqlab_sdk::tensor::{Device, precision};
use rqlab_sdk::{Error, Result};
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Starts this program anew, with the same plugins and device.
#[derive(Debug, Clone)]
pub struct Children {
    /// Further folders of plugins.
    pub plugins: Vec<PathBuf>,
    /// Device to compute on.
    pub device: String,
}

impl Children {
    /// Times a workload in a process of its own with `threads` threads.
    ///
    /// # Errors
    /// A process that fails.
    pub fn measure(&self, name: &str, work: &Work, sampling: Sampling, threads: usize) -> Result<Row> {
        self.run(&Task::Measure { name: name.to_owned(), work: work.clone(), sampling }, threads)
    }

    /// Billions of operations a second that `threads` threads can do at most; unknown of a GPU.
    ///
    /// # Errors
    /// A process that fails.
    pub fn peak_gflops(&self, threads: usize) -> Result<Option<f64>> {
        if self.device != Device::Cpu.to_string() {
            return Ok(None);
        }
        Ok(Some(self.run::<f64>(&Task::Peak, threads)? / 1e9))
    }

    fn run<T: DeserializeOwned>(&self, task: &Task, threads: usize) -> Result<T> {
        let program = std::env::current_exe().map_err(Error::file("rqlab"))?;
        let mut command = Command::new(&program);
        for folder in &self.plugins {
            command.arg("--plugins").arg(folder);
        }
        let task = serde_json::to_string(task).map_err(|e| Error::Data(e.to_string()))?;
        let output = command
            .args(["--threads", &threads.to_string(), "--device", &self.device, "bench", "--task", &task])
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .map_err(Error::file(&program))?;
        serde_json::from_slice(&output.stdout)
            .map_err(|_| Error::Data(format!("a process that was to do {task} ended with {}", output.status)))
    }
}

/// Other implementations: a folder with `bench.py`, and the python that has what it needs.
#[derive(Debug, Clone)]
pub struct Peers {
    python: PathBuf,
    script: PathBuf,
    names: Vec<String>,
    /// Where they compute, and in which precision, as their program takes it.
    device: Vec<&'static str>,
}

impl Peers {
    /// The peers in a folder, which compute where we do and multiply numbers of the precision that we multiply.
    ///
    /// # Errors
    /// A folder without them, a python without what they need.
    pub fn open(python: &Path, folder: &Path, device: Device) -> Result<Self> {
        let script = folder.join("bench.py");
        if !script.is_file() {
            return Err(Error::Data(format!(
                "{} is not there; name the folder that holds the peers' bench.py",
                script.display()
            )));
        }
        let output = Command::new(python).arg(&script).arg("--list").output().map_err(Error::file(python))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(Error::Data(format!("{} cannot run {}: {said}", python.display(), script.display())));
        }
        let names = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
        let device = match (device, precision(device)) {
            (Device::Cpu, _) => vec!["--device", "cpu"],
            (_, "tf32") => vec!["--device", "cuda", "--channels-last", "--tf32"],
            (_, "bf16") => vec!["--device", "cuda", "--channels-last", "--dtype", "bf16"],
            _ => vec!["--device", "cuda", "--channels-last"],
        };
        Ok(Self { python: python.to_owned(), script, names, device })
    }

    /// Times every peer of our workload `name`, each in a process of its own. One that fails or declines has no row.
    ///
    /// # Errors
    /// A process that cannot be started.
    pub fn measure(&self, name: &str, seconds: f64, threads: usize) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        let threads = threads.to_string();
        for name in self.names.iter().filter(|peer| same_workload(name, peer)) {
            let mut command = Command::new(&self.python);
            for variable in ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"] {
                command.env(variable, &threads);
            }
            let output = command
                .arg(&self.script)
                .args(&self.device)
                .args(["--one", name, "--threads", &threads, "--seconds", &seconds.to_string()])
                .stdin(Stdio::null())
                .stderr(Stdio::null())
                .output()
                .map_err(Error::file(&self.python))?;
            let said = String::from_utf8_lossy(&output.stdout);
            let row = said.lines().find_map(|line| line.strip_prefix("ROW "));
            rows.extend(row.and_then(|row| serde_json::from_str::<Row>(row).ok()));
        }
        Ok(rows)
    }
}
