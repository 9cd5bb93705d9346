//! What `rqlab bench` starts: see `rqlab bench --help`.

use rqlab::commands::enter;
use rqlab_bench::cli::Cli;
use rqlab_bench::command;
use std::process::ExitCode;

fn main() -> ExitCode {
    enter(|cli: &Cli| &cli.global, |cli, ui| command::run(&cli.global, &cli.bench, ui))
}
