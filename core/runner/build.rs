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
    // `rqlab plugins build` takes the compiler that built the SDK.
    println!("cargo::rustc-env=RQLAB_SYSROOT={}", ask("sysroot"));
}
