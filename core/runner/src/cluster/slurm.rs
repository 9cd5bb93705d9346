//! Slurm, by its commands: what is submitted, who is alive, what is cancelled.

use rqlab_sdk::{Error, Result};
use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

/// How often a command is tried whose answer says that the controller did not hear it.
const ATTEMPTS: usize = 5;
/// How long is waited in between: a controller that is started again needs seconds.
const PAUSE: Duration = Duration::from_secs(3);
/// Indices of an array, if the cluster does not say.
const ARRAY: usize = 1001;

/// States of tasks that have ended.
const ENDED: [&str; 10] = [
    "COMPLETED",
    "CANCELLED",
    "FAILED",
    "TIMEOUT",
    "NODE_FAIL",
    "PREEMPTED",
    "BOOT_FAIL",
    "DEADLINE",
    "OUT_OF_MEMORY",
    "REVOKED",
];

/// A task of an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// The array's job.
    pub job: String,
    /// `PENDING`, `RUNNING`, ..
    pub state: String,
    /// Why it is not running.
    pub reason: String,
}

/// The commands of Slurm, looked up by the variable PATH.
#[derive(Debug, Clone, Copy, Default)]
pub struct Slurm;

impl Slurm {
    /// Submits an array of `tasks` that run `script`, and gives its job's id.
    ///
    /// # Errors
    /// What sbatch says.
    pub fn submit(self, script: &str, options: &[OsString], tasks: usize) -> Result<String> {
        let array = format!("--array=0-{}", tasks.max(1) - 1);
        let out = run("sbatch", &[&["--parsable".into(), array.into()], options].concat(), script)?;
        // `12` or `12;cluster`
        let id = out.trim().split(';').next().unwrap_or_default().to_owned();
        if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Error::Data(format!("sbatch names no job: {}", out.trim())));
        }
        Ok(id)
    }

    /// How many tasks an array may have.
    pub fn largest_array(self) -> usize {
        let text = run("scontrol", &["show".into(), "config".into()], "").unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("MaxArraySize"));
        let size = line.and_then(|rest| rest.trim_start_matches([' ', '=']).trim().parse().ok());
        size.filter(|&size: &usize| size > 0).unwrap_or(ARRAY)
    }

    /// The tasks of some jobs that have not ended.
    ///
    /// # Errors
    /// The controller does not answer.
    pub fn alive(self, jobs: &[String]) -> Result<Vec<Task>> {
        Ok(self.known(jobs)?.into_iter().filter(|task| !ENDED.contains(&task.state.as_str())).collect())
    }

    /// Whether the last of some jobs was cancelled, as far as that is remembered.
    ///
    /// # Errors
    /// The controller does not answer.
    pub fn was_cancelled(self, jobs: &[String]) -> Result<bool> {
        let last = jobs.last().map(std::slice::from_ref).unwrap_or_default();
        Ok(self.known(last)?.iter().any(|task| task.state == "CANCELLED"))
    }

    /// The tasks of some jobs, and of those that ended a short time ago, too.
    fn known(self, jobs: &[String]) -> Result<Vec<Task>> {
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        let arguments = ["-h", "-r", "-t", "all", "-o", "%F|%T|%r", "-j"].map(OsString::from);
        let out = match run("squeue", &[&arguments[..], &[jobs.join(",").into()]].concat(), "") {
            Ok(out) => out,
            // Of jobs that ended some minutes ago it knows nothing.
            Err(error) if error.to_string().contains("Invalid job id") => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        Ok(out.lines().filter_map(task).filter(|task| jobs.contains(&task.job)).collect())
    }

    /// Cancels jobs.
    ///
    /// # Errors
    /// What scancel says.
    pub fn cancel(self, jobs: &[String]) -> Result<()> {
        run("scancel", &jobs.iter().map(OsString::from).collect::<Vec<_>>(), "").map(drop)
    }

    /// Puts a task of an array, such as `12_3`, back into the queue. Slurm ends it at once.
    ///
    /// # Errors
    /// What scontrol says.
    pub fn requeue(self, task: &str) -> Result<()> {
        run("scontrol", &["requeue".into(), task.into()], "").map(drop)
    }

    /// Whether its commands are here.
    ///
    /// # Errors
    /// They are not.
    pub fn check(self) -> Result<()> {
        let found = Command::new("sbatch").arg("--version").stdin(Stdio::null()).output();
        match found {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(Error::Data(format!("sbatch does not work here: {}", words(&output)))),
            Err(error) => Err(Error::Data(format!(
                "sbatch cannot be started ({error}): --launcher slurm works on the login node of a Slurm cluster; without \
                 it, jobs run on this machine"
            ))),
        }
    }
}

fn task(line: &str) -> Option<Task> {
    let mut fields = line.trim().splitn(3, '|').map(str::to_owned);
    Some(Task { job: fields.next()?, state: fields.next()?, reason: fields.next().unwrap_or_default() })
}

/// What a command prints. One whose words say that the controller was not reached is tried again.
///
/// # Errors
/// What it says on standard error.
fn run(program: &str, arguments: &[OsString], input: &str) -> Result<String> {
    for attempt in 1.. {
        let output = start(program, arguments, input).map_err(Error::file(program))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = words(&output);
        let unheard =
            ["Unable to contact slurm controller", "timed out", "Connection refused", "Job can not be altered now"];
        if attempt >= ATTEMPTS || !unheard.iter().any(|words| said.contains(words)) {
            return Err(Error::Data(format!("{program} failed: {said}{}", help(&said))));
        }
        thread::sleep(PAUSE);
    }
    Ok(String::new())
}

fn start(program: &str, arguments: &[OsString], input: &str) -> std::io::Result<Output> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // Who does not read it says why.
        let _ = stdin.write_all(input.as_bytes());
    }
    child.wait_with_output()
}

fn words(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let said = lines.collect::<Vec<_>>().join("; ");
    if said.is_empty() { output.status.to_string() } else { said }
}

/// What to do about what a command said.
fn help(said: &str) -> String {
    let lower = said.to_lowercase();
    if lower.contains("partition") {
        let out = start("sinfo", &["-h".into(), "-o".into(), "%R".into()], "").ok();
        let text = out.map(|out| String::from_utf8_lossy(&out.stdout).into_owned()).unwrap_or_default();
        let names: Vec<&str> = text.split_whitespace().collect();
        return if names.is_empty() {
            String::new()
        } else {
            format!("; there are the partitions {}", names.join(", "))
        };
    }
    if lower.contains("account") {
        return "; `sacctmgr show associations user=$USER` lists your accounts, --account names one".to_owned();
    }
    String::new()
}

/// A path as `--output` takes it, where `%` begins a pattern.
pub(super) fn without_patterns(path: &Path) -> OsString {
    path.display().to_string().replace('%', "%%").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_squeue_are_read() {
        let of = |state: &str, reason: &str| Task {
            job: "12".to_owned(),
            state: state.to_owned(),
            reason: reason.to_owned(),
        };
        assert_eq!(task("12|RUNNING|None\n"), Some(of("RUNNING", "None")));
        assert_eq!(task("12|PENDING|Resources"), Some(of("PENDING", "Resources")));
        assert_eq!(task(""), None);
    }
}
