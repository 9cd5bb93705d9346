//! Trials whose stages are trained by ranks of MPI; skipped, with a message, where there is no mpirun.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "a test that cannot run says so")]

use rqlab_sdk::checkpoint::Checkpoint;
use rqlab_tests::lab::{Lab, Said};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// A codebook that follows its vectors and restarts, a discriminator with batch norms, and a prior with dropout.
const TINY: &str = r#"(
    question: "Do ranks agree?",
    data: dead_leaves(size: 16, train: 64, test: 32, classes: 4),
    autoencoder: resnet(width: 8, multipliers: [1, 2], groups: 4, mid_attention: false, latent: 8),
    quantizer: rq(depth: 2, codebook: 16),
    objective: [l1(), patch_gan(n_layers: 1, width: 4, start: 2)],
    prior: ar(width: 16, heads: 2, layers: 1, dropout: 0.1),
    tokenizer_training: (steps: 8, batch: 8, lr: 1e-3, warmup: 2, checkpoint: 2, log: 2),
    prior_training: (steps: 8, batch: 8, lr: 1e-3, warmup: 2, images: 16, checkpoint: 2, log: 2),
    evaluation: (images: 16, samples: 10, speed: [], pictures: 2, classifier_steps: 5),
)
"#;

/// A laboratory with the experiment; none, with a word, where there is no mpirun.
fn lab() -> Option<Lab> {
    let version = Command::new("mpirun").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !version.is_ok_and(|status| status.success()) {
        println!("skipped: there is no mpirun, such as Debian's openmpi-bin");
        return None;
    }
    let lab = Lab::new().unwrap();
    lab.write("ranks.ron", TINY).unwrap();
    Some(lab)
}

fn command(lab: &Lab, arguments: &str) -> Command {
    let mut command = lab.command(arguments).unwrap();
    // The user's own settings are no part of a test, which may run in a container.
    command.env("XDG_CONFIG_HOME", lab.path("config"));
    command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    command
}

