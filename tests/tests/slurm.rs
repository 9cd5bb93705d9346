//! Sweeps on a Slurm of one machine: whatever ends, the work goes on, and ends with what an undisturbed sweep here ends with.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "a test that cannot run says so")]

use rqlab_sdk::checkpoint::Checkpoint;
use rqlab_tests::lab::{EXPERIMENT, Lab, Said, lasting};
use rqlab_tests::slurm::Slurm;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
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
    assert_eq!(
        lasting(&lab.read("out/tiny/results.csv").unwrap()),
        lasting(&lab.read("alone-out/tiny/results.csv").unwrap())
    );
    assert_eq!(fs::read_dir(lab.path("runs/leases")).unwrap().count(), 0);
}

/// Trials without a prior, as many as there are seeds and depths, each trained for some steps.
fn many(lab: &Lab, seeds: usize, steps: usize) {
    let seeds: Vec<String> = (0..seeds).map(|seed| seed.to_string()).collect();
    let text = EXPERIMENT
        .replace("    prior: ar(width: 16, heads: 2, layers: 1),\n", "")
        .replace("(steps: 20", &format!("(steps: {steps}"))
        .replace("checkpoint: 2", "checkpoint: 10")
        .replace("seeds: [0]", &format!("seeds: [{}]", seeds.join(", ")));
    let axis = text.find("        \"prior\": [").unwrap();
    let end = axis + text[axis..].find("        ],\n").unwrap() + "        ],\n".len();
    lab.write("tiny.ron", format!("{}{}", &text[..axis], &text[end..])).unwrap();
}

