//! The command line of the check.

use clap::{Args, Parser};
use rqlab::cli::Global;
use rqlab::home::at_home;
use std::path::PathBuf;

/// Shows what a GPU must show, in the order of worth: agreement with the CPU, then speed.
#[derive(Debug, Parser)]
#[command(
    name = "rqlab-check-gpu",
    bin_name = "rqlab check-gpu",
    version,
    max_term_width = 110,
    after_help = "\
Every step is a process with a limit of its own. What it showed stands in DIR/results.jsonl and DIR/table.md before the next one
begins, and its own words in DIR/NAME.log. docs/gpu.md tells how the table is read.

Exit codes: 0 all of it was shown; 1 something failed, or took longer than its limit; 2 no GPU answers, and why.

Examples:
  rqlab check-gpu
  rqlab check-gpu --device cuda:1 --limit 120
  rqlab check-gpu --python VENV/bin/python --peers tests/peers"
)]
pub struct Cli {
    /// What applies to every command of the laboratory.
    #[command(flatten)]
    pub global: Global,
    /// What to do, and where.
    #[command(flatten)]
    pub check: CheckArgs,
}

/// What to do, and where.
#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    /// Seconds for all of it.
    #[arg(long, value_name = "S", default_value_t = 420)]
    pub limit: u64,
    /// Folder of what is shown, in the place of what an earlier check left there.
    #[arg(long, value_name = "DIR", default_value_os_t = at_home("reports/gpu"))]
    pub out: PathBuf,
    /// Folder with the programs of the tests [default: that of the bundle].
    #[arg(long, value_name = "DIR")]
    pub tests: Option<PathBuf>,
    /// Folder with the peers' bench.py, to be timed beside ours; may be given several times [default: those of the bundle].
    #[arg(long, value_name = "DIR")]
    pub peers: Vec<PathBuf>,
    /// Python that runs the peers, if it has PyTorch with CUDA [default: python3].
    #[arg(long, value_name = "FILE")]
    pub python: Option<PathBuf>,
    /// Names the steps, with their limits and what each shows.
    #[arg(long)]
    pub list: bool,
}
