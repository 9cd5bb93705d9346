//! `rqlab completions`.

use crate::cli::Cli;
use crate::commands::{Failure, Outcome};
use crate::spec::Diagnostic;
use clap::CommandFactory;
use clap_complete::Shell;
use std::io::{self, Write};

pub(super) fn run(shell: Shell) -> Result<Outcome, Failure> {
    // Into memory first: clap_complete panics where its output cannot be written.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "rqlab", &mut script);
    let written = io::stdout().write_all(&script).and_then(|()| io::stdout().flush());
    written.map_err(|error| Diagnostic::error(format!("standard output: {error}")))?;
    Ok(Outcome::Done)
}
