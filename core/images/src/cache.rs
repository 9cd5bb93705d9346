//! What was found of files, kept between processes: files that have not changed are not looked at again.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::env;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// What is kept under `key`, or what `make` gives, which is kept then if `keep` says so. A cache that cannot be read or written
/// is none.
pub(crate) fn kept<T: Serialize + DeserializeOwned>(key: &str, keep: bool, make: impl FnOnce() -> T) -> T {
    let Some(path) = folder().map(|folder| folder.join(format!("{key}.json"))) else { return make() };
    let found = fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
    if let Some(found) = found {
        return found;
    }
    let made = make();
    if keep && let Ok(text) = serde_json::to_vec(&made) {
        // Others look at the same files now: each writes beside the place, and the last one is right as well.
        let _ = store(&path, &text);
    }
    made
}

fn store(path: &Path, text: &[u8]) -> std::io::Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(path))?;
    let beside = path.with_extension(format!("{}.partial", std::process::id()));
    File::create(&beside)?.write_all(text)?;
    fs::rename(&beside, path)
}

/// `$XDG_CACHE_HOME/rqlab/data`, or `~/.cache/rqlab/data`.
fn folder() -> Option<PathBuf> {
    let of = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let caches = of("XDG_CACHE_HOME").or_else(|| of("HOME").map(|home| home.join(".cache")))?;
    Some(caches.join("rqlab").join("data"))
}
