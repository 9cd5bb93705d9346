//! How it stands with a stage: what its files say when they are looked at.

use super::Done;
use rqlab_sdk::Error;
use std::fmt;
use std::path::PathBuf;

/// How it stands with a stage.
#[derive(Debug, Clone, PartialEq)]
pub enum Standing {
    /// It is not complete. A file of the result that was deleted counts as this: deleting it is how a user has a stage done
    /// again.
    Unfinished,
    /// It is complete.
    Done(Box<Done>),
    /// It was complete, and one of its files is not what was written.
    Damaged(Damage),
}

/// A file that is not what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// What was found.
    pub found: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is damaged: {}", self.path.display(), self.found)
    }
}

impl From<Damage> for Error {
    fn from(damage: Damage) -> Self {
        Self::Checkpoint(format!("{damage}; `rqlab sweep` sets it aside and makes it again"))
    }
}

/// A damaged file that was given another name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// What was wrong.
    pub damage: Damage,
    /// Its new name.
    pub to: PathBuf,
}

impl fmt::Display for SetAside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let to = self.to.file_name().unwrap_or_default().to_string_lossy();
        write!(f, "{}; it was set aside as {to}, and is made again", self.damage)
    }
}
