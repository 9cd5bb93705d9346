//! Whatever is killed or stopped, the next run goes on, and ends with what an undisturbed one ends with.

#![cfg(target_os = "linux")] // Workers are found in /proc.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says by what it can be repeated"
)]

use rqlab_tests::faults::{
    Random, difference, files, finished, leases, number, processes, signal, traces, wait_till_all_are_gone,
};
use rqlab_tests::lab::{Lab, half_written, lasting};
use std::fs;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

/// Every stage that trains, two levels, and a checkpoint every other step; points of the curves stand at checkpoints and between
/// them.
const EXPERIMENT: &str = r#"(
    question: "Is anything lost?",
    data: dead_leaves(size: 16, train: 32, test: 16, classes: 2),
    autoencoder: vqvae2(factors: [2, 2], width: 8, blocks: 1, residual_width: 4, code_channels: 4),
    quantizer: [rq(depth: 2, codebook: 16), vq(codebook: 16)],
    objective: [mse(), patch_gan(n_layers: 1, width: 4, start: 3)],
    prior: [
        ar(width: 16, heads: 2, layers: 1),
        pixelsnail(width: 16, heads: 2, blocks: 1, residual_blocks: 1, kernel: 3),
    ],
    tokenizer_training: (steps: 12, batch: 4, lr: 1e-3, warmup: 2, checkpoint: 2, log: 3),
    prior_training: (
        steps: 12, batch: 4, lr: 1e-3, warmup: 2, images: 8, validation: 8, checkpoint: 2, log: 3,
        condition: text, text_length: 6, condition_dropout: 0.1,
    ),
    evaluation: (images: 16, samples: 6, speed: [], pictures: 2, classifier_steps: 6),
)
"#;

fn lab() -> Lab {
    let lab = Lab::new().unwrap();
    lab.write("tiny.ron", EXPERIMENT).unwrap();
    sweep(&lab, "whole");
    let whole = finished(&lab.path("whole")).unwrap();
    let trainings = whole.values().filter(|stage| !stage.events.is_empty()).count();
    assert_eq!((whole.len(), trainings), (11, 5), "a classifier, one of attributes, a tokenizer, two priors");
    lab
}

/// What a sweep is called with, and by which its processes are known.
fn arguments(runs: &Path) -> String {
    format!("sweep tiny.ron --quiet --runs {} --out {}-out", runs.display(), runs.display())
}

/// Sweeps undisturbed.
fn sweep(lab: &Lab, runs: &str) {
    let said = lab.run(&arguments(&lab.path(runs))).unwrap();
    assert_eq!(said.code, Some(0), "{}", said.err);
}

/// What is done equals what an undisturbed run does, and nothing but that is left.
fn assert_like_undisturbed(lab: &Lab, runs: &str) {
    let table = |runs: &str| lasting(&lab.read(&format!("{runs}-out/tiny/results.csv")).unwrap());
    assert_eq!(table(runs), table("whole"));
    assert_eq!(difference(&lab.path(runs), &lab.path("whole")).unwrap(), None);
    for folder in [runs.to_owned(), format!("{runs}-out")] {
        assert_eq!(half_written(&lab.path(&folder)), Vec::<PathBuf>::new());
    }
    assert_eq!(leases(&lab.path(runs)).unwrap(), Vec::<PathBuf>::new());
    let pages = |runs: &str| files(&lab.path(&format!("{runs}-out"))).unwrap();
    assert_eq!(pages(runs), pages("whole"));
}

/// Waits for `count` changes on disk, or for the end of all sweeps; says whether one is still running.
fn wait_for_changes(sweeps: &mut [Child], runs: &Path, count: usize) -> bool {
    let (mut before, mut left) = (traces(runs), count);
    loop {
        if sweeps.iter_mut().all(|sweep| sweep.try_wait().unwrap().is_some()) {
            return false;
        }
        if left == 0 {
            return true;
        }
        let now = traces(runs);
        if now != before {
            (before, left) = (now, left - 1);
        }
        sleep(Duration::from_millis(1));
    }
}

/// Kills a worker, a sweep, or a sweep and all workers, one after another.
struct Killer {
    random: Random,
    left: u64,
    /// How many of each there were.
    workers: u64,
    sweeps: u64,
    both: u64,
}

