//! Whatever is damaged in a folder of runs is named, set aside and made again, and all is as it was.

#![cfg(target_os = "linux")] // Damage by FIFOs and links.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says by what it can be repeated"
)]

use rqlab_sdk::checkpoint::Checkpoint;
use rqlab_tests::faults::{Random, difference, files, number, traces};
use rqlab_tests::lab::{Lab, Said, lasting};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The undisturbed run that others are compared with.
fn undisturbed(lab: &Lab) {
    let said = sweep(lab, "whole");
    assert_eq!(said.code, Some(0), "{}", said.err);
}

fn sweep(lab: &Lab, runs: &str) -> Said {
    lab.run(&format!("sweep tiny.ron --quiet --runs {runs} --out {runs}-out")).unwrap()
}

fn assert_like_undisturbed(lab: &Lab, runs: &str) {
    let table = |runs: &str| lasting(&lab.read(&format!("{runs}-out/tiny/results.csv")).unwrap());
    assert_eq!(table(runs), table("whole"));
    assert!(table("whole")[0].len() > 20);
    assert_eq!(difference(&lab.path(runs), &lab.path("whole")).unwrap(), None);
}

/// A copy of the undisturbed run, to be damaged.
fn copy(lab: &Lab, runs: &str) {
    let status = Command::new("cp").arg("-r").args([lab.path("whole"), lab.path(runs)]).status().unwrap();
    assert!(status.success());
}

fn cut_short(file: &Path) {
    let bytes = fs::read(file).unwrap();
    fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
}

/// All kinds of stages.
const KINDS: [&str; 7] = ["classifier", "tokenizer", "reference", "tokens", "prior", "reconstruction", "generation"];

/// What can happen to a file, at a place that a number chooses.
type Damage = fn(&Path, u64);

const WAYS: [(&str, Damage); 6] = [
    ("flipped bit", |file, place| {
        let mut bytes = fs::read(file).unwrap();
        let at = place as usize % bytes.len().max(1);
        bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << (place % 7));
        fs::write(file, bytes).unwrap();
    }),
    ("cut", |file, place| {
        let bytes = fs::read(file).unwrap();
        fs::write(file, &bytes[..place as usize % bytes.len().max(1)]).unwrap();
    }),
    ("longer", |file, place| fs::write(file, [fs::read(file).unwrap(), vec![place as u8; 3]].concat()).unwrap()),
    (DELETED, |file, _| fs::remove_file(file).unwrap()),
    ("directory", |file, _| {
        fs::remove_file(file).unwrap();
        fs::create_dir(file).unwrap();
    }),
    ("FIFO", |file, _| {
        fs::remove_file(file).unwrap();
        assert!(Command::new("mkfifo").arg(file).status().unwrap().success());
    }),
];
const DELETED: &str = "deleted";

/// Sweeps over damaged `files`: each is named once and kept, and all is as it was.
fn assert_heals(lab: &Lab, runs: &str, files: &[PathBuf]) {
    assert_names(lab, runs, files);
    assert_like_undisturbed(lab, runs);
    let said = lab.run(&format!("sweep tiny.ron --runs {runs} --out {runs}-out")).unwrap();
    assert!(said.code == Some(0) && !said.err.contains("damaged"), "{}", said.err);
}

/// Sweeps over damaged `files`: each is named once and kept.
fn assert_names(lab: &Lab, runs: &str, files: &[PathBuf]) {
    let said = lab.run(&format!("sweep tiny.ron --runs {runs} --out {runs}-out")).unwrap();
    assert_eq!(said.code, Some(0), "{}", said.err);
    for file in files {
        let name = file.strip_prefix(lab.path("")).unwrap().display().to_string();
        let warnings = said.err.lines().filter(|line| line.starts_with("warning  ") && line.contains(&name));
        assert_eq!(warnings.count(), 1, "{name} in\n{}", said.err);
        let mut aside = file.clone().into_os_string();
        aside.push(".damaged");
        assert!(Path::new(&aside).exists(), "{name}");
    }
}

/// Files that tell how the work went, of which nothing is made: who damages them loses what they told.
fn is_told_only(file: &Path) -> bool {
    ["log.txt", "events.jsonl"].iter().any(|name| file.ends_with(name))
}

