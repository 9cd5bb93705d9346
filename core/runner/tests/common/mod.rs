//! A laboratory of toy components, and how experiments on them are planned.

#![allow(dead_code, reason = "each test binary uses a part of this")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod toys;

use proptest::test_runner::{Config as ProptestConfig, RngSeed};
use rqlab::experiment::{Invalid, read};
use rqlab::job::Trial;
use rqlab::plan::{Plan, plan};
use std::fs;
use std::path::{Path, PathBuf};
pub(crate) use toys::plugins;

/// A folder with experiment files.
pub(crate) struct Lab(pub(crate) tempfile::TempDir);

impl Lab {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Writes a file.
    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// Plans a file, with `--set` and `--seeds`.
    pub(crate) fn plan(&self, path: &Path, set: &[&str], seeds: Option<&[u64]>) -> Result<Plan, Invalid> {
        let set: Vec<String> = set.iter().map(|s| (*s).to_owned()).collect();
        let (document, mut warnings) = read(path, &set, seeds)?;
        let mut plan = plan(&document, &plugins("a"))?;
        warnings.append(&mut plan.warnings);
        plan.warnings = warnings;
        Ok(plan)
    }

    /// The complaints about a file, with the folder's name left out.
    pub(crate) fn complaints(&self, path: &Path, set: &[&str]) -> String {
        let text = match self.plan(path, set, None) {
            Err(invalid) => invalid.to_string(),
            Ok(plan) => {
                let texts: Vec<String> = plan.warnings.iter().map(|warning| warning.render(false)).collect();
                texts.join("\n\n")
            }
        };
        let dir = self.0.path().display().to_string();
        let text = text.replace(&format!("{dir}/"), "").replace(&dir, "");
        text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
    }
}

/// An experiment on the toys with more lines: those replace its own of the same name.
pub(crate) fn experiment(more: &str) -> String {
    let mut text = "(\n".to_owned();
    for line in ["data: grey", "autoencoder: half", "quantizer: deep"] {
        let name = line.split(':').next().unwrap();
        if !more.contains(&format!("{name}: ")) {
            text += &format!("    {line},\n");
        }
    }
    format!("{text}{more}\n)\n")
}

/// Plans an experiment on the toys.
pub(crate) fn plan_of(more: &str) -> Plan {
    plan_with(more, &[])
}

/// Plans an experiment on the toys, with `--set`.
pub(crate) fn plan_with(more: &str, set: &[&str]) -> Plan {
    let lab = Lab::new();
    let path = lab.write("x.ron", experiment(more));
    lab.plan(&path, set, None).unwrap_or_else(|invalid| panic!("{invalid}"))
}

/// The trials as text: `depth=1 codebook=64 seed=0`, in order.
pub(crate) fn listed(plan: &Plan) -> Vec<String> {
    let axes: Vec<&str> = plan.experiment.axes.iter().map(|axis| axis.path.as_str()).collect();
    let row = |trial: &Trial| {
        let mut parts: Vec<String> =
            axes.iter().map(|path| format!("{}={}", path.rsplit('.').next().unwrap(), trial.axes[*path])).collect();
        parts.push(format!("seed={}", trial.seed));
        parts.join(" ")
    };
    plan.trials.iter().map(row).collect()
}

/// How properties are tested: on the same cases every time, unless the variables of proptest say otherwise.
pub(crate) fn properties() -> ProptestConfig {
    let usual = ProptestConfig::default();
    let rng_seed = if usual.rng_seed == RngSeed::Random { RngSeed::Fixed(0) } else { usual.rng_seed };
    ProptestConfig { failure_persistence: None, rng_seed, ..usual }
}

/// The complaints about a file of its own.
#[track_caller]
pub(crate) fn check_file(text: &str, set: &[&str], expect: &str) {
    let lab = Lab::new();
    let path = lab.write("x.ron", text);
    assert_same(&lab.complaints(&path, set), expect);
}

/// The complaints about an experiment on the toys, whose lines begin at line 2.
#[track_caller]
pub(crate) fn check(more: &str, expect: &str) {
    check_file(&experiment(more), &[], expect);
}

/// Compares without the margin of the expectation.
#[track_caller]
pub(crate) fn assert_same(found: &str, expect: &str) {
    let margin = expect.lines().filter(|l| !l.trim().is_empty()).map(|l| l.len() - l.trim_start().len()).min();
    let strip = |line: &str| line.get(margin.unwrap_or(0)..).unwrap_or_default().trim_end().to_owned();
    let expect: Vec<String> = expect.lines().map(strip).collect();
    let expect = expect.join("\n");
    assert!(found == expect.trim_matches('\n'), "found:\n{found}\n\nexpected:\n{}", expect.trim_matches('\n'));
}
