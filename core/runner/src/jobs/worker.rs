//! The worker's side: one job, from its description to its `done.json`.

use super::curves::Writer;
use super::holding::{ASKED_TO_END, WAS_ASKED, give_up, hold, is_asked_to_end, is_held, lost};
use super::{Line, Progress};
use crate::job::Job;
use crate::plugins::{Plugins, panic_text};
use crate::provenance::environment;
use crate::stages;
use crate::store::{Done, StageDir, Store};
use crate::ui::say;
use rqlab_reports::{Environment, Reading};
use rqlab_sdk::tensor::Device;
use rqlab_sdk::tensor::ranks::Communicator;
use rqlab_sdk::{Error, Result};
use std::collections::BTreeSet;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Says how far a worker is.
pub struct Reporter {
    /// Whether anybody listens: to the first of several ranks alone.
    speaks: bool,
    /// What earlier parts of the work were computed by.
    earlier: BTreeSet<String>,
    spoken: Option<Instant>,
    /// None once points could not be written.
    curves: Option<Writer>,
}

impl Reporter {
    fn new(stage: &StageDir) -> Self {
        Self { speaks: true, earlier: BTreeSet::new(), spoken: None, curves: Some(Writer::of(stage)) }
    }

    fn silent() -> Self {
        Self { speaks: false, earlier: BTreeSet::new(), spoken: None, curves: None }
    }

    /// Says that `done` of `total` units are done; at most ten times a second, and always at the end.
    pub fn step(&mut self, done: u64, total: u64, note: impl FnOnce() -> String) {
        let due = self.spoken.is_none_or(|at| at.elapsed() >= Duration::from_millis(100));
        if self.speaks && (due || done == total) {
            self.spoken = Some(Instant::now());
            tell(&Line::Progress(Progress { done, total, note: note() }));
        }
    }

    /// Says what a user should know though the work goes on, to whoever watches and in the log.
    pub fn warn(&mut self, warning: &str) {
        if self.speaks {
            tell(&Line::Warning { warning: warning.to_owned() });
        }
        say(warning);
    }

    /// Training begins after `step`: 0, or that of a checkpoint. Points that were taken after it will be taken again.
    pub fn resume(&mut self, step: u64) {
        self.write(|curves| curves.take_back(step));
    }

    /// Earlier parts of the work were computed by these: [`Environment::arithmetic`].
    pub fn begun_by(&mut self, earlier: BTreeSet<String>) {
        self.earlier = earlier;
    }

    /// The points of the curves at `step`.
    pub fn points(&mut self, step: u64, points: &[Reading]) {
        self.write(|curves| curves.append(step, points));
    }

    /// The points are there for who watches; `done.json` has them again. Where they cannot be written, training goes on.
    fn write(&mut self, write: impl FnOnce(&Writer) -> Result<()>) {
        // Who stood still while its lease was broken must not write into what another does now, or has done.
        if !is_held() {
            lost();
        }
        if let Some(Err(error)) = self.curves.as_ref().map(write) {
            self.curves = None;
            self.warn(&format!("{error}; the curves can be seen when the stage is done"));
        }
    }
}

/// A line to the parent, which may be gone.
fn tell(line: &Line) {
    if let Ok(line) = serde_json::to_string(line) {
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }
}