fn sweep(lab: &Lab, runs: &str, ranks: usize) -> Said {
    let arguments = format!("sweep ranks.ron --quiet --ranks {ranks} --runs {runs} --out {runs}-out");
    command(lab, &arguments).output().unwrap().into()
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Whether two folders of runs hold the same models, to rounding.
fn assert_alike(lab: &Lab, found: &str, wanted: &str) {
    for kind in ["tokenizer", "prior"] {
        let [found, wanted] = [found, wanted].map(|runs| {
            let stage = lab.stages(runs, kind).unwrap().remove(0);
            Checkpoint::load(&stage.join("result.safetensors")).unwrap().tensors
        });
        assert_eq!(found.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>());
        for (name, wanted) in &wanted {
            let pairs = found[name].as_slice().iter().zip(wanted.as_slice());
            let far = pairs.map(|(a, b)| (a - b).abs() / (1.0 + b.abs())).fold(0.0, f32::max);
            assert!(far < 5e-5, "{kind}: `{name}` differs by {far}");
        }
    }
}

/// A run on two ranks is asked to end in the midst of each of its stages of training, and goes on with one or four.
#[test]
fn ranks_leave_what_one_leaves_and_another_number_goes_on_from_their_checkpoints() {
    let Some(lab) = lab() else { return };
    for (runs, ranks) in [("one", 1), ("two", 2)] {
        let said = sweep(&lab, runs, ranks);
        assert_eq!(said.code, Some(0), "{}", said.err);
    }
    assert_alike(&lab, "two", "one");
    let prior = lab.stages("two", "prior").unwrap().remove(0);
    assert_eq!(json(&prior.join("done.json"))["environment"]["ranks"], 2);
    let told = |runs: &str| json(&lab.stages(runs, "prior").unwrap()[0].join("done.json"))["id"].clone();
    assert_eq!(told("one"), told("two"), "the number of ranks is in no id");

    let mut ranks = 2;
    let mut stops = 0;
    while stops < 4 {
        let arguments = format!("sweep ranks.ron --quiet --ranks {ranks} --runs cut --out cut-out");
        let mut child = command(&lab, &arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let before = checkpoints(&lab);
        while checkpoints(&lab) <= before && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        if child.try_wait().unwrap().is_some() {
            break;
        }
        let _ = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
        child.wait().unwrap();
        stops += 1;
        ranks = if ranks == 4 { 1 } else { 2 * ranks };
    }
    assert!(stops > 0, "nothing was stopped");
    let said = sweep(&lab, "cut", 2);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_alike(&lab, "cut", "one");
    // What else took part is told.
    let trained = ["tokenizer", "prior"].into_iter().flat_map(|kind| lab.stages("cut", kind).unwrap());
    let earlier: Vec<String> =
        trained.map(|stage| json(&stage.join("done.json"))["environment"]["earlier"].to_string()).collect();
    assert!(stops == 1 || earlier.iter().any(|earlier| earlier != "null"), "{earlier:?}");
}

/// The step of the checkpoint that was kept last, over all stages that are begun.
fn checkpoints(lab: &Lab) -> u64 {
    let stages = fs::read_dir(lab.path("cut/stages")).into_iter().flatten().flatten();
    let step = |stage: fs::DirEntry| {
        let state = Checkpoint::load(&stage.path().join("state.safetensors")).ok()?;
        state.metadata.get("step")?.parse::<u64>().ok()
    };
    let done = |stage: &fs::DirEntry| stage.path().join("done.json").exists();
    stages.map(|stage| if done(&stage) { 100 } else { step(stage).unwrap_or(0) }).sum()
}

#[test]
fn what_ranks_cannot_do_is_said_before_any_work() {
    let Some(lab) = lab() else { return };
    let said = sweep(&lab, "runs", 3);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("tokenizer: a batch of 8 images is not divisible by 3 ranks"), "{}", said.err);
    assert!(said.err.contains("`gradient_accumulation` or `--ranks`"), "{}", said.err);
    let mut without = command(&lab, "sweep ranks.ron --quiet --ranks 2 --runs runs");
    let said: Said = without.env("PATH", lab.path("empty")).output().unwrap().into();
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("`mpirun`, which starts 2 ranks, is not on the PATH"), "{}", said.err);
    assert!(!lab.path("runs").exists());
    let said = lab.run("plan ranks.ron --set prior_training.gradient_accumulation=3").unwrap();
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("not divisible by a `gradient_accumulation` of 3"), "{}", said.err);
}

/// A rank that cannot go on is named, and the others do not wait for it.
#[test]
fn a_rank_that_fails_is_named() {
    let Some(lab) = lab() else { return };
    // The second rank is asked for another number of ranks than there are.
    let script = "#!/bin/sh\nshift 2\nprogram=$1\nshift 3\n\
        exec mpirun -n 1 \"$program\" --ranks 2 \"$@\" : -n 1 \"$program\" --ranks 3 \"$@\"\n";
    lab.write("start", script).unwrap();
    let _ = Command::new("chmod").arg("+x").arg(lab.path("start")).status();
    fs::create_dir_all(lab.path("config/rqlab")).unwrap();
    let settings = format!("(ranks: 2, mpirun: {:?})", lab.path("start").display().to_string());
    fs::write(lab.path("config/rqlab/launcher.ron"), settings).unwrap();
    let said: Said = command(&lab, "sweep ranks.ron --quiet --runs runs --out out").output().unwrap().into();
    assert_eq!(said.code, Some(1), "{}", said.err);
    let log = fs::read_to_string(lab.stages("runs", "tokenizer").unwrap()[0].join("log.txt")).unwrap_or_default();
    assert!(
        said.err.contains("there are 2 ranks, and 3 were asked for") || log.contains("3 were asked for"),
        "{}",
        said.err
    );
}
