//! What proves the laboratory: agreement with the published systems ([`parity`]), a folder and a program for end-to-end tests
//! ([`lab`]), faults to try on them ([`faults`]), inputs to break readers (`fuzz`, on Linux), what builds quantizers for those
//! that hold others ([`held`]), a cluster of one machine ([`slurm`]), and tests over the whole workspace in `tests/`.

pub mod faults;
#[cfg(target_os = "linux")]
pub mod fuzz;
pub mod held;
pub mod lab;
pub mod parity;
pub mod slurm;
