//! What was found of files, kept between processes: files that have not changed are not looked at again.

use crate::Stamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::env;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// What is kept of the files of a stamp, or what `make` gives, which is kept then. It lies in the user's cache folder, behind its
/// own digest; what is damaged is made anew, and a cache that cannot be read or written is none.
///
/// # Errors
/// Those of `make`.
pub fn kept<T: Serialize + DeserializeOwned, E>(stamp: &Stamp, make: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let Some(path) = folder().map(|folder| folder.join(format!("{}.json", stamp.key()))) else { return make() };
    if let Some(found) = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(intact(&bytes)?).ok()) {
        return Ok(found);
    }
    let made = make()?;
    if stamp.is_settled()
        && let Ok(text) = serde_json::to_vec(&made)
    {
        // Others look at the same files now: each writes beside the place, and the last one is right as well.
        let _ = store(&path, &text);
    }
    Ok(made)
}

/// The text behind its digest, if it has that digest.
fn intact(bytes: &[u8]) -> Option<&[u8]> {
    let (digest, text) = bytes.split_at_checked(64)?;
    (blake3::hash(text).to_hex().as_bytes() == digest).then_some(text)
}

fn store(path: &Path, text: &[u8]) -> std::io::Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(path))?;
    let beside = path.with_extension(format!("{}.partial", std::process::id()));
    let mut file = File::create(&beside)?;
    file.write_all(blake3::hash(text).to_hex().as_bytes())?;
    file.write_all(text)?;
    fs::rename(&beside, path)
}

/// `$XDG_CACHE_HOME/rqlab/data`, or `~/.cache/rqlab/data`.
fn folder() -> Option<PathBuf> {
    let of = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let caches = of("XDG_CACHE_HOME").or_else(|| of("HOME").map(|home| home.join(".cache")))?;
    Some(caches.join("rqlab").join("data"))
}
