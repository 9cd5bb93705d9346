//! The processes that measure: ours, and the peers' that ours is set beside.

use crate::compare::{self, same_workload};
use crate::{PeerRun, Row, Sampling, Task, Workload};
use rqlab_sdk::tensor::{Device, precision};
use rqlab_sdk::{Error, Result};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// Starts this program anew, with the same plugins and device.
#[derive(Debug, Clone)]
pub struct Children {
    /// Further folders of plugins.
    pub plugins: Vec<PathBuf>,
    /// Device to compute on.
    pub device: String,
}

impl Children {
    /// Times a workload in a process of its own with `threads` threads.
    ///
    /// # Errors
    /// A process that fails.
    pub fn measure(&self, name: &str, workload: &Workload, sampling: Sampling, threads: usize) -> Result<Row> {
        self.run(&Task::Measure { name: name.to_owned(), workload: workload.clone(), sampling }, threads)
    }

    /// Writes the image files that a workload reads, if it reads some, to a temporary folder.
    ///
    /// # Errors
    /// A process that fails, a folder that cannot be made.
    pub fn files(&self, workload: &Workload, threads: usize) -> Result<Option<TempDir>> {
        let Workload::Batch { images, .. } = workload else { return Ok(None) };
        let folder = tempfile::tempdir().map_err(Error::file("a temporary folder"))?;
        let () = self.run(&Task::Write { images: images.clone(), folder: folder.path().to_owned() }, threads)?;
        Ok(Some(folder))
    }

    /// Billions of operations per second that `threads` threads can do at most; unknown of a GPU.
    ///
    /// # Errors
    /// A process that fails.
    pub fn peak_gflops(&self, threads: usize) -> Result<Option<f64>> {
        if self.device != Device::Cpu.to_string() {
            return Ok(None);
        }
        Ok(Some(self.run::<f64>(&Task::Peak, threads)? / 1e9))
    }

    fn run<T: DeserializeOwned>(&self, task: &Task, threads: usize) -> Result<T> {
        let program = std::env::current_exe().map_err(Error::file("rqlab-bench"))?;
        let mut command = Command::new(&program);
        for folder in &self.plugins {
            command.arg("--plugins").arg(folder);
        }
        let task = serde_json::to_string(task).map_err(|e| Error::Data(e.to_string()))?;
        let output = command
            .args(["--threads", &threads.to_string(), "--device", &self.device, "--task", &task])
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .map_err(Error::file(&program))?;
        serde_json::from_slice(&output.stdout)
            .map_err(|_| Error::Data(format!("a process that was to do {task} ended with {}", output.status)))
    }
}

/// Other implementations: folders with `bench.py`, and the python that has what they need.
#[derive(Debug, Clone)]
pub struct Peers {
    python: PathBuf,
    /// Each program, with the names of its workloads.
    programs: Vec<(PathBuf, Vec<String>)>,
    run: PeerRun,
    /// Why they do not say what they are.
    unnamed: Option<String>,
    /// Where they compute, in which precision, with how many threads, and how long, as their programs take it.
    options: Vec<String>,
    threads: usize,
}

impl Peers {
    /// The peers in folders, which compute where we do, with as many threads, and multiply numbers of the precision that
    /// we multiply. Each workload is to be timed for so many seconds.
    ///
    /// # Errors
    /// A folder without them, a python that cannot run their program.
    pub fn open(python: &Path, folders: &[PathBuf], device: Device, threads: usize, seconds: f64) -> Result<Self> {
        let mut options: Vec<String> = match (device, precision(device)) {
            (Device::Cpu, _) => vec!["--device", "cpu"],
            (_, "tf32") => vec!["--device", "cuda", "--channels-last", "--tf32"],
            (_, "bf16") => vec!["--device", "cuda", "--channels-last", "--dtype", "bf16"],
            _ => vec!["--device", "cuda", "--channels-last"],
        }
        .into_iter()
        .map(str::to_owned)
        .collect();
        options.extend(["--threads".to_owned(), threads.to_string(), "--seconds".to_owned(), seconds.to_string()]);
        let mut peers = Self {
            python: python.to_owned(),
            programs: Vec::new(),
            run: PeerRun::unnamed(),
            unnamed: None,
            options,
            threads,
        };
        for folder in folders {
            peers.add(folder)?;
        }
        Ok(peers)
    }

