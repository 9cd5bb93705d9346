//! Where experiments, runs and reports lie if nothing else is said.

use std::env;
use std::path::PathBuf;

/// The variable that names the folder with `experiments/`, `runs/` and `reports/`; without it, that is the current folder.
pub const HOME: &str = "RQLAB_HOME";

/// A folder in the laboratory's home, as a path from here.
pub fn at_home(name: &str) -> PathBuf {
    match env::var_os(HOME).map(PathBuf::from) {
        Some(home) if !home.as_os_str().is_empty() && env::current_dir().ok().as_ref() != Some(&home) => {
            home.join(name)
        }
        _ => PathBuf::from(name),
    }
}
