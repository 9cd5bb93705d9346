//! `rqlab`: see `rqlab --help`.

use clap::Parser;
use rqlab::cli::Cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    rqlab::commands::main(Cli::parse())
}
