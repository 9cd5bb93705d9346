//! Which files a data set is made of, and their digest.

use rqlab_sdk::{Error, Result};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// Up to this many bytes, files are hashed whole.
const WHOLE: u64 = 1 << 30;
/// Of larger sets, this much of the end of each file, which holds the footer: places, sizes and statistics of all pages.
const TAIL: u64 = 1 << 20;

/// The Parquet files in `folder`, or in its folder `data`, whose names begin with one of `splits`; those of the first
/// that has any, in order of their names.
pub(crate) fn find(folder: &Path, splits: &[&str]) -> Result<Vec<PathBuf>> {
    let listing = list(folder)?;
    let inner = folder.join("data");
    let listings = if inner.is_dir() { vec![listing, list(&inner)?] } else { vec![listing] };
    let candidates = splits.iter().flat_map(|split| listings.iter().map(move |files| (split, files)));
    for (split, files) in candidates {
        let of_split = |file: &&PathBuf| {
            let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.strip_prefix(split).is_some_and(|rest| rest.starts_with(['-', '_', '.']))
        };
        let found: Vec<PathBuf> = files.iter().filter(of_split).cloned().collect();
        if !found.is_empty() {
            return Ok(found);
        }
    }
    let patterns: Vec<String> = splits.iter().map(|split| format!("{split}-*.parquet")).collect();
    let there: Vec<String> = listings.iter().flatten().map(|file| file.display().to_string()).collect();
    let there = if there.is_empty() {
        "there is no Parquet file at all".to_owned()
    } else {
        format!("found {}", there.join(", "))
    };
    Err(Error::Data(format!("{}: there is no {}; {there}", folder.display(), patterns.join(" or "))))
}

fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::file(folder))? {
        let path = entry.map_err(Error::file(folder))?.path();
        if path.extension().is_some_and(|extension| extension == "parquet") && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// A digest of `settings` and of the files' names, sizes and contents. Of more than a gibibyte, contents are told by
/// footer and time of change. Where the files lie does not matter.
pub(crate) fn digest(settings: &str, splits: [&[PathBuf]; 2]) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(settings.as_bytes());
    let mut total = 0;
    for path in splits.into_iter().flatten() {
        total += fs::metadata(path).map_err(Error::file(path))?.len();
    }
    for (split, files) in splits.into_iter().enumerate() {
        for path in files {
            let mut file = File::open(path).map_err(Error::file(path))?;
            let metadata = file.metadata().map_err(Error::file(path))?;
            let name = path.file_name().unwrap_or_default().as_encoded_bytes();
            hasher.update(&[split as u8]).update(&(name.len() as u64).to_le_bytes()).update(name);
            hasher.update(&metadata.len().to_le_bytes());
            if total > WHOLE {
                let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
                hasher.update(&modified.map_or(0, |time| time.as_nanos()).to_le_bytes());
                file.seek(SeekFrom::Start(metadata.len().saturating_sub(TAIL))).map_err(Error::file(path))?;
            }
            let mut buffer = vec![0; 1 << 18];
            loop {
                let read = file.read(&mut buffer).map_err(Error::file(path))?;
                if read == 0 {
                    break;
                }
                hasher.update(&buffer[..read]);
            }
        }
    }
    Ok(hasher.finalize().to_hex().to_string())
}
