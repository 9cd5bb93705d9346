//! Whatever is killed or damaged, the next run goes on, and ends with what an undisturbed one ends with.

#![cfg(target_os = "linux")] // Workers are found in /proc.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use rqlab_sdk::checkpoint::Checkpoint;
use rqlab_tests::lab::{EXPERIMENT, Lab, Said, csv, half_written, made};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

/// A table without the columns that two runs of one trial may differ in.
fn lasting(lab: &Lab, table: &str) -> Vec<Vec<String>> {
    let rows = csv(&lab.read(table).unwrap());
    let varies = |column: &str| rqlab_reports::quantity(column).is_ok_and(|found| found.measure().is_timing());
    let kept: Vec<usize> = (0..rows[0].len()).filter(|&column| !varies(&rows[0][column])).collect();
    assert!(kept.len() > 20 && kept.len() < rows[0].len(), "{:?}", rows[0]);
    rows.iter().map(|row| kept.iter().map(|&column| row[column].clone()).collect()).collect()
}

/// A finished stage.
struct Finished {
    /// The bytes of what it made.
    result: Vec<u8>,
    measures: Value,
    curves: Value,
    /// What it wrote of its curves while it trained.
    events: String,
}

/// Every finished stage by its id.
fn results(lab: &Lab, runs: &str) -> BTreeMap<String, Finished> {
    let stages = fs::read_dir(lab.path(runs).join("stages")).unwrap();
    stages
        .map(|stage| {
            let stage = stage.unwrap().path();
            let done: Value = serde_json::from_slice(&fs::read(stage.join("done.json")).unwrap()).unwrap();
            let id = stage.file_name().unwrap().to_string_lossy().into_owned();
            let result = made(&stage).unwrap();
            let events = fs::read_to_string(stage.join("events.jsonl")).unwrap_or_default();
            (id, Finished { result, measures: done["readings"].clone(), curves: done["curves"].clone(), events })
        })
        .collect()
}

fn sweep(lab: &Lab, runs: &str) -> Said {
    lab.run(&format!("sweep tiny.ron --quiet --runs {runs} --out {runs}-out")).unwrap()
}

/// The undisturbed run that others are compared with.
fn undisturbed(lab: &Lab) {
    let said = sweep(lab, "whole");
    assert_eq!(said.code, Some(0), "{}", said.err);
}

fn assert_like_undisturbed(lab: &Lab, runs: &str) {
    assert_eq!(lasting(lab, &format!("{runs}-out/tiny/results.csv")), lasting(lab, "whole-out/tiny/results.csv"));
    let (ours, whole) = (results(lab, runs), results(lab, "whole"));
    assert_eq!(ours.keys().collect::<Vec<_>>(), whole.keys().collect::<Vec<_>>());
    for (id, stage) in &ours {
        let whole = &whole[id];
        assert_eq!((&stage.measures, &stage.curves), (&whole.measures, &whole.curves), "stage {id}");
        assert_eq!(stage.events, whole.events, "stage {id}");
        assert!(stage.result == whole.result, "stage {id} made something else");
    }
    assert_eq!(ours.values().filter(|stage| !stage.events.is_empty()).count(), 7, "trainings");
}

/// Processes whose command line names `text`.
fn processes(text: &str) -> Vec<u32> {
    let named = |pid: &u32| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| contains(&line, text.as_bytes()));
    let all = fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(named).collect()
}

fn contains(line: &[u8], text: &[u8]) -> bool {
    line.windows(text.len()).any(|window| window == text)
}

fn kill(pid: u32) {
    // It may have ended by itself.
    let _ = Command::new("sh").args(["-c", &format!("kill -9 {pid} 2>&-")]).status();
}

/// What can be seen of the work from outside: every file of every stage, its size and time of change.
fn traces(stages: &Path) -> Vec<(std::path::PathBuf, u64, Option<std::time::SystemTime>)> {
    let mut seen = Vec::new();
    for stage in fs::read_dir(stages).into_iter().flatten().flatten() {
        for file in fs::read_dir(stage.path()).into_iter().flatten().flatten() {
            let Ok(about) = file.metadata() else { continue };
            seen.push((file.path(), about.len(), about.modified().ok()));
        }
    }
    seen.sort();
    seen
}

