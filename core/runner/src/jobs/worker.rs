//! The worker's side: one job, from its description to its `done.json`.

use super::Progress;
use super::curves::Writer;
use crate::job::Job;
use crate::plugins::Plugins;
use crate::provenance::environment;
use crate::stages;
use crate::store::{StageDir, Store};
use rqlab_reports::Reading;
use rqlab_sdk::tensor::Device;
use rqlab_sdk::{Error, Result};
use std::io::{Read, Write};
use std::time::{Duration, Instant};

/// Says how far a worker is.
pub struct Reporter {
    spoken: Option<Instant>,
    curves: Writer,
}

impl Reporter {
    fn new(stage: &StageDir) -> Self {
        Self { spoken: None, curves: Writer::of(stage) }
    }

    /// Says that `done` of `total` units are done; at most ten times a second, and always at the end.
    #[allow(clippy::print_stdout, reason = "standard output is the worker's line to its parent")]
    pub fn step(&mut self, done: u64, total: u64, note: impl FnOnce() -> String) {
        let due = self.spoken.is_none_or(|at| at.elapsed() >= Duration::from_millis(100));
        if due || done == total {
            self.spoken = Some(Instant::now());
            if let Ok(line) = serde_json::to_string(&Progress { done, total, note: note() }) {
                let mut out = std::io::stdout().lock();
                let _ = writeln!(out, "{line}").and_then(|()| out.flush());
            }
        }
    }

    /// Training begins after `step`: 0, or that of a checkpoint. Points that were taken after it will be taken again.
    ///
    /// # Errors
    /// [`rqlab_sdk::Error::File`] if the stage's directory cannot be written.
    pub fn resume(&mut self, step: u64) -> Result<()> {
        self.curves.take_back(step)
    }

    /// The points of the curves at `step`.
    ///
    /// # Errors
    /// [`rqlab_sdk::Error::File`] if the stage's directory cannot be written.
    pub fn points(&mut self, step: u64, points: &[Reading]) -> Result<()> {
        self.curves.append(step, points)
    }
}

/// Does the job `id` of the store. An error is noted in the store before it is returned.
///
/// # Errors
/// Whatever the stage could not do.
pub fn run_worker(store: &Store, id: &str, plugins: &Plugins) -> Result<()> {
    let stage = store.stage(id);
    let _lock = stage.lock()?;
    let job = stage.job()?;
    multiplies_as_asked(&job).inspect_err(|error| note_failure(&stage, &error.to_string()))?;
    let started = Instant::now();
    let mut reporter = Reporter::new(&stage);
    let outcome = stages::run(store, &job, plugins, &mut reporter).and_then(|mut done| {
        done.seconds += started.elapsed().as_secs_f64();
        done.timings.extend(peak_memory_mib().map(|memory| Reading::new("peak_memory_mib", [], memory)));
        done.environment = Some(environment(&*job.stage));
        stage.finish(&done)
    });
    outcome.inspect_err(|error| note_failure(&stage, &error.to_string()))
}

/// The precision stands in the stage's id: a result of another one must not get its name. A CPU is as precise as any asks for.
fn multiplies_as_asked(job: &Job) -> Result<()> {
    let (device, asked) = (rqlab_sdk::tensor::device(), job.stage.precision().name());
    let here = rqlab_sdk::tensor::precision(device);
    if device == Device::Cpu || here == asked {
        return Ok(());
    }
    Err(Error::Unsupported(format!(
        "this worker multiplies in {here} on {device}, and the stage asks for {asked}: start it with RQLAB_GPU={asked}"
    )))
}

#[allow(clippy::print_stderr, reason = "standard error is the worker's log")]
fn note_failure(stage: &StageDir, error: &str) {
    eprintln!("{error}");
    if let Err(second) = stage.fail(error) {
        eprintln!("{second}");
    }
}

/// Ends this process when its standard input ends, that is, when its parent is gone.
pub fn end_with_parent() {
    std::thread::spawn(|| {
        let mut rest = Vec::new();
        let _ = std::io::stdin().read_to_end(&mut rest);
        std::process::exit(3);
    });
}

/// The most memory that this process has held, in MiB, where the system tells (Linux: VmHWM).
pub fn peak_memory_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}
