//! Sweeps on a Slurm of one machine: whatever ends, the work goes on, and ends with what an undisturbed sweep here ends with.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "a test that cannot run says so")]

use rqlab_tests::lab::{EXPERIMENT, Lab, Said, csv};
use rqlab_tests::slurm::Slurm;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A folder and a Slurm; none, with a word, where there can be no Slurm.
fn cluster() -> Option<(Lab, Slurm)> {
    match Slurm::start() {
        Ok(slurm) => Some((Lab::new().unwrap(), slurm)),
        Err(error) => {
            println!("skipped: {error}");
            None
        }
    }
}

/// A table without the columns that two runs of one trial may differ in.
fn lasting(lab: &Lab, table: &str) -> Vec<Vec<String>> {
    let rows = csv(&lab.read(table).unwrap());
    let varies = |column: &str| rqlab_reports::quantity(column).is_ok_and(|found| found.measure().is_timing());
    let kept: Vec<usize> = (0..rows[0].len()).filter(|&column| !varies(&rows[0][column])).collect();
    rows.iter().map(|row| kept.iter().map(|&column| row[column].clone()).collect()).collect()
}

fn command(lab: &Lab, slurm: &Slurm, arguments: &str) -> Command {
    let mut command = lab.command(arguments).unwrap();
    // The user's own settings are no part of a test.
    slurm
        .prepare(&mut command)
        .env("XDG_CONFIG_HOME", lab.path("config"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn run(lab: &Lab, slurm: &Slurm, arguments: &str) -> Said {
    command(lab, slurm, arguments).output().unwrap().into()
}

const SWEEP: &str = "sweep tiny.ron --launcher slurm --partition work --cpus 1 --workers 3 --runs runs --out out";

fn start(lab: &Lab, slurm: &Slurm) -> Child {
    command(lab, slurm, SWEEP).spawn().unwrap()
}

/// Trains long enough to be disturbed.
fn long(lab: &Lab) {
    let text = EXPERIMENT.replace("(steps: 20", "(steps: 1000").replace("checkpoint: 2", "checkpoint: 300");
    lab.write("tiny.ron", text).unwrap();
}

/// Whether some training has come to its tenth step.
fn trains(lab: &Lab) -> bool {
    let stages = fs::read_dir(lab.path("runs/stages")).into_iter().flatten().flatten();
    stages.into_iter().any(|stage| {
        let points = fs::read_to_string(stage.path().join("events.jsonl")).unwrap_or_default();
        points.lines().count() >= 5 && !stage.path().join("done.json").exists()
    })
}

/// A quarter of an hour is more than any machine needs.
fn wait_until(what: impl Fn() -> bool) {
    let since = Instant::now();
    while !what() {
        assert!(since.elapsed() < Duration::from_secs(900), "nothing happens");
        sleep(Duration::from_millis(20));
    }
}

/// Has tasks that wait for the time after a requeue begin now.
fn hurry(slurm: &Slurm) {
    let waiting = slurm.said("squeue", &["-h", "-r", "-t", "PENDING", "-o", "%A"]).unwrap();
    for job in waiting.split_whitespace() {
        slurm.said("scontrol", &["update", &format!("JobId={job}"), "StartTime=now"]).unwrap();
    }
}

/// Sees a sweep to its end, and tasks that wait into their work.
fn finish(lab: &Lab, slurm: &Slurm, mut sweep: Child) {
    while sweep.try_wait().unwrap().is_none() {
        hurry(slurm);
        sleep(Duration::from_millis(200));
    }
    let said = Said::from(sweep.wait_with_output().unwrap());
    assert!(said.code == Some(0), "{}\n{}", said.err, logs(lab));
}

/// What members of the crew said.
fn logs(lab: &Lab) -> String {
    let plans = fs::read_dir(lab.path("runs/plans")).into_iter().flatten().flatten();
    let logs = plans.flat_map(|plan| fs::read_dir(plan.path().join("log")).into_iter().flatten().flatten());
    logs.map(|log| fs::read_to_string(log.path()).unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

fn assert_like_one_here(lab: &Lab) {
    let here = lab.run("sweep tiny.ron --quiet --runs alone --out alone-out").unwrap();
    assert_eq!(here.code, Some(0), "{}", here.err);
    assert_eq!(lasting(lab, "out/tiny/results.csv"), lasting(lab, "alone-out/tiny/results.csv"));
    assert_eq!(fs::read_dir(lab.path("runs/leases")).unwrap().count(), 0);
}

#[test]
fn two_hundred_short_trials_are_done_once_each() {
    let Some((lab, slurm)) = cluster() else { return };
    let seeds: Vec<String> = (0..100).map(|seed| seed.to_string()).collect();
    let text = EXPERIMENT
        .replace("    prior: ar(width: 16, heads: 2, layers: 1),\n", "")
        .replace("(steps: 20", "(steps: 2")
        .replace("seeds: [0]", &format!("seeds: [{}]", seeds.join(", ")));
    let axis = text.find("        \"prior\": [").unwrap();
    let end = axis + text[axis..].find("        ],\n").unwrap() + "        ],\n".len();
    lab.write("tiny.ron", format!("{}{}", &text[..axis], &text[end..])).unwrap();
    let sweep = start(&lab, &slurm);
    finish(&lab, &slurm, sweep);
    let begun = fs::read_dir(lab.path("runs/plans")).unwrap().flatten().flat_map(|plan| {
        let logs = fs::read_dir(plan.path().join("log")).unwrap().flatten();
        logs.filter(|log| log.path().extension().is_some_and(|end| end == "jsonl"))
    });
    let text: String = begun.map(|log| fs::read_to_string(log.path()).unwrap()).collect();
    let started = text.lines().filter(|line| line.contains("\"event\":\"started\"")).count();
    assert_eq!(started, fs::read_dir(lab.path("runs/stages")).unwrap().count(), "each once");
    assert_like_one_here(&lab);
    // What is done needs no cluster.
    let again = run(&lab, &slurm, SWEEP);
    assert!(again.code == Some(0) && again.err.contains("200 of 200 trials done") && !again.err.contains("submitted"));
}

#[test]
fn a_preempted_crew_keeps_checkpoints_and_goes_on() {
    let Some((lab, slurm)) = cluster() else { return };
    long(&lab);
    let sweep = start(&lab, &slurm);
    wait_until(|| trains(&lab));
    let urgent = ["-p", "urgent", "-n", "4", "-o", "/dev/null", "--wrap", "sleep 2"];
    let said = slurm.said("sbatch", &urgent).unwrap();
    assert!(said.contains("Submitted"), "{said}");
    wait_until(|| slurm.said("squeue", &["-h", "-t", "PENDING", "-o", "%j"]).unwrap().contains("rqlab-"));
    finish(&lab, &slurm, sweep);
    let stages = fs::read_dir(lab.path("runs/stages")).unwrap().flatten();
    let kept = stages.filter(|stage| {
        let log = fs::read_to_string(stage.path().join("log.txt")).unwrap_or_default();
        log.contains("asked to end: a checkpoint is kept of step ")
    });
    assert!(kept.count() >= 1, "{}", logs(&lab));
    assert_like_one_here(&lab);
}

#[test]
fn a_killed_submitter_node_and_controller_lose_nothing() {
    let Some((lab, slurm)) = cluster() else { return };
    long(&lab);
    let mut first = start(&lab, &slurm);
    wait_until(|| trains(&lab));
    first.kill().unwrap();
    first.wait().unwrap();

    // The controller is gone for a while, and back.
    slurm.kill("slurmctld").unwrap();
    slurm.start_controller().unwrap();
    let second = start(&lab, &slurm);

    // So is the node, with all that ran on it.
    slurm.kill("slurmd").unwrap();
    let runs = lab.path("runs").display().to_string();
    let processes = Command::new("pgrep").args(["-f", &format!("(crew|worker) .*{runs}")]).output().unwrap();
    for pid in String::from_utf8_lossy(&processes.stdout).split_whitespace() {
        let _ = Command::new("kill").args(["-9", pid]).status();
    }
    slurm.start_node().unwrap();
    finish(&lab, &slurm, second);
    assert_like_one_here(&lab);
}

#[test]
fn cancelled_work_ends_with_checkpoints_and_the_same_sweep_takes_it_up() {
    let Some((lab, slurm)) = cluster() else { return };
    long(&lab);
    let sweep = start(&lab, &slurm);
    wait_until(|| trains(&lab));
    let said = run(&lab, &slurm, "cancel tiny.ron --runs runs");
    assert!(
        said.code == Some(0) && said.out.contains(" cancelled; finished stages and checkpoints are kept"),
        "{said:?}"
    );
    let watcher = Said::from(sweep.wait_with_output().unwrap());
    assert!(watcher.code == Some(2) && watcher.err.contains("the work was cancelled"), "{}", watcher.err);
    wait_until(|| slurm.said("squeue", &["-h"]).unwrap().trim().is_empty());
    assert_eq!(fs::read_dir(lab.path("runs/leases")).unwrap().count(), 0, "{}", logs(&lab));
    finish(&lab, &slurm, start(&lab, &slurm));
    assert_like_one_here(&lab);
}

#[test]
fn what_cannot_work_on_the_cluster_is_said_with_a_remedy() {
    let Some((lab, slurm)) = cluster() else { return };
    let refused = |arguments: &str, expected: &[&str]| {
        let said = run(&lab, &slurm, arguments);
        assert_eq!(said.code, Some(2), "{}", said.err);
        for text in expected {
            assert!(said.err.contains(text), "{text} in\n{}", said.err);
        }
    };
    let sweep = "sweep tiny.ron --runs runs --out out";
    refused(
        &format!("{sweep} --launcher slurm --partition nowhere"),
        &["invalid partition", "there are the partitions work, urgent"],
    );
    refused(&format!("{sweep} --launcher slurm --time 2"), &["leaves no time to work", "--time"]);
    refused(&format!("{sweep} --launcher slurm --time soon"), &["`soon` is no time limit"]);
    refused(&format!("{sweep} --partition work"), &["for a cluster", "--launcher slurm"]);
    refused("cancel tiny.ron --runs elsewhere", &["nothing was submitted", "--runs"]);

    // A node that lacks a plugin of the plan.
    fs::create_dir_all(lab.path("config/rqlab")).unwrap();
    fs::create_dir(lab.path("plugins")).unwrap();
    let lacks = format!("(launcher: slurm, workers: 1, setup: [\"rm -rf {}\"])", lab.path("plugins").display());
    lab.write("config/rqlab/launcher.ron", lacks).unwrap();
    refused(
        &format!("{sweep} --plugins plugins"),
        &["all workers have ended", "there is no such directory of plugins"],
    );
    // A node that finds neither the folder nor the program.
    lab.write("config/rqlab/launcher.ron", "(launcher: slurm, workers: 1, setup: [\"exit 1\"])").unwrap();
    refused(sweep, &["all workers have ended", "none of them found", "--runs"]);
    lab.write("config/rqlab/launcher.ron", "(launcher: slurm, worker: 1)").unwrap();
    refused(sweep, &["launcher.ron:1:", "`worker`"]);
}
