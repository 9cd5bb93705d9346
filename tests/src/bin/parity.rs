//! `parity DIR`: checks every case folder under DIR against this laboratory, a line a case. Exit code 0 if none failed,
//! 1 if one did, 2 if there is nothing to check.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is a command")]

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [dir] = arguments.as_slice() else {
        eprintln!("usage: parity DIR");
        return ExitCode::from(2);
    };
    match rqlab_tests::parity::run(dir, |line| println!("{line}")) {
        Ok(summary) if summary.failed == 0 => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}
