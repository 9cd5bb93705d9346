//! Who holds a lease: processes of a machine.

use crate::machine;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Who holds a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// What tells this lease from every other one.
    pub token: String,
    /// The machine's name.
    pub host: String,
    /// What knows the processes by their numbers: a boot of the machine, and a namespace. None where the system does not tell.
    pub kernel: Option<String>,
    /// Its processes there: the one that took it, and the one that took it over. It is gone when both are.
    pub processes: Vec<Process>,
    /// When the lease was taken, in UTC by the holder's clock. For people.
    pub since: String,
    /// Whether other work on this machine would disturb it, because it measures speed.
    pub exclusive: bool,
}

/// A process of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// When it began, as its system counts: a number is given again.
    pub started: Option<u64>,
}

impl Process {
    pub(super) fn this() -> Self {
        let pid = std::process::id();
        Self { pid, started: machine::process_start(pid) }
    }

    fn is_there(&self) -> bool {
        machine::process_start(self.pid).is_some_and(|start| Some(start) == self.started)
    }
}

impl Holder {
    /// This process.
    pub(super) fn here(token: String, exclusive: bool) -> Self {
        let (host, kernel, since) = (machine::host(), machine::kernel().map(str::to_owned), machine::now());
        Self { token, host, kernel, processes: vec![Process::this()], since, exclusive }
    }

    /// Whether it is on this machine, where its processes can be asked for.
    pub fn is_near(&self) -> bool {
        self.kernel.is_some() && self.kernel.as_deref() == machine::kernel()
    }

    /// Whether one of its processes is there, on this machine.
    pub fn is_there(&self) -> bool {
        self.processes.iter().any(Process::is_there)
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pid = self.processes.last().map_or(0, |process| process.pid);
        write!(f, "{}, process {pid}", self.host)
    }
}
