//! Why a file cannot be read.

use std::fmt::{self, Display};
use std::io;
use std::path::{Path, PathBuf};

/// The result of reading.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A file that cannot be read, the place in it where that was found, and why.
#[derive(Debug, thiserror::Error)]
pub struct Error {
    /// The file.
    pub path: PathBuf,
    /// The byte at which the trouble begins, where there is one.
    pub place: Option<u64>,
    /// What was found and what was wanted.
    pub reason: String,
}

impl Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.path.display())?;
        if let Some(place) = self.place {
            write!(out, ", byte {place}")?;
        }
        write!(out, ": {}", self.reason)
    }
}

/// A fault before it is known in which file.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) place: Option<u64>,
    pub(crate) reason: String,
}

impl Fault {
    /// A fault of the file as a whole.
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self { place: None, reason: reason.into() }
    }

    /// A fault at a byte.
    pub(crate) fn at(place: u64, reason: impl Into<String>) -> Self {
        Self { place: Some(place), reason: reason.into() }
    }

    /// It with this place, if it had none.
    pub(crate) fn or_at(self, place: u64) -> Self {
        Self { place: self.place.or(Some(place)), ..self }
    }

    pub(crate) fn of(self, path: &Path) -> Error {
        Error { path: path.to_owned(), place: self.place, reason: self.reason }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::new("it is cut off"),
            _ => Self::new(error.to_string()),
        }
    }
}

pub(crate) type Found<T> = std::result::Result<T, Fault>;