/// Does the job `id` of the store, whose lease another process took for this one and told it by its token, or else this one takes.
/// Of several ranks the first does so, and the others take part in its training. An error is noted in the store before it is
/// returned. A process that was asked to end, or is no longer the holder of the lease, notes nothing, and ends.
///
/// # Errors
/// Whatever the stage could not do.
pub fn run_worker(
    store: &Store,
    id: &str,
    lease: Option<&str>,
    plugins: &Plugins,
    ranks: &Rc<dyn Communicator>,
) -> Result<()> {
    let stage = store.stage(id);
    if ranks.rank() > 0 {
        return follow(store, &stage, plugins, ranks);
    }
    let held = match lease {
        Some(token) => store.leases().take_over(id, token)?,
        None => store.leases().take_from_gone(id, false)?,
    };
    let Some(held) = held else { lost() };
    hold(held);
    let work = || {
        let job = stage.job()?;
        multiplies_as_asked(&job)?;
        let started = Instant::now();
        let mut reporter = Reporter::new(&stage);
        let mut done = run(store, &job, plugins, &mut reporter, ranks)?;
        done.seconds += started.elapsed().as_secs_f64();
        done.timings.extend(peak_memory_mib().map(|memory| Reading::new("peak_memory_mib", [], memory)));
        let ended_by = environment(&*job.stage, ranks.size());
        let own = ended_by.arithmetic();
        let earlier = reporter.earlier.into_iter().filter(|other| *other != own).collect();
        done.environment = Some(Environment { earlier, ..ended_by });
        if is_held() { stage.finish(done) } else { lost() }
    };
    let worked = work().or_else(|error| {
        if !is_asked_to_end() {
            // Who stood still meanwhile may fail over what another has done: that is no failure of the stage.
            if !is_held() {
                say(error.to_string());
                lost();
            }
            note_failure(&stage, &error.to_string());
            return Err(error);
        }
        say(error.to_string());
        if ranks.size() == 1 {
            std::process::exit(ASKED_TO_END);
        }
        tell(&Line::Farewell { farewell: WAS_ASKED.to_owned() });
        Ok(())
    });
    if lease.is_none() {
        give_up();
    }
    worked
}

/// Takes part in a job of which another rank is the worker: that one has the lease, and keeps what comes of it. Why this rank could
/// not go on is noted, since the others cannot go on without it.
fn follow(store: &Store, stage: &StageDir, plugins: &Plugins, ranks: &Rc<dyn Communicator>) -> Result<()> {
    let work = || {
        let job = stage.job()?;
        multiplies_as_asked(&job)?;
        run(store, &job, plugins, &mut Reporter::silent(), ranks).map(|_| ())
    };
    work().or_else(|error| {
        if is_asked_to_end() {
            return Ok(());
        }
        note_failure(stage, &format!("rank {} of {}: {error}", ranks.rank(), ranks.size()));
        Err(error)
    })
}

/// Does a job. A panic, which a log may not hold and no report would show, is an error like others.
fn run(
    store: &Store,
    job: &Job,
    plugins: &Plugins,
    reporter: &mut Reporter,
    ranks: &Rc<dyn Communicator>,
) -> Result<Done> {
    let work = AssertUnwindSafe(|| stages::run(store, job, plugins, reporter, ranks.clone()));
    catch_unwind(work).unwrap_or_else(|panic| {
        let (said, log) = (panic_text(panic.as_ref()), store.stage(&job.id).log());
        let cause = match said.as_str() {
            "capacity overflow" => {
                ": more memory was asked for than there can be; is a setting (`batch`, `speed`) too large?"
            }
            _ => "",
        };
        Err(Error::Unsupported(format!("the stage panicked: {said}{cause} ({} has the place)", log.display())))
    })
}

/// Whether this process multiplies as a stage asks.
///
/// The precision stands in the stage's id: a result of another one must not get its name. A CPU is as precise as any asks for.
///
/// # Errors
/// It does not.
pub(crate) fn multiplies_as_asked(job: &Job) -> Result<()> {
    let (device, asked) = (rqlab_sdk::tensor::device(), job.stage.precision().name());
    let here = rqlab_sdk::tensor::precision(device);
    if device == Device::Cpu || here == asked {
        return Ok(());
    }
    Err(Error::Unsupported(format!(
        "this process multiplies in {here} on {device}, and the stage asks for {asked}: start it with RQLAB_GPU={asked}"
    )))
}

/// Notes why a stage could not be done: in the store first, where the report looks, and then in the log.
fn note_failure(stage: &StageDir, error: &str) {
    let noted = stage.fail(error);
    say(error);
    if let Err(second) = noted {
        say(second.to_string());
    }
}

/// The most memory that this process has held, in MiB, where the system tells (Linux: VmHWM).
pub fn peak_memory_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}
