//! Whether a library can be loaded at all.
//!
//! A damaged library may end the process that loads it, in the system's loader, before anything can be said. Each one is
//! therefore loaded first by a process that may end: `rqlab plugins probe FILE`. What it survived is noted under the digest of
//! the file's contents, so that a library is tried once, and again when a byte of it has changed.

use super::loader::executable_dir;
use std::env;
use std::env::consts::EXE_SUFFIX;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A library that takes longer to load is stuck.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Checks that loading the library at `path`, whose contents have that digest, ends no process.
///
/// # Errors
/// How the process ended.
pub(super) fn check(path: &Path, digest: &str) -> Result<(), String> {
    let note = folder().map(|folder| folder.join(digest));
    if note.as_ref().is_some_and(|note| note.is_file()) {
        return Ok(());
    }
    // Another program that embeds the runner has none to spare.
    let Some(program) = executable_dir().map(|dir| dir.join(format!("rqlab{EXE_SUFFIX}"))).filter(|p| p.is_file())
    else {
        return Ok(());
    };
    let damaged = |how: &str| format!("it is damaged: a process that loaded it {how}; build it again, or remove it");
    match ended(Command::new(program).args(["plugins", "probe"]).arg(path)) {
        Some(status) if status.success() => {
            if let Some(note) = note {
                // Without it, the next process tries again.
                let _ = note.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| File::create(note));
            }
            Ok(())
        }
        // It lived, and said why it cannot be used; so will this process.
        Some(status) if status.code() == Some(2) => Ok(()),
        Some(status) => Err(damaged(&format!("ended with {status}"))),
        None => Err(damaged("did not come to an end")),
    }
}

/// How a command ended; none if it did not in time. One that could not be started tells nothing, and counts as well ended.
fn ended(command: &mut Command) -> Option<ExitStatus> {
    let silent = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(mut child) = silent.spawn() else { return Some(ExitStatus::default()) };
    let started = Instant::now();
    while started.elapsed() < TIMEOUT {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) => sleep(Duration::from_millis(1)),
            Err(_) => return Some(ExitStatus::default()),
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}

/// The user's folder of notes: `rqlab/plugins` in `$XDG_CACHE_HOME` or, without it, in `$HOME/.cache`.
fn folder() -> Option<PathBuf> {
    let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(cache.join("rqlab").join("plugins"))
}
