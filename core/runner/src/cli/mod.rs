//! The command line.

mod arguments;
mod paragraphs;
mod plugins;
pub(crate) mod quotes;
mod values;

pub use arguments::{
    CompareArgs, CurvesArgs, ExperimentArgs, GcArgs, ImportArgs, LauncherArgs, ReconstructArgs, SampleArgs, SweepArgs,
    TokenizerArgs, WhereArgs,
};
pub use paragraphs::flowing;
pub use plugins::{KindArg, PluginsCommand};
pub use values::Seeds;

use crate::gpu::DeviceChoice;
use crate::home::at_home;
use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;

/// What is read from the environment, for the end of a help text.
#[macro_export]
macro_rules! environment {
    () => {
        "\
Environment:
  RQLAB_CPU      instructions of the kernels: avx512, avx2 or baseline
                 [default: the best]
  RQLAB_GPU      precision of products on a GPU in sample, reconstruct and
                 bench: tf32, f32 or bf16 [default: tf32]; stages of an
                 experiment have their own setting, `precision`
  RQLAB_PLUGINS  directories with more plugins, as PATH names them
  RQLAB_HOME     directory of experiments/, runs/ and reports/ [default: that
                 of the bundle which this program lies in, or else the current
                 one]
  NO_COLOR       no colours if it is set"
    };
}

