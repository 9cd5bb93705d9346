//! `rqlab bench`: a row a workload.

use crate::bench::{NAMES, Row, measure, prepare};
use crate::cli::{BenchArgs, Global};
use crate::commands::{Failure, Outcome, load_plugins};
use crate::store::write_json;
use crate::ui::Ui;
use rqlab_sdk::Error;
use serde_json::json;
use std::process::Command;

pub(super) fn run(global: &Global, how: &BenchArgs, ui: Ui) -> Result<Outcome, Failure> {
    if let Some(name) = &how.one {
        let row = measure(name, prepare(name, &load_plugins(global)?)?)?;
        ui.line(serde_json::to_string(&row).unwrap_or_default());
        return Ok(Outcome::Done);
    }
    let wanted = |name: &str| how.only.is_empty() || how.only.iter().any(|prefix| name.starts_with(prefix.as_str()));
    let names: Vec<&str> = NAMES.iter().copied().filter(|name| wanted(name)).collect();
    if names.is_empty() {
        return Err(Error::Data(format!("no workload begins so; there are {}", NAMES.join(", "))).into());
    }
    let threads = crate::commands::threads(global);
    let mut rows = Vec::new();
    for name in names {
        let row = in_child(global, name, threads)?;
        ui.line(format!(
            "{:24} median {:>10.3} ms  min {:>10.3} ms  cpu {:>10.3} ms  {:>10.4} {}/s  rss {:>6.0} MiB",
            row.name, row.median_ms, row.min_ms, row.cpu_ms, row.throughput, row.unit, row.peak_rss_mib
        ));
        rows.push(row);
    }
    if let Some(path) = &how.json {
        write_json(
            path,
            &json!({ "runs": [{ "device": global.device.to_string(), "threads": threads, "rows": rows }] }),
        )?;
    }
    Ok(Outcome::Done)
}

/// Measures a workload in a process of its own.
fn in_child(global: &Global, name: &str, threads: usize) -> Result<Row, Error> {
    let program = std::env::current_exe().map_err(Error::file("rqlab"))?;
    let mut command = Command::new(&program);
    for folder in &global.plugins {
        command.arg("--plugins").arg(folder);
    }
    let output = command
        .args(["--threads", &threads.to_string(), "bench", "--one", name])
        .stderr(std::process::Stdio::inherit())
        .output()
        .map_err(Error::file(&program))?;
    serde_json::from_slice(&output.stdout)
        .map_err(|_| Error::Data(format!("the workload `{name}` ended with {}", output.status)))
}
