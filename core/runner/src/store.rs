//! Where work is kept: one directory a stage, named by its id.
//!
//! ```text
//! runs/
//!   lock                     held by the one process that works in this folder
//!   events.jsonl             what happened while it did
//!   stages/<id>/lock         held by the worker
//!              /job.json     what is to be done
//!              /log.txt      what it said while it ran
//!              /events.jsonl points of its curves, as it took them
//!              /state.safetensors   the last checkpoint of unfinished training
//!              /result.safetensors  weights, codes or pictures
//!              /done.json    measures; its presence means that the stage is complete
//!              /failed.json  why it could not be done
//! ```
//!
//! Every file but logs and events, which grow by lines, is written to a temporary name, synced and renamed: a reader sees
//! the old file, the new one, or none.

use crate::job::Job;
use rqlab_reports::{Curve, Environment, Reading};
use rqlab_sdk::checkpoint::write_atomically;
use rqlab_sdk::{Error, Result};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Format of job descriptions and of what stages leave. Stages of another format are neither read nor replaced: their ids
/// differ, so that they lie beside the new ones until somebody deletes them.
pub const FORMAT: u32 = 2;

/// What a finished stage leaves for the report.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// What was measured: equal from run to run.
    pub readings: Vec<Reading>,
    /// What was measured of the machine (seconds, memory, images per second): not equal from run to run.
    pub timings: Vec<Reading>,
    /// Training curves.
    pub curves: Vec<Curve>,
    /// Seconds of work, over all the processes that it took.
    pub seconds: f64,
    /// Where it was computed; none of a stage that did not say.
    pub environment: Option<Environment>,
}

/// Why a stage could not be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// The error.
    pub error: String,
}