/// A laboratory for image tokenizers and autoregressive image priors.
///
/// An experiment is a .ron file that names a data set, an autoencoder, a quantizer and a prior, and what is varied.
/// rqlab plans it, trains every combination once, and ends in a report that answers the file's question.
#[derive(Debug, Parser)]
#[command(
    name = "rqlab",
    version,
    propagate_version = true,
    max_term_width = 110,
    after_help = concat!(
        "\
Examples:
  rqlab plan depth-vs-codebook     what would run, what is done, and the time
  rqlab sweep depth-vs-codebook    run it, and write its report
  rqlab plan quickstart --set quantizer.depth=8 --seeds 0,1,2
  rqlab describe rq                every field of the quantizer `rq`

",
        environment!(),
        "

An experiment is named by its file, or by its stem under experiments/.

Exit codes: 0 all done, 1 some trial failed (compare: numbers moved), 2 bad input, 130 stopped by Ctrl-C."
    )
)]
pub struct Cli {
    /// What applies to every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What applies to every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Threads to compute with [default: one for each core].
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
    /// Device to compute on: cpu, cuda or cuda:N; auto is the first GPU if one is here that this build can use, else the CPU.
    #[arg(long, global = true, value_name = "DEVICE", default_value = "auto", value_parser = values::device)]
    pub device: DeviceChoice,
    /// Processes that train a stage together, each on its share of every batch, by MPI, whose mpirun must be on the PATH: the
    /// result is that of one, to rounding [default: 1, or what ~/.config/rqlab/launcher.ron says].
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub ranks: Option<u16>,
    /// Directory with more plugins, searched first; may be repeated. RQLAB_PLUGINS names more.
    #[arg(long, global = true, value_name = "DIR")]
    pub plugins: Vec<PathBuf>,
    /// Say nothing but results and errors.
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

impl Global {
    /// The arguments that say the same to another process of the laboratory.
    pub fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["--device".into(), self.device.to_string().into()];
        for folder in &self.plugins {
            arguments.extend(["--plugins".into(), folder.into()]);
        }
        if let Some(threads) = self.threads {
            arguments.extend(["--threads".into(), threads.to_string().into()]);
        }
        if let Some(ranks) = self.ranks {
            arguments.extend(["--ranks".into(), ranks.to_string().into()]);
        }
        if self.quiet {
            arguments.push("--quiet".into());
        }
        arguments
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Shows what an experiment would run, what is cached, and how long it takes.
    #[command(after_help = "\
Examples:
  rqlab plan depth-vs-codebook
  rqlab plan experiments/quickstart.ron --set tokenizer_training.steps=200
  rqlab plan cifar10-depth-vs-codebook --set data.path=../data/cifar10 --seeds 0")]
    Plan {
        /// The experiment.
        #[command(flatten)]
        experiment: ExperimentArgs,
        /// Also prints each trial's resolved configuration.
        #[arg(long)]
        configs: bool,
        /// Prints the plan as JSON: trials, jobs, what each needs, what is done, memory, disk, time.
        #[arg(long, conflicts_with = "configs")]
        json: bool,
    },
    /// Runs every trial of an experiment that is not done yet, and writes its report.
    #[command(after_help = "\
Examples:
  rqlab sweep quickstart
  rqlab sweep depth-vs-codebook --jobs 1
  rqlab sweep cifar10-depth-vs-codebook --set data.path=../data/cifar10
  rqlab sweep depth-vs-codebook --launcher slurm --partition gpu --time 4:00:00 --gpus 1

Stopped by Ctrl-C, or killed? The same command goes on where it was. The same command in another terminal, or on another machine that
shares the folder of runs, takes part of the work: `rqlab status` shows who does what. docs/cluster.md tells of clusters.")]
    Sweep {
        /// The experiment.
        #[command(flatten)]
        experiment: ExperimentArgs,
        /// Where to and how.
        #[command(flatten)]
        sweep: SweepArgs,
        /// Where jobs run.
        #[command(flatten)]
        launcher: LauncherArgs,
    },
    /// Ends the work of an experiment on a cluster: cancels its tasks, which keep checkpoints.
    Cancel {
        /// The experiment.
        #[command(flatten)]
        experiment: ExperimentArgs,
    },
    /// Runs one trial and prints its measures.
    #[command(after_help = "\
Examples:
  rqlab run quickstart --set quantizer.depth=4
  rqlab run quickstart --set 'quantizer=rq(depth: 8)' --seeds 0")]
    Run {
        /// The experiment.
        #[command(flatten)]
        experiment: ExperimentArgs,
        /// The trial, by the first digits of its id; not needed if there is only one.
        #[arg(long, value_name = "ID")]
        trial: Option<String>,
        /// Where to and how.
        #[command(flatten)]
        sweep: SweepArgs,
    },
    /// Writes the report of what is done so far.
    Report {
        /// The experiment.
        #[command(flatten)]
        experiment: ExperimentArgs,
        /// Where to.
        #[command(flatten)]
        sweep: SweepArgs,
    },
    /// Shows who does what in a folder of runs: which process of which machine works on which stage.
    #[command(after_help = "\
Any number of `rqlab sweep` on one folder, on one machine or on several that share it, divide the stages among them. Each stage that is
being worked on has a lease in RUNS/leases. That of a process that has died is broken by the next one that looks: at once on its own
machine, after two minutes without a heartbeat on another.")]
    Status {
        /// Directory that holds finished work.
        #[arg(long, value_name = "DIR", default_value_os_t = at_home("runs"))]
        runs: PathBuf,
    },
    /// Shows where the work of a trial lies: its experiment, its report, and the folder of each of its stages.
    #[command(after_help = "Example:\n  rqlab where 1a2b3c4d")]
    Where(WhereArgs),
    /// Deletes finished work that no experiment under a folder needs, and no report shows. Asks first.
    #[command(after_help = "\
Stages that somebody works on are kept. Where it is not known what an experiment needs, because it cannot be planned, nothing is
deleted; where its data are not here, stages on data of no other experiment are kept.

Examples:
  rqlab gc --dry-run
  rqlab gc experiments --yes")]
    Gc(GcArgs),
    /// Takes finished stages over from another folder of runs, such as that of another machine.
    #[command(after_help = "\
What is finished and sound there, and not finished here, is copied; nothing there is changed. A stage has the same id wherever it was
computed, so that a sweep finds it as if it had done it itself.

Example:
  rqlab merge /mnt/laptop/runs")]
    Merge {
        /// The other folder of runs.
        #[arg(value_name = "OTHER_RUNS")]
        other: PathBuf,
        /// Directory that holds finished work here.
        #[arg(long, value_name = "DIR", default_value_os_t = at_home("runs"))]
        runs: PathBuf,
    },
    /// Shows the training curves of an experiment's stages so far, from a sweep that is under way or done.
    #[command(after_help = "\
EXPERIMENT may also be one stage, by the first digits of its id: `rqlab curves 1a2b3c4d`.

Examples:
  rqlab curves quickstart                       the last values, and shapes
  rqlab curves quickstart --follow --only loss  each point as it is taken
  rqlab curves 1a2b3c4d --points > points.tsv

Each stage keeps its points in runs/stages/ID/events.jsonl, a line of JSON for each step at which they were taken.")]
    Curves {
        /// The experiment.
        #[command(flatten)]
        experiment: ExperimentArgs,
        /// Which and how.
        #[command(flatten)]
        curves: CurvesArgs,
    },
    /// Sets two reports side by side: which numbers moved beyond noise.
    #[command(after_help = "\
Configurations are matched by the values of their axes. With three seeds or more, differences are judged seed by seed (paired t;
Welch's where the seeds are others), corrected by Holm's method for all numbers together. With fewer the noise is unknown: a
difference counts if the work and the kind of machine are the same on both sides, or if it is more than the measure's margin.
What was measured with another yardstick (data, classifier, tokenizer, machine of timings) is withheld, and counted.

Exit codes: 0 nothing moved; 1 a number moved or is no longer measured, or a trial is done on one side only; 2 there is nothing
to compare.

Examples:
  rqlab compare quickstart quickstart+1a2b3c4d    two reports in reports/out
  rqlab compare before/out/mine reports/out/mine --margin 0.02
  rqlab compare A B --json | jq '.numbers[] | select(.movement == \"moved\")'")]
    Compare(CompareArgs),
    /// Times the speeds of finished trials again, without training or drawing anything anew.
    #[command(after_help = "\
For speeds that were timed on a busy machine, or on another one than those that they are to be compared with. Each speed is the
median of several rounds; the new ones take the place of the old ones in the trial's results, with when and where they were taken.
Nothing else of the results changes, and `rqlab report` shows them. Let nothing else run meanwhile.

Examples:
  rqlab remeasure quickstart
  rqlab remeasure quickstart --trial 1a2b3c4d --threads 1")]
    Remeasure {
        /// The experiment.
        #[command(flatten)]
        experiment: ExperimentArgs,
        /// Only this trial, by the first digits of its id.
        #[arg(long, value_name = "ID")]
        trial: Option<String>,
    },
    /// Sweeps, and again whenever the experiment or a plugin changes.
    Watch {
        /// The experiment.
        #[command(flatten)]
        experiment: ExperimentArgs,
        /// Where to and how.
        #[command(flatten)]
        sweep: SweepArgs,
    },
    /// Draws images from a trained prior into a PNG file.
    #[command(
        after_help = "Example:\n  rqlab sample quickstart --set quantizer.depth=4 --class 2 --temperature 0.9 -o class-2.png"
    )]
    Sample {
        /// The experiment.
        #[command(flatten)]
        experiment: ExperimentArgs,
        /// What to draw.
        #[command(flatten)]
        sample: SampleArgs,
    },
    /// Puts test images above their reconstructions from 1 to all depths, in a PNG file.
    Reconstruct {
        /// The experiment.
        #[command(flatten)]
        experiment: ExperimentArgs,
        /// What to reconstruct.
        #[command(flatten)]
        reconstruct: ReconstructArgs,
    },
    /// Makes a published checkpoint something that experiments can start from.
    #[command(after_help = "\
FILE is a safetensors file, the index of several, or a file of PyTorch (.pt, .pth, .ckpt, .bin). It is read without running
anything that it holds: what names a function or class without a place among weights is refused. Its configuration is looked for
beside it: config.yaml, project.yaml, config.json.

It becomes imports/NAME.safetensors, and imports/NAME.ron, an experiment to be based on:

