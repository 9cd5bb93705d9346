//! Processes of this machine.

use super::{Exit, Launcher, Share, Ticket, Update};
use crate::job::Job;
use crate::jobs::Line;
use crate::jobs::holding::{ASKED_TO_END, LEASE_LOST, WAS_ASKED};
use crate::ranks::Ranks;
use crate::store::Store;
use rqlab_sdk::{Error, Result};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

/// The variable that tells a worker how to multiply on a GPU: as the stage's id says, whatever the user's own is.
const PRECISION: &str = "RQLAB_GPU";

/// Starts `rqlab worker` for each job.
///
/// A worker says how far it is on its standard output, writes its log to a file, and ends when its standard input does, training
/// after a checkpoint: whether this launcher is dropped or its process is killed, the system closes that end, so that no worker
/// is left to write into a store that a later run has opened.
pub struct Local {
    program: PathBuf,
    arguments: Vec<OsString>,
    store: Store,
    ranks: Ranks,
    /// The standard inputs of the workers that run.
    lifelines: BTreeMap<Ticket, ChildStdin>,
    submitted: usize,
    sender: Sender<Update>,
    updates: Receiver<Update>,
}

impl Local {
    /// Workers are started as `program arguments.. --threads N worker --id ID --lease TOKEN --runs DIR`, where the arguments are
    /// what they all get: plugins, device. Several `ranks` of a worker share its threads.
    pub fn new(program: PathBuf, arguments: Vec<OsString>, store: &Store, ranks: Ranks) -> Self {
        let (sender, updates) = mpsc::channel();
        let (store, lifelines) = (store.clone(), BTreeMap::new());
        Self { program, arguments, store, ranks, lifelines, submitted: 0, sender, updates }
    }

    /// What starts the worker of a job with so many threads, up to the arguments that all workers get.
    fn command(&self, job: &Job, threads: usize) -> (Command, usize) {
        if !self.ranks.share(job) {
            return (Command::new(&self.program), threads);
        }
        let (words, variables) = self.ranks.start();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).envs(variables).arg(&self.program);
        command.args(["--ranks", &self.ranks.count.to_string()]);
        // What a terminal sends to all its processes is for the sweep, which lets go of its workers: mpirun would end them at once.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        (command, (threads / self.ranks.count).max(1))
    }
}

impl Launcher for Local {
    fn submit(&mut self, job: &Job, share: &Share, lease: &str) -> Result<Ticket> {
        let log = File::options().create(true).append(true).open(self.store.stage(&job.id).log());
        let (mut command, threads) = self.command(job, share.threads);
        let mut child = command
            .args(&self.arguments)
            .args(["--threads", &threads.to_string(), "worker", "--id", &job.id, "--lease", lease, "--runs"])
            .arg(self.store.root())
            .env(PRECISION, job.stage.precision().name())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A log that cannot be written is no reason not to work.
            .stderr(log.map_or_else(|_| Stdio::null(), Stdio::from))
            .spawn()
            .map_err(Error::file(command.get_program()))?;
        self.submitted += 1;
        let ticket = Ticket(self.submitted.to_string());
        self.lifelines.extend(child.stdin.take().map(|stdin| (ticket.clone(), stdin)));
        let (sender, following) = (self.sender.clone(), ticket.clone());
        thread::spawn(move || follow(child, following, &sender));
        Ok(ticket)
    }

    fn poll(&mut self, wait: Duration) -> Result<Vec<Update>> {
        let first = self.updates.recv_timeout(wait).ok();
        let updates: Vec<Update> = first.into_iter().chain(self.updates.try_iter()).collect();
        for update in &updates {
            if let Update::Ended(ticket, _) = update {
                self.lifelines.remove(ticket);
            }
        }
        Ok(updates)
    }

    fn cancel(&mut self, ticket: &Ticket) -> Result<()> {
        self.lifelines.remove(ticket);
        Ok(())
    }
}

/// Passes on what a worker says, and its end.
fn follow(mut child: Child, ticket: Ticket, sender: &Sender<Update>) {
    let mut farewell = None;
    for line in child.stdout.take().into_iter().flat_map(|out| BufReader::new(out).lines()).map_while(Result::ok) {
        let update = match serde_json::from_str(&line) {
            Ok(Line::Progress(progress)) => Update::Progress(ticket.clone(), progress),
            Ok(Line::Warning { warning }) => Update::Warning(ticket.clone(), warning),
            Ok(Line::Farewell { farewell: said }) => {
                farewell = Some(said);
                continue;
            }
            Err(_) => continue,
        };
        // Nobody may listen any more.
        let _ = sender.send(update);
    }
    let exit = match (exit(child.wait()), farewell) {
        // What started ranks may end otherwise, as when it was itself asked to end.
        (_, Some(why)) => Exit::Interrupted(why),
        (exit, None) => exit,
    };
    let _ = sender.send(Update::Ended(ticket, exit));
}

fn exit(status: std::io::Result<ExitStatus>) -> Exit {
    match status {
        Ok(status) if status.success() => Exit::Success,
        Ok(status) if status.code() == Some(ASKED_TO_END) => Exit::Interrupted(WAS_ASKED.to_owned()),
        Ok(status) if status.code() == Some(LEASE_LOST) => Exit::Interrupted("its lease was broken".to_owned()),
        Ok(status) if signal(&status).is_some_and(|signal| !is_crash(signal)) => Exit::Interrupted(status.to_string()),
        Ok(status) => Exit::Failure(status.to_string()),
        Err(error) => Exit::Failure(format!("an unknown status: {error}")),
    }
}

/// The signal that ended a process, or one of several ranks, which what started them tells as a shell does.
#[cfg(unix)]
fn signal(status: &ExitStatus) -> Option<i32> {
    use std::os::unix::process::ExitStatusExt;
    /// The last signal of Linux.
    const LAST: i32 = 64;
    status
        .signal()
        .or(status.code().and_then(|code| code.checked_sub(128)).filter(|signal| (1..=LAST).contains(signal)))
}

#[cfg(not(unix))]
fn signal(_: &ExitStatus) -> Option<i32> {
    None
}

/// Whether the signal that ended a process is one that comes of what the process itself did: a failed allocation, a fault, a
/// file beyond the limit.
#[cfg(unix)]
fn is_crash(signal: i32) -> bool {
    use libc::{SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP, SIGXCPU, SIGXFSZ};
    const OWN: [i32; 9] = [SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP, SIGXCPU, SIGXFSZ];
    OWN.contains(&signal)
}

#[cfg(not(unix))]
fn is_crash(_: i32) -> bool {
    false
}
