//! Where results come from: commit, compiler, machine, plugins.

use crate::job::{Call, Stage};
use crate::plan::Plan;
use crate::sweep::Options;
use crate::ui::counted;
use rqlab_reports::Provenance;
use rqlab_sdk::plugin::SDK_HASH;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// The report's provenance table.
pub fn provenance(plan: &Plan, options: &Options) -> Vec<Provenance> {
    let one = |key: &str, value: String| Provenance { key: key.to_owned(), values: vec![value] };
    let mut table =
        vec![one("rqlab", format!("{}, sdk {}", env!("CARGO_PKG_VERSION"), &SDK_HASH[..SDK_HASH.len().min(16)]))];
    let folder = plan.experiment.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if let Some(commit) = git(folder, &["rev-parse", "HEAD"]) {
        let changed = git(folder, &["status", "--porcelain"]).is_some_and(|text| !text.is_empty());
        table.push(one(
            "commit of the experiment's folder",
            commit + if changed { ", with uncommitted changes" } else { "" },
        ));
    }
    table.extend([
        one("compiler", rqlab_sdk::plugin::RUSTC.to_owned()),
        one("target", rqlab_sdk::plugin::TARGET.to_owned()),
        one("processor", format!("{}, {}", processor(), rqlab_sdk::tensor::instructions())),
        one("device", format!("{}, products in {}", options.device, rqlab_sdk::tensor::precision(options.device))),
        one("jobs and threads", format!("{} at once, {} in all", options.jobs, counted(options.threads, "thread"))),
    ]);
    let plugins: BTreeSet<String> = plan.jobs.iter().flat_map(|job| calls(&job.stage)).map(line).collect();
    table.push(Provenance { key: "plugins".to_owned(), values: plugins.into_iter().collect() });
    let data: BTreeSet<String> = plan.jobs.iter().map(|job| job.data_digest.chars().take(16).collect()).collect();
    table.push(Provenance { key: "data digests".to_owned(), values: data.into_iter().collect() });
    table
}

fn line(call: &Call) -> String {
    format!("{} {}", call.name, call.plugin.chars().take(16).collect::<String>())
}

fn calls(stage: &Stage) -> Vec<&Call> {
    match stage {
        Stage::Classifier { data, .. } => vec![data],
        Stage::Tokenizer { data, autoencoder, quantizer, .. } => vec![data, autoencoder, quantizer],
        Stage::Prior { prior, .. } => vec![prior],
        Stage::Codes { .. } | Stage::Reconstruction { .. } | Stage::Generation { .. } => vec![],
    }
}

fn git(folder: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(folder).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The processor's name and its number of cores.
fn processor() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")).and_then(|rest| rest.split(':').nth(1));
    format!("{}, {cores} cores", name.map_or("unknown", str::trim))
}