    /// Adds the peers of a folder.
    fn add(&mut self, folder: &Path) -> Result<()> {
        let script = folder.join("bench.py");
        if !script.is_file() {
            return Err(Error::Data(format!(
                "{} is not there; name the folder that holds the peers' bench.py",
                script.display()
            )));
        }
        let ask = |arguments: &[&OsStr]| {
            let output = Command::new(&self.python)
                .arg(&script)
                .args(&self.options)
                .args(arguments)
                .output()
                .map_err(Error::file(&self.python))?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr);
                return Err(Error::Data(format!("{} cannot run {}: {said}", self.python.display(), script.display())));
            }
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let names = ask(&["--list".as_ref()])?.lines().map(str::to_owned).collect();
        // A run over no workloads is what their program says of itself.
        let place = tempfile::tempdir().map_err(Error::file("a temporary folder"))?;
        let file = place.path().join("run.json");
        let run = ask(&["--only".as_ref(), NO_WORKLOAD.as_ref(), "--json".as_ref(), file.as_ref()]).and_then(|_| {
            compare::read(&file)?.1.pop().ok_or_else(|| Error::Data("it wrote a file without a run".into()))
        });
        match run {
            Ok(run) => self.run.describe(run),
            // A package that their program lacks, and asks the version of, keeps no other peer from being timed.
            Err(error) => self.unnamed = Some(last_line(error.to_string().as_bytes())),
        }
        self.programs.push((script, names));
        Ok(())
    }

    /// Why the peers' program does not say what it and its machine are, if it fails where it should.
    pub fn unnamed(&self) -> Option<&str> {
        self.unnamed.as_deref()
    }

    /// Times every peer of our workload `name`, each in a process of its own, over the image files in `folder` if it reads
    /// some. Returns the rows that hold figures, and the names of those that failed or declined.
    ///
    /// # Errors
    /// A process that cannot be started.
    pub fn measure(&mut self, name: &str, folder: Option<&Path>) -> Result<(Vec<Row>, Vec<String>)> {
        let (mut rows, mut skipped) = (Vec::new(), Vec::new());
        let peers = self.programs.iter().flat_map(|(script, names)| names.iter().map(move |peer| (script, peer)));
        let peers: Vec<_> = peers.filter(|(_, peer)| same_workload(name, peer)).collect();
        for (script, name) in peers {
            let mut command = Command::new(&self.python);
            for variable in ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"] {
                command.env(variable, self.threads.to_string());
            }
            command.arg(script).args(&self.options).args(["--one", name]);
            if let Some(folder) = folder {
                command.arg("--images").arg(folder);
            }
            let output = command.stdin(Stdio::null()).output().map_err(Error::file(&self.python))?;
            let said = String::from_utf8_lossy(&output.stdout);
            let row = said.lines().find_map(|line| serde_json::from_str::<Value>(line.strip_prefix("ROW ")?).ok());
            let failed = || json!({ "name": name, "skipped": format!("failed: {}", last_line(&output.stderr)) });
            let row = row.unwrap_or_else(failed);
            match serde_json::from_value(row.clone()) {
                Ok(figures) => rows.push(figures),
                Err(_) => skipped.push(format!("{name}: {}", row["skipped"].as_str().unwrap_or("no figures"))),
            }
            self.run.push(row);
        }
        Ok((rows, skipped))
    }

    /// All that they did and said of themselves.
    pub fn into_run(self) -> PeerRun {
        self.run
    }
}

/// What no workload's name begins with.
const NO_WORKLOAD: &str = "(none)";

/// The last line of what a program said: of a Python that failed, the error.
fn last_line(text: &[u8]) -> String {
    String::from_utf8_lossy(text).trim_end().lines().next_back().unwrap_or_default().to_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first failure")]
mod tests {
    use super::*;

    /// The program is one of a shell here: it knows a workload, and fails when asked what it is and when it should time.
    #[test]
    #[cfg(unix)]
    fn peers_that_lack_a_package_are_skipped_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let program =
            "case \"$*\" in\n*--list*) echo gelu_1m ;;\n*) echo \"no package named some\" >&2; exit 1 ;;\nesac\n";
        std::fs::write(folder.path().join("bench.py"), program).unwrap();
        let mut peers = Peers::open(Path::new("sh"), &[folder.path().to_owned()], Device::Cpu, 1, 0.1).unwrap();
        assert!(peers.unnamed().is_some_and(|why| why.contains("no package")), "{:?}", peers.unnamed());
        let (rows, skipped) = peers.measure("gelu_1m", None).unwrap();
        assert!(rows.is_empty());
        assert!(matches!(&skipped[..], [one] if one.starts_with("gelu_1m: failed: no package")), "{skipped:?}");
        assert_eq!(peers.into_run().rows(), []);
    }

    /// Two programs of a shell: the second is given the image files.
    #[test]
    #[cfg(unix)]
    fn each_workload_is_timed_where_it_is_known() {
        let program = |name: &str, folder: &Path| {
            let row = format!(r#"{{"name": "{name}", "skipped": "'"$*"'"}}"#);
            let text = format!(
                "for last; do :; done\ncase \"$*\" in\n*--list*) echo {name} ;;\n*--only*) echo \
                 '{{\"runs\": [{{\"versions\": {{\"{name}\": \"1\"}}, \"rows\": []}}]}}' > \"$last\" ;;\n*) echo 'ROW {row}' ;;\nesac\n"
            );
            std::fs::write(folder.join("bench.py"), text).unwrap();
        };
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        program("gelu_1m", first.path());
        program("data_jpeg_64", second.path());
        let folders = [first.path().to_owned(), second.path().to_owned()];
        let mut peers = Peers::open(Path::new("sh"), &folders, Device::Cpu, 1, 0.1).unwrap();
        assert_eq!(peers.unnamed(), None);
        let (_, skipped) = peers.measure("gelu_1m", None).unwrap();
        assert!(matches!(&skipped[..], [one] if one.ends_with("--one gelu_1m")), "{skipped:?}");
        let (_, skipped) = peers.measure("data_jpeg_64", Some(Path::new("there"))).unwrap();
        assert!(matches!(&skipped[..], [one] if one.ends_with("--one data_jpeg_64 --images there")), "{skipped:?}");
        let run = serde_json::to_value(peers.into_run()).unwrap();
        assert_eq!(run["versions"], json!({ "gelu_1m": "1", "data_jpeg_64": "1" }));
        assert_eq!(run["rows"].as_array().map(Vec::len), Some(2));
    }
}
