//! Tells binaries and tests where the shared libraries lie, as those of the runner are told.

#[path = "../runner/build.rs"]
mod runner;

fn main() {
    runner::main();
}