  (
      base: \"../imports/NAME.ron\",
      question: \"How well does it do on my images?\",
      data: folder(path: \"..\", size: 256),
  )

With `tokenizer_training: (from: .., steps: 0)`, as it stands there, the weights stay as they are. With more steps they are
trained further, and `freeze: [\"autoencoder.encoder.*\", \"quantizer.*\"]` leaves those as they are whose names fit.

Names and shapes that do not fit are listed, all of them. docs/import.md tells what is checked.

Examples:
  rqlab import imagenet_1.4B/stage1/model.pt --as rqvae
  rqlab import last.ckpt --as vqgan --size 128
  rqlab import epoch10_model.pt --as rqvae-ema --weights ema")]
    Import(ImportArgs),
    /// Writes a tokenizer's or a prior's weights under the names of a published system, as safetensors.
    #[command(after_help = "\
Examples:
  rqlab export rqvae -o model.safetensors    what was imported, as it was named
  rqlab export mine --trial 1a2b3c4d --system rqvae -o mine.safetensors
  rqlab export mine --trial 1a2b3c4d --prior 1 --system rqtransformer -o prior.safetensors

Numbers are written as f32. What a published file holds beside the model, such as an optimizer's state, is not in it.")]
    Export {
        /// What to write.
        #[command(flatten)]
        tokenizer: TokenizerArgs,
        /// The published system [default: the one that it was imported from]: a wrong name lists them.
        #[arg(long, value_name = "NAME")]
        system: Option<String>,
        /// The prior of this level of an experiment's trial, from 1, in place of its tokenizer.
        #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(u16).range(1..))]
        prior: Option<u16>,
        /// The file.
        #[arg(long, short, value_name = "FILE")]
        output: PathBuf,
    },
    /// Encodes your own pictures into a file of codes.
    #[command(after_help = "\
Pictures are files (PNG, JPEG, WebP, TIFF, GIF, BMP, PNM) or folders of them, which may hold further folders, such as one a
class. One of another size than the tokenizer's is scaled
until it covers that, and cut at both ends alike; how many were is said. The file is safetensors: `codes` of the shape
[pictures, rows, columns, depth], and among its texts the pictures' names and the identity of the tokenizer.

Examples:
  rqlab tokenize rqvae holidays/ -o codes.safetensors
  rqlab tokenize mine --trial 1a2b3c4d a.png b.jpg -o codes.safetensors")]
    Tokenize {
        /// What to encode with.
        #[command(flatten)]
        tokenizer: TokenizerArgs,
        /// The pictures, or folders of them.
        #[arg(value_name = "IMAGES", required = true)]
        images: Vec<PathBuf>,
        /// The file.
        #[arg(long, short, value_name = "FILE", default_value = "codes.safetensors")]
        output: PathBuf,
    },
    /// Decodes a file of codes into pictures.
    #[command(after_help = "Example:\n  rqlab detokenize rqvae codes.safetensors -o pictures")]
    Detokenize {
        /// What to decode with: the tokenizer that the codes were made with. Another one refuses them.
        #[command(flatten)]
        tokenizer: TokenizerArgs,
        /// The file of codes.
        #[arg(value_name = "CODES")]
        codes: PathBuf,
        /// The folder of the pictures, NAME.png for each.
        #[arg(long, short, value_name = "DIR")]
        output: PathBuf,
    },
    /// Times training, encoding, sampling and single operations on fixed workloads.
    // Another program, beside this one, reads the arguments and answers `--help`.
    #[command(disable_help_flag = true)]
    Bench {
        /// What to time, and what to set it beside: see `rqlab bench --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
        arguments: Vec<OsString>,
    },
    /// Shows what a GPU must show, in the order of worth: agreement with the CPU, then speed.
    // Another program, as for `bench`.
    #[command(disable_help_flag = true)]
    CheckGpu {
        /// Limits, folders: see `rqlab check-gpu --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
        arguments: Vec<OsString>,
    },
    /// Does stages of a plan, in a task of a cluster; started by its batch script.
    #[command(hide = true)]
    Crew {
        /// The plan's folder.
        plan: PathBuf,
        /// Directory that holds the work.
        #[arg(long, value_name = "DIR")]
        runs: PathBuf,
        /// Jobs at once.
        #[arg(long, value_name = "N")]
        jobs: Option<u16>,
    },
    /// Does one job of a sweep; started by its launcher.
    #[command(hide = true)]
    Worker {
        /// The job.
        #[arg(long)]
        id: String,
        /// Directory that holds the work.
        #[arg(long, value_name = "DIR")]
        runs: PathBuf,
        /// By what it takes over the lease of the stage from the process that started it; it ends when standard input does, so
        /// that it does not outlive that one. Without it, it takes the lease itself.
        #[arg(long, value_name = "TOKEN")]
        lease: Option<String>,
    },
    /// Tells what may be written in an experiment: the fields of a component or of settings, with defaults, ranges and
    /// meaning, the components that a slot takes, or what other fields of the file hold. Without a name, what there is.
    #[command(after_help = "\
Examples:
  rqlab describe rq
  rqlab describe prior_training
  rqlab describe quantizer
  rqlab describe report")]
    Describe {
        /// A component's name, as experiments call it, or a field of experiment files: data, autoencoder, quantizer, prior,
        /// objective, tokenizer_training, prior_training, evaluation, question, base, axes, sweep, exclude, when, seeds, report.
        name: Option<String>,
    },
    /// Lists, describes, creates and builds plugins.
    #[command(subcommand)]
    Plugins(PluginsCommand),
    /// Checks this installation: versions, device, threads, plugins, and the folder of runs.
    Doctor {
        /// Directory that holds finished work.
        #[arg(long, value_name = "DIR", default_value_os_t = at_home("runs"))]
        runs: PathBuf,
    },
    /// Prints a completion script for a shell.
    #[command(after_help = "\
Examples:
  rqlab completions bash > ~/.local/share/bash-completion/completions/rqlab
  rqlab completions fish > ~/.config/fish/completions/rqlab.fish")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