/// What members of the crew did, a value for each line of their files of events.
fn events(lab: &Lab) -> Vec<Value> {
    let plans = fs::read_dir(lab.path("runs/plans")).into_iter().flatten().flatten();
    let logs = plans.flat_map(|plan| fs::read_dir(plan.path().join("log")).into_iter().flatten().flatten());
    let logs = logs.map(|log| log.path()).filter(|log| log.extension().is_some_and(|end| end == "jsonl"));
    let text: String = logs.map(|log| fs::read_to_string(log).unwrap()).collect();
    // A member that is killed leaves half a line.
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[test]
fn two_hundred_short_trials_are_done_once_each() {
    let Some((lab, slurm)) = cluster() else { return };
    many(&lab, 100, 2);
    let sweep = start(&lab, &slurm);
    finish(&lab, &slurm, sweep);
    let started = events(&lab).iter().filter(|event| event["event"] == "started").count();
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

/// Each training of a task is two processes that mpirun starts; preempted, they end together, and go on from their checkpoint.
#[test]
fn ranks_in_a_task_are_preempted_and_go_on() {
    let Some((lab, slurm)) = cluster() else { return };
    if Command::new("mpirun").arg("--version").output().is_err() {
        println!("skipped: there is no mpirun, such as Debian's openmpi-bin");
        return;
    }
    long(&lab);
    let ranks = SWEEP.replace("--cpus 1 --workers 3", "--cpus 2 --workers 1 --ranks 2");
    let mut sweep = command(&lab, &slurm, &ranks);
    let sweep = sweep.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1").spawn().unwrap();
    wait_until(|| trains(&lab));
    slurm.said("sbatch", &["-p", "urgent", "-n", "4", "-o", "/dev/null", "--wrap", "sleep 1"]).unwrap();
    wait_until(|| slurm.said("squeue", &["-h", "-t", "PENDING", "-o", "%j"]).unwrap().contains("rqlab-"));
    let trained = || ["tokenizer", "prior"].into_iter().flat_map(|kind| lab.stages("runs", kind).unwrap());
    let kept =
        trained().filter_map(|stage| Checkpoint::read_metadata(&stage.join("state.safetensors")).ok()?.remove("step"));
    let kept: Vec<u64> = kept.map(|step| step.parse().unwrap()).collect();
    assert!(kept.iter().any(|step| step % 300 > 0), "one that was asked for: {kept:?}");
    finish(&lab, &slurm, sweep);
    for stage in trained() {
        let done: Value = serde_json::from_slice(&fs::read(stage.join("done.json")).unwrap()).unwrap();
        assert_eq!(done["environment"]["ranks"], 2);
    }
}

/// The processes of a plan: `crew`, its members, or `worker`, those that they start.
fn processes(lab: &Lab, which: &str) -> Vec<String> {
    let runs = lab.path("runs").display().to_string();
    let found = Command::new("pgrep").args(["-f", &format!("{which} .*{runs}")]).output().unwrap();
    String::from_utf8_lossy(&found.stdout).split_whitespace().map(str::to_owned).collect()
}

fn kill(process: &str) {
    let _ = Command::new("kill").args(["-9", process]).status();
}

/// A node that is gone for a while, with all that ran on it.
fn kill_node(lab: &Lab, slurm: &Slurm) {
    slurm.kill("slurmd").unwrap();
    processes(lab, "(crew|worker)").iter().for_each(|process| kill(process));
    slurm.start_node().unwrap();
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

    kill_node(&lab, &slurm);
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

/// What measures images keeps no checkpoint: where it takes longer than a task has, the task would go back into the queue without
/// end.
#[test]
fn a_time_limit_in_which_nothing_is_achieved_is_told() {
    let Some((lab, slurm)) = cluster() else { return };
    let text = EXPERIMENT.replace("size: 16, train: 64, test: 32", "size: 64, train: 64, test: 50000");
    lab.write("tiny.ron", text.replace("images: 16, samples", "images: 50000, samples")).unwrap();
    let mut sweep = command(&lab, &slurm, &SWEEP.replace("--workers 3", "--workers 1")).spawn().unwrap();
    let mut told = 0;
    while sweep.try_wait().unwrap().is_none() {
        hurry(&slurm);
        let measures = |event: &Value| {
            event["event"] == "started" && ["reference", "reconstruction"].map(Value::from).contains(&event["stage"])
        };
        // A second signal would end the task as if it had not been heard.
        if events(&lab).iter().filter(|event| measures(event)).count() > told {
            told += 1;
            let task = slurm.said("squeue", &["-h", "-r", "-t", "RUNNING", "-o", "%i"]).unwrap();
            slurm.said("scancel", &["--batch", "--signal=USR2", task.trim()]).unwrap();
        }
        sleep(Duration::from_millis(200));
    }
    let said = Said::from(sweep.wait_with_output().unwrap());
    assert!(told >= 1 && said.code == Some(2), "{}\n{}", said.err, logs(&lab));
    for text in ["all workers have ended", "no checkpoint kept before the time limit", "more --time"] {
        assert!(said.err.contains(text), "{text} in\n{}", said.err);
    }
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
    refused(&format!("{sweep} --launcher slurm --mem lots"), &["`lots` is no amount of memory", "32G"]);
    refused(
        &format!("{sweep} --launcher slurm --mem 1K"),
        &["a trial takes at least", "by `--mem` a task has", "more `--mem`"],
    );
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

/// A small disk under the folder of runs.
struct Disk(PathBuf);

impl Disk {
    /// None where none can be mounted.
    fn under(folder: PathBuf) -> Option<Self> {
        fs::create_dir_all(&folder).unwrap();
        let mount = ["-t", "tmpfs", "-o", "size=1g", "none"];
        let mounted = Command::new("mount").args(mount).arg(&folder).stderr(Stdio::null()).status();
        mounted.is_ok_and(|status| status.success()).then_some(Self(folder))
    }

    /// Fills it to the last byte.
    fn fill(&self) {
        let mut file = fs::File::create(self.0.join("filler")).unwrap();
        while std::io::Write::write(&mut file, &[0; 1 << 16]).is_ok() {}
    }

    fn free(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// How many stages are done.
fn done(lab: &Lab) -> usize {
    let stages = fs::read_dir(lab.path("runs/stages")).into_iter().flatten().flatten();
    stages.filter(|stage| stage.path().join("done.json").exists()).count()
}

/// Work on a cluster is preempted, killed and out of disk, again and again; nothing is lost, nothing done twice, and the page is
/// that of a sweep here. Prints how much of the workers' time was work.
#[test]
#[ignore = "ten minutes to an hour: `just slurm-thousand`"]
fn a_thousand_trials_survive_preemption_kills_and_a_full_disk() {
    let Some((lab, slurm)) = cluster() else { return };
    let disk = Disk::under(lab.path("runs"));
    many(&lab, 500, 20);
    let stages = 2 * 1000 + 2;
    let (mut preempted, mut killed, mut nodes, mut sweeps, mut filled) = (0, 0, 0, 1, false);
    let began = Instant::now();
    let mut sweep = start(&lab, &slurm);
    for round in 1_usize.. {
        sleep(Duration::from_secs(5));
        hurry(&slurm);
        if sweep.try_wait().unwrap().is_some() {
            let said = Said::from(sweep.wait_with_output().unwrap());
            if said.code == Some(0) {
                break;
            }
            println!(
                "sweep {sweeps} ended, {} stages done: {}",
                done(&lab),
                said.err.lines().last().unwrap_or_default()
            );
            sweep = start(&lab, &slurm);
            sweeps += 1;
        }
        // What each of them has come to by now is chance.
        let one_of = |which: &str| {
            let processes = processes(&lab, which);
            processes.get(round % processes.len().max(1)).cloned()
        };
        match round % 12 {
            0 => {
                slurm.said("sbatch", &["-p", "urgent", "-n", "4", "-o", "/dev/null", "--wrap", "sleep 1"]).unwrap();
                preempted += 1;
            }
            2 | 6 => one_of("worker").iter().for_each(|process| {
                kill(process);
                killed += 1;
            }),
            9 => one_of("crew").iter().for_each(|process| {
                kill(process);
                killed += 1;
            }),
            11 if round % 5 == 0 => {
                kill_node(&lab, &slurm);
                nodes += 1;
            }
            11 => sweep.kill().unwrap(),
            _ => {}
        }
        if let Some(disk) = disk.as_ref().filter(|_| !filled && done(&lab) > stages / 2) {
            filled = true;
            disk.fill();
            sleep(Duration::from_secs(20));
            disk.free();
        }
    }
    let took = began.elapsed().as_secs_f64();
    println!(
        "{took:.0} s; {preempted} preemptions, {killed} processes and {nodes} nodes killed, {sweeps} sweeps, disk filled: {filled}"
    );
    let events = events(&lab);
    let mut ends: BTreeMap<&str, usize> = BTreeMap::new();
    let mut members: BTreeMap<u64, [f64; 2]> = BTreeMap::new();
    for event in &events {
        // What another one has done takes no time here.
        if event["outcome"] == "done" && event["seconds"].as_f64() > Some(0.0) {
            *ends.entry(event["job"].as_str().unwrap()).or_default() += 1;
        }
        let time = event["time"].as_f64().unwrap();
        let member = members.entry(event["process"].as_u64().unwrap()).or_insert([time; 2]);
        *member = [member[0].min(time), member[1].max(time)];
    }
    assert!(ends.values().all(|&count| count == 1), "{ends:?}");
    assert_eq!(done(&lab), stages, "stages");
    let work: f64 = fs::read_dir(lab.path("runs/stages"))
        .unwrap()
        .map(|stage| {
            let done: Value =
                serde_json::from_slice(&fs::read(stage.unwrap().path().join("done.json")).unwrap()).unwrap();
            done["seconds"].as_f64().unwrap()
        })
        .sum();
    let time: f64 = members.values().map(|[from, to]| to - from).sum();
    let starts = events.iter().filter(|event| event["event"] == "started").count();
    println!(
        "{} members, {time:.0} s, of which {work:.0} s of work ({:.0} %); {starts} starts of {stages} stages; {:.2} s a stage beside its work",
        members.len(),
        100.0 * work / time,
        (time - work) / stages as f64
    );
    assert_like_one_here(&lab);
}
