//! Sweeps as workloads: what trials save by sharing their stages.

use crate::Prepared;
use rqlab_sdk::{Error, Result};
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;

/// Makes `trials` trials ready that differ in the learning rate of their priors alone: one sweep, or, if `apart`, a sweep
/// each into an empty store of its own. `folders` are those of further plugins.
///
/// # Errors
/// No room for temporary files.
pub(crate) fn prepare(trials: usize, apart: bool, folders: &[PathBuf]) -> Result<Prepared> {
    let program = std::env::current_exe().map_err(Error::file("rqlab-bench"))?;
    let program = program.with_file_name(format!("rqlab{}", std::env::consts::EXE_SUFFIX));
    let folders = folders.to_vec();
    let place = tempfile::tempdir().map_err(Error::file("a temporary folder"))?;
    let rate = |trial: usize| format!("{}e-4", 10 + trial);
    let sweeps: Vec<Vec<String>> = match apart {
        true => (0..trials).map(|trial| vec![rate(trial)]).collect(),
        false => vec![(0..trials).map(rate).collect()],
    };
    Ok(Prepared {
        children: Some(Rc::new(Cell::new(0.0))),
        ..Prepared::new(None, move || {
            for rates in &sweeps {
                let folder = tempfile::tempdir_in(place.path()).map_err(Error::file(place.path()))?;
                sweep(&program, &folders, folder.path(), &rates.join(", "))?;
            }
            Ok(())
        })
    })
}

/// Runs one sweep in a folder, from nothing.
fn sweep(program: &Path, folders: &[PathBuf], folder: &Path, rates: &str) -> Result<()> {
    let experiment = folder.join("sweep.ron");
    std::fs::write(&experiment, text(rates)).map_err(Error::file(&experiment))?;
    let mut command = Command::new(program);
    for plugins in folders {
        command.arg("--plugins").arg(plugins);
    }
    let [runs, out] = ["runs", "out"].map(|name| folder.join(name));
    let output = command
        .args(["--quiet", "sweep"])
        .arg(&experiment)
        .arg("--runs")
        .arg(runs)
        .arg("--out")
        .arg(out)
        .stdin(Stdio::null())
        .output()
        .map_err(Error::file(program))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(Error::Data(format!(
            "a sweep ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        ))),
    }
}

/// A small experiment with a trial for each of `rates`.
fn text(rates: &str) -> String {
    format!(
        r#"(
    question: "What do trials save by sharing a tokenizer?",
    data: dead_leaves(size: 32),
    autoencoder: resnet(patch: 4, width: 24, multipliers: [1], groups: 8, latent: 16, mid_attention: false),
    quantizer: rq(depth: 4, codebook: 64, beta: 0.02),
    prior: rq_transformer(width: 64, heads: 4, body_layers: 2, head_layers: 1),
    tokenizer_training: (steps: 200, batch: 16, lr: 3e-3),
    prior_training: (steps: 100, batch: 16, images: 512),
    evaluation: (images: 200, samples: 100, speed: [1], classifier_steps: 100),
    axes: {{ "prior_training.lr": [{rates}] }},
    seeds: [0],
)
"#
    )
}