impl Killer {
    /// Sweeps in one or two processes until all of them have ended, and kills at any moment. Says whether one came to its end.
    fn disturb(&mut self, lab: &Lab, runs: &Path) -> bool {
        let (arguments, name) = (arguments(runs), runs.display().to_string());
        let mut sweeps: Vec<Child> = (0..1 + self.random.below(2)).map(|_| lab.start(&arguments).unwrap()).collect();
        // Often, or so seldom that much is done in between.
        let pace = 1 << self.random.below(8);
        // A job whose worker was ended three times fails, as it should.
        let mut spared = 2;
        while self.left > 0 {
            let moment = self.random.below(pace);
            if !wait_for_changes(&mut sweeps, runs, moment) {
                break;
            }
            // Between two changes, too.
            sleep(Duration::from_micros(self.random.below(20_000) as u64));
            let mut running: Vec<&mut Child> =
                sweeps.iter_mut().filter_map(|sweep| sweep.try_wait().unwrap().is_none().then_some(sweep)).collect();
            let parents: Vec<u32> = running.iter().map(|sweep| sweep.id()).collect();
            let workers: Vec<u32> = processes(&name).into_iter().filter(|pid| !parents.contains(pid)).collect();
            let (kind, which) = (self.random.below(3), self.random.below(1 << 16));
            let Some(parent) = running.get_mut(which % parents.len().max(1)) else { break };
            self.left -= 1;
            match kind {
                0 if spared > 0 && !workers.is_empty() => {
                    (self.workers, spared) = (self.workers + 1, spared - 1);
                    signal("KILL", &workers[which % workers.len()..][..1]);
                }
                1 if !workers.is_empty() && (parents.len() == 1 || spared > 0) => {
                    self.both += 1;
                    // Workers of the other sweep are among them.
                    spared -= parents.len() - 1;
                    let (first, then) = ([parent.id()].to_vec(), workers);
                    signal("KILL", &if which % 2 == 0 { [first, then] } else { [then, first] }.concat());
                }
                _ => {
                    self.sweeps += 1;
                    parent.kill().unwrap();
                }
            }
        }
        let ends: Vec<_> = sweeps.iter_mut().map(|sweep| sweep.wait().unwrap()).collect();
        wait_till_all_are_gone(&name);
        let failures = || {
            let events = fs::read_to_string(runs.join("events.jsonl")).unwrap();
            events.lines().filter(|line| line.contains("error")).map(|line| format!("\n{line}")).collect::<String>()
        };
        assert!(ends.iter().all(|end| end.success() || end.signal() == Some(9)), "{ends:?}{}", failures());
        ends.iter().any(|end| end.success())
    }
}

/// `kill -9` of workers, of sweeps and of both, at moments between any two writes: 50 times, or as often as `RQLAB_KILLS` says, by
/// the chance of `RQLAB_SEED`.
#[test]
fn killing_any_process_at_any_time_loses_nothing() {
    let lab = lab();
    let (kills, seed) = (number("RQLAB_KILLS", 50), number("RQLAB_SEED", 0));
    let mut killer = Killer { random: Random::new(seed), left: kills, workers: 0, sweeps: 0, both: 0 };
    let mut rounds = 0;
    while killer.left > 0 {
        rounds += 1;
        let name = format!("killed-{rounds}");
        let runs = lab.path(&name);
        println!("sweep {rounds}: {} kills are left, {:?}", killer.left, killer.random);
        while !killer.disturb(&lab, &runs) {}
        // Whoever comes next has nothing to do but to tidy up.
        let begun = || lab.read(&format!("{name}/events.jsonl")).unwrap().matches("\"started\"").count();
        let before = begun();
        sweep(&lab, &name);
        assert_eq!(begun(), before);
        assert_like_undisturbed(&lab, &name);
        fs::remove_dir_all(runs).unwrap();
    }
    let Killer { workers, sweeps, both, .. } = killer;
    println!("{kills} kills: {workers} of a worker, {sweeps} of a sweep, {both} of both; {rounds} sweeps, all equal");
}

/// Ctrl-C reaches the sweep and its workers alike; `kill -INT` and `kill` reach the sweep alone.
#[test]
fn stopping_a_sweep_ends_its_workers_and_says_what_is_kept() {
    let lab = lab();
    let jobs = finished(&lab.path("whole")).unwrap().len();
    let whole_group = "-";
    for (round, (signal, number, to, changes)) in
        [("INT", 2, whole_group, 4), ("INT", 2, "", 15), ("TERM", 15, "", 30), ("INT", 2, whole_group, 60)]
            .into_iter()
            .enumerate()
    {
        let runs = lab.path(&format!("stopped-{round}"));
        let arguments = arguments(&runs);
        // Where a sweep was done before it could be stopped, another one is stopped sooner.
        let stopped = (1..=changes).rev().find_map(|changes| {
            let _ = fs::remove_dir_all(&runs);
            let mut command = lab.command(&arguments).unwrap();
            let mut parent = command.process_group(0).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
            if !wait_for_changes(std::slice::from_mut(&mut parent), &runs, changes) {
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

        assert_eq!(processes(&runs.display().to_string()), Vec::<u32>::new());
        assert_eq!(half_written(&runs), Vec::<PathBuf>::new());
        assert!(!traces(&runs).iter().any(|(file, ..)| file.ends_with("failed.json")));
        sweep(&lab, &format!("stopped-{round}"));
        assert_like_undisturbed(&lab, &format!("stopped-{round}"));
    }
}