/// Waits for `count` changes on disk, or for the end of the sweep; says whether it is still running.
fn wait_for_changes(parent: &mut Child, stages: &Path, count: u32) -> bool {
    let (mut before, mut left) = (traces(stages), count);
    while left > 0 {
        if parent.try_wait().unwrap().is_some() {
            return false;
        }
        let now = traces(stages);
        if now != before {
            (before, left) = (now, left - 1);
        }
        sleep(Duration::from_millis(1));
    }
    true
}

/// A worker notices that its parent is gone, whatever it is doing. However long that takes here: one that stays would be waited
/// for, and the test would not end.
fn wait_till_all_are_gone(runs: &str) {
    while !processes(runs).is_empty() {
        sleep(Duration::from_millis(2));
    }
}

/// The n-th of a fixed series of numbers below `limit` that look random (splitmix64).
fn pick(n: u64, limit: u32) -> u32 {
    let mut x = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((x ^ (x >> 31)) % u64::from(limit)) as u32
}

/// Twenty times `kill -9`, in turn of a worker and of the sweep itself, at moments between any two writes.
#[test]
fn killing_any_process_at_any_time_loses_nothing() {
    const KILLS: u64 = 20;
    let lab = Lab::new().unwrap();
    // Checkpoints stand between points of the curves, and at some of them.
    lab.write("tiny.ron", EXPERIMENT.replace("log: 2", "log: 3")).unwrap();
    undisturbed(&lab);
    let mut kills = 0;
    // Should a sweep come to its end before the last kill, another one takes the rest.
    for round in 0..KILLS {
        let runs = lab.path(&format!("killed-{round}"));
        let (stages, name) = (runs.join("stages"), runs.display().to_string());
        let arguments = format!("sweep tiny.ron --quiet --runs {name} --out killed-{round}-out");
        loop {
            let mut parent = lab.start(&arguments).unwrap();
            let mut running = true;
            while running && kills < KILLS {
                running = wait_for_changes(&mut parent, &stages, 1 + pick(kills, 9));
                if !running {
                    break;
                }
                kills += 1;
                let workers: Vec<u32> = processes(&name).into_iter().filter(|&pid| pid != parent.id()).collect();
                match workers.get(pick(kills, 7) as usize % workers.len().max(1)) {
                    Some(&worker) if kills % 2 == 1 => kill(worker),
                    _ => {
                        parent.kill().unwrap();
                        running = false;
                    }
                }
            }
            let status = parent.wait().unwrap();
            wait_till_all_are_gone(&name);
            if status.success() {
                break;
            }
            assert_eq!(status.code(), None, "a sweep failed where a worker was killed");
        }
        assert_like_undisturbed(&lab, &format!("killed-{round}"));
        assert_eq!(half_written(&runs), Vec::<std::path::PathBuf>::new());
        if kills == KILLS {
            return;
        }
    }
    panic!("only {kills} processes could be killed");
}

/// Ctrl-C reaches the sweep and its workers alike; `kill -INT` and `kill` reach the sweep alone.
#[test]
fn stopping_a_sweep_ends_its_workers_and_says_what_is_kept() {
    let lab = Lab::new().unwrap();
    undisturbed(&lab);
    let jobs = results(&lab, "whole").len();
    let whole_group = "-";
    for (round, (signal, number, to, changes)) in
        [("INT", 2, whole_group, 2), ("INT", 2, "", 5), ("TERM", 15, "", 9), ("INT", 2, whole_group, 14)]
            .into_iter()
            .enumerate()
    {
        let runs = lab.path(&format!("stopped-{round}"));
        let (stages, name) = (runs.join("stages"), runs.display().to_string());
        let arguments = format!("sweep tiny.ron --quiet --runs {name} --out stopped-{round}-out");
        // Where a sweep was done before it could be stopped, another one is stopped sooner.
        let stopped = (1..=changes).rev().find_map(|changes| {
            let _ = fs::remove_dir_all(&runs);
            let mut command = lab.command(&arguments).unwrap();
            let mut parent = command.process_group(0).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
            if !wait_for_changes(&mut parent, &stages, changes) {
                return None;
            }
            // Until it is waited for, its id is no other's, even if it is done by now.
            let kill = format!("kill -s {signal} -- {to}{}", parent.id());
            assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
            let output = parent.wait_with_output().unwrap();
            (!output.status.success()).then_some(output)
        });
        let output = stopped.unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.signal(), Some(number), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.starts_with("stopped with ") && said.contains(&format!(" of {jobs} jobs done")), "{said}");
        assert!(said.contains("are kept") && said.trim_end().ends_with(&arguments), "{said}");

        assert_eq!(processes(&name), Vec::<u32>::new());
        assert_eq!(half_written(&runs), Vec::<std::path::PathBuf>::new());
        assert!(!traces(&stages).iter().any(|(file, ..)| file.ends_with("failed.json")));
        assert_eq!(sweep(&lab, &format!("stopped-{round}")).code, Some(0));
        assert_like_undisturbed(&lab, &format!("stopped-{round}"));
    }
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

