//! A file that is read here and there. Nothing is allocated before its length was compared with the file's.

use crate::error::{Fault, Found};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Bytes that are looked through at a time.
const CHUNK: u64 = 1 << 18;

#[derive(Debug)]
pub(crate) struct Source {
    path: PathBuf,
    file: Mutex<File>,
    length: u64,
}

impl Source {
    /// Opens a plain file: a FIFO would be waited for.
    pub(crate) fn open(path: &Path) -> Found<Self> {
        let about = std::fs::metadata(path)?;
        if !about.is_file() {
            return Err(Fault::new("it is not a file"));
        }
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file: Mutex::new(file), length })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn len(&self) -> u64 {
        self.length
    }

    /// The bytes of a part of the file.
    pub(crate) fn bytes(&self, start: u64, length: u64) -> Found<Vec<u8>> {
        self.within(start, length)?;
        let length = usize::try_from(length).map_err(|_| Fault::at(start, "this is more than memory can hold"))?;
        let mut bytes = vec![0; length];
        self.fill(start, &mut bytes)?;
        Ok(bytes)
    }

    /// A few bytes.
    pub(crate) fn array<const N: usize>(&self, start: u64) -> Found<[u8; N]> {
        self.within(start, N as u64)?;
        let mut bytes = [0; N];
        self.fill(start, &mut bytes)?;
        Ok(bytes)
    }

    /// Shows a part of the file, piece by piece.
    pub(crate) fn each_chunk(&self, start: u64, length: u64, mut see: impl FnMut(&[u8])) -> Found<()> {
        self.within(start, length)?;
        let mut buffer = vec![0; length.min(CHUNK) as usize];
        let mut done = 0;
        while done < length {
            let part = &mut buffer[..(length - done).min(CHUNK) as usize];
            self.fill(start + done, part)?;
            see(part);
            done += part.len() as u64;
        }
        Ok(())
    }

    fn within(&self, start: u64, length: u64) -> Found<()> {
        match start.checked_add(length) {
            Some(end) if end <= self.length => Ok(()),
            _ => Err(Fault::at(start, format!("{length} bytes are wanted here; the file has {}", self.length))),
        }
    }

    fn fill(&self, start: u64, bytes: &mut [u8]) -> Found<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(start))?;
        Ok(file.read_exact(bytes)?)
    }
}
