//! The command lines that do work again: complete, and as a shell reads them.

use crate::cli::{ExperimentArgs, Global, SweepArgs};
use crate::collect::shown;
use crate::experiment::find;
use crate::gpu::DeviceChoice;
use crate::home::{HOME, at_home};
use crate::machine;
use crate::ui::quoted;
use rqlab_reports::Trial;
use std::env;
use std::path::Path;

/// Lowers the instructions that the kernels use.
const INSTRUCTIONS: &str = "RQLAB_CPU";
/// The variables that decide what a command does, beside its arguments.
const VARIABLES: [&str; 4] = [HOME, "RQLAB_PLUGINS", INSTRUCTIONS, "RQLAB_GPU"];

/// What was given on the command line and by the environment, to be given again.
#[derive(Debug, Clone, Default)]
pub struct Repeat {
    /// Name and value of each variable.
    variables: Vec<(String, String)>,
    /// Options of all commands.
    global: Vec<String>,
    /// The experiment, and what is changed in it.
    experiment: Vec<String>,
    /// Where a report goes.
    report: Vec<String>,
    /// How much of the machine is used.
    machine: Vec<String>,
}

impl Repeat {
    /// What this process was given. `how` is that of commands which work.
    pub fn of(global: &Global, arguments: &ExperimentArgs, how: Option<&SweepArgs>) -> Self {
        let set = |name: &&str| {
            env::var(name).ok().filter(|value| !value.is_empty()).map(|value| ((*name).to_owned(), value))
        };
        let mut repeat = Self { variables: VARIABLES.iter().filter_map(set).collect(), ..Self::default() };
        if let DeviceChoice::Named(device) = global.device {
            repeat.global.extend(["--device".to_owned(), device.to_string()]);
        }
        for folder in &global.plugins {
            repeat.global.extend(["--plugins".to_owned(), text(folder)]);
        }
        repeat
            .experiment
            .push(find(&arguments.experiment).map_or_else(|_| arguments.experiment.clone(), |path| shown(&path)));
        for set in &arguments.set {
            repeat.experiment.extend(["--set".to_owned(), set.clone()]);
        }
        if let Some(seeds) = &arguments.seeds {
            repeat.experiment.extend(["--seeds".to_owned(), seeds.to_string()]);
        }
        if arguments.runs != at_home("runs") {
            repeat.experiment.extend(["--runs".to_owned(), text(&arguments.runs)]);
        }
        let Some(how) = how else { return repeat };
        if how.out != at_home("reports/out") {
            repeat.report.extend(["--out".to_owned(), text(&how.out)]);
        }
        if let Some(name) = &how.name {
            repeat.report.extend(["--name".to_owned(), name.clone()]);
        }
        if let Some(threads) = global.threads {
            repeat.machine.extend(["--threads".to_owned(), threads.to_string()]);
        }
        if let Some(ranks) = global.ranks {
            repeat.machine.extend(["--ranks".to_owned(), ranks.to_string()]);
        }
        if let Some(jobs) = how.jobs {
            repeat.machine.extend(["--jobs".to_owned(), jobs.to_string()]);
        }
        repeat
    }

    /// For a command that renders what others computed: how much of the machine it uses itself is of no account.
    pub fn without_machine(mut self) -> Self {
        self.machine.clear();
        self
    }

    /// With the threads and the instructions that the trials were computed with, where they say so with one voice, nothing else
    /// is given, and this process does not use them by itself.
    pub fn as_computed<'a>(mut self, trials: impl Iterator<Item = &'a Trial> + Clone) -> Self {
        let environments = || trials.clone().flat_map(|trial| &trial.origins).map(|origin| &origin.environment);
        if let Some(threads) = the_one(environments().map(|environment| environment.threads))
            && self.machine.is_empty()
            && threads != machine::cores()
        {
            // Jobs side by side share the threads.
            self.machine = ["--threads", &threads.to_string(), "--jobs", "1"].map(str::to_owned).to_vec();
        }
        let instructions = environments().map(|environment| environment.instructions.as_str());
        let Some(one) = the_one(instructions) else { return self };
        let asked = self.variables.iter().any(|(name, _)| name == INSTRUCTIONS);
        let here = rqlab_sdk::tensor::instructions();
        if let Some(level) = level(one).filter(|_| asked || one != here) {
            self.variables.retain(|(name, _)| name != INSTRUCTIONS);
            self.variables.push((INSTRUCTIONS.to_owned(), level.to_owned()));
        }
        self
    }

    /// The line of a whole sweep, with its report.
    pub fn sweep(&self) -> String {
        self.line("sweep", &[&self.experiment, &self.report, &self.machine])
    }

    /// The line of its report alone.
    pub fn report(&self) -> String {
        self.line("report", &[&self.experiment, &self.report])
    }

    /// The line of one trial.
    pub fn trial(&self, id: &str) -> String {
        let trial = ["--trial".to_owned(), id.to_owned()];
        self.line("run", &[&self.experiment, &trial, &self.machine])
    }

    fn line(&self, command: &str, parts: &[&[String]]) -> String {
        let variables = self.variables.iter().map(|(name, value)| format!("{name}={}", quoted(value)));
        let words = ["rqlab", command].map(str::to_owned).into_iter();
        let arguments = parts.iter().flat_map(|part| part.iter()).chain(&self.global).map(|word| quoted(word));
        variables.chain(words).chain(arguments).collect::<Vec<_>>().join(" ")
    }
}