/// What can happen to a file.
type Damage = fn(&Path);

fn zero(file: &Path) {
    let length = fs::read(file).unwrap().len();
    fs::write(file, vec![0; length]).unwrap();
}

/// Numbers stand in the second half of a result.
fn flip_a_bit(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let at = bytes.len() * 3 / 4;
    bytes[at] ^= 0x40;
    fs::write(file, bytes).unwrap();
}

fn put_a_directory(file: &Path) {
    fs::remove_file(file).unwrap();
    fs::create_dir(file).unwrap();
}

fn put_a_fifo(file: &Path) {
    fs::remove_file(file).unwrap();
    assert!(Command::new("mkfifo").arg(file).status().unwrap().success());
}

/// Sweeps over damaged `files`: each is named once and kept, and all is as it was.
fn assert_heals(lab: &Lab, runs: &str, files: &[PathBuf]) {
    let command = format!("sweep tiny.ron --runs {runs} --out {runs}-out");
    let said = lab.run(&command).unwrap();
    assert_eq!(said.code, Some(0), "{}", said.err);
    for file in files {
        let name = file.strip_prefix(lab.path("")).unwrap().display().to_string();
        let warnings = said.err.lines().filter(|line| line.starts_with("warning  ") && line.contains(&name));
        assert_eq!(warnings.count(), 1, "{name} in\n{}", said.err);
        let mut aside = file.clone().into_os_string();
        aside.push(".damaged");
        assert!(Path::new(&aside).exists(), "{name}");
    }
    assert_like_undisturbed(lab, runs);
    let said = lab.run(&command).unwrap();
    assert!(said.code == Some(0) && !said.err.contains("damaged"), "{}", said.err);
}

/// Results of every kind of stage, and their markers, in every way.
#[test]
fn what_is_damaged_is_set_aside_named_and_made_again() {
    let lab = Lab::new().unwrap();
    undisturbed(&lab);
    let ways: [(&str, Damage); 5] = [
        ("cut", cut_short),
        ("zeroed", zero),
        ("flipped", flip_a_bit),
        ("directory", put_a_directory),
        ("fifo", put_a_fifo),
    ];
    for (runs, damage) in ways {
        copy(&lab, runs);
        let mut files = Vec::new();
        for kind in KINDS {
            let stages = lab.stages(runs, kind).unwrap();
            let result = if kind == "tokens" { "level1.tokens" } else { "result.safetensors" };
            files.push(stages[0].join(result));
            files.extend(stages.get(1).map(|second| second.join("done.json")));
        }
        files.iter().for_each(|file| damage(file));
        // Who only looks says so, waits for nothing, and counts none of it as done.
        let said = lab.run(&format!("plan tiny.ron --runs {runs}")).unwrap();
        assert!(said.code == Some(0) && !said.out.contains("Nothing to do"), "{}", said.out);
        assert_heals(&lab, runs, &files);
    }
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
    flip_a_bit(&file);
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
    let before = traces(&lab.path("whole/stages"));
    fs::create_dir(lab.path("elsewhere")).unwrap();
    fs::rename(lab.path("tiny.ron"), lab.path("elsewhere/tiny.ron")).unwrap();
    let said = lab.run("sweep elsewhere/tiny.ron --quiet --runs whole --out whole-out").unwrap();
    assert_eq!(said.code, Some(0), "{}", said.err);
    let trained = |traces: Vec<(std::path::PathBuf, u64, Option<std::time::SystemTime>)>| -> Vec<_> {
        traces.into_iter().filter(|(path, ..)| !path.ends_with("job.json")).collect()
    };
    assert_eq!(trained(traces(&lab.path("whole/stages"))), trained(before));
}
