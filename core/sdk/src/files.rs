//! Files that are read and written as a whole.
//!
//! What a name stands for is asked before it is opened: opening a FIFO waits for somebody at its other end, reading
//! `/dev/zero` never ends, and renaming over a device replaces it. Only plain files are read and replaced; what the user
//! names on the command line may be a FIFO or a device, too, which is read and written to as it is.

use crate::{Error, Result};
use std::fs::{self, File, FileType, Metadata};
use std::io::{self, BufWriter, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

/// Links that are followed one after another before they count as a circle, as Linux does.
const LINKS: usize = 40;

/// Opens a plain file, and tells its length in bytes.
///
/// # Errors
/// [`Error::File`]: it is not there or cannot be opened, or (as [`ErrorKind::InvalidInput`]) it is a directory, a FIFO or a
/// device.
pub fn open(path: &Path) -> Result<(File, u64)> {
    let open = || -> io::Result<(File, u64)> {
        let length = plain(&fs::metadata(path)?)?.len();
        Ok((File::open(path)?, length))
    };
    open().map_err(Error::file(path))
}

/// Reads a plain file of at most `limit` bytes.
///
/// # Errors
/// As for [`open`]; (as [`ErrorKind::InvalidData`]) a file that is longer.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let (file, length) = open(path)?;
    if length > limit {
        return Err(Error::file(path)(too_long(limit)));
    }
    bounded(file, limit).map_err(Error::file(path))
}

/// Reads what the user named, at most `limit` bytes of it: a plain file, or a FIFO or device up to its end.
///
/// # Errors
/// [`Error::File`]: it is not there or cannot be read, it is a directory, or there is more of it.
pub fn read_given(path: &Path, limit: u64) -> Result<Vec<u8>> {
    File::open(path).and_then(|file| bounded(file, limit)).map_err(Error::file(path))
}

fn bounded(file: File, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit { Err(too_long(limit)) } else { Ok(bytes) }
}

fn too_long(limit: u64) -> io::Error {
    let limit = if limit >= 1 << 20 { format!("{} MiB", limit >> 20) } else { format!("{limit} bytes") };
    io::Error::new(ErrorKind::InvalidData, format!("it has more than {limit}, which no such file has"))
}

