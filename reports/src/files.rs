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
    let put = || write(&part, bytes).and_then(|()| fs::rename(&part, path));
    // Who swept the folder may have taken this process, of another machine, for one that is gone.
    let written = put().or_else(|error| if error.kind() == io::ErrorKind::NotFound { put() } else { Err(error) });
    written.map_err(|source| {
        // The first error is the one to tell; a part that cannot be removed either is named like what it is.
        let _ = fs::remove_file(&part);
        Error::Write { path: path.to_owned(), source }
    })
}

/// Removes the parts that processes left which were killed as they wrote. Where it is not known who runs, they stay.
pub(crate) fn sweep(folder: &Path) {
    if !Path::new("/proc/self").exists() {
        return;
    }
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_part = path.extension().is_some_and(|end| end == "part");
        let writer = path.file_stem().and_then(|stem| Path::new(stem).extension()?.to_str()?.parse::<u32>().ok());
        if is_part && writer.is_some_and(|process| !Path::new(&format!("/proc/{process}")).exists()) {
            // What stays is in nobody's way.
            let _ = fs::remove_file(path);
        }
    }
}

fn write(part: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(part)?;
    file.write_all(bytes)?;
    file.sync_all()
}