/// The value of all, if there is one and no other.
fn the_one<T: PartialEq>(mut values: impl Iterator<Item = T>) -> Option<T> {
    let first = values.next()?;
    values.all(|value| value == first).then_some(first)
}

/// What [`INSTRUCTIONS`] calls the instructions that a stage names.
fn level(in_words: &str) -> Option<&'static str> {
    let words = in_words.to_ascii_lowercase();
    [("avx-512", "avx512"), ("avx2", "avx2"), ("baseline", "baseline")]
        .into_iter()
        .find_map(|(begins, level)| words.starts_with(begins).then_some(level))
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;
    use rqlab_reports::{Environment, Origin};

    fn repeat(words: &[&str]) -> Repeat {
        let cli = Cli::try_parse_from(words).unwrap();
        let Command::Sweep { experiment, sweep, .. } = &cli.command else { return Repeat::default() };
        Repeat { variables: Vec::new(), ..Repeat::of(&cli.global, experiment, Some(sweep)) }
    }

    #[test]
    fn a_line_holds_all_that_was_given_and_reads_the_same_again() {
        let words = [
            "rqlab",
            "sweep",
            "x y.ron",
            "--set",
            "data.path=a=b, c's #1",
            "--set",
            "quantizer=rq(depth: 2)",
            "--seeds",
            "3,4",
            "--runs",
            "r",
            "--out",
            "o u t",
            "--name",
            "mine",
            "--threads",
            "2",
            "--jobs",
            "1",
            "--device",
            "cpu",
            "--plugins",
            "p",
        ];
        let line = repeat(&words).sweep();
        assert_eq!(
            line,
            "rqlab sweep 'x y.ron' --set 'data.path=a=b, c'\\''s #1' --set 'quantizer=rq(depth: 2)' --seeds 3,4 --runs r \
             --out 'o u t' --name mine --threads 2 --jobs 1 --device cpu --plugins p"
        );
        assert_eq!(
            repeat(&words).trial("0123abcd"),
            "rqlab run 'x y.ron' --set 'data.path=a=b, c'\\''s #1' --set 'quantizer=rq(depth: 2)' --seeds 3,4 --runs r --trial \
             0123abcd --threads 2 --jobs 1 --device cpu --plugins p"
        );
        assert_eq!(repeat(&["rqlab", "sweep", "x.ron"]).sweep(), "rqlab sweep x.ron");
        assert_eq!(repeat(&words).without_machine().sweep(), line.replace(" --threads 2 --jobs 1", ""));
    }

    #[test]
    fn threads_are_those_that_computed_unless_some_are_given() {
        let trial = |threads: &[usize]| {
            let instructions = rqlab_sdk::tensor::instructions().to_owned();
            let environment = Environment { instructions, ..Environment::default() };
            let with = |&threads| Environment { threads, ..environment.clone() };
            let origins = threads.iter().map(with).map(|environment| Origin { stage: "prior".to_owned(), environment });
            Trial { origins: origins.collect(), ..Trial::default() }
        };
        let line =
            |words: &[&str], trials: &[Trial]| repeat(words).without_machine().as_computed(trials.iter()).sweep();
        let more = machine::cores() + 1;
        let swept = ["rqlab", "sweep", "x.ron", "--threads", "7"];
        let told = format!("rqlab sweep x.ron --threads {more} --jobs 1");
        assert_eq!(line(&swept, &[trial(&[more, more]), trial(&[more])]), told);
        for alike in [&[machine::cores()][..], &[more, 1], &[]] {
            assert_eq!(line(&swept, &[trial(alike)]), "rqlab sweep x.ron");
        }
        let given = repeat(&swept).as_computed([trial(&[more])].iter()).sweep();
        assert_eq!(given, "rqlab sweep x.ron --threads 7");
    }

    #[test]
    fn instructions_are_those_that_computed() {
        let trial = |instructions: &str| {
            let threads = machine::cores();
            let environment = Environment { instructions: instructions.to_owned(), threads, ..Environment::default() };
            Trial { origins: vec![Origin { stage: "tokenizer".to_owned(), environment }], ..Trial::default() }
        };
        let line = |trials: &[Trial]| repeat(&["rqlab", "sweep", "x.ron"]).as_computed(trials.iter()).sweep();
        let lower = if rqlab_sdk::tensor::instructions() == "baseline instructions" {
            "AVX2 and FMA"
        } else {
            "baseline instructions"
        };
        assert_eq!(line(&[trial(lower)]), format!("RQLAB_CPU={} rqlab sweep x.ron", level(lower).unwrap()));
        assert_eq!(line(&[trial(rqlab_sdk::tensor::instructions())]), "rqlab sweep x.ron");
        assert_eq!(line(&[trial(lower), trial("AVX-512")]), "rqlab sweep x.ron");
    }
}
