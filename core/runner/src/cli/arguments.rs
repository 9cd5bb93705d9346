//! Groups of arguments that commands share or have for themselves.

use super::values::{Seeds, above_zero, folder_name, margin, not_negative, positive, seeds, share, sides};
use crate::cluster::{LauncherKind, Settings};
use crate::experiment::Diagnostic;
use crate::home::at_home;
use crate::import::Weights;
use clap::Args;
use std::path::PathBuf;

/// An experiment, and what the command line changes in it.
#[derive(Debug, Clone, Args)]
pub struct ExperimentArgs {
    /// The experiment: a .ron file, or its stem under experiments/.
    #[arg(value_name = "EXPERIMENT")]
    pub experiment: String,
    /// Sets a field, for example quantizer.depth=8 or data.path=/data/cifar10; may be repeated. An axis that is set this
    /// way has only this value.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub set: Vec<String>,
    /// Seeds instead of the file's: 0,1,2.
    #[arg(long, value_name = "SEEDS", value_parser = seeds)]
    pub seeds: Option<Seeds>,
    /// Directory that holds finished work.
    #[arg(long, value_name = "DIR", default_value_os_t = at_home("runs"))]
    pub runs: PathBuf,
}

/// Which folder of runs to look into, and the experiments that use it.
#[derive(Debug, Clone, Args)]
pub struct WhereArgs {
    /// The trial, or one of its stages, by the first digits of its id.
    #[arg(value_name = "TRIAL")]
    pub trial: String,
    /// Directory of the experiments among which it is looked for.
    #[arg(long, value_name = "DIR", default_value_os_t = at_home("experiments"))]
    pub experiments: PathBuf,
    /// Directory of the reports, which say what else was run: other settings, other seeds.
    #[arg(long, value_name = "DIR", default_value_os_t = at_home("reports/out"))]
    pub out: PathBuf,
    /// Directory that holds finished work.
    #[arg(long, value_name = "DIR", default_value_os_t = at_home("runs"))]
    pub runs: PathBuf,
}

/// What to delete.
#[derive(Debug, Clone, Args)]
pub struct GcArgs {
    /// Directory of the experiments: what none of them needs is deleted.
    #[arg(value_name = "DIR", default_value_os_t = at_home("experiments"))]
    pub experiments: PathBuf,
    /// Directory of the reports: what one of them shows is kept, also with other settings or seeds than the file's.
    #[arg(long, value_name = "DIR", default_value_os_t = at_home("reports/out"))]
    pub out: PathBuf,
    /// Directory that holds finished work.
    #[arg(long, value_name = "DIR", default_value_os_t = at_home("runs"))]
    pub runs: PathBuf,
    /// Lists what would be deleted, and deletes nothing.
    #[arg(long, conflicts_with = "yes")]
    pub dry_run: bool,
    /// Deletes without asking.
    #[arg(long)]
    pub yes: bool,
}

/// Two reports, and how they are compared.
#[derive(Debug, Clone, Args)]
pub struct CompareArgs {
    /// The report before: its folder, the page in it, or its name under reports/out/.
    #[arg(value_name = "A")]
    pub before: PathBuf,
    /// The report after.
    #[arg(value_name = "B")]
    pub after: PathBuf,
    /// Leaves aside what differs by no more than this share of the value before, such as 0.05; with fewer than three seeds, it
    /// stands in for the measures' own margins.
    #[arg(long, value_name = "SHARE", value_parser = margin)]
    pub margin: Option<f64>,
    /// Shows every number, not only those that moved.
    #[arg(long)]
    pub all: bool,
    /// Prints everything as JSON.
    #[arg(long, conflicts_with = "all")]
    pub json: bool,
}

/// Where a report goes, and how much of the machine is used.
#[derive(Debug, Clone, Args)]
pub struct SweepArgs {
    /// Directory for reports: DIR/NAME/index.html and the tables beside it. With --set or other --seeds, and for another file
    /// of the same name, it is DIR/NAME+DIGEST. If every trial fails and a report with results is there, it is kept, and
    /// the new one is DIR/NAME-failed.
    #[arg(long, value_name = "DIR", default_value_os_t = at_home("reports/out"))]
    pub out: PathBuf,
    /// Name of the report's folder in DIR [default: the experiment's, and a digest of what --set and --seeds change].
    #[arg(long, value_name = "NAME", value_parser = folder_name)]
    pub name: Option<String>,
    /// Jobs at once; they share the threads [default: as many as there are threads, but 4 on a GPU].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,
}

