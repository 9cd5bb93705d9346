//! Disks that fill up, folders that cannot be written to or go away, processes that stand still, clocks that are set: nothing that
//! was done is lost, and the next run ends with what an undisturbed one ends with.

#![cfg(target_os = "linux")] // Small file systems, capabilities, /proc.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says why it cannot run"
)]

use rqlab_tests::faults::{difference, files, leases, processes, signal, traces, wait_till_all_are_gone};
use rqlab_tests::lab::{Lab, Said, half_written, lasting};
use serde_json::Value;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, SystemTime};

/// With an undisturbed run that others are compared with.
fn lab() -> Lab {
    let lab = Lab::new().unwrap();
    assert_eq!(sweep(&lab, "whole").code, Some(0));
    lab
}

fn arguments(runs: &str) -> String {
    format!("sweep tiny.ron --runs {runs} --out {runs}-out")
}

fn sweep(lab: &Lab, runs: &str) -> Said {
    lab.run(&arguments(runs)).unwrap()
}

/// Sweeps to the end, which is that of an undisturbed run, with nothing left behind.
fn assert_ends_well(lab: &Lab, runs: &str) {
    let said = sweep(lab, runs);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_like_undisturbed(lab, runs);
}

fn assert_like_undisturbed(lab: &Lab, runs: &str) {
    let table = |runs: &str| lasting(&lab.read(&format!("{runs}-out/tiny/results.csv")).unwrap());
    assert_eq!(table(runs), table("whole"));
    assert_eq!(difference(&lab.path(runs), &lab.path("whole")).unwrap(), None);
    assert_eq!(half_written(&lab.path(runs)), Vec::<PathBuf>::new());
    assert_eq!(leases(&lab.path(runs)).unwrap(), Vec::<PathBuf>::new());
}

