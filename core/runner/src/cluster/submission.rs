//! A plan that was written durably, and what was submitted for it: `RUNS/plans/ID`.
//!
//! ```text
//! plan.json     the jobs, and how a worker is started: written before anything is submitted
//! jobs.jsonl    the arrays that were submitted, a line each
//! crew/TASK     a member signed in: it found the folder, the program and the plugins; or could not work, and why
//! log/TASK.txt  what a member said; TASK.jsonl: what happened, as in RUNS/events.jsonl
//! cancelled.json  it was cancelled since
//! ```
//!
//! The id is a digest of the jobs' ids: the same sweep finds its plan again, whoever asks.

use super::settings::{GRACE, Settings};
use super::slurm::{Slurm, without_patterns};
use crate::id::Id;
use crate::identity::digest;
use crate::job::Job;
use crate::machine;
use crate::plan::Plan;
use crate::store::{FORMAT, Found, Lease, Store, read_json, write_json};
use crate::ui::quoted;
use rqlab_sdk::{Error, Result, files};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Longest list of arrays that is read, in bytes.
const LONGEST: u64 = 1 << 24;

/// What the name of a lease begins with that is not a stage's, but that of whoever submits for a plan.
pub const PLAN: &str = "plan-";
const CREW: &str = "crew";
const LOG: &str = "log";
const CANCELLED: &str = "cancelled.json";

/// What the members of a crew need to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlanFile {
    /// Format of the jobs' descriptions.
    pub format: u32,
    /// The experiment's name.
    pub experiment: String,
    /// Whose each job is, in words.
    pub owners: HashMap<Id, String>,
    /// The jobs, in an order in which they can run.
    pub jobs: Vec<Job>,
}

impl PlanFile {
    /// That of a plan.
    pub fn of(plan: &Plan) -> Self {
        let (experiment, owners) = (plan.experiment.name.clone(), plan.owners());
        Self { format: FORMAT, experiment, owners, jobs: plan.jobs.clone() }
    }
}

/// An array that was submitted.
#[derive(Debug, Serialize, Deserialize)]
struct Submitted {
    job: String,
    tasks: usize,
    when: String,
}

/// How a member of the crew fares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SignIn {
    /// Its machine.
    pub host: String,
    /// Why it cannot work there, or on some jobs.
    pub trouble: Option<String>,
}

/// A plan in a folder of runs.
#[derive(Debug, Clone)]
pub struct Submission {
    id: String,
    folder: PathBuf,
    runs: PathBuf,
}

impl Submission {
    /// That of some jobs, whether it was submitted or not.
    ///
    /// # Errors
    /// The folder of runs has no absolute path.
    pub fn of(store: &Store, jobs: &[Job]) -> Result<Self> {
        let ids: Vec<&str> = jobs.iter().map(|job| job.id.as_str()).collect();
        let id = digest(&ids)[..16].to_owned();
        let runs = std::path::absolute(store.root()).map_err(Error::file(store.root()))?;
        Ok(Self { folder: runs.join("plans").join(&id), id, runs })
    }

    /// That of a folder, such as a member of the crew is told.
    pub fn at(folder: &Path, runs: &Path) -> Self {
        let id = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self { id, folder: folder.to_owned(), runs: runs.to_owned() }
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Takes the right to submit for it; none if another process has it.
    ///
    /// # Errors
    /// As for a stage's lease.
    pub fn take(&self, store: &Store) -> Result<Option<Lease>> {
        store.leases().take(&self.lease(), false)
    }

    /// Who has that right.
    ///
    /// # Errors
    /// As for a stage's lease.
    pub fn submitter(&self, store: &Store) -> Result<Option<Found>> {
        store.leases().find(&self.lease())
    }

    fn lease(&self) -> String {
        format!("{PLAN}{}", self.id)
    }

    /// Writes the plan, and takes back that it was cancelled.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn write(&self, plan: &PlanFile) -> Result<()> {
        for folder in [CREW, LOG].map(|name| self.folder.join(name)) {
            fs::create_dir_all(&folder).map_err(Error::file(&folder))?;
        }
        let _ = fs::remove_file(self.folder.join(CANCELLED));
        write_json(&self.folder.join("plan.json"), plan)
    }

    /// Cancels all its workers, and has who watches over them not submit others. Says how many there were.
    ///
    /// # Errors
    /// The queue does not hear it.
    pub fn cancel(&self, slurm: Slurm) -> Result<usize> {
        let arrays = self.arrays()?;
        if arrays.is_empty() {
            return Ok(0);
        }
        write_json(&self.folder.join(CANCELLED), &machine::now())?;
        let alive = slurm.alive(&arrays)?;
        let mut jobs: Vec<String> = alive.iter().map(|task| task.job.clone()).collect();
        jobs.dedup();
        if !jobs.is_empty() {
            slurm.cancel(&jobs)?;
        }
        Ok(alive.len())
    }

    /// Whether it was cancelled since its workers were submitted.
    pub fn is_cancelled(&self) -> bool {
        self.folder.join(CANCELLED).exists()
    }

    /// The plan.
    ///
    /// # Errors
    /// It cannot be read, or is of another version.
    pub fn read(&self) -> Result<PlanFile> {
        let path = self.folder.join("plan.json");
        let plan: PlanFile = read_json(&path)?;
        if plan.format == FORMAT {
            return Ok(plan);
        }
        Err(Error::Data(format!("{} was written by another version of rqlab: sweep again", path.display())))
    }

