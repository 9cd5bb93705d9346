//! Files that appear whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::error::{Error, Result};

/// Makes the folder, with those above it.
pub(crate) fn folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|source| Error::Write { path: path.to_owned(), source })
}

/// Writes a file next to its place, lets it reach the disk, and moves it there.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    // A link leads to the file that is meant. A rename would replace whatever has the name.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if fs::metadata(path).is_ok_and(|about| !about.is_file()) {
        let source = io::Error::other("something that is no file has this name");
        return Err(Error::Write { path: path.to_owned(), source });
    }
    // The process in the name keeps two writers apart; the last one to finish wins, with a whole file.
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = path.with_file_name(name);
    let written = write(&part, bytes).and_then(|()| fs::rename(&part, path));
    written.map_err(|source| {
        // The first error is the one to tell; a part that cannot be removed either is named like what it is.
        let _ = fs::remove_file(&part);
        Error::Write { path: path.to_owned(), source }
    })
}

fn write(part: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(part)?;
    file.write_all(bytes)?;
    file.sync_all()
}
