//! Where experiments, runs and reports lie if nothing else is said.

use std::path::{Path, PathBuf};
use std::{env, fs};

/// The variable that names the folder with `experiments/`, `runs/` and `reports/`; without it, that is the bundle that this program
/// lies in, or else the current folder.
pub const HOME: &str = "RQLAB_HOME";

/// A folder in the laboratory's home, as a path from here.
pub fn at_home(name: &str) -> PathBuf {
    match named().or_else(bundle) {
        Some(home) if env::current_dir().ok().as_ref() != Some(&home) => home.join(name),
        _ => PathBuf::from(name),
    }
}

/// The home that the environment names.
pub fn named() -> Option<PathBuf> {
    env::var_os(HOME).filter(|home| !home.is_empty()).map(PathBuf::from)
}

/// The folder that `just bundle` made, if this program lies in one.
pub fn bundle() -> Option<PathBuf> {
    let program = env::current_exe().and_then(fs::canonicalize).ok()?;
    bundle_of(&program)
}

/// The bundle that a program lies in: the folder above its own, where that says so.
fn bundle_of(program: &Path) -> Option<PathBuf> {
    let folder = program.parent()?.parent()?;
    folder.join("bundle.txt").is_file().then(|| folder.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_known_by_its_list() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("bin/rqlab");
        assert_eq!(bundle_of(&program), None);
        fs::write(folder.path().join("bundle.txt"), "").unwrap();
        assert_eq!(bundle_of(&program), Some(folder.path().to_owned()));
    }
}
