//! `done.json`: what a stage found, and by what its files are known again.
//!
//! The file begins with its own seal, the digest of all bytes that follow it, so that a change of any of them is noticed. It
//! names the stage, so that it means nothing in the directory of another one, and every file of the result by length and
//! digest.

use super::{Done, json};
use rqlab_sdk::{Error, Result, files};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// What stands before the seal, and what stands for it while the digest is taken.
const BEFORE: &str = "{\n  \"seal\": \"";
const OPEN: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The contents of `done.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Sealed {
    seal: String,
    /// The id of the stage.
    pub(super) stage: String,
    /// The files of its result, by name.
    pub(super) files: BTreeMap<String, FileSeal>,
    /// What it found.
    #[serde(flatten)]
    pub(super) done: Done,
}

/// By what a file is known again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileSeal {
    /// Bytes.
    pub(super) length: u64,
    /// Digest (hex) of its contents.
    pub(super) blake3: String,
}

impl FileSeal {
    /// The seal of a file as it is now.
    ///
    /// # Errors
    /// [`Error::File`].
    pub(super) fn of(path: &Path) -> Result<Self> {
        let (mut file, _) = files::open(path)?;
        let mut hasher = blake3::Hasher::new();
        let length = std::io::copy(&mut file, &mut hasher).map_err(Error::file(path))?;
        Ok(Self { length, blake3: hasher.finalize().to_hex().to_string() })
    }
}

impl Sealed {
    pub(super) fn new(stage: &str, files: BTreeMap<String, FileSeal>, done: Done) -> Self {
        Self { seal: OPEN.to_owned(), stage: stage.to_owned(), files, done }
    }

    /// The bytes of `done.json` at `path`.
    ///
    /// # Errors
    /// [`Error::File`] if JSON cannot hold them.
    pub(super) fn bytes(&self, path: &Path) -> Result<Vec<u8>> {
        let mut bytes = json(path, self)?;
        let seal = digest(&bytes);
        bytes[BEFORE.len()..BEFORE.len() + OPEN.len()].copy_from_slice(seal.as_bytes());
        Ok(bytes)
    }

    /// Reads what [`Sealed::bytes`] wrote.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let sealed = bytes.starts_with(BEFORE.as_bytes())
            && bytes.get(BEFORE.len()..BEFORE.len() + OPEN.len()) == Some(digest(bytes).as_bytes());
        if !sealed {
            return Err("its contents are not those that were written".to_owned());
        }
        serde_json::from_slice(bytes).map_err(|error| error.to_string())
    }
}

/// The digest (blake3, hex) of what follows the seal.
fn digest(bytes: &[u8]) -> String {
    blake3::hash(bytes.get(BEFORE.len() + OPEN.len()..).unwrap_or_default()).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use rqlab_reports::Reading;

    #[test]
    fn a_change_of_any_byte_is_noticed() {
        let files = BTreeMap::from([("a".to_owned(), FileSeal { length: 3, blake3: "x".to_owned() })]);
        let readings = vec![Reading::new("psnr", [], 0.1 + 0.2)];
        let sealed = Sealed::new("id", files, Done { readings, ..Done::default() });
        let bytes = sealed.bytes(Path::new("done.json")).unwrap();
        let read = Sealed::read(&bytes).unwrap();
        assert_eq!((&read.stage, &read.files, &read.done), (&sealed.stage, &sealed.files, &sealed.done));
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert!(Sealed::read(&flipped).is_err(), "byte {at}");
        }
        for length in 0..bytes.len() {
            assert!(Sealed::read(&bytes[..length]).is_err(), "cut to {length} bytes");
        }
    }
}