/// A folder of stages.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// The right to work in a store; given up when dropped, or when the process dies.
#[derive(Debug)]
pub struct StoreLock(#[allow(dead_code, reason = "held for its lock")] File);

impl Store {
    /// The store in `root`, which is made if it is missing.
    ///
    /// # Errors
    /// [`Error::Data`] if it cannot be made.
    pub fn open(root: &Path) -> Result<Self> {
        let stages = root.join("stages");
        fs::create_dir_all(&stages).map_err(|e| {
            Error::Data(format!("no work can be kept in {}: {e}; name another folder with --runs", root.display()))
        })?;
        Ok(Self { root: root.to_owned() })
    }

    /// The store in `root`, which may be missing: to read what is there.
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Takes the right to work here.
    ///
    /// # Errors
    /// [`Error::Data`] if another process has it, [`Error::File`] if the folder cannot be written.
    pub fn lock(&self) -> Result<StoreLock> {
        let path = self.root.join("lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(Error::file(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(StoreLock(file)),
            Err(TryLockError::WouldBlock) => Err(Error::Data(format!(
                "another rqlab process is working in {}; wait for it, stop it, or take another folder with --runs",
                self.root.display()
            ))),
            Err(TryLockError::Error(source)) => Err(Error::File { path, source }),
        }
    }

    /// How many stages of another format lie here.
    pub fn of_another_format(&self) -> usize {
        #[derive(Deserialize)]
        struct Written {
            #[serde(default)]
            format: u32,
        }
        let entries = fs::read_dir(self.root.join("stages")).into_iter().flatten().flatten();
        let format = |path: PathBuf| read_json::<Written>(&path.join("job.json")).ok().map(|job| job.format);
        entries.filter_map(|entry| format(entry.path())).filter(|&format| format != FORMAT).count()
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of a stage.
    pub fn stage(&self, id: &str) -> StageDir {
        StageDir { path: self.root.join("stages").join(id) }
    }
}

/// The directory of one stage.
#[derive(Debug, Clone)]
pub struct StageDir {
    path: PathBuf,
}

impl StageDir {
    /// A file of the stage.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The last checkpoint of unfinished training.
    pub fn state(&self) -> PathBuf {
        self.file("state.safetensors")
    }

    /// Weights, codes or pictures.
    pub fn result(&self) -> PathBuf {
        self.file("result.safetensors")
    }

    /// What the stage said while it ran.
    pub fn log(&self) -> PathBuf {
        self.file("log.txt")
    }

    /// The points of its curves, as training takes them.
    pub fn events(&self) -> PathBuf {
        self.file("events.jsonl")
    }

    /// Its measures, if it is complete. A damaged file counts as not complete, and so does a result that was deleted:
    /// deleting it is how a user has a stage done again.
    pub fn done(&self) -> Option<Done> {
        let done = read_json(&self.file("done.json")).ok()?;
        self.result().exists().then_some(done)
    }

    /// Takes the right to work on this stage, waiting for whoever has it: a worker whose parent was killed ends a moment
    /// after it, and must have ended before another one writes the same files.
    ///
    /// # Errors
    /// [`Error::File`] if the directory cannot be written.
    pub fn lock(&self) -> Result<StoreLock> {
        let path = self.file("lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(Error::file(&path))?;
        file.lock().map_err(Error::file(&path))?;
        Ok(StoreLock(file))
    }

    /// Whether a worker has that right.
    pub fn is_running(&self) -> bool {
        let file = File::open(self.file("lock"));
        file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// Why it failed, if it did.
    pub fn failed(&self) -> Option<Failed> {
        read_json(&self.file("failed.json")).ok()
    }

    /// Makes the directory, writes what is to be done, and forgets an earlier failure.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn prepare(&self, job: &Job) -> Result<()> {
        fs::create_dir_all(&self.path).map_err(Error::file(&self.path))?;
        let failed = self.file("failed.json");
        if failed.exists() {
            fs::remove_file(&failed).map_err(Error::file(&failed))?;
        }
        write_json(&self.file("job.json"), job)
    }

    /// What is to be done here.
    ///
    /// # Errors
    /// [`Error::File`], or [`Error::Data`] for a damaged file.
    pub fn job(&self) -> Result<Job> {
        read_json(&self.file("job.json"))
    }

    /// Marks the stage complete and drops its checkpoint.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn finish(&self, done: &Done) -> Result<()> {
        write_json(&self.file("done.json"), done)?;
        let state = self.state();
        if state.exists() {
            fs::remove_file(&state).map_err(Error::file(&state))?;
        }
        Ok(())
    }

    /// Notes why the stage could not be done.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn fail(&self, error: &str) -> Result<()> {
        write_json(&self.file("failed.json"), &Failed { error: error.to_owned() })
    }

    /// Removes what a process that was ended had not written to its end. To be called when it has ended.
    pub fn remove_half_written(&self) {
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|end| end == "partial") {
                // What stays is overwritten by the next run.
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// The last `lines` lines of the log.
    pub fn log_tail(&self, lines: usize) -> String {
        let text = fs::read(self.log()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

/// Writes a value as JSON, atomically.
///
/// # Errors
/// [`Error::File`].
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(value)
        .map_err(|e| Error::File { path: path.to_owned(), source: std::io::Error::other(e) })?;
    text.push(b'\n');
    write_atomically(path, |file| file.write_all(&text))
}

/// Whether files can be made in a directory, or in the nearest one above it that exists.
///
/// # Errors
/// Why not.
pub fn writable(dir: &Path) -> std::io::Result<()> {
    let absolute = std::path::absolute(dir)?;
    let there = absolute.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    let probe = there.join(format!(".rqlab-probe-{}", std::process::id()));
    fs::write(&probe, b"probe")?;
    fs::remove_file(&probe)
}

/// Reads a value from JSON.
///
/// # Errors
/// [`Error::File`] if it cannot be read, [`Error::Data`] if it is damaged.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = fs::read(path).map_err(Error::file(path))?;
    serde_json::from_slice(&bytes).map_err(|e| Error::Data(format!("{}: {e}; delete it to start over", path.display())))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn one_process_works_in_a_store() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let lock = store.lock().unwrap();
        assert!(store.lock().unwrap_err().to_string().contains("another rqlab process"));
        drop(lock);
        store.lock().unwrap();
    }

    #[test]
    fn a_damaged_marker_is_not_done() {
        let dir = tempfile::tempdir().unwrap();
        let stage = Store::open(dir.path()).unwrap().stage("x");
        fs::create_dir_all(&stage.path).unwrap();
        assert_eq!(stage.done(), None);
        fs::write(stage.file("done.json"), "{\"measures\":").unwrap();
        assert_eq!(stage.done(), None);
        let done = Done { seconds: 0.1 + 0.2, ..Done::default() };
        fs::write(stage.result(), "weights").unwrap();
        stage.finish(&done).unwrap();
        assert_eq!(stage.done(), Some(done));
        fs::remove_file(stage.result()).unwrap();
        assert_eq!(stage.done(), None);
    }
}
