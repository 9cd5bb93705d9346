//! `rqlab`: see `rqlab --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    rqlab::commands::main()
}
