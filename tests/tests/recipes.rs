//! What `just` builds with and where: from programs that stand in for NVIDIA's.

#![cfg(unix)] // The stand-ins are shell scripts.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking, or says why it is skipped"
)]

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// The value of a variable of the justfile, seen from another folder; none where there is no `just`.
fn evaluate(variable: &str, from: &Path, environment: &[(&str, OsString)]) -> Option<String> {
    let justfile = fs::canonicalize(concat!(env!("CARGO_MANIFEST_DIR"), "/../justfile")).unwrap();
    let mut command = Command::new("just");
    command.arg("--justfile").arg(justfile).args(["--evaluate", variable]).current_dir(from);
    for name in ["RQLAB_FEATURES", "CUDA_PATH", "CUDA_ROOT", "CUDA_TOOLKIT_ROOT_DIR", "CARGO_TARGET_DIR", "RQLAB_HOME"]
    {
        command.env_remove(name);
    }
    match command.envs(environment.iter().cloned()).output() {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Some(String::from_utf8(output.stdout).unwrap().trim_end().to_owned())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            eprintln!("skipped: there is no `just`");
            None
        }
        Err(error) => panic!("just: {error}"),
    }
}

/// A program that runs a line of shell.
fn program(path: &Path, line: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, format!("#!/bin/sh\n{line}\n")).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn cuda_is_built_in_where_a_gpu_a_compiler_for_it_and_headers_are() {
    let folder = tempfile::tempdir().unwrap();
    let toolkit = folder.path().join("toolkit");
    let (compiler, driver) = (toolkit.join("bin/nvcc"), folder.path().join("bin/nvidia-smi"));
    let mut path = OsString::from(driver.parent().unwrap());
    path.push(":");
    path.push(toolkit.join("bin"));
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let found = [("CUDA_PATH", toolkit.clone().into()), ("PATH", path)];
    let features = || evaluate("features", folder.path(), &found);
    program(&compiler, "echo sm_80; echo sm_90");
    program(&driver, "echo compute_cap; echo 9.0");
    fs::create_dir(toolkit.join("include")).unwrap();
    fs::write(toolkit.join("include/cuda.h"), "").unwrap();
    let Some(all) = features() else { return };
    assert_eq!(all, "cuda");
    for (asked, expected) in [("", ""), ("cuda", "cuda"), ("auto", "cuda")] {
        let mut asking = found.to_vec();
        asking.push(("RQLAB_FEATURES", asked.into()));
        assert_eq!(evaluate("features", folder.path(), &asking).as_deref(), Some(expected), "{asked:?}");
    }
    program(&driver, "echo 'No devices were found' >&2; exit 6");
    assert_eq!(features().as_deref(), Some(""), "no GPU answers");
    program(&driver, "echo compute_cap; echo 9.0");
    program(&compiler, "echo sm_50; echo sm_80");
    assert_eq!(features().as_deref(), Some(""), "the compiler does not know the GPU");
}

#[test]
fn programs_are_where_cargo_builds_them() {
    let folder = tempfile::tempdir().unwrap();
    let Some(usual) = evaluate("built", folder.path(), &[]) else { return };
    let root = fs::canonicalize(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).unwrap();
    assert_eq!(Path::new(&usual), root.join("target/release"));
    let named = evaluate("built", folder.path(), &[("CARGO_TARGET_DIR", folder.path().join("built").into())]);
    assert_eq!(named.map(Into::into), Some(folder.path().join("built/release")));
    assert_eq!(evaluate("RQLAB_HOME", folder.path(), &[]).map(Into::into), Some(root));
}
