//! The command line of the benchmark.

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser};
use rqlab::cli::Global;
use std::path::PathBuf;

/// Times training, encoding, sampling and single operations on fixed workloads.
#[derive(Debug, Parser)]
#[command(
    name = "rqlab-bench",
    bin_name = "rqlab bench",
    version,
    max_term_width = 110,
    after_help = concat!(
        "\
Examples:
  rqlab bench --only prior_train,rq_sample --threads 2 --json bench.json
  rqlab bench --peers ../shared/peers --peers tests/peers --python VENV/bin/python --markdown docs/performance.md
  rqlab bench --peers tests/peers --python VENV/bin/python --only data_jpeg
  rqlab bench --scaling --figures docs/performance --markdown docs/performance.md

",
        rqlab::environment!()
    )
)]
pub struct Cli {
    /// What applies to every command of the laboratory.
    #[command(flatten)]
    pub global: Global,
    /// What to time.
    #[command(flatten)]
    pub bench: BenchArgs,
}

/// What to time, and what to set it beside.
#[derive(Debug, Clone, Args)]
pub struct BenchArgs {
    /// Only these workloads [default: all]. A name means that workload alone; the beginning of names, all that begin so:
    /// rq_sample_b1 is one, rq_sample are three. `--list` names them.
    #[arg(long, value_name = "NAME,..", value_delimiter = ',', value_parser = NonEmptyStringValueParser::new())]
    pub only: Vec<String>,
    /// How long each workload is timed for, after its warm-up.
    #[arg(long, value_name = "S", default_value_t = 3.0, value_parser = seconds)]
    pub seconds: f64,
    /// File for the figures: its `runs` are ours and, with `--peers`, theirs.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Names the workloads, with what each computes and how many parameters it trains.
    #[arg(long)]
    pub list: bool,
    /// Sets the figures of a file, written earlier, beside ours: the peers' if it holds any.
    #[arg(long, value_name = "FILE", conflicts_with = "peers")]
    pub against: Option<PathBuf>,
    /// Folder with the peers' bench.py: times each workload there right after ours, and sets both side by side. May be given
    /// several times.
    #[arg(long, value_name = "DIR", requires = "python")]
    pub peers: Vec<PathBuf>,
    /// Python that runs the peers.
    #[arg(long, value_name = "FILE")]
    pub python: Option<PathBuf>,
    /// Takes the figures from a file that `--json` wrote, the peers' too if they are there, and times nothing.
    #[arg(long, value_name = "FILE", conflicts_with = "peers")]
    pub from: Option<PathBuf>,
    /// Page that the table is written to, in place of the one that is there.
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
    /// Measures how cost grows with sizes instead; takes some minutes.
    #[arg(long, conflicts_with_all = ["only", "against", "peers", "list"])]
    pub scaling: bool,
    /// Folder for the drawings of `--scaling`.
    // What `--scaling` conflicts with is named again: beside it clap would not ask for `--scaling`.
    #[arg(long, value_name = "DIR", requires = "scaling", conflicts_with_all = ["only", "against", "peers", "list"])]
    pub figures: Option<PathBuf>,
    /// What a process that was started to measure does: JSON in, JSON out.
    #[arg(long, hide = true)]
    pub task: Option<String>,
}

fn seconds(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|x: &f64| *x > 0.0 && x.is_finite())
        .ok_or_else(|| format!("`{text}` is not a number of seconds above 0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bench_refuses_what_it_could_not_do() {
        let read = |text: &str| Cli::try_parse_from(text.split(' ')).is_ok();
        assert!(read("bench --seconds 0.5") && read("bench --scaling --figures out"));
        for seconds in ["nan", "inf", "0", "-1", "1e999", "x"] {
            assert!(!read(&format!("bench --seconds={seconds}")), "{seconds}");
        }
        for beside in ["", " --only gelu_1m", " --against a.json", " --from a.json", " --list"] {
            assert!(!read(&format!("bench --figures out{beside}")), "{beside}");
        }
    }
}
