//! `rqlab doctor`: whether this installation can work.

use crate::cli::Global;
use crate::commands::{Failure, Outcome, load_plugins};
use crate::gpu::{self, Cuda};
use crate::plugins::short_path;
use crate::store::writable;
use crate::ui::Ui;
use anstyle::AnsiColor;
use rqlab_sdk::plugin::{FEATURES, RUSTC, SDK_HASH, TARGET};
use std::path::{Path, PathBuf};

pub(super) fn run(global: &Global, runs: &Path, ui: Ui) -> Result<Outcome, Failure> {
    let mut healthy = true;
    let mut line = |name: &str, good: bool, text: String| {
        healthy &= good;
        let mark = if good { ui.colour(AnsiColor::Green, "ok  ") } else { ui.colour(AnsiColor::Red, "FAIL") };
        ui.line(format!("{mark}  {name:<10}{text}"))
    };
    line("rqlab", true, format!("{} for {TARGET}, built by {RUSTC}", env!("CARGO_PKG_VERSION")))?;
    line("sdk", true, format!("build {}, features {FEATURES}", &SDK_HASH[..12]))?;
    let (device, reason) = global.device.resolve();
    match device.open() {
        Ok(()) => {
            let reason = reason.map_or(String::new(), |reason| format!("; {reason}"));
            let text = format!("{device}, products in {}{reason}", rqlab_sdk::tensor::precision(device));
            match rqlab_sdk::tensor::precision_asked_for() {
                Ok(None) => line("device", true, text)?,
                Ok(Some(asked)) => line("device", true, format!("{text} (RQLAB_GPU={asked})"))?,
                Err(error) => line("device", false, format!("{text}: {error}"))?,
            }
        }
        Err(error) => line("device", false, error.to_string())?,
    }
    line("cuda", true, cuda(&Cuda::here(), gpu::is_built_in()))?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = global.threads.map_or(cores, usize::from);
    let text = format!("{threads} of {cores} cores, {}", rqlab_sdk::tensor::instructions());
    match rqlab_sdk::tensor::instructions_asked_for() {
        Ok(None) => line("threads", true, text)?,
        Ok(Some(asked)) => line("threads", true, format!("{text} (RQLAB_CPU={asked})"))?,
        Err(error) => line("threads", false, format!("{text}: {error}"))?,
    }
    let plugins = load_plugins(global)?;
    for provided in plugins.provided() {
        let component = &provided.component;
        let kind = component.build.kind();
        line("plugin", true, format!("{kind} {}, {}", component.name, short_path(&provided.origin.path)))?;
    }
    for refused in plugins.refused() {
        line("plugin", false, format!("{}: {}", short_path(&refused.path), refused.reason))?;
    }
    if plugins.provided().is_empty() {
        let dirs: Vec<String> = plugins.searched().iter().map(|dir| dir.display().to_string()).collect();
        line(
            "plugin",
            false,
            format!("none in {}; build them with `cargo build --release --workspace`", dirs.join(", ")),
        )?;
    }
    match writable(runs) {
        Ok(()) => line("runs", true, format!("{} can be written", runs.display()))?,
        Err(error) => line("runs", false, format!("{} cannot be written: {error}", runs.display()))?,
    }
    Ok(if healthy { Outcome::Done } else { Outcome::SomeFailed })
}

/// What of CUDA is here, and what would have to be.
fn cuda(cuda: &Cuda, built_in: bool) -> String {
    let part = |name: &str, path: &Option<PathBuf>| match path {
        Some(path) => format!("{name} {}", path.display()),
        None => format!("no {name}"),
    };
    let mut text = [
        if built_in { "built in" } else { "not built in" }.to_owned(),
        if cuda.gpu { "an NVIDIA GPU" } else { "no NVIDIA GPU" }.to_owned(),
        part("driver", &cuda.driver),
        part("toolkit", &cuda.toolkit),
        part("nvcc", &cuda.compiler),
    ]
    .join(", ");
    let missing = cuda.missing(built_in);
    if !missing.is_empty() {
        text.push_str(&format!("; to compute on the GPU: {}", missing.join(", then ")));
    }
    text
}
