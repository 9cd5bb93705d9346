//! A Slurm of one machine, for tests: controller, node and authentication, from Debian's packages.
//!
//! The packages are those that are installed, or those that `apt-get download` gets, extracted beside the build. Where there are
//! none, [`Slurm::start`] says so, and the test that asks has nothing to run on.

use std::fs;
use std::io::{Error, Result};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What is extracted.
const PACKAGES: [&str; 7] =
    ["slurmctld", "slurmd", "slurm-client", "slurm-wlm-basic-plugins", "munge", "libmunge2", "libhwloc15"];
/// Where its libraries lie.
const LIBRARIES: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu/slurm-wlm"];
/// How long it may take until it answers.
const PATIENCE: Duration = Duration::from_secs(60);

/// A Slurm that runs; ended when dropped.
pub struct Slurm {
    root: PathBuf,
    folder: TempDir,
}

impl Slurm {
    /// Starts one with four processors and the partitions `work` and `urgent`, the latter of which preempts.
    ///
    /// # Errors
    /// Why there is none.
    pub fn start() -> Result<Self> {
        let slurm = Self { root: extracted()?, folder: tempfile::tempdir()? };
        for name in ["state", "spool", "log"] {
            fs::create_dir(slurm.path(name))?;
        }
        fs::write(slurm.path("munge.key"), [7; 1024])?;
        slurm.sh("chmod 600 munge.key && chmod 755 .")?;
        fs::write(slurm.path("slurm.conf"), slurm.configuration()?)?;
        slurm
            .sh("$ROOT/usr/sbin/munged --force --num-threads=2 --key-file=$PWD/munge.key --socket=$PWD/munge.sock \
             --pid-file=$PWD/munged.pid --log-file=$PWD/log/munged --seed-file=$PWD/munge.seed")?;
        slurm.start_controller()?;
        slurm.start_node()?;
        let since = Instant::now();
        while !slurm.said("sinfo", &["-h", "-o", "%T"])?.contains("idle") {
            if since.elapsed() > PATIENCE {
                return Err(Error::other("Slurm does not answer"));
            }
            sleep(Duration::from_millis(100));
        }
        Ok(slurm)
    }

    /// Starts the controller.
    ///
    /// # Errors
    /// What it says.
    pub fn start_controller(&self) -> Result<()> {
        self.sh("$ROOT/usr/sbin/slurmctld-wlm -f $PWD/slurm.conf")
    }

    /// Starts the node.
    ///
    /// # Errors
    /// What it says.
    pub fn start_node(&self) -> Result<()> {
        self.sh("$ROOT/usr/sbin/slurmd-wlm -N localhost -f $PWD/slurm.conf -d $ROOT/usr/sbin/slurmstepd-wlm")
    }

    /// Kills the controller, or the node with all that it runs.
    ///
    /// # Errors
    /// There is no shell.
    pub fn kill(&self, what: &str) -> Result<()> {
        // Steps are no children of the node's daemon: those that belong to this one know its folder.
        self.sh(&format!("kill -9 $(cat {what}.pid); rm -f {what}.pid"))
    }

    /// What a command of Slurm's prints.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn said(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(self.root.join("usr/bin").join(program));
        let output = self.prepare(command.args(arguments)).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
    }

    /// Has a command find this Slurm.
    pub fn prepare<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let libraries = LIBRARIES.map(|name| self.root.join(name).display().to_string()).join(":");
        command
            .env("PATH", format!("{}:{path}", self.root.join("usr/bin").display()))
            .env("SLURM_CONF", self.path("slurm.conf"))
            .env("LD_LIBRARY_PATH", libraries)
            .env("ROOT", &self.root)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn sh(&self, script: &str) -> Result<()> {
        let mut command = Command::new("sh");
        command.args(["-c", script]).current_dir(self.folder.path()).stdin(Stdio::null());
        // A daemon keeps what it is given.
        let status = self.prepare(&mut command).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        if status.success() { Ok(()) } else { Err(Error::other(format!("{script}: {status}"))) }
    }

    fn configuration(&self) -> Result<String> {
        let user = String::from_utf8_lossy(&Command::new("id").arg("-un").output()?.stdout).trim().to_owned();
        let [controller, node] = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
        let (controller, node) = (controller.local_addr()?.port(), node.local_addr()?.port());
        let (here, plugins) = (self.folder.path().display(), self.root.join(LIBRARIES[1]));
        Ok(format!(
            "ClusterName=one\nSlurmctldHost=localhost(127.0.0.1)\nSlurmctldPort={controller}\nSlurmdPort={node}\n\
             AuthType=auth/munge\nCryptoType=crypto/munge\nAuthInfo=socket={here}/munge.sock\nPluginDir={}\n\
             SlurmUser={user}\nSlurmdUser={user}\nStateSaveLocation={here}/state\nSlurmdSpoolDir={here}/spool\n\
             SlurmctldPidFile={here}/slurmctld.pid\nSlurmdPidFile={here}/slurmd.pid\n\
             SlurmctldLogFile={here}/log/slurmctld\nSlurmdLogFile={here}/log/slurmd\n\
             ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nSelectType=select/cons_tres\n\
             SelectTypeParameters=CR_Core\nMpiDefault=none\nJobAcctGatherType=jobacct_gather/none\n\
             AccountingStorageType=accounting_storage/none\nSlurmdParameters=config_overrides\nReturnToService=2\n\
             SlurmdTimeout=10\nPreemptType=preempt/partition_prio\nPreemptMode=REQUEUE\nSchedulerParameters=sched_interval=2\n\
             NodeName=localhost NodeAddr=127.0.0.1 CPUs=4 RealMemory=8000 State=UNKNOWN\n\
             PartitionName=work Nodes=localhost Default=YES MaxTime=INFINITE State=UP PriorityTier=1\n\
             PartitionName=urgent Nodes=localhost MaxTime=INFINITE State=UP PriorityTier=10\n",
            plugins.display()
        ))
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        let _ = self.said("scancel", &["--me"]);
        for daemon in ["slurmctld", "slurmd", "munged"] {
            let _ = self.sh(&format!("kill $(cat {daemon}.pid)"));
        }
    }
}

/// The folder of the extracted packages.
fn extracted() -> Result<PathBuf> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    if Path::new("/usr/sbin/slurmctld-wlm").is_file() && Path::new("/usr/sbin/slurmd-wlm").is_file() {
        return Ok(PathBuf::from("/"));
    }
    let own = std::env::current_exe()?;
    let root = own.ancestors().nth(3).unwrap_or(Path::new(".")).join("slurm");
    if root.join("usr/sbin/slurmd-wlm").is_file() {
        return Ok(root);
    }
    let beside = tempfile::tempdir()?;
    let script = format!(
        "apt-get download {} && mkdir root && for package in *.deb; do dpkg-deb -x $package root || exit 1; done",
        PACKAGES.join(" ")
    );
    let output = Command::new("sh").args(["-c", &script]).current_dir(beside.path()).stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Error::other(format!("Debian's packages of Slurm cannot be had: {}", said.trim())));
    }
    let moved = Command::new("cp").arg("-a").args([beside.path().join("root"), root.clone()]).status()?;
    if moved.success() { Ok(root) } else { Err(Error::other(format!("{} cannot be made", root.display()))) }
}
