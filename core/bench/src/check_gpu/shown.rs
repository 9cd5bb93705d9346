//! What steps have shown: written as it comes, and as a table.

use rqlab::machine;
use rqlab::provenance::here;
use rqlab_sdk::files::write_atomically;
use rqlab_sdk::tensor::Device;
use rqlab_sdk::{Error, Result};
use serde::Serialize;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum End {
    /// It showed what it was to show.
    Passed,
    /// It showed the contrary, or did not come to its end.
    Failed,
    /// It took longer than it may.
    Limit,
    /// What it needs is not here.
    Skipped,
}

impl End {
    fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "FAILED",
            Self::Limit => "limit",
            Self::Skipped => "skipped",
        }
    }
}

/// What a step showed.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Shown {
    pub(super) step: String,
    pub(super) end: End,
    pub(super) seconds: f64,
    /// The most memory that was used on the GPU meanwhile.
    pub(super) memory_mib: Option<u64>,
    pub(super) words: String,
}

impl Shown {
    /// A line for a terminal.
    pub(super) fn line(&self) -> String {
        format!("{:8} {:34} {:>6.1} s  {}", self.end.word(), self.step, self.seconds, self.words)
    }
}

/// The folder of what is shown.
pub(super) struct Results {
    lines: File,
    path: PathBuf,
    table: PathBuf,
    head: String,
    shown: Vec<Shown>,
}

impl Results {
    /// An empty one.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn create(folder: &Path, device: &Device) -> Result<Self> {
        fs::create_dir_all(folder).map_err(Error::file(folder))?;
        let (path, table) = (folder.join("results.jsonl"), folder.join("table.md"));
        let lines = File::create(&path).map_err(Error::file(&path))?;
        let commit = here().commit.map_or_else(|| here().program, |commit| format!("commit {commit}"));
        let head = format!("{}; {commit}; {}", card(device), machine::now());
        Ok(Self { lines, path, table, head, shown: Vec::new() })
    }

    /// Adds what a step showed, on the disk before anything else is done.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn add(&mut self, shown: Shown) -> Result<()> {
        let line = serde_json::to_string(&shown).map_err(|error| Error::Data(error.to_string()))?;
        self.shown.push(shown);
        let written = self.lines.write_all(format!("{line}\n").as_bytes()).and_then(|()| self.lines.sync_all());
        written.map_err(Error::file(&self.path))?;
        write_atomically(&self.table, |file| file.write_all(self.table().as_bytes()))
    }

    /// All of it, for docs/gpu.md.
    pub(super) fn table(&self) -> String {
        let row = |shown: &Shown| {
            let Shown { step, end, seconds, memory_mib, words } = shown;
            let memory = memory_mib.map_or_else(String::new, |memory| memory.to_string());
            format!("| {step} | {} | {seconds:.1} | {memory} | {} |\n", end.word(), words.replace('|', "\\|"))
        };
        let rows: String = self.shown.iter().map(row).collect();
        let head = "| step | end | s | GPU memory, MiB | what it showed |\n| --- | --- | ---: | ---: | --- |";
        format!("{}\n\n{head}\n{rows}", self.head)
    }

    /// Whether everything that could be shown here was.
    pub(super) fn all_passed(&self) -> bool {
        self.shown.iter().all(|shown| matches!(shown.end, End::Passed | End::Skipped))
    }
}

/// The card and its driver, as NVIDIA's tool names them.
fn card(device: &Device) -> String {
    let query = ["--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"];
    let Device::Cuda(ordinal) = device else { return device.to_string() };
    let said = Command::new("nvidia-smi").args(query).arg(format!("--id={ordinal}")).output();
    let said = said.ok().filter(|output| output.status.success());
    said.map_or_else(
        || format!("{device}, without nvidia-smi"),
        |said| String::from_utf8_lossy(&said.stdout).trim().to_owned(),
    )
}
