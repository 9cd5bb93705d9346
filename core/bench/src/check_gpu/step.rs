//! One step: a process with a limit, and what is read from what it leaves.

use super::shown::{End, Shown};
use super::steps::Place;
use rqlab_sdk::{Error, Result};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// What `timeout` ends with if it ended the process.
const TIMED_OUT: i32 = 124;
/// How long a process that was asked to end has for it, in seconds.
const GRACE: u64 = 5;

/// What a process says or leaves, in words: whether it showed what it was to show.
pub(super) type Read = Box<dyn Fn(&str) -> std::result::Result<String, String>>;

/// How a process is started.
#[derive(Debug, Clone, Default)]
pub(super) struct Call {
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<OsString>,
    pub(super) variables: Vec<(&'static str, String)>,
}

impl Call {
    pub(super) fn new(program: impl Into<PathBuf>, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(OsString::from).collect();
        Self { program: program.into(), arguments, variables: Vec::new() }
    }

    pub(super) fn with(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.arguments.extend([name.into(), value.into()]);
        self
    }
}

/// A step.
pub(super) struct Step {
    /// By what it goes.
    pub(super) name: String,
    /// What it shows.
    pub(super) what: &'static str,
    /// The most time that it takes.
    pub(super) limit: Duration,
    /// The process, or why there is none.
    pub(super) call: std::result::Result<Call, String>,
    /// What it showed, from its log.
    pub(super) read: Read,
    /// Whether it asks for what need not be here.
    pub(super) is_optional: bool,
}

impl Step {
    /// What the process says, in a file.
    pub(super) fn log(&self, place: &Place) -> PathBuf {
        place.out.join(format!("{}.log", self.name))
    }

    /// That nothing was left of the time for all of it.
    pub(super) fn too_late(&self) -> Shown {
        self.shown(End::Limit, Duration::ZERO, None, "no time was left for it".to_owned())
    }

    /// Takes the step, in no more time than `left`.
    ///
    /// # Errors
    /// Its log cannot be written.
    pub(super) fn take(&self, place: &Place, left: Duration) -> Result<Shown> {
        let call = match &self.call {
            Ok(call) => call,
            Err(why) => return Ok(self.shown(End::Skipped, Duration::ZERO, None, why.clone())),
        };
        let path = self.log(place);
        let log = File::create(&path).map_err(Error::file(&path))?;
        let errors = log.try_clone().map_err(Error::file(&path))?;
        let limit = self.limit.min(left);
        let memory = Memory::watch(place.ordinal);
        let began = Instant::now();
        // It ends a process with all that it has started.
        let ended = Command::new("timeout")
            .args([&format!("--kill-after={GRACE}"), &limit.as_secs().max(1).to_string()])
            .arg(&call.program)
            .args(&call.arguments)
            .envs(call.variables.iter().cloned())
            .current_dir(&place.out)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .status()
            .map_err(Error::file("timeout"))?;
        let (took, memory) = (began.elapsed(), memory.and_then(Memory::most));
        let said = String::from_utf8_lossy(&fs::read(&path).unwrap_or_default()).into_owned();
        let read = (self.read)(&said);
        let is_late = ended.code() == Some(TIMED_OUT) || (!ended.success() && took >= limit);
        let (end, words) = match read {
            Ok(words) | Err(words) if is_late => (End::Limit, format!("ended at its limit; {words}")),
            Ok(words) if ended.success() => (End::Passed, words),
            Ok(words) | Err(words) if self.is_optional => (End::Skipped, words),
            Ok(words) => (End::Failed, format!("{ended}; {words}")),
            Err(words) => (End::Failed, words),
        };
        Ok(self.shown(end, took, memory, words))
    }

    fn shown(&self, end: End, took: Duration, memory_mib: Option<u64>, words: String) -> Shown {
        Shown { step: self.name.clone(), end, seconds: took.as_secs_f64(), memory_mib, words }
    }
}

/// The memory that is used on a GPU, by all who use it, as NVIDIA's tool tells it while a step is taken.
struct Memory {
    tool: Child,
    most: JoinHandle<Option<u64>>,
}

impl Memory {
    /// None where there is no such tool.
    fn watch(ordinal: usize) -> Option<Self> {
        let mut tool = Command::new("nvidia-smi")
            .args(["--query-gpu=memory.used", "--format=csv,noheader,nounits", "--loop-ms=200"])
            .arg(format!("--id={ordinal}"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let lines = BufReader::new(tool.stdout.take()?).lines();
        let most =
            thread::spawn(|| lines.map_while(std::io::Result::ok).filter_map(|line| line.trim().parse().ok()).max());
        Some(Self { tool, most })
    }

    /// The most that was used, in MiB.
    fn most(mut self) -> Option<u64> {
        let _ = self.tool.kill();
        let _ = self.tool.wait();
        self.most.join().ok().flatten()
    }
}
