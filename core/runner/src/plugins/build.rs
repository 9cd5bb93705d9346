//! `rqlab plugins build`: compiles a plugin's crate against the SDK of this very executable.
//!
//! A path dependency from another workspace does not link: cargo would compile the SDK anew, under other symbol names.
//! So the crate names no dependency on the SDK at all, and the compiler is handed the built one.

use crate::experiment::Diagnostic;
use crate::plugins::loader::{self, NotLoadable, executable_dir};
use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{fs, io};

/// Where built plugins go if nothing else is said: beside the executable, since they fit this build of it alone.
pub fn default_out() -> Option<PathBuf> {
    executable_dir().map(|dir| dir.join("plugins"))
}

/// Builds the plugin in `dir` and puts its library into `out`. Returns the library's path.
///
/// # Errors
/// What is missing, or that the compiler refused; the compiler's own words have then been shown.
pub fn build(dir: &Path, out: Option<&Path>, test: bool) -> Result<PathBuf, Diagnostic> {
    if !dir.join("Cargo.toml").is_file() {
        return Err(Diagnostic::error(format!("{} is no crate: it has no Cargo.toml", dir.display()))
            .help("`rqlab plugins new NAME --kind quantizer` makes one"));
    }
    let sdk = sdk()?;
    let flags = flags(&sdk);
    if test {
        let status = cargo(dir, &flags).args(["test", "--release"]).status().map_err(|e| no_cargo(&e))?;
        if !status.success() {
            return Err(Diagnostic::error("the plugin's tests failed"));
        }
    }
    let output = cargo(dir, &flags)
        .args(["build", "--release", "--lib", "--message-format=json-render-diagnostics"])
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| no_cargo(&e))?;
    if !output.status.success() {
        return Err(Diagnostic::error("the plugin does not compile; the compiler says why above"));
    }
    let library = library(&output.stdout, dir)?;
    let failed = |path: &Path, error: &io::Error| Diagnostic::error(format!("{}: {error}", path.display()));
    let bytes = fs::read(&library).map_err(|error| failed(&library, &error))?;
    match loader::inspect(&bytes) {
        Ok(_) => {}
        Err(NotLoadable::NoPlugin(reason) | NotLoadable::Refused(_, reason)) => {
            return Err(Diagnostic::error(format!("{} was built, and cannot be loaded: {reason}", library.display())));
        }
    }
    let out = out.map(Path::to_owned).or_else(default_out).unwrap_or_else(|| PathBuf::from("."));
    let target = out.join(library.file_name().unwrap_or_default());
    // A library that a running process has mapped must not change under it: a new file takes the name.
    let temporary =
        out.join(format!(".{}.{}", std::process::id(), target.file_name().unwrap_or_default().to_string_lossy()));
    fs::create_dir_all(&out)
        .and_then(|()| fs::write(&temporary, &bytes))
        .and_then(|()| fs::rename(&temporary, &target))
        .map_err(|error| {
            failed(&target, &error).help("`--out DIR` puts it elsewhere; `--plugins DIR` finds it there")
        })?;
    Ok(target)
}

/// The directory of the built SDK.
fn sdk() -> Result<PathBuf, Diagnostic> {
    let name = format!("{DLL_PREFIX}rqlab_sdk{DLL_SUFFIX}");
    let exe = executable_dir().unwrap_or_default();
    let places = [exe.clone(), exe.join(".."), exe.join("../lib/rqlab")];
    let found = places.iter().find(|dir| dir.join(&name).is_file() && dir.join("deps").is_dir());
    found.cloned().ok_or_else(|| {
        Diagnostic::error(format!("the built SDK ({name} with its deps/) is not beside {}", exe.display()))
            .help("run the rqlab of a source tree that was built with `cargo build --release --workspace`")
    })
}

/// What the compiler must be told to link the SDK that this executable links.
fn flags(sdk: &Path) -> Vec<OsString> {
    let joined = |prefix: &str, path: PathBuf| {
        let mut text = OsString::from(prefix);
        text.push(path);
        text
    };
    let name = format!("{DLL_PREFIX}rqlab_sdk{DLL_SUFFIX}");
    vec![
        "--extern".into(),
        joined("rqlab_sdk=", sdk.join(name)),
        "-L".into(),
        joined("dependency=", sdk.join("deps")),
        "-C".into(),
        "prefer-dynamic".into(),
        // For the tests of the plugin: a library is found by the executable that loads it.
        "-C".into(),
        joined("link-arg=-Wl,-rpath,", sdk.to_owned()),
        "-C".into(),
        joined("link-arg=-Wl,-rpath,", libdir()),
    ]
}

/// The compiler that built the SDK: its sysroot, if it is still there.
fn sysroot() -> Option<&'static Path> {
    let root = Path::new(env!("RQLAB_SYSROOT"));
    root.join("bin/cargo").is_file().then_some(root)
}

fn libdir() -> PathBuf {
    Path::new(env!("RQLAB_SYSROOT")).join("lib/rustlib").join(rqlab_sdk::plugin::TARGET).join("lib")
}

/// Cargo with the compiler that built the SDK: any other is refused by the compiler itself.
fn cargo(dir: &Path, flags: &[OsString]) -> Command {
    let mut command = match sysroot() {
        Some(root) => {
            let mut command = Command::new(root.join("bin/cargo"));
            command.env("RUSTC", root.join("bin/rustc")).env("RUSTDOC", root.join("bin/rustdoc"));
            command
        }
        None => Command::new("cargo"),
    };
    let mut encoded = OsString::new();
    for (index, flag) in flags.iter().enumerate() {
        if index > 0 {
            encoded.push("\x1f");
        }
        encoded.push(flag);
    }
    command.current_dir(dir).env("CARGO_ENCODED_RUSTFLAGS", encoded).env_remove("RUSTFLAGS");
    // It may name the folder that this executable lies in, where the library would be found a second time.
    command.env_remove("CARGO_TARGET_DIR");
    command
}

fn no_cargo(error: &io::Error) -> Diagnostic {
    Diagnostic::error(format!("cannot run cargo: {error}")).help("install Rust from https://rustup.rs")
}

/// The library among what cargo says it made.
fn library(messages: &[u8], dir: &Path) -> Result<PathBuf, Diagnostic> {
    let dir = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    let is_ours = |message: &serde_json::Value| {
        let manifest = message["manifest_path"].as_str().map(PathBuf::from);
        message["reason"] == "compiler-artifact"
            && manifest.and_then(|path| fs::canonicalize(path).ok()) == Some(dir.join("Cargo.toml"))
    };
    let text = String::from_utf8_lossy(messages);
    let artifacts = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut files = artifacts.filter(is_ours).flat_map(|message| {
        message["filenames"]
            .as_array()
            .cloned()
            .unwrap_or_default()
            .into_iter()
            .filter_map(|f| f.as_str().map(PathBuf::from))
    });
    files.find(|path| path.to_string_lossy().ends_with(DLL_SUFFIX)).ok_or_else(|| {
        Diagnostic::error("the crate makes no shared library")
            .help("its Cargo.toml needs `[lib]` with `crate-type = [\"cdylib\"]`")
    })
}