/// `rqlab` as a shell is told it.
fn line(command: &Command) -> String {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Runs a script by a program that may not be there, or not be allowed to do what it does; none where it is not.
fn run_by(lab: &Lab, program: &str, options: &[&str], script: &str) -> Option<Said> {
    let output = Command::new(program).args(options).args(["sh", "-c", script]).current_dir(lab.path("")).output();
    match output.map(Said::from) {
        Ok(said) if said.code != Some(77) && !said.err.contains(&format!("{program}: ")) => Some(said),
        said => {
            println!("skipped: this cannot be tried here: {said:?}");
            None
        }
    }
}

/// Small file systems, which fill up now at the first file and now when much is done, and then are made larger.
#[test]
fn a_full_disk_is_said_and_work_goes_on_when_there_is_room() {
    let lab = lab();
    fs::create_dir(lab.path("small")).unwrap();
    let sweep = line(&lab.command(&arguments("small")).unwrap());
    for kib in [460, 700, 1000, 1300] {
        let runs = format!("kept-{kib}");
        let script = format!(
            "mount -t tmpfs -o size={kib}k tmpfs small || exit 77; {sweep} >&2; echo code $?; find small -name '*.partial'; \
             mount -o remount,size=50m small; {sweep} --quiet; echo code $?; cp -r small {runs}; mv small-out {runs}-out"
        );
        let Some(said) = run_by(&lab, "unshare", &["--mount", "--map-root-user"], &script) else { return };
        assert!(said.err.contains("No space left on device"), "{kib} KiB: {}", said.err);
        let codes: Vec<&str> =
            said.out.lines().filter(|line| line.starts_with("code ") || line.contains("partial")).collect();
        assert!(codes == ["code 1", "code 0"] || codes == ["code 2", "code 0"], "{}\n{}", said.out, said.err);
        assert_like_undisturbed(&lab, &runs);
    }
}

/// A file system that is made read-only, as one is that has had an error.
#[test]
fn what_lies_on_a_disk_that_became_read_only_can_be_reported_and_goes_on_when_it_is_writable() {
    let lab = lab();
    fs::create_dir(lab.path("disk")).unwrap();
    let command = |words: &str| line(&lab.command(words).unwrap());
    let report = command("report tiny.ron --runs disk/runs --out disk-out");
    let (sweep, again) = (command("sweep tiny.ron --runs disk/runs --out disk-out"), arguments("kept"));
    let script = format!(
        "mount -t tmpfs tmpfs disk || exit 77; cp -r whole disk/runs; rm disk/runs/stages/*/done.json; mount -o remount,ro disk; \
         {sweep} >&2; echo code $?; mount -o remount,rw disk; {sweep} >&2; echo code $?; \
         mount -o remount,ro disk; {report} >&2; echo code $?; cp -r disk/runs kept; mount -o remount,rw disk"
    );
    let Some(said) = run_by(&lab, "unshare", &["--mount", "--map-root-user"], &script) else { return };
    let codes: Vec<&str> = said.out.lines().filter(|line| line.starts_with("code ")).collect();
    assert_eq!(codes, ["code 2", "code 0", "code 0"], "{}", said.err);
    assert!(said.err.contains("Read-only file system") && said.err.contains("disk/runs"), "{}", said.err);
    assert_eq!(lab.run(&again).unwrap().code, Some(0));
    assert_like_undisturbed(&lab, "kept");
}

/// Folders that their user may no longer write to, or not even enter. Who may do everything gives that up first.
#[test]
fn a_lost_permission_is_said_and_work_goes_on_when_it_is_back() {
    let lab = lab();
    let allow = |folder: &Path, mode| fs::set_permissions(folder, Permissions::from_mode(mode)).unwrap();
    let capabilities =
        ["--bounding-set", "-dac_override,-dac_read_search", "--inh-caps", "-dac_override,-dac_read_search"];
    let unfinished = |runs: &str| {
        fs::create_dir(lab.path(runs)).unwrap();
        assert!(Command::new("cp").arg("-rT").args([lab.path("whole"), lab.path(runs)]).status().unwrap().success());
        for kind in ["reconstruction", "generation"] {
            for stage in lab.stages(runs, kind).unwrap() {
                fs::remove_file(stage.join("done.json")).unwrap();
            }
        }
    };
    for (runs, folder, mode, code) in
        [("no-leases", ".", 0o555, 2), ("no-stages", "stages", 0o000, 1), ("no-stage", "reconstruction", 0o000, 1)]
    {
        unfinished(runs);
        let folder = match folder {
            "reconstruction" => lab.stages(runs, folder).unwrap()[0].clone(),
            _ => lab.path(runs).join(folder),
        };
        let _ = fs::remove_dir(lab.path(runs).join("leases"));
        allow(&folder, mode);
        let said = run_by(&lab, "setpriv", &capabilities, &line(&lab.command(&arguments(runs)).unwrap()));
        allow(&folder, 0o755);
        let Some(said) = said else { return };
        assert!(said.err.contains("Permission denied") && said.err.contains(runs), "{runs}: {}", said.err);
        assert_eq!(said.code, Some(code), "{runs}: {}", said.err);
        assert_ends_well(&lab, runs);
    }
}

/// Waits for `count` changes in a folder, or for the end of the sweep.
fn wait_for_changes(sweep: &mut Child, folder: &Path, count: usize) {
    let (mut before, mut left) = (traces(folder), count);
    while left > 0 && sweep.try_wait().unwrap().is_none() {
        let now = traces(folder);
        if now != before {
            (before, left) = (now, left - 1);
        }
        sleep(Duration::from_millis(1));
    }
}

/// As a server does that is not reached for a while: its folder is not there, and perhaps an empty one in its place.
#[test]
fn a_folder_that_goes_away_and_comes_back_has_all_that_it_had() {
    let lab = lab();
    for (round, changes) in [1, 6, 15, 30].into_iter().enumerate() {
        let name = format!("gone-{round}");
        let (runs, elsewhere) = (lab.path(&name), lab.path("elsewhere"));
        let mut sweep = lab.start(&arguments(&runs.display().to_string())).unwrap();
        wait_for_changes(&mut sweep, &runs, changes);
        fs::rename(&runs, &elsewhere).unwrap();
        if round % 2 == 0 {
            // Back while the sweep still tries, unless that has made another folder there.
            wait_for_changes(&mut sweep, &elsewhere, 1);
            let _ = fs::rename(&elsewhere, &runs);
        }
        let _ = sweep.wait().unwrap();
        wait_till_all_are_gone(&runs.display().to_string());
        if elsewhere.exists() {
            let _ = fs::remove_dir_all(&runs);
            fs::rename(&elsewhere, &runs).unwrap();
        }
        assert_ends_well(&lab, &name);
    }
}

/// Every time of change in a folder of unfinished work lies in the past or in the future.
#[test]
fn a_clock_that_is_set_changes_nothing() {
    let lab = lab();
    let year = Duration::from_secs(365 * 86_400);
    let times =
        [SystemTime::UNIX_EPOCH + Duration::from_secs(1), SystemTime::now() - year, SystemTime::now() + 40 * year];
    for (round, changes) in [8, 16, 32].into_iter().enumerate() {
        let name = format!("set-{round}");
        let runs = lab.path(&name);
        let mut sweep = lab.start(&arguments(&name)).unwrap();
        wait_for_changes(&mut sweep, &runs, changes);
        sweep.kill().unwrap();
        sweep.wait().unwrap();
        wait_till_all_are_gone(&format!("--runs\0{name}\0"));
        for (n, file) in files(&runs).unwrap().iter().enumerate() {
            File::options().append(true).open(runs.join(file)).unwrap().set_modified(times[(n + round) % 3]).unwrap();
        }
        assert_ends_well(&lab, &name);
    }
}

/// The lines of `events.jsonl` of an event.
fn events(lab: &Lab, runs: &str, event: &str) -> Vec<Value> {
    let text = lab.read(&format!("{runs}/events.jsonl")).unwrap_or_default();
    let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.filter(|found| found["event"] == event).collect()
}

/// With a tokenizer that trains for a while.
fn slow_lab() -> Lab {
    let lab = Lab::new().unwrap();
    lab.edit("(steps: 20", "(steps: 500").unwrap();
    assert_eq!(sweep(&lab, "whole").code, Some(0));
    lab
}

/// Starts a sweep, and gives it with its worker once that has been training for a while.
fn training(lab: &Lab, runs: &Path) -> (Child, u32) {
    let said = fs::File::create(runs.with_extension("said")).unwrap();
    let mut sweep = lab.command(&arguments(&runs.display().to_string())).unwrap();
    let mut sweep = sweep.stdout(Stdio::null()).stderr(said).spawn().unwrap();
    loop {
        assert!(sweep.try_wait().unwrap().is_none(), "it was done too soon");
        let state = files(runs).unwrap_or_default().into_iter().find(|file| file.ends_with("state.safetensors"));
        let stage = state.and_then(|state| Some(state.parent()?.file_name()?.to_string_lossy().into_owned()));
        if let Some(worker) = stage.and_then(|stage| processes(&stage).first().copied()) {
            return (sweep, worker);
        }
        sleep(Duration::from_millis(1));
    }
}

/// A process that stands still lives: nobody takes what it holds, be it the worker or who waits for it.
#[test]
fn what_a_stopped_process_holds_is_left_to_it() {
    let lab = slow_lab();
    for name in ["worker", "parent"] {
        let runs = lab.path(name);
        let (first, worker) = training(&lab, &runs);
        let stopped = if name == "worker" { worker } else { first.id() };
        signal("STOP", &[stopped]);
        let mut other = lab.start(&arguments(&runs.display().to_string())).unwrap();
        // It has done what it can, and waits: only then does the first go on.
        while !events(&lab, name, "waiting").iter().any(|event| event["process"] == other.id()) {
            assert!(other.try_wait().unwrap().is_none(), "it waits for nobody");
            sleep(Duration::from_millis(2));
        }
        signal("CONT", &[stopped]);
        for mut sweep in [first, other] {
            assert!(sweep.wait().unwrap().success());
        }
        let begun = events(&lab, name, "started");
        let mut jobs: Vec<&str> = begun.iter().map(|event| event["job"].as_str().unwrap()).collect();
        jobs.sort_unstable();
        assert!(jobs.windows(2).all(|pair| pair[0] != pair[1]), "something was begun twice: {begun:?}");
        assert_ends_well(&lab, name);
    }
}

/// A machine that slept for long enough to be given up: its lease was broken, and its stage done by another. It wakes in the
/// middle of its training.
#[test]
fn a_worker_that_wakes_after_its_stage_was_done_by_another_changes_nothing() {
    let lab = slow_lab();
    let runs = lab.path("slept");
    let (mut first, worker) = training(&lab, &runs);
    let parent = first.id();
    signal("STOP", &[worker, parent]);
    // What an observer on another machine does after two minutes of silence.
    fs::remove_dir_all(runs.join("leases")).unwrap();
    assert_eq!(sweep(&lab, &runs.display().to_string()).code, Some(0));
    signal("CONT", &[worker, parent]);
    assert!(first.wait().unwrap().success(), "{}", lab.read("slept.said").unwrap());
    wait_till_all_are_gone(&runs.display().to_string());
    assert_ends_well(&lab, "slept");
}
