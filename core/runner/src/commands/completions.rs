//! `rqlab completions`.

use crate::cli::Cli;
use crate::commands::{Failure, Outcome};
use crate::ui::print;
use clap::CommandFactory;
use clap_complete::Shell;
use std::io::Write;

pub(super) fn run(shell: Shell) -> Result<Outcome, Failure> {
    // Into memory first: clap_complete panics where its output cannot be written.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "rqlab", &mut script);
    print(|out| out.write_all(&script))?;
    Ok(Outcome::Done)
}
