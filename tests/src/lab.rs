//! A folder with a tiny experiment, and the built `rqlab` to run on it: what the end-to-end tests work with.

use std::fs;
use std::io::{Error, Result};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;

/// Two tokenizers and four priors in about three seconds, with a checkpoint every other step.
pub const EXPERIMENT: &str = r#"// A sweep in seconds.
(
    question: "Does depth help?",
    data: dead_leaves(size: 16, train: 64, test: 32, classes: 4),
    autoencoder: resnet(width: 8, multipliers: [1, 2], groups: 4, mid_attention: false, latent: 8),
    quantizer: rq(depth: 2, codebook: 16),
    prior: ar(width: 16, heads: 2, layers: 1),
    tokenizer_training: (steps: 20, batch: 4, lr: 1e-3, warmup: 2, checkpoint: 2, log: 2),
    prior_training: (steps: 20, batch: 4, lr: 1e-3, warmup: 2, images: 16, checkpoint: 2, log: 2),
    evaluation: (images: 16, samples: 10, speed: [], pictures: 2, classifier_steps: 5),
    axes: {
        "quantizer.depth": [1, 2],
        "prior": [
            ar(width: 16, heads: 2, layers: 1),
            rq_transformer(width: 16, heads: 2, body_layers: 1, head_layers: 1),
        ],
    },
    seeds: [0],
)
"#;

/// A folder of its own for one test, removed at its end.
pub struct Lab(TempDir);

/// What a command said.
#[derive(Debug)]
pub struct Said {
    /// Its exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl Lab {
    /// A folder with [`EXPERIMENT`] as `tiny.ron`.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn new() -> Result<Self> {
        let lab = Self(tempfile::tempdir()?);
        lab.write("tiny.ron", EXPERIMENT)?;
        Ok(lab)
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file in the folder.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> Result<()> {
        fs::write(self.path(name), contents)
    }

    /// Writes `tiny.ron` with the first `from` replaced by `to`.
    ///
    /// # Errors
    /// The text does not occur in [`EXPERIMENT`], and those of the file system.
    pub fn edit(&self, from: &str, to: &str) -> Result<()> {
        if !EXPERIMENT.contains(from) {
            return Err(Error::other(format!("the experiment has no {from:?}")));
        }
        self.write("tiny.ron", EXPERIMENT.replacen(from, to, 1))
    }

    /// Reads a text file in the folder.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn read(&self, name: &str) -> Result<String> {
        fs::read_to_string(self.path(name))
    }

    /// `rqlab` in the folder, with `arguments` between spaces, on two threads.
    ///
    /// # Errors
    /// The program is not there.
    pub fn command(&self, arguments: &str) -> Result<Command> {
        let mut command = Command::new(rqlab()?);
        command.current_dir(self.0.path()).stdin(Stdio::null()).args(["--threads", "2"]);
        command.args(arguments.split_whitespace()).env_remove("RQLAB_PLUGINS").env_remove("RQLAB_HOME");
        Ok(command)
    }

    /// Runs `rqlab` in the folder to its end.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn run(&self, arguments: &str) -> Result<Said> {
        self.command(arguments)?.output().map(Said::from)
    }

    /// Starts `rqlab` in the folder, silently.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&self, arguments: &str) -> Result<Child> {
        self.command(arguments)?.stdout(Stdio::null()).stderr(Stdio::null()).spawn()
    }

    /// Runs `rqlab` in the folder until `seen` says so, and kills it then. Says whether it was killed before its end.
    ///
    /// # Errors
    /// It cannot be started or killed.
    pub fn kill_when(&self, arguments: &str, seen: impl Fn(&Self) -> bool) -> Result<bool> {
        let mut child = self.start(arguments)?;
        while child.try_wait()?.is_none() {
            if seen(self) {
                child.kill()?;
                child.wait()?;
                return Ok(true);
            }
            std::thread::yield_now();
        }
        Ok(false)
    }

    /// The stages in a folder of runs that are of a kind, such as `tokenizer`, by their ids.
    ///
    /// # Errors
    /// Those of the file system, or a `job.json` that cannot be read.
    pub fn stages(&self, runs: &str, kind: &str) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.path(runs).join("stages"))? {
            let path = entry?.path();
            let job: serde_json::Value = serde_json::from_slice(&fs::read(path.join("job.json"))?)?;
            if job["stage"]["name"] == kind {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    }
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// The built program: beside the folder of the test's own.
fn rqlab() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let path = own.ancestors().nth(2).unwrap_or(Path::new(".")).join("rqlab");
    if path.is_file() {
        return Ok(path);
    }
    Err(Error::other(format!("{} is missing; build it with `cargo build --release --workspace`", path.display())))
}

/// What a finished stage made: its result, and the tokens of every level if it wrote some.
///
/// # Errors
/// Those of the file system.
pub fn made(stage: &Path) -> Result<Vec<u8>> {
    let mut bytes = fs::read(stage.join("result.safetensors"))?;
    for level in 1.. {
        match fs::read(stage.join(format!("level{level}.tokens"))) {
            Ok(tokens) => bytes.extend(tokens),
            Err(_) => break,
        }
    }
    Ok(bytes)
}

/// Files that a killed or failed process left half-written under a folder.
pub fn half_written(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(half_written(&path));
        } else if path.extension().is_some_and(|end| end == "partial" || end == "tmp") {
            found.push(path);
        }
    }
    found
}

/// A table of results without the columns that two runs of one trial may differ in: seconds, speeds, memory.
pub fn lasting(table: &str) -> Vec<Vec<String>> {
    let rows = csv(table);
    let varies = |column: &String| rqlab_reports::quantity(column).is_ok_and(|found| found.measure().is_timing());
    let head = rows.first().map_or(&[][..], Vec::as_slice);
    let kept: Vec<usize> = (0..head.len()).filter(|&column| !varies(&head[column])).collect();
    rows.iter().map(|row| kept.iter().map(|&column| row[column].clone()).collect()).collect()
}

/// The rows of a CSV text, its head first.
pub fn csv(text: &str) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for line in text.lines() {
        let (mut row, mut cell, mut quoted) = (Vec::new(), String::new(), false);
        for c in line.chars() {
            match c {
                '"' => quoted = !quoted,
                ',' if !quoted => row.push(std::mem::take(&mut cell)),
                c => cell.push(c),
            }
        }
        row.push(cell);
        rows.push(row);
    }
    rows
}
