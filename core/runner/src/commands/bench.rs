//! `rqlab bench` and `rqlab check-gpu`: each is a program of its own, which lies beside this one and takes its place.

use crate::cli::Global;
use crate::commands::{Failure, Outcome};
use rqlab_sdk::Error;
use std::env::consts::EXE_SUFFIX;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Has the program of that name take the place of this one.
pub(super) fn run(name: &str, global: &Global, arguments: &[OsString]) -> Result<Outcome, Failure> {
    // Where this program is called by a link, both lie at its other end.
    let own = std::env::current_exe().and_then(std::fs::canonicalize).map_err(Error::file("rqlab"))?;
    let program = own.with_file_name(format!("{name}{EXE_SUFFIX}"));
    if !program.is_file() {
        let missing = format!("{} is missing; build it with `cargo build --release --workspace`", program.display());
        return Err(Error::Data(missing).into());
    }
    // Returns only where it fails.
    let error = Command::new(&program).args(global.arguments()).args(arguments).exec();
    Err(Error::file(&program)(error).into())
}
