//! Any number of processes share one folder of runs.

#![cfg(target_os = "linux")] // Processes are asked for in /proc.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use rqlab_tests::lab::{Lab, Said, half_written, lasting};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};

/// The lines of `runs/events.jsonl`.
fn events(lab: &Lab, runs: &str) -> Vec<Value> {
    let text = lab.read(&format!("{runs}/events.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// How often each stage was begun.
fn begun(events: &[Value]) -> BTreeMap<&str, usize> {
    let mut begun = BTreeMap::new();
    for event in events.iter().filter(|event| event["event"] == "started") {
        *begun.entry(event["job"].as_str().unwrap()).or_default() += 1;
    }
    begun
}

/// Puts the lease of somebody on a stage, and gives its file.
fn leave_a_lease(lab: &Lab, runs: &str, id: &str, holder: &Value) -> std::path::PathBuf {
    let leases = lab.path(runs).join("leases");
    fs::create_dir_all(&leases).unwrap();
    let line = format!("{:511}\n{:020}\n", holder.to_string(), 3);
    fs::write(leases.join(id), line).unwrap();
    leases.join(id)
}

/// A process of this machine, as a lease names it.
fn holder_here(pid: u32) -> Value {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let started: u64 = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().parse().unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let space = fs::read_link("/proc/self/ns/pid").unwrap();
    json!({
        "token": "of the test", "host": "here", "kernel": format!("{} {}", boot.trim(), space.display()),
        "processes": [{ "pid": pid, "started": started }], "since": "2026-01-01T00:00:00Z", "exclusive": false,
    })
}

#[test]
fn sweeps_of_one_folder_divide_its_stages_and_their_pages_are_those_of_one() {
    let lab = Lab::new().unwrap();
    let alone = lab.run("sweep tiny.ron --quiet --runs alone --out alone-out").unwrap();
    assert_eq!(alone.code, Some(0), "{}", alone.err);

    let sweep = |out: &str| {
        let mut command = lab.command(&format!("sweep tiny.ron --runs shared --out {out} --threads 1")).unwrap();
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    // Two into one report, a third into its own.
    let sweeps = ["shared-out", "shared-out", "third-out"].map(sweep);
    let said = sweeps.map(|sweep| Said::from(sweep.wait_with_output().unwrap()));
    assert!(said.iter().all(|said| said.code == Some(0) && said.err.contains("4 of 4 trials done")), "{said:?}");

    let events = events(&lab, "shared");
    let begun = begun(&events);
    assert!(begun.values().all(|&times| times == 1), "{begun:?}");
    assert_eq!(begun.len(), fs::read_dir(lab.path("alone/stages")).unwrap().count());
    let who = |event: &&Value| event["event"] == "started";
    let processes: std::collections::BTreeSet<u64> =
        events.iter().filter(who).map(|event| event["process"].as_u64().unwrap()).collect();
    assert!(processes.len() > 1, "one did all");

    let expected = lasting(&lab.read("alone-out/tiny/results.csv").unwrap());
    for out in ["shared-out", "third-out"] {
        assert_eq!(lasting(&lab.read(&format!("{out}/tiny/results.csv")).unwrap()), expected);
    }
    assert_eq!(fs::read_dir(lab.path("shared/leases")).unwrap().count(), 0);
    assert_eq!(half_written(&lab.path("shared")), Vec::<std::path::PathBuf>::new());
    let status = lab.run("status --runs shared").unwrap();
    assert!(status.out.contains(&format!("{} stages done\n", begun.len())), "{}", status.out);
    assert!(status.out.contains("nobody works here now"), "{}", status.out);
}

/// A holder that was killed is gone; one that lives keeps its stage, until it gives it up.
#[test]
fn the_lease_of_a_killed_process_is_broken_and_that_of_a_living_one_is_not() {
    let lab = Lab::new().unwrap();
    assert_eq!(lab.run("sweep tiny.ron --quiet --runs runs --out out").unwrap().code, Some(0));
    let stages = lab.stages("runs", "generation").unwrap();
    let [first, second] = [&stages[0], &stages[1]].map(|stage| {
        fs::remove_file(stage.join("done.json")).unwrap();
        stage.file_name().unwrap().to_string_lossy().into_owned()
    });
    let sleeper = || Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap();
    let (mut killed, mut living) = (sleeper(), sleeper());
    leave_a_lease(&lab, "runs", &first, &holder_here(killed.id()));
    let kept = leave_a_lease(&lab, "runs", &second, &holder_here(living.id()));
    killed.kill().unwrap();
    killed.wait().unwrap();

    let status = lab.run("status --runs runs").unwrap().out;
    let line = |id: &str| status.lines().find(|line| line.contains(&id[..8])).unwrap().to_owned();
    assert!(line(&first).contains("which is gone"), "{status}");
    assert!(
        line(&second).contains(&format!("generation {} by here, process {}", &second[..8], living.id())),
        "{status}"
    );

    let sweep = lab.command("sweep tiny.ron --runs runs --out out").unwrap().stderr(Stdio::piped()).spawn().unwrap();
    // It has begun what it can, and waits: only then does the living one give up what it holds.
    while !events(&lab, "runs").iter().any(|event| event["event"] == "waiting") {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    assert!(kept.exists() && !stages[1].join("done.json").exists());
    fs::remove_file(&kept).unwrap();
    living.kill().unwrap();
    living.wait().unwrap();
    let said = Said::from(sweep.wait_with_output().unwrap());
    assert_eq!(said.code, Some(0), "{}", said.err);
    let word = format!("here, process {} worked on it, and that process is gone: it goes on here", killed.id());
    assert_eq!(said.err.matches(&word).count(), 1, "{}", said.err);
    assert_eq!(said.err.matches("waiting (`rqlab status`").count(), 1, "{}", said.err);
}

/// What fails in one process has failed for those beside it, too: they do not try it again.
#[test]
fn a_failure_is_shared() {
    let lab = Lab::new().unwrap();
    // A learning rate that leaves the numbers.
    let sweep = || {
        let arguments = "sweep tiny.ron --runs runs --out out --threads 1 --set tokenizer_training.lr=1e30 --set \
                         tokenizer_training.warmup=0";
        lab.command(arguments).unwrap().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let sweeps = [sweep(), sweep()];
    for sweep in sweeps {
        let said = Said::from(sweep.wait_with_output().unwrap());
        assert!(said.code == Some(1) && said.err.contains("4 failed"), "{}", said.err);
    }
    assert_eq!(fs::read_dir(lab.path("runs/leases")).unwrap().count(), 0);
    let status = lab.run("status --runs runs").unwrap().out;
    let failures: Vec<&str> = status.lines().filter(|line| line.contains(" failed: ")).collect();
    let failed = lab.stages("runs", "tokenizer").unwrap();
    assert_eq!(failures.len(), failed.len(), "{status}");
    for stage in failed {
        let id = stage.file_name().unwrap().to_string_lossy().into_owned();
        let line = failures.iter().find(|line| line.contains(&format!("tokenizer {}", &id[..8]))).unwrap();
        assert!(line.contains("the loss is "), "{line}");
    }
    assert!(status.contains("stages not tried, since what they need failed"), "{status}");
}
