//! `parity DIR`: checks every case folder under DIR against this laboratory, a line a case. Exit code 0 if none failed,
//! 1 if one did, 2 if there is nothing to check.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is a command")]

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "usage: parity DIR

Compares with the published systems: computes every case folder under DIR and prints its largest error, its tolerance and
the verdict. A case holds `case.json` (what is computed, sizes, tolerances) and `data.safetensors` (inputs `in.`, randomness
`rand.`, weights `w.`, expected results `out.` and `grad.`); tests/src/parity/ says which there are.";

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [dir] = arguments.as_slice() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    if dir.as_os_str() == "--help" || dir.as_os_str() == "-h" {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    match rqlab_tests::parity::run(dir, |line| println!("{line}")) {
        Ok(summary) if summary.failed == 0 => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}