/// Where jobs run.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "On a cluster (Slurm); ~/.config/rqlab/launcher.ron may say the same")]
pub struct LauncherArgs {
    /// Where jobs run: in processes of this machine, or in tasks of a Slurm cluster [default: local].
    #[arg(long, value_name = "WHERE")]
    pub launcher: Option<LauncherKind>,
    /// Partition, as sbatch takes it.
    #[arg(long, value_name = "NAME")]
    pub partition: Option<String>,
    /// Time limit of a task, as sbatch takes it: 4:00:00. What is not done by then goes on in the next task.
    #[arg(long, value_name = "TIME")]
    pub time: Option<String>,
    /// GPUs of a task, as sbatch takes them: 1.
    #[arg(long, value_name = "GPUS")]
    pub gpus: Option<String>,
    /// Processors of a task.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub cpus: Option<u16>,
    /// Memory of a task, as sbatch takes it: 32G.
    #[arg(long, value_name = "SIZE")]
    pub mem: Option<String>,
    /// Whom the time is charged to.
    #[arg(long, value_name = "NAME")]
    pub account: Option<String>,
    /// Tasks at once, each of which does stage after stage [default: 16].
    #[arg(long, value_name = "N", value_parser = positive)]
    pub workers: Option<usize>,
    /// A further option of sbatch, such as --constraint=a100; may be repeated.
    #[arg(long, value_name = "OPTION", allow_hyphen_values = true)]
    pub sbatch: Vec<String>,
}

impl LauncherArgs {
    /// What the user's file and the command line say.
    ///
    /// # Errors
    /// What is wrong with the file; options of a cluster where none is asked for.
    pub fn settings(&self) -> Result<Option<Settings>, Diagnostic> {
        let line = Settings {
            launcher: self.launcher,
            partition: self.partition.clone(),
            time: self.time.clone(),
            gpus: self.gpus.clone(),
            cpus: self.cpus,
            mem: self.mem.clone(),
            account: self.account.clone(),
            workers: self.workers,
            jobs: None,
            sbatch: self.sbatch.clone(),
            setup: Vec::new(),
            ranks: None,
            mpirun: None,
        };
        if self.launcher == Some(LauncherKind::Local) {
            return Ok(None);
        }
        let asks = line != Settings::default();
        let settings = Settings::of_user()?.with(line);
        match settings.launcher {
            Some(LauncherKind::Slurm) => Ok(Some(settings)),
            _ if asks => Err(Diagnostic::error(
                "--partition, --time, --gpus, --cpus, --mem, --account, --workers and --sbatch are for a cluster",
            )
            .help("add `--launcher slurm`")),
            _ => Ok(None),
        }
    }
}

/// Which points of curves to show, and how.
#[derive(Debug, Clone, Args)]
pub struct CurvesArgs {
    /// Only measures whose names begin so: loss,usage.
    #[arg(long, value_name = "NAME,..", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Prints every point, in columns between tabs: stage, id, step, measure, value.
    #[arg(long)]
    pub points: bool,
    /// As `--points`, and then those that follow, until the stages have ended.
    #[arg(long)]
    pub follow: bool,
}

