//! The commands: each takes its arguments, does its work, and says what came of it.

mod bench;
mod cancel;
mod compare;
mod completions;
mod crew;
mod curves;
mod describe;
mod doctor;
mod export;
mod gc;
mod images;
mod import;
mod locate;
mod merge;
mod plan;
mod plan_json;
mod plugins;
mod remeasure;
mod status;
mod sweep;
mod tokenize;
mod watch;
mod worker;

use crate::cli::{Cli, Command, ExperimentArgs, Global, flowing, quotes};
use crate::experiment::{Diagnostic, Invalid};
use crate::gpu::DeviceChoice;
use crate::jobs::{Stopped, end_process, outlive_file_limit};
use crate::plan::Plan;
use crate::plugins::{Plugins, Search};
use crate::store::Store;
use crate::sweep::Unfinished;
use crate::ui::{Ui, Unwritten, counted, print};
use clap::Parser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use rqlab_sdk::Error;
use rqlab_sdk::tensor::Device;
use std::env;
use std::io;
use std::path::Path;
use std::process::ExitCode;

/// How a command that could do its work ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All of it is done.
    Done,
    /// Some trial failed.
    SomeFailed,
    /// Numbers moved between two reports.
    Moved,
}

/// Why a command could not do its work.
#[derive(Debug)]
pub enum Failure {
    /// Something is wrong with what the user gave.
    Input(Invalid),
    /// Something else went wrong.
    Error(Error),
    /// What it found could not be told.
    Unwritten(Unwritten),
    /// A signal stopped it.
    Stopped(Stopped),
    /// A signal came while a cluster worked: it goes on.
    Left(i32),
}

impl From<Unfinished> for Failure {
    fn from(unfinished: Unfinished) -> Self {
        match unfinished {
            Unfinished::Stopped(stopped) => Self::Stopped(stopped),
            Unfinished::Left(signal) => Self::Left(signal),
            Unfinished::Error(error) => Self::Error(error),
        }
    }
}

impl From<Invalid> for Failure {
    fn from(invalid: Invalid) -> Self {
        Self::Input(invalid)
    }
}

impl From<Diagnostic> for Failure {
    fn from(diagnostic: Diagnostic) -> Self {
        Self::Input(diagnostic.into())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<Unwritten> for Failure {
    fn from(unwritten: Unwritten) -> Self {
        Self::Unwritten(unwritten)
    }
}

/// Runs the command line of this process, and gives the exit code: 0 all done, 1 some trial failed or numbers moved, 2 the
/// command could not do its work, 128 and a signal's number where that stopped it.
pub fn main() -> ExitCode {
    enter(|cli: &Cli| &cli.global, run)
}

/// Reads the command line of this process, has it run, says what went wrong, and gives the exit code.
pub fn enter<C: Parser>(
    global: impl FnOnce(&C) -> &Global,
    run: impl FnOnce(&C, Ui) -> Result<Outcome, Failure>,
) -> ExitCode {
    match parse::<C>() {
        Ok(cli) => {
            let ui = Ui::new(global(&cli).quiet);
            end(run(&cli, ui), ui)
        }
        Err(mistake) if mistake.use_stderr() => mistake.exit(),
        // Help, or the version.
        Err(asked) => end(print(|_| asked.print()).map(|()| Outcome::Done).map_err(Failure::from), Ui::new(false)),
    }
}

/// Reads the command line of this process, whose help texts flow.
fn parse<C: Parser>() -> Result<C, clap::Error> {
    let mut command = flowing(C::command());
    let mut matches = command.try_get_matches_from_mut(env::args_os()).map_err(|mut mistake| {
        let arguments: Vec<String> = env::args_os().map(|one| one.to_string_lossy().into_owned()).collect();
        if let Some(hint) = quotes::wanted(&arguments).filter(|_| mistake.kind() == ErrorKind::UnknownArgument) {
            mistake.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![hint.into()]));
        }
        mistake
    })?;
    C::from_arg_matches_mut(&mut matches).map_err(|mistake| mistake.format(&mut command))
}

