//! Tells binaries and tests where the shared libraries lie: rqlab's SDK, and Rust's own standard library.

use std::env;
use std::process::Command;

pub(crate) fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let ask = |what: &str| {
        let output = Command::new(&rustc).args(["--print", what]).output();
        output.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()
    };
    let origin = if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("macos") { "@loader_path" } else { "$ORIGIN" };
    let ours = ["", "/deps", "/..", "/../lib", "/../lib/rqlab"].map(|tail| format!("{origin}{tail}"));
    for path in ours.into_iter().chain([ask("target-libdir")]) {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{path}");
    }
    tell_commit();
    // `rqlab plugins build` takes the compiler that built the SDK.
    println!("cargo::rustc-env=RQLAB_SYSROOT={}", ask("sysroot"));
}

/// Tells the program the commit that it is built from, and whether the sources differ from it: it stands in the origin of every
/// result. Nothing outside a repository.
fn tell_commit() {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "HEAD"]) else { return };
    // The log of HEAD grows with every commit and checkout.
    for path in git(&["rev-parse", "--git-path", "logs/HEAD"]).iter().map(String::as_str).chain(SOURCES) {
        println!("cargo::rerun-if-changed={path}");
    }
    let changed = git(&[&["status", "--porcelain", "--"], &SOURCES[..]].concat()).is_some_and(|text| !text.is_empty());
    let note = if changed { ", with uncommitted changes" } else { "" };
    println!("cargo::rustc-env=RQLAB_COMMIT={commit}{note}");
}

/// What the program is made of.
const SOURCES: [&str; 6] =
    ["src", "../sdk/src", "../tensor/src", "../../reports/src", "../../plugins", "../../Cargo.lock"];
