//! The program starts. That a test of this package asks for it also makes `cargo test` build it, for the end-to-end tests
//! of the workspace.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

#[test]
fn the_program_says_its_version() {
    let output = Command::new(env!("CARGO_BIN_EXE_rqlab")).arg("--version").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), format!("rqlab {}", env!("CARGO_PKG_VERSION")));
}
