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
    match folder() {
        Some(folder) => kept_in(&folder, stamp, make),
        None => make(),
    }
}

fn kept_in<T: Serialize + DeserializeOwned, E>(
    folder: &Path,
    stamp: &Stamp,
    make: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    let path = folder.join(format!("{}.json", stamp.key()));
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use std::cell::Cell;
    use std::convert::Infallible;
    use std::time::{Duration, SystemTime};

    #[test]
    fn what_is_kept_is_used_unless_it_is_damaged_or_its_files_changed() {
        let place = tempfile::tempdir().unwrap();
        let (shard, folder) = (place.path().join("shard"), place.path().join("kept"));
        let write = |text: &str, age: u64| {
            let mut file = File::create(&shard).unwrap();
            file.write_all(text.as_bytes()).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        };
        let made = Cell::new(0);
        let get = || {
            let mut stamp = Stamp::new("test");
            stamp.add(b"shard", &shard.metadata().unwrap());
            let make = || {
                made.set(made.get() + 1);
                Ok::<_, Infallible>(vec![made.get()])
            };
            kept_in(&folder, &stamp, make).unwrap()[0]
        };
        write("a", 60);
        assert_eq!([get(), get()], [1, 1]);
        let kept = fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
        let text = fs::read_to_string(&kept).unwrap();
        // It still parses.
        fs::write(&kept, text.replace("[1]", "[7]")).unwrap();
        assert_eq!([get(), get()], [2, 2]);
        fs::write(&kept, &text[..10]).unwrap();
        assert_eq!([get(), get()], [3, 3]);
        write("ab", 60);
        assert_eq!([get(), get()], [4, 4]);
        // A file of this moment may change again without a trace.
        write("abc", 0);
        assert_eq!([get(), get()], [5, 6]);
    }
}
