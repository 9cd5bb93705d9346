//! Where results come from: what computed each stage, and who rendered the page.

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
        Some(day(modified.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs() / 86400))
    })
}

/// A day of the Gregorian calendar by its number since 1970-01-01, as `2026-11-28`.
fn day(number: u64) -> String {
    // Years begin in March here, so that a leap day is the last of its year.
    let since_march = number + 719_468;
    let (era, of_era) = (since_march / 146_097, since_march % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// This process as what computes a stage.
pub fn environment(stage: &dyn Stage) -> Environment {
    let plugins = stage.calls().into_iter().flat_map(|call| call.plugins.clone()).collect();
    Environment { plugins, ..here() }
}

/// This process: what renders a page.
pub fn here() -> Environment {
    let device = rqlab_sdk::tensor::device();
    Environment {
        program: format!("rqlab {}, sdk {}", env!("CARGO_PKG_VERSION"), &SDK_HASH[..SDK_HASH.len().min(16)]),
        commit: option_env!("RQLAB_COMMIT").map(str::to_owned),
        compiler: rqlab_sdk::plugin::RUSTC.to_owned(),
        target: rqlab_sdk::plugin::TARGET.to_owned(),
        processor: processor(),
        instructions: rqlab_sdk::tensor::instructions().to_owned(),
        device: rqlab_sdk::tensor::device_in_words(device),
        precision: rqlab_sdk::tensor::precision(device).to_owned(),
        threads: rqlab_sdk::tensor::threads(),
        plugins: BTreeMap::new(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        for (number, text) in [
            (0, "1970-01-01"),
            (59, "1970-03-01"),
            (11_016, "2000-02-29"),
            (11_017, "2000-03-01"),
            (20_785, "2026-11-28"),
        ] {
            assert_eq!(day(number), text);
        }
    }
}
