//! Lets the binaries and tests of this package find the shared libraries that they link: ours beside them, Rust's own
//! in the toolchain.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let origin = if env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "macos") { "@loader_path" } else { "$ORIGIN" };
    let mut paths = vec![origin.to_owned(), format!("{origin}/..")];
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let target = env::var("TARGET").unwrap_or_default();
    if let Ok(output) = Command::new(rustc).args(["--print", "target-libdir", "--target", &target]).output() {
        paths.push(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    for path in paths {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{path}");
    }
}
