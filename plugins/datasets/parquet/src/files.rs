//! The digest of the files that a data set is made of.

use rqlab_sdk::{Error, Result};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

/// Up to this many bytes, files are hashed whole.
const WHOLE: u64 = 1 << 30;
/// Of larger sets, this much of the end of each file, which holds the footer: places, sizes and statistics of all pages.
const TAIL: u64 = 1 << 20;

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
