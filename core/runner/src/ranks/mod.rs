//! One stage on several devices: the ranks that train it, each a process, and how they are started.
//!
//! A launcher starts `mpirun -n N rqlab worker ..` where it would start `rqlab worker ..`. The first rank is the worker: it holds
//! the lease, says how far it is, keeps checkpoints and the result. The others take part in the steps of training. The result is
//! that of one process to rounding, so that the number of ranks is in no id; a stage's origin tells it.

#[cfg(unix)]
mod mpi;

use crate::cluster::Settings;
use crate::experiment::Diagnostic;
use crate::gpu::DeviceChoice;
use crate::job::Job;
use crate::stages::divides;
use rqlab_sdk::Result;
use rqlab_sdk::tensor::Device;
#[cfg(unix)]
use rqlab_sdk::tensor::ranks::on_devices;
use rqlab_sdk::tensor::ranks::{Alone, Communicator};
use std::env;
use std::path::Path;
use std::process::{Command, Stdio};
use std::rc::Rc;

/// Whether what starts ranks will refuse, because this user is root and has not allowed it.
fn refuses_root(program: &str) -> bool {
    let is_allowed =
        ["OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"].iter().all(|name| env::var_os(name).is_some());
    #[cfg(unix)]
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|about| std::os::unix::fs::MetadataExt::uid(&about) == 0);
    #[cfg(not(unix))]
    let is_root = false;
    is_root && !is_allowed && {
        let version = Command::new(program).arg("--version").stdin(Stdio::null()).output();
        version.is_ok_and(|said| String::from_utf8_lossy(&said.stdout).contains("Open MPI"))
    }
}

/// What starts ranks if nothing else is said.
const MPIRUN: &str = "mpirun";

/// What Open MPI is told, and others do not read: ranks have threads, and are not to be bound to a core each; there may be more of
/// them than cores; who waits leaves its core to others, since a rank computes while it waits for sums; and where mpirun itself
/// is asked to end, as by a queue that asks all processes of a task, ranks have 13 s to keep a checkpoint: it waits twice as
/// long, whether or not they have ended, and queues kill after 30 s.
const OPEN_MPI: [(&str, &str); 6] = [
    ("OMPI_MCA_hwloc_base_binding_policy", "none"),
    ("OMPI_MCA_rmaps_base_oversubscribe", "1"),
    ("OMPI_MCA_mpi_yield_when_idle", "1"),
    ("OMPI_MCA_odls_base_sigkill_timeout", "13"),
    ("PRTE_MCA_hwloc_default_binding_policy", "none"),
    ("PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe"),
];

/// How many ranks train a stage together, and what starts them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranks {
    /// How many.
    pub count: usize,
    /// The program that starts them, with its arguments but `-n N`.
    command: Vec<String>,
}

impl Default for Ranks {
    fn default() -> Self {
        Self { count: 1, command: vec![MPIRUN.to_owned()] }
    }
}

impl Ranks {
    /// As many as the command line asks for, or else the user's file.
    ///
    /// # Errors
    /// What is wrong with that file.
    pub fn asked(asked: Option<u16>) -> Result<Self, Diagnostic> {
        let settings = Settings::of_user()?;
        let command: Vec<String> =
            settings.mpirun.as_deref().unwrap_or(MPIRUN).split_whitespace().map(str::to_owned).collect();
        Ok(Self { count: asked.or(settings.ranks).map_or(1, usize::from), command })
    }

    /// That this machine can start them.
    ///
    /// # Errors
    /// It lacks what does.
    pub fn check(&self) -> Result<(), Diagnostic> {
        if self.count == 1 {
            return Ok(());
        }
        let program = self.command.first().map_or(MPIRUN, String::as_str);
        if !is_program(program) {
            return Err(Diagnostic::error(format!(
                "`{program}`, which starts {} ranks, is not on the PATH",
                self.count
            ))
            .help(
                "install an MPI, such as Debian's openmpi-bin, or load its module; `mpirun:` in \
                       ~/.config/rqlab/launcher.ron may say what else starts ranks",
            ));
        }
        if refuses_root(program) {
            let message = format!("`{program}` is Open MPI's, which starts nothing as root");
            return Err(Diagnostic::error(message).help(
                "be another user, or, in a container, set OMPI_ALLOW_RUN_AS_ROOT=1 and OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1",
            ));
        }
        Ok(())
    }

    /// That the batches of some jobs can be cut into ranks.
    ///
    /// # Errors
    /// The first that cannot.
    pub fn divide<'a>(&self, jobs: impl IntoIterator<Item = &'a Job>) -> Result<(), Diagnostic> {
        for job in jobs {
            let Some((batch, parts)) = job.stage.batch() else { continue };
            divides(batch, self.count, parts).map_err(|error| {
                Diagnostic::error(format!("{}: {error}", job.stage.name()))
                    .help("change `batch`, `gradient_accumulation` or `--ranks`")
            })?;
        }
        Ok(())
    }

    /// Whether they share the work of a job.
    pub fn share(&self, job: &Job) -> bool {
        self.count > 1 && job.stage.batch().is_some()
    }

    /// The program with arguments that starts them, and variables that it reads.
    pub fn start(&self) -> (Vec<String>, [(&'static str, &'static str); 6]) {
        ([self.command.clone(), vec!["-n".to_owned(), self.count.to_string()]].concat(), OPEN_MPI)
    }
}

/// Whether a program can be started under its name.
fn is_program(name: &str) -> bool {
    if name.contains('/') {
        return Path::new(name).is_file();
    }
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|folder| folder.join(name).is_file()))
}

/// Joins the other ranks of this process, of which there are `count` with it.
///
/// # Errors
/// This process was not started as one of so many; the library of the MPI is not found.
pub fn connect(count: usize) -> Result<Rc<dyn Communicator>> {
    if count == 1 {
        return Ok(Rc::new(Alone));
    }
    #[cfg(unix)]
    return Ok(on_devices(mpi::connect(count)?)?);
    #[cfg(not(unix))]
    Err(rqlab_sdk::Error::Unsupported("several ranks need MPI, which is looked for on Unix alone".to_owned()))
}

/// The device of this process among several of a machine: each has a GPU of its own, from the one that is asked for on.
pub fn device(asked: DeviceChoice) -> DeviceChoice {
    const VARIABLES: [&str; 3] = ["OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID"];
    let place = VARIABLES.iter().find_map(|name| env::var(name).ok()?.parse::<usize>().ok()).unwrap_or(0);
    match asked {
        DeviceChoice::Named(Device::Cuda(first)) => DeviceChoice::Named(Device::Cuda(first + place)),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn several_ranks_need_what_starts_them() {
        assert!(Ranks::default().check().is_ok());
        let ranks = Ranks { count: 2, command: vec!["no-such-mpirun".to_owned()] };
        let said = ranks.check().unwrap_err().message;
        assert!(said.contains("`no-such-mpirun`, which starts 2 ranks, is not on the PATH"), "{said}");
        assert!(is_program("sh") && is_program("/bin/sh") && !is_program("/bin/no-such-program"));
        assert_eq!(ranks.start().0, ["no-such-mpirun", "-n", "2"]);
    }
}
