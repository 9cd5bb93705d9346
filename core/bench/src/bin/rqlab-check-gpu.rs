//! What `rqlab check-gpu` starts: see `rqlab check-gpu --help`.

use rqlab::commands::enter;
use rqlab_bench::check_gpu::{self, Cli};
use std::process::ExitCode;

fn main() -> ExitCode {
    enter(|cli: &Cli| &cli.global, |cli, ui| check_gpu::run(&cli.global, &cli.check, ui))
}