/// Says what went wrong, and gives the exit code.
fn end(ended: Result<Outcome, Failure>, ui: Ui) -> ExitCode {
    match ended {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::SomeFailed | Outcome::Moved) => ExitCode::from(1),
        Err(Failure::Input(invalid)) => {
            ui.invalid(&invalid);
            ExitCode::from(2)
        }
        Err(Failure::Error(error)) => {
            ui.error(error);
            ExitCode::from(2)
        }
        Err(Failure::Stopped(stopped)) => {
            ui.stopped(&stopped);
            end_process(stopped.signal);
            ExitCode::from(128 + stopped.signal as u8)
        }
        Err(Failure::Left(signal)) => {
            ui.left();
            end_process(signal);
            ExitCode::from(128 + signal as u8)
        }
        // Whoever read it has had enough, as `head` has.
        Err(Failure::Unwritten(Unwritten(error))) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(Failure::Unwritten(Unwritten(error))) => {
            ui.error(format!("standard output cannot be written: {error}"));
            ExitCode::from(2)
        }
    }
}

fn run(cli: &Cli, ui: Ui) -> Result<Outcome, Failure> {
    outlive_file_limit();
    let mut global = cli.global.clone();
    if matches!(cli.command, Command::Worker { .. }) && global.ranks.is_some() {
        global.device = crate::ranks::device(global.device);
    }
    if computes(&cli.command) {
        let device = open_device(&global, ui)?;
        if global.device == DeviceChoice::Auto {
            global.device = DeviceChoice::Chosen(device);
        }
    } else if global.threads.is_some() {
        rqlab_sdk::tensor::set_threads(threads(&global)).map_err(Error::from)?;
    }
    let global = &global;
    match &cli.command {
        Command::Plan { experiment, configs, json } => plan::run(global, experiment, *configs, *json, ui),
        Command::Sweep { experiment, sweep, launcher } => sweep::run_sweep(global, experiment, sweep, launcher, ui),
        Command::Cancel { experiment } => cancel::run(global, experiment, ui),
        Command::Crew { plan, runs, jobs } => crew::run(global, plan, runs, *jobs),
        Command::Run { experiment, trial, sweep } => sweep::run_trial(global, experiment, sweep, trial.as_deref(), ui),
        Command::Report { experiment, sweep } => sweep::run_report(global, experiment, sweep, ui),
        Command::Status { runs } => status::run(runs, ui),
        Command::Where(arguments) => locate::run(global, arguments, ui),
        Command::Gc(arguments) => gc::run(global, arguments, ui),
        Command::Merge { other, runs } => merge::run(runs, other, ui),
        Command::Curves { experiment, curves } => curves::run(global, experiment, curves, ui),
        Command::Compare(arguments) => compare::run(arguments, ui),
        Command::Remeasure { experiment, trial } => remeasure::run(global, experiment, trial.as_deref(), ui),
        Command::Watch { experiment, sweep } => watch::run(global, experiment, sweep, ui),
        Command::Sample { experiment, sample } => images::run_sample(global, experiment, sample, ui),
        Command::Reconstruct { experiment, reconstruct } => {
            images::run_reconstruct(global, experiment, reconstruct, ui)
        }
        Command::Import(arguments) => import::run(global, arguments, ui),
        Command::Export { tokenizer, system, prior, output } => {
            export::run(global, tokenizer, system.as_deref(), *prior, output, ui)
        }
        Command::Tokenize { tokenizer, images, output } => {
            tokenize::run_tokenize(global, tokenizer, images, output, ui)
        }
        Command::Detokenize { tokenizer, codes, output } => {
            tokenize::run_detokenize(global, tokenizer, codes, output, ui)
        }
        Command::Worker { id, runs, lease } => worker::run(global, id, lease.as_deref(), runs),
        Command::Bench { arguments } => bench::run("rqlab-bench", global, arguments),
        Command::CheckGpu { arguments } => bench::run("rqlab-check-gpu", global, arguments),
        Command::Describe { name } => describe::run(&load_plugins(global)?, name.as_deref(), ui),
        Command::Plugins(command) => plugins::run(global, command, ui),
        Command::Doctor { runs } => doctor::run(global, runs, ui),
        Command::Completions { shell } => completions::run(*shell),
    }
}

