//! `rqlab completions`.

use crate::cli::Cli;
use crate::commands::{Failure, Outcome};
use clap::CommandFactory;
use clap_complete::Shell;
use std::io;

pub(super) fn run(shell: Shell) -> Result<Outcome, Failure> {
    clap_complete::generate(shell, &mut Cli::command(), "rqlab", &mut io::stdout());
    Ok(Outcome::Done)
}