/// Writes a file such that a crash at any time leaves either the old file or the new one: `write` fills a file beside it
/// (`NAME.PROCESS.partial`: two processes may write one file, and the last to finish wins), which is forced to disk and then
/// takes its place. Where `path` is a link, the file that it leads to is replaced.
///
/// # Errors
/// [`Error::File`]; the old file is untouched then, and the partial one removed. What is no plain file is not replaced.
pub fn write_atomically(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<()> {
    let target = replaceable(path).map_err(Error::file(path))?;
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.partial", std::process::id()));
    let partial = target.with_file_name(name);
    let written = File::create(&partial).and_then(|file| {
        let mut out = BufWriter::with_capacity(1 << 18, file);
        write(&mut out)?;
        out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(&partial, &target)
    });
    if let Err(error) = written {
        // What was written is of no use, and on a full disk in the way.
        let _ = fs::remove_file(&partial);
        return Err(Error::file(path)(error));
    }
    // The rename itself is on disk once the folder is. Where a file system cannot sync folders, it orders renames itself.
    let folder = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
    Ok(())
}

/// Writes what the user asked for: a file as [`write_atomically`] does, a FIFO or a device (`/dev/stdout`) directly.
/// Says whether it was a file, which stays.
///
/// # Errors
/// [`Error::File`], such as a directory of that name.
pub fn write_given(path: &Path, bytes: &[u8]) -> Result<bool> {
    let is_stream = fs::metadata(path).is_ok_and(|about| !about.is_file() && !about.is_dir());
    // A redirected standard output is a file that somebody else has opened: it is written to, not replaced.
    if is_stream || path.starts_with("/dev") || path.starts_with("/proc") {
        let written = File::options().write(true).open(path).and_then(|mut out| out.write_all(bytes));
        return written.map(|()| false).map_err(Error::file(path));
    }
    write_atomically(path, |out| out.write_all(bytes))?;
    Ok(true)
}

/// The file that a rename would replace or make, following links; none where that is no plain file.
fn replaceable(path: &Path) -> io::Result<PathBuf> {
    let mut target = path.to_owned();
    for _ in 0..LINKS {
        let Ok(next) = fs::read_link(&target) else {
            return match fs::metadata(&target) {
                Ok(about) => plain(&about).map(|_| target),
                // It is yet to be made; or creating it will say why it cannot be.
                Err(_) => Ok(target),
            };
        };
        target = target.parent().unwrap_or(Path::new("")).join(next);
    }
    Err(io::Error::other("its links lead in a circle"))
}

/// That something is a plain file.
///
/// # Errors
/// What it is instead.
fn plain(about: &Metadata) -> io::Result<&Metadata> {
    match about.file_type() {
        kind if kind.is_file() => Ok(about),
        kind => Err(io::Error::new(ErrorKind::InvalidInput, format!("it is {}, not a file", name(kind)))),
    }
}

#[cfg(unix)]
fn name(kind: FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    match kind {
        _ if kind.is_dir() => "a directory",
        _ if kind.is_fifo() => "a FIFO",
        _ if kind.is_socket() => "a socket",
        _ => "a device",
    }
}

#[cfg(not(unix))]
fn name(kind: FileType) -> &'static str {
    if kind.is_dir() { "a directory" } else { "a device" }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use std::os::unix::fs::symlink;
    use std::process::Command;

    /// A folder with a plain file, a FIFO and a directory.
    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "12345").unwrap();
        fs::create_dir(folder.path().join("directory")).unwrap();
        assert!(Command::new("mkfifo").arg(folder.path().join("fifo")).status().unwrap().success());
        folder
    }

    fn said<T>(result: Result<T>) -> String {
        result.err().unwrap().to_string()
    }

    #[test]
    fn only_plain_files_are_read_and_no_more_of_them_than_is_allowed() {
        let folder = folder();
        let at = |name: &str| folder.path().join(name);
        assert_eq!(read(&at("file"), 5).unwrap(), b"12345");
        assert!(said(read(&at("file"), 4)).ends_with("file: it has more than 4 bytes, which no such file has"));
        assert!(said(read(&at("fifo"), 5)).ends_with("fifo: it is a FIFO, not a file"));
        assert!(said(read(&at("directory"), 5)).ends_with("directory: it is a directory, not a file"));
        assert!(said(read(Path::new("/dev/zero"), 5)).ends_with("zero: it is a device, not a file"));
        let absent = read(&at("absent"), 5);
        assert!(matches!(absent, Err(Error::File { source, .. }) if source.kind() == ErrorKind::NotFound));
    }

    #[test]
    fn what_the_user_names_may_be_a_fifo_and_has_an_end() {
        let folder = folder();
        let fifo = folder.path().join("fifo");
        let written = fifo.clone();
        let writer = std::thread::spawn(move || write_given(&written, b"12345").unwrap());
        assert_eq!(read_given(&fifo, 5).unwrap(), b"12345");
        assert!(!writer.join().unwrap());
        assert!(said(read_given(Path::new("/dev/zero"), 1 << 20)).contains("more than 1 MiB"));
        assert!(read_given(folder.path(), 5).is_err());
    }

    #[test]
    fn a_link_stays_and_its_file_is_replaced() {
        let folder = folder();
        let at = |name: &str| folder.path().join(name);
        symlink("file", at("link")).unwrap();
        symlink("to be made", at("dangling")).unwrap();
        for (link, file) in [("link", "file"), ("dangling", "to be made")] {
            assert!(write_given(&at(link), b"new").unwrap());
            assert!(fs::symlink_metadata(at(link)).unwrap().is_symlink());
            assert_eq!(fs::read(at(file)).unwrap(), b"new");
        }
        symlink("circle", at("circle")).unwrap();
        assert!(said(write_given(&at("circle"), b"new")).contains("lead in a circle"));
    }

    #[test]
    fn a_device_or_a_directory_is_never_replaced() {
        let folder = folder();
        let at = |name: &str| folder.path().join(name);
        assert!(said(write_atomically(&at("directory"), |_| Ok(()))).contains("it is a directory, not a file"));
        assert!(said(write_atomically(&at("fifo"), |_| Ok(()))).contains("it is a FIFO, not a file"));
        symlink("/dev/null", at("null")).unwrap();
        assert!(said(write_atomically(&at("null"), |_| Ok(()))).contains("it is a device, not a file"));
        assert!(!write_given(&at("null"), b"gone").unwrap());
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4);
    }
}