/// Whether a command computes, itself or by its workers: a device that does not open, or a variable of the environment
/// that asks for what there is not, should be known before the work.
fn computes(command: &Command) -> bool {
    match command {
        // Where a cluster computes, its nodes open their devices.
        Command::Sweep { launcher, .. } => matches!(launcher.settings(), Ok(None)),
        Command::Crew { .. }
        | Command::Run { .. }
        | Command::Remeasure { .. }
        | Command::Watch { .. }
        | Command::Sample { .. }
        | Command::Reconstruct { .. }
        | Command::Tokenize { .. }
        | Command::Detokenize { .. }
        | Command::Worker { .. } => true,
        Command::Plan { .. }
        | Command::Report { .. }
        | Command::Cancel { .. }
        | Command::Status { .. }
        | Command::Where(_)
        | Command::Gc(_)
        | Command::Merge { .. }
        | Command::Curves { .. }
        | Command::Compare(_)
        | Command::Import(_)
        | Command::Export { .. }
        | Command::Bench { .. }
        | Command::CheckGpu { .. }
        | Command::Describe { .. }
        | Command::Plugins(_)
        | Command::Doctor { .. }
        | Command::Completions { .. } => false,
    }
}

/// Makes this process ready to compute: its threads, and the device that new tensors are placed on. If the device was left to
/// us, a line says which it is and why.
///
/// # Errors
/// A device that does not open, a variable of the environment that asks for what there is not.
pub fn open_device(global: &Global, ui: Ui) -> Result<Device, Failure> {
    rqlab_sdk::tensor::set_threads(threads(global)).map_err(Error::from)?;
    rqlab_sdk::tensor::instructions_asked_for().map_err(Error::from)?;
    rqlab_sdk::tensor::precision_asked_for().map_err(Error::from)?;
    let (device, reason) = global.device.resolve();
    device.make_default().map_err(Error::from)?;
    if let Some(reason) = reason {
        ui.note(format!("computing on {device}: {reason}"));
    }
    Ok(device)
}

/// Says that a folder of runs holds work of another version, which is neither read nor replaced.
pub(crate) fn mention_another_format(runs: &Path, ui: Ui) {
    let count = Store::at(runs).of_another_format();
    if count > 0 {
        ui.note(format!(
            "{} holds {} of an older format of results: they are not read, and what they did is done again beside them; \
             name another folder with --runs, or delete {}/stages to free the space",
            runs.display(),
            counted(count, "stage"),
            runs.display()
        ));
    }
}

/// That a folder is one of runs.
///
/// # Errors
/// It is not there, or holds no stages.
fn have_stages(runs: &Path) -> Result<(), Failure> {
    let why = match (runs.join("stages").is_dir(), runs.exists()) {
        (true, _) => return Ok(()),
        (_, true) => format!("{} is no folder of runs: it has no stages/", runs.display()),
        _ => format!("there is no folder {}", runs.display()),
    };
    Err(Diagnostic::error(why).help("name what a sweep was given as --runs").into())
}

/// How many threads to compute with.
pub fn threads(global: &Global) -> usize {
    global.threads.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from)
}

/// Loads the plugins.
///
/// # Errors
/// A directory that was named and is not there.
pub fn load_plugins(global: &Global) -> Result<Plugins, Failure> {
    Ok(Plugins::load(&Search::usual(global.plugins.clone()))?)
}

/// Loads the plugins that something is to be planned with.
///
/// # Errors
/// As for [`load_plugins`]; there are none.
fn load_to_plan(global: &Global) -> Result<Plugins, Failure> {
    let plugins = load_plugins(global)?;
    plugins.any()?;
    Ok(plugins)
}

/// Loads the plugins, plans an experiment that is to be worked on, and shows what is probably not meant.
///
/// # Errors
/// Everything that is wrong with the input; data that are not here.
pub fn open(global: &Global, arguments: &ExperimentArgs, ui: Ui) -> Result<(Plugins, Plan), Failure> {
    let (plugins, plan) = open_to_plan(global, arguments, ui)?;
    if plan.absent.is_empty() { Ok((plugins, plan)) } else { Err(Invalid(plan.absent).into()) }
}

/// As [`open`], but data that are not here are no error.
fn open_to_plan(global: &Global, arguments: &ExperimentArgs, ui: Ui) -> Result<(Plugins, Plan), Failure> {
    let mut plugins = load_to_plan(global)?;
    plugins.tell(ui.progress());
    let seeds = arguments.seeds.as_ref().map(|seeds| seeds.0.as_slice());
    let plan = crate::plan::open(&arguments.experiment, &arguments.set, seeds, &plugins)?;
    plan.warnings.iter().for_each(|warning| ui.diagnostic(warning));
    Ok((plugins, plan))
}