/// What to draw from a prior.
#[derive(Debug, Clone, Args)]
pub struct SampleArgs {
    /// The trial, by the first digits of its id; not needed if there is only one.
    #[arg(long, value_name = "ID")]
    pub trial: Option<String>,
    /// How many images.
    #[arg(long, default_value_t = 64, value_parser = positive)]
    pub count: usize,
    /// The class of all of them, by its name or else by its number from 0 [default: classes as `evaluation.labels` says].
    #[arg(long, value_name = "NAME")]
    pub class: Option<String>,
    /// What they are to show, of a prior that is told captions; an empty text is none [default: captions of test images].
    #[arg(long, value_name = "TEXT", conflicts_with = "class")]
    pub text: Option<String>,
    /// Temperature.
    #[arg(long, default_value_t = 1.0, value_parser = above_zero)]
    pub temperature: f32,
    /// Draw from the K most probable codes only.
    #[arg(long, value_name = "K", value_parser = positive)]
    pub top_k: Option<usize>,
    /// Draw from the smallest set of codes with this probability only.
    #[arg(long, value_name = "P", value_parser = share)]
    pub top_p: Option<f32>,
    /// Guidance scale s: samples are drawn from `u + s (c - u)`, of predictions with (c) and without (u) the condition
    /// [default: the experiment's; 1 is none].
    #[arg(long, value_name = "SCALE", value_parser = not_negative)]
    pub guidance: Option<f32>,
    /// Seed of the draws.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// The picture.
    #[arg(long, short, value_name = "FILE", default_value = "samples.png")]
    pub output: PathBuf,
}

/// What to reconstruct.
#[derive(Debug, Clone, Args)]
pub struct ReconstructArgs {
    /// The trial, by the first digits of its id; not needed if there is only one.
    #[arg(long, value_name = "ID")]
    pub trial: Option<String>,
    /// How many test images.
    #[arg(long, default_value_t = 8, value_parser = positive)]
    pub count: usize,
    /// The picture.
    #[arg(long, short, value_name = "FILE", default_value = "reconstructions.png")]
    pub output: PathBuf,
}

/// What to import, and how.
#[derive(Debug, Clone, Args)]
pub struct ImportArgs {
    /// The published file.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// What it is called here: imports/NAME.safetensors, and imports/NAME.ron.
    #[arg(long = "as", value_name = "NAME", value_parser = folder_name)]
    pub name: String,
    /// Which of its weights: as the optimizer left them, or their average.
    #[arg(long, default_value = "plain")]
    pub weights: Weights,
    /// The published system [default: recognised by its names]: a wrong name lists them.
    #[arg(long, value_name = "NAME")]
    pub system: Option<String>,
    /// Its configuration [default: config.yaml, project.yaml or config.json beside it].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Takes the components and the size of the images from a trial of an experiment, in place of a configuration: the
    /// experiment, and if it has several trials `#` and the first digits of one's id, such as paper/imagenet-vqgan#1a2b3c4d.
    #[arg(long, value_name = "EXPERIMENT[#ID]", conflicts_with_all = ["config", "size"])]
    pub trial: Option<String>,
    /// Height and width of the images, such as 256 or 256x384 [default: those of the configuration, or 256].
    #[arg(long, value_name = "SIZE", value_parser = sides)]
    pub size: Option<[usize; 2]>,
    /// Directory of what was imported.
    #[arg(long, value_name = "DIR", default_value_os_t = at_home("imports"))]
    pub imports: PathBuf,
    /// Takes the place of what was imported under that name.
    #[arg(long)]
    pub replace: bool,
}

/// A tokenizer: what was imported, or one that an experiment trained.
#[derive(Debug, Clone, Args)]
pub struct TokenizerArgs {
    /// The tokenizer: what `rqlab import` made, by its name or file, or an experiment (a .ron file, or its stem), whose trial's
    /// it is.
    #[arg(value_name = "TOKENIZER")]
    pub tokenizer: String,
    /// The trial of an experiment, by the first digits of its id; not needed if there is only one.
    #[arg(long, value_name = "ID")]
    pub trial: Option<String>,
    /// Sets a field of an experiment; may be repeated.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub set: Vec<String>,
    /// Seeds instead of the file's: 0,1,2.
    #[arg(long, value_name = "SEEDS", value_parser = seeds)]
    pub seeds: Option<Seeds>,
    /// Directory that holds finished work.
    #[arg(long, value_name = "DIR", default_value_os_t = at_home("runs"))]
    pub runs: PathBuf,
    /// Directory of what was imported.
    #[arg(long, value_name = "DIR", default_value_os_t = at_home("imports"))]
    pub imports: PathBuf,
}
