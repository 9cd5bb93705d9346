//! Names this build of the SDK: a digest of everything that a plugin and the runner must agree on.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

fn main() {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let root = here.join("../..");
    let mut hasher = blake3::Hasher::new();
    let mut files = BTreeSet::new();
    for dir in ["core/tensor/src", "core/sdk/src"] {
        collect(&root.join(dir), &mut files);
        println!("cargo::rerun-if-changed={}", root.join(dir).display());
    }
    for file in ["Cargo.lock", "Cargo.toml", "core/tensor/Cargo.toml", "core/sdk/Cargo.toml", ".cargo/config.toml"] {
        files.insert(root.join(file));
        println!("cargo::rerun-if-changed={}", root.join(file).display());
    }
    for file in &files {
        let name = file.strip_prefix(&root).unwrap_or(file);
        hasher.update(name.as_os_str().as_encoded_bytes()).update(&[0]);
        hasher.update(&fs::read(file).unwrap_or_default()).update(&[0]);
    }
    for variable in ["PROFILE", "OPT_LEVEL", "DEBUG", "TARGET", "CARGO_FEATURE_CUDA", "CARGO_ENCODED_RUSTFLAGS"] {
        hasher.update(env::var(variable).unwrap_or_default().as_bytes()).update(&[0]);
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let rustc = rustc_version();
    hasher.update(rustc.as_bytes());
    println!("cargo::rustc-env=RQLAB_SDK_HASH={}", hasher.finalize().to_hex());
    println!("cargo::rustc-env=RQLAB_RUSTC={rustc}");
    println!("cargo::rustc-env=RQLAB_TARGET={}", env::var("TARGET").unwrap_or_default());
}

/// Release and commit of the compiler, such as `rustc 1.95.0 (59807616e 2026-04-14)`.
fn rustc_version() -> String {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("--version").output();
    output.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()
}

fn collect(dir: &Path, files: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files)
        } else {
            files.insert(path);
        }
    }
}