/// Every file of a finished folder of runs, in every way: each round damages one file of each stage. Four rounds, or as many as
/// `RQLAB_DAMAGES` says, by the chance of `RQLAB_SEED`; all of them, if it says more than there are.
#[test]
fn every_file_that_is_damaged_is_named_and_made_again() {
    let lab = Lab::new().unwrap();
    undisturbed(&lab);
    let mut random = Random::new(number("RQLAB_SEED", 0));
    let mut faults = BTreeMap::<PathBuf, Vec<(PathBuf, usize)>>::new();
    for file in files(&lab.path("whole")).unwrap() {
        let of_stage = faults.entry(file.parent().unwrap().to_owned()).or_default();
        of_stage.extend((0..WAYS.len()).map(|way| (file.clone(), way)));
    }
    for of_stage in faults.values_mut() {
        (1..of_stage.len()).for_each(|last| of_stage.swap(last, random.below(last + 1)));
    }
    let rounds = faults.values().map(Vec::len).max().unwrap();
    let tried = rounds.min(number("RQLAB_DAMAGES", 4) as usize);
    for round in 0..tried {
        let runs = format!("round-{round}");
        copy(&lab, &runs);
        let (mut named, mut told, mut list) = (Vec::new(), Vec::new(), Vec::new());
        for (file, way) in faults.values().filter_map(|of_stage| of_stage.get(round)) {
            let (path, (what, damage)) = (lab.path(&runs).join(file), WAYS[*way]);
            damage(&path, random.draw());
            list.push(format!("{what}: {}", file.display()));
            match () {
                () if is_told_only(file) => told.push(file),
                // A file that is made over is as good as it was.
                () if what == DELETED || file.ends_with("job.json") && path.is_file() => {}
                () => named.push(path),
            }
        }
        println!("round {round}: {list:#?}");
        // Who only looks waits for nothing.
        let said = lab.run(&format!("plan tiny.ron --runs {runs}")).unwrap();
        assert_eq!(said.code, Some(0), "{}", said.err);
        assert_names(&lab, &runs, &named);
        for file in told {
            let path = lab.path(&runs).join(file);
            let _ = fs::remove_dir(&path);
            let _ = fs::remove_file(&path);
            fs::copy(lab.path("whole").join(file), path).unwrap();
        }
        assert_like_undisturbed(&lab, &runs);
        fs::remove_dir_all(lab.path(&runs)).unwrap();
    }
    println!("{tried} of {rounds} rounds");
}

/// Two stages of a kind have files of equal length, which mean something else in the other's directory.
#[test]
fn exchanged_results_are_noticed() {
    let lab = Lab::new().unwrap();
    undisturbed(&lab);
    let exchange = |a: &Path, b: &Path| {
        let aside = lab.path("aside");
        fs::rename(a, &aside).unwrap();
        fs::rename(b, a).unwrap();
        fs::rename(&aside, b).unwrap();
    };
    for names in [&["result.safetensors"][..], &["done.json"], &["done.json", "result.safetensors", "job.json"]] {
        let runs = format!("exchanged-{}", names.len() + usize::from(names[0] == "done.json"));
        copy(&lab, &runs);
        let mut files = Vec::new();
        for kind in ["generation", "reconstruction", "tokenizer"] {
            let stages = lab.stages(&runs, kind).unwrap();
            for name in names {
                exchange(&stages[0].join(name), &stages[1].join(name));
            }
            files.extend([stages[0].join(names[0]), stages[1].join(names[0])]);
        }
        assert_heals(&lab, &runs, &files);
    }
}

/// Training that was interrupted, and whose checkpoint was damaged then, or is another stage's.
#[test]
fn training_starts_anew_where_its_checkpoint_cannot_be_used() {
    let lab = Lab::new().unwrap();
    undisturbed(&lab);
    let foreign = Checkpoint {
        metadata: [("stage", "another"), ("step", "4")].map(|(name, text)| (name.into(), text.into())).into(),
        ..Checkpoint::default()
    };
    copy(&lab, "state");
    let mut files = Vec::new();
    for kind in ["classifier", "tokenizer", "prior"] {
        for (n, stage) in lab.stages("state", kind).unwrap().into_iter().enumerate() {
            let state = stage.join("state.safetensors");
            fs::remove_file(stage.join("done.json")).unwrap();
            fs::rename(stage.join("result.safetensors"), &state).unwrap();
            match n {
                0 => cut_short(&state),
                1 => foreign.clone().sealed().save(&state).unwrap(),
                // It is sound, and was not written as a checkpoint.
                _ => {}
            }
            files.push(state);
        }
    }
    assert_heals(&lab, "state", &files);
}

/// At most the steps between two checkpoints are lost, however seldom the curves have a point.
#[test]
fn a_checkpoint_waits_for_no_point_of_the_curves() {
    let lab = Lab::new().unwrap();
    let diverging =
        ["lr=1e30", "warmup=0", "log=5000", "checkpoint=1"].map(|set| format!(" --set tokenizer_training.{set}"));
    let said =
        lab.run(&format!("sweep tiny.ron --runs runs --out out --set prior=None{}", diverging.concat())).unwrap();
    assert!(said.code == Some(1) && said.err.contains("the loss is "), "{}", said.err);
    for stage in lab.stages("runs", "tokenizer").unwrap() {
        let kept = Checkpoint::load_sealed(&stage.join("state.safetensors")).unwrap();
        assert!(kept.metadata["step"].parse::<u64>().unwrap() >= 1, "{:?}", kept.metadata);
    }
}

