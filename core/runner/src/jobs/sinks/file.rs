//! What happened in a folder of runs, for programs: `events.jsonl` beside the stages.

use super::{Event, Sink};
use crate::job::Job;
use crate::jobs::Outcome;
use crate::machine;
use crate::store::Store;
use rqlab_sdk::{Error, Result, files};
use serde::Serialize;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Appends a line of JSON per event to `RUNS/events.jsonl`. Runs stand there one after another, or, where several processes work at the
/// same time, in turns; each from `planned` to `finished`, which one that was killed lacks. A line has `event`, `time` (seconds since
/// 1970, UTC), the `host` and `process` that ran it, and
///
/// | `event` | and |
/// |---|---|
/// | `planned` | `jobs` in all, `waiting`: those that are not done yet |
/// | `started` | `job`, `stage`, `attempt` from 1 |
/// | `waiting` | `others`: there is nothing to do until so many jobs of other processes are done |
/// | `warned` | `job`, `stage`, `warning`: something is not as it should be, and the work goes on |
/// | `interrupted` | `job`, `stage`, `cause`: another attempt follows |
/// | `ended` | `job`, `stage`, `outcome`: `done`, `failed` or `blocked`, `seconds` of the last attempt, and `error` unless it is done |
/// | `finished` | `signal`, if one stopped the run |
///
/// where `job` is a stage's id, its directory under `RUNS/stages`. How far a training is, its own
/// [`events.jsonl`](crate::jobs::curves) tells.
pub struct EventsFile {
    file: File,
    host: String,
}

impl EventsFile {
    /// The file of a store, made if it is missing.
    ///
    /// # Errors
    /// [`Error::File`]: it cannot be written, or something else than a file has its name.
    pub fn open(store: &Store) -> Result<Self> {
        Self::at(&store.root().join("events.jsonl"))
    }

    /// The same in a file of its own: several machines do not append to one over NFS.
    ///
    /// # Errors
    /// As for [`EventsFile::open`].
    pub fn at(path: &Path) -> Result<Self> {
        if path.exists() {
            // Opening a FIFO would wait for a reader.
            files::open(path)?;
        }
        let file = File::options().create(true).append(true).open(path).map_err(Error::file(path))?;
        Ok(Self { file, host: machine::host() })
    }
}

impl Sink for EventsFile {
    fn event(&mut self, event: &Event<'_>) {
        let Some(line) = Line::of(event) else { return };
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        let (host, process) = (self.host.as_str(), std::process::id());
        if let Ok(text) = serde_json::to_string(&Line { time, host, process, ..line }) {
            // A disk without room ends the jobs, which say so.
            let _ = self.file.write_all(format!("{text}\n").as_bytes());
        }
    }
}

/// An event as it is written.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Line<'a> {
    time: f64,
    host: &'a str,
    process: u32,
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    jobs: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    others: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<i32>,
}

impl<'a> Line<'a> {
    /// The line of an event, but for its time; none of how far a job is, which would be most of the file.
    fn of(event: &Event<'a>) -> Option<Self> {
        let of =
            |event, job: &'a Job| Self { event, job: Some(&job.id), stage: Some(job.stage.name()), ..Self::default() };
        Some(match *event {
            Event::Planned { jobs, waiting } => {
                Self { event: "planned", jobs: Some(jobs), waiting: Some(waiting.len()), ..Self::default() }
            }
            Event::Started { job, attempt } => Self { attempt: Some(attempt), ..of("started", job) },
            Event::Progress { .. } => return None,
            Event::Waiting { others } => Self { event: "waiting", others: Some(others), ..Self::default() },
            Event::Warned { job, warning } => Self { warning: Some(warning), ..of("warned", job) },
            Event::Interrupted { job, cause } => Self { cause: Some(cause), ..of("interrupted", job) },
            Event::Ended { job, outcome, seconds } => {
                let (outcome, error) = match outcome {
                    Outcome::Cached | Outcome::Done => ("done", None),
                    Outcome::Failed(error) => ("failed", Some(error.as_str())),
                    Outcome::Blocked(error) => ("blocked", Some(error.as_str())),
                };
                Self { outcome: Some(outcome), seconds: Some(seconds), error, ..of("ended", job) }
            }
            Event::Finished { signal } => Self { event: "finished", signal, ..Self::default() },
        })
    }
}
