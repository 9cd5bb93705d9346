//! Bytes that are read by place.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;

/// Bytes that are read by place: all of a file in memory, or an open file of which only what is asked for is read.
pub trait Source {
    /// How many there are.
    fn length(&self) -> u64;

    /// Fills `out` with the bytes from `at` on.
    ///
    /// # Errors
    /// [`ErrorKind::UnexpectedEof`] if there are not so many; what the system says if it does not give them.
    fn fill(&mut self, at: u64, out: &mut [u8]) -> io::Result<()>;

    /// `N` bytes from `at` on.
    ///
    /// # Errors
    /// As [`Source::fill`].
    fn array<const N: usize>(&mut self, at: u64) -> io::Result<[u8; N]> {
        let mut out = [0; N];
        self.fill(at, &mut out)?;
        Ok(out)
    }

    /// `count` bytes from `at` on.
    ///
    /// # Errors
    /// As [`Source::fill`].
    fn bytes(&mut self, at: u64, count: usize) -> io::Result<Vec<u8>> {
        // Before memory is taken: the count comes from the file.
        if at.checked_add(count as u64).is_none_or(|end| end > self.length()) {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let mut out = vec![0; count];
        self.fill(at, &mut out)?;
        Ok(out)
    }
}

impl Source for &[u8] {
    fn length(&self) -> u64 {
        self.len() as u64
    }

    fn fill(&mut self, at: u64, out: &mut [u8]) -> io::Result<()> {
        let there = usize::try_from(at).ok().and_then(|at| self.get(at..)?.get(..out.len()));
        out.copy_from_slice(there.ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// How much of a file is read at once: most headers lie in the first block.
const BLOCK: usize = 4096;

/// An open file, of which the block that was read last is kept.
#[derive(Debug)]
pub struct FileSource {
    file: File,
    length: u64,
    start: u64,
    block: Vec<u8>,
}

impl FileSource {
    /// Opens a file.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok(Self { file, length, start: 0, block: Vec::new() })
    }
}

impl Source for FileSource {
    fn length(&self) -> u64 {
        self.length
    }

    fn fill(&mut self, at: u64, out: &mut [u8]) -> io::Result<()> {
        if at.checked_add(out.len() as u64).is_none_or(|end| end > self.length) {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let in_block = |start: u64, block: &[u8]| at >= start && at + out.len() as u64 <= start + block.len() as u64;
        if !in_block(self.start, &self.block) {
            self.file.seek(SeekFrom::Start(at))?;
            if out.len() > BLOCK {
                return self.file.read_exact(out);
            }
            self.block.clear();
            self.start = at;
            self.file.by_ref().take(BLOCK as u64).read_to_end(&mut self.block)?;
            if !in_block(self.start, &self.block) {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        let from = (at - self.start) as usize;
        out.copy_from_slice(&self.block[from..from + out.len()]);
        Ok(())
    }
}