/// A result that is damaged is not shown, and a good page is not replaced by one that lacks it.
#[test]
fn a_report_of_damaged_results_goes_beside_a_good_one() {
    let lab = Lab::new().unwrap();
    undisturbed(&lab);
    let page = lab.read("whole-out/tiny/index.html").unwrap();
    let table = lab.read("whole-out/tiny/results.csv").unwrap();
    let report = |runs: &str| lab.run(&format!("report tiny.ron --runs {runs} --out whole-out")).unwrap();

    copy(&lab, "pictures");
    let file = lab.stages("pictures", "generation").unwrap()[0].join("result.safetensors");
    cut_short(&file);
    let said = report("pictures");
    let name = file.strip_prefix(lab.path("")).unwrap().display().to_string();
    assert!(said.code == Some(1) && said.err.contains(&name), "{}", said.err);
    assert!(said.err.contains("is damaged: ") && said.err.contains("`rqlab sweep` sets it aside"), "{}", said.err);

    // Something is there, and cannot be read: nobody knows whether it is done.
    copy(&lab, "unreadable");
    let file = lab.stages("unreadable", "generation").unwrap()[0].join("done.json");
    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("done.json", &file).unwrap();
    let name = file.strip_prefix(lab.path("")).unwrap().display().to_string();
    for said in [report("unreadable"), lab.run("sweep tiny.ron --runs unreadable --out whole-out").unwrap()] {
        assert!(said.code == Some(1) && said.err.contains(&name), "{}", said.err);
        assert!(said.err.contains("3 of 4 trials done, 1 failed"), "{}", said.err);
    }
    let said = lab.run("plan tiny.ron --runs unreadable").unwrap();
    assert!(said.err.contains("warning: generation: ") && said.err.contains(&name), "{}", said.err);

    assert_eq!(page, lab.read("whole-out/tiny/index.html").unwrap());
    assert_eq!(table, lab.read("whole-out/tiny/results.csv").unwrap());
    assert!(lab.read("whole-out/tiny-failed/results.csv").unwrap().contains(",failed,"));
}

/// What cannot be written to concerns its own trials.
#[test]
fn a_bad_directory_fails_its_own_trials_alone() {
    let lab = Lab::new().unwrap();
    undisturbed(&lab);
    copy(&lab, "bad");
    let stage = lab.stages("bad", "reconstruction").unwrap()[0].clone();
    let prior = lab.stages("bad", "prior").unwrap()[0].clone();
    fs::remove_dir_all(&stage).unwrap();
    fs::write(&stage, "no directory").unwrap();
    // A directory or a FIFO in the place of a file heals.
    for name in ["job.json", "log.txt", "events.jsonl"] {
        fs::remove_file(prior.join(name)).unwrap();
        fs::create_dir(prior.join(name)).unwrap();
    }
    fs::remove_file(prior.join("done.json")).unwrap();
    let said = lab.run("sweep tiny.ron --runs bad --out bad-out").unwrap();
    let name = stage.strip_prefix(lab.path("")).unwrap().display().to_string();
    assert!(said.code == Some(1) && said.err.contains(&name), "{}", said.err);
    assert!(said.err.contains("2 of 4 trials done, 2 failed"), "{}", said.err);
    assert!(prior.join("job.json.damaged").is_dir() && prior.join("done.json").is_file());

    fs::remove_file(&stage).unwrap();
    assert_eq!(sweep(&lab, "bad").code, Some(0));
    assert_like_undisturbed(&lab, "bad");
}

#[test]
fn a_damaged_marker_or_description_is_written_again() {
    let lab = Lab::new().unwrap();
    undisturbed(&lab);
    copy(&lab, "markers");
    for kind in KINDS {
        cut_short(&lab.stages("markers", kind).unwrap()[0].join("done.json"));
    }
    // A prior needs what its tokenizer's description says.
    fs::remove_dir_all(&lab.stages("markers", "prior").unwrap()[1]).unwrap();
    for stage in lab.stages("markers", "tokenizer").unwrap() {
        cut_short(&stage.join("job.json"));
    }
    let said = sweep(&lab, "markers");
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_like_undisturbed(&lab, "markers");
}

/// A tokenizer's description says where its data lie; equal data elsewhere are as good.
#[test]
fn an_experiment_can_move() {
    let lab = Lab::new().unwrap();
    undisturbed(&lab);
    let trained = || -> Vec<_> {
        let traces = traces(&lab.path("whole/stages"));
        traces.into_iter().filter(|(path, ..)| !path.ends_with("job.json")).collect()
    };
    let before = trained();
    fs::create_dir(lab.path("elsewhere")).unwrap();
    fs::rename(lab.path("tiny.ron"), lab.path("elsewhere/tiny.ron")).unwrap();
    let said = lab.run("sweep elsewhere/tiny.ron --quiet --runs whole --out whole-out").unwrap();
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_eq!(trained(), before);
}
