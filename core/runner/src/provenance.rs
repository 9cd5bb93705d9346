//! Where results come from: what computed each stage, and who rendered the page.

use crate::machine;
use crate::plan::Plan;
use crate::stages::Stage;
use rqlab_reports::{Environment, Provenance};
use rqlab_sdk::plugin::SDK_HASH;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// What concerns the whole report, whoever computed its stages: the commit of the experiment's folder, the data.
pub fn provenance(plan: &Plan) -> Vec<Provenance> {
    let mut table = Vec::new();
    let folder = plan.experiment.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if let Some(commit) = git(folder, &["rev-parse", "HEAD"]) {
        let changed = git(folder, &["status", "--porcelain"]).is_some_and(|text| !text.is_empty());
        let commit = commit + if changed { ", with uncommitted changes" } else { "" };
        table.push(Provenance { key: "commit of the experiment's folder".to_owned(), values: vec![commit] });
    }
    let data: BTreeSet<String> = plan.jobs.iter().map(|job| job.data_digest.chars().take(16).collect()).collect();
    table.push(Provenance { key: "data digests".to_owned(), values: data.into_iter().collect() });
    table
}

/// The day on which a file was last changed: by git, where it is committed as it stands, else by the file system.
pub fn changed_last(file: &Path) -> Option<String> {
    let folder = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = file.file_name()?.to_str()?;
    let committed = git(folder, &["status", "--porcelain", "--ignored", "--", name]).filter(String::is_empty);
    let by_git =
        committed.and_then(|_| git(folder, &["log", "-1", "--format=%cs", "--", name])).filter(|day| !day.is_empty());
    by_git.or_else(|| {
        let modified = std::fs::metadata(file).and_then(|file| file.modified()).ok()?;
        Some(machine::civil_day(modified.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs()))
    })
}

/// This process as what computes a stage.
pub fn environment(stage: &dyn Stage, ranks: usize) -> Environment {
    let plugins = stage.calls().into_iter().flat_map(|call| call.plugins.clone()).collect();
    Environment { plugins, ranks: Some(ranks).filter(|&ranks| ranks > 1), ..here() }
}

/// What numbers are rounded by where so many ranks share the work.
pub fn arithmetic(ranks: usize) -> String {
    Environment { ranks: Some(ranks).filter(|&ranks| ranks > 1), ..here() }.arithmetic()
}

/// This process: what renders a page.
pub fn here() -> Environment {
    let device = rqlab_sdk::tensor::device();
    Environment {
        program: format!("rqlab {}, sdk {}", env!("CARGO_PKG_VERSION"), &SDK_HASH[..SDK_HASH.len().min(16)]),
        commit: option_env!("RQLAB_COMMIT").map(str::to_owned),
        compiler: rqlab_sdk::plugin::RUSTC.to_owned(),
        target: rqlab_sdk::plugin::TARGET.to_owned(),
        processor: format!("{}, {} cores", machine::processor().as_deref().unwrap_or("unknown"), machine::cores()),
        instructions: rqlab_sdk::tensor::instructions().to_owned(),
        device: rqlab_sdk::tensor::device_in_words(device),
        precision: rqlab_sdk::tensor::precision(device).to_owned(),
        threads: rqlab_sdk::tensor::threads(),
        ranks: None,
        earlier: BTreeSet::new(),
        plugins: BTreeMap::new(),
    }
}

fn git(folder: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(folder).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