    /// Submits `tasks` more members, in as many arrays as the cluster's limit asks for.
    ///
    /// # Errors
    /// The queue does not take them.
    pub fn submit(&self, slurm: Slurm, settings: &Settings, worker: &[OsString], tasks: usize) -> Result<()> {
        let (script, options) = (self.script(settings, worker)?, self.options(settings));
        let largest = slurm.largest_array();
        let mut left = tasks;
        while left > 0 {
            let now = left.min(largest);
            let job = slurm.submit(&script, &options, now)?;
            self.note(&Submitted { job, tasks: now, when: machine::now() })?;
            left -= now;
        }
        Ok(())
    }

    fn note(&self, submitted: &Submitted) -> Result<()> {
        let path = self.folder.join("jobs.jsonl");
        let append = || {
            let line = serde_json::to_string(submitted)?;
            let mut file = File::options().create(true).append(true).open(&path)?;
            file.write_all(format!("{line}\n").as_bytes())?;
            file.sync_all()
        };
        append().map_err(Error::file(&path))
    }

    /// The jobs of all arrays that were submitted.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn arrays(&self) -> Result<Vec<String>> {
        let path = self.folder.join("jobs.jsonl");
        let text = match files::read(&path, LONGEST) {
            Err(Error::File { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            text => text?,
        };
        let lines = text.split(|&byte| byte == b'\n');
        Ok(lines.filter_map(|line| serde_json::from_slice::<Submitted>(line).ok()).map(|array| array.job).collect())
    }

    /// Signs a member in.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn sign_in(&self, task: &str, trouble: Option<String>) -> Result<()> {
        write_json(&self.folder.join(CREW).join(task), &SignIn { host: machine::host(), trouble })
    }

    /// The members of the last array that signed in.
    fn signed_in(&self) -> Result<Vec<SignIn>> {
        let Some(last) = self.arrays()?.pop() else { return Ok(Vec::new()) };
        let entries = fs::read_dir(self.folder.join(CREW)).into_iter().flatten().flatten();
        let own = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&format!("{last}_")));
        Ok(own.filter_map(|entry| read_json(&entry.path()).ok()).collect())
    }

    /// Why members cannot work, each reason once, with the machines that have it.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn troubles(&self) -> Result<Vec<String>> {
        let mut machines: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for SignIn { host, trouble } in self.signed_in()? {
            if let Some(trouble) = trouble {
                machines.entry(trouble).or_default().insert(host);
            }
        }
        let named = |(trouble, hosts): (String, BTreeSet<String>)| {
            format!("{}: {trouble}", hosts.into_iter().collect::<Vec<_>>().join(", "))
        };
        Ok(machines.into_iter().map(named).collect())
    }

    /// Why all workers may have ended before the work did.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn why_they_ended(&self) -> Result<String> {
        if self.signed_in()?.is_empty() {
            return Ok(format!(
                "none of them found {}: name a folder with --runs that the nodes see under the same path, and see to it that \
                 they find this very rqlab",
                self.folder.display()
            ));
        }
        let troubles = self.troubles()?;
        Ok(if troubles.is_empty() {
            format!("their last words are in {}; the same command submits others", self.logs().display())
        } else {
            troubles.join("; ")
        })
    }

    /// The folder of what members say.
    pub fn logs(&self) -> PathBuf {
        self.folder.join(LOG)
    }

    /// What a task runs. `exec` has Slurm's signals reach the program itself.
    fn script(&self, settings: &Settings, worker: &[OsString]) -> Result<String> {
        let text = |word: &OsString| {
            word.to_str()
                .map(quoted)
                .ok_or_else(|| Error::Data(format!("{} is no text: a batch script cannot hold it", word.display())))
        };
        let mut own: Vec<OsString> = vec!["crew".into(), (&self.folder).into(), "--runs".into(), (&self.runs).into()];
        if let Some(jobs) = settings.jobs {
            own.extend(["--jobs".into(), jobs.to_string().into()]);
        }
        let words = worker.iter().chain(&own).map(text).collect::<Result<Vec<_>>>()?;
        let lines = settings.sbatch.iter().map(|line| format!("#SBATCH {line}")).chain(settings.setup.iter().cloned());
        let lines: String = lines.map(|line| format!("{line}\n")).collect();
        Ok(format!("#!/bin/sh\n{lines}exec {}\n", words.join(" ")))
    }

    fn options(&self, settings: &Settings) -> Vec<OsString> {
        let mut options: Vec<OsString> = vec![
            format!("--job-name=rqlab-{}", self.id).into(),
            "--requeue".into(),
            "--open-mode=append".into(),
            format!("--signal=B:USR2@{GRACE}").into(),
            "--output".into(),
            without_patterns(&self.folder)
                .into_string()
                .map_or_else(|path| path, |path| format!("{path}/log/%A_%a.txt").into()),
        ];
        let said = [
            ("partition", settings.partition.clone()),
            ("time", settings.time.clone()),
            ("gpus", settings.gpus.clone()),
            ("cpus-per-task", settings.cpus.map(|cpus| cpus.to_string())),
            ("mem", settings.mem.clone()),
            ("account", settings.account.clone()),
        ];
        options.extend(said.into_iter().filter_map(|(name, value)| Some(format!("--{name}={}", value?).into())));
        options
    }
}
