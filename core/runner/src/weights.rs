//! Files of published weights, and whether they are what they are said to be.

use rqlab_sdk::config::{Value, ValueKind};
use rqlab_sdk::networks::{Dinov2, Inception, Lpips, Weights};
use rqlab_sdk::{Error, Result, files};
use serde::de::{self, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

/// A safetensors file of weights, and the digest that it must have.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WeightsFile {
    /// Where it lies.
    pub path: PathBuf,
    /// Its SHA-256, in hexadecimal.
    pub digest: String,
}

/// Files that a setting names: one, or a list with one for each level.
#[derive(Debug, Clone, PartialEq)]
pub struct FilesByLevel(Vec<String>);

impl FilesByLevel {
    /// As they are written, one for each level.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl Serialize for FilesByLevel {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => one.serialize(serializer),
            several => several.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for FilesByLevel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Files;
        impl<'de> Visitor<'de> for Files {
            type Value = FilesByLevel;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a file in quotes, or a list of files")
            }
            fn visit_str<E: de::Error>(self, file: &str) -> Result<FilesByLevel, E> {
                Ok(FilesByLevel(vec![file.to_owned()]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut files: A) -> Result<FilesByLevel, A::Error> {
                let mut all = Vec::new();
                while let Some(file) = files.next_element()? {
                    all.push(file);
                }
                if all.is_empty() { Err(A::Error::invalid_length(0, &self)) } else { Ok(FilesByLevel(all)) }
            }
        }
        deserializer.deserialize_any(Files)
    }
}

impl Value for FilesByLevel {
    fn kind() -> ValueKind {
        ValueKind::Either(vec![ValueKind::Text, ValueKind::List(Box::new(ValueKind::Text))])
    }
}

/// The SHA-256 of a plain file, in hexadecimal.
fn digest(path: &Path) -> Result<String> {
    let (mut input, _) = files::open(path)?;
    let (mut hash, mut chunk) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        let read = input.read(&mut chunk).map_err(Error::file(path))?;
        if read == 0 {
            break;
        }
        hash.update(&chunk[..read]);
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

impl WeightsFile {
    /// A file as it is now.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn of(path: PathBuf) -> Result<Self> {
        Ok(Self { digest: digest(&path)?, path })
    }

    /// Checks that the file is there and has its digest.
    ///
    /// # Errors
    /// It cannot be read; another digest.
    pub fn check(&self) -> Result<()> {
        let found = digest(&self.path)?;
        if found == self.digest.to_lowercase() {
            return Ok(());
        }
        let path = self.path.display();
        Err(Error::Data(format!(
            "{path} has the SHA-256 {found}, not {}: it is another file; docs/weights.md tells where the weights are and how \
             they are converted, and if this is your conversion, state its digest",
            self.digest
        )))
    }

    /// Checks that the file holds the network that a setting of the evaluation names, too.
    ///
    /// # Errors
    /// Those of [`WeightsFile::load`]; another network; numbers that are not finite.
    pub fn check_network(&self, setting: &str) -> Result<()> {
        let weights = self.load()?;
        match setting {
            "inception" => Inception::new(weights).map(drop),
            "dinov2" => Dinov2::published(weights).map(drop),
            _ => Lpips::new(weights).map(drop),
        }
    }

    /// The tensors of the file, after a check.
    ///
    /// # Errors
    /// Those of [`WeightsFile::check`]; no safetensors file.
    pub fn load(&self) -> Result<Weights> {
        self.check()?;
        Weights::load(&self.path)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_its_digest_or_is_another_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("abc");
        std::fs::write(&path, "abc").unwrap();
        // The example of FIPS 180-2, appendix B.1.
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".to_owned();
        let file = WeightsFile { path, digest };
        file.check().unwrap();
        WeightsFile { digest: file.digest.to_uppercase(), ..file.clone() }.check().unwrap();
        let wrong = WeightsFile { digest: "00".repeat(32), ..file.clone() };
        let message = wrong.check().unwrap_err().to_string();
        assert!(message.contains(&file.digest) && message.contains("docs/weights.md"), "{message}");
        let absent = WeightsFile { path: dir.path().join("none"), ..file };
        assert!(absent.check().is_err());
    }
}
