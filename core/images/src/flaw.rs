//! Why an image cannot be used.

use std::fmt;
use std::io;

/// Why an image cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// In a word or two, to be counted by: "damaged", "too large".
    pub reason: &'static str,
    /// In a sentence, without the file's name.
    pub message: String,
}

impl Flaw {
    /// Bytes that are not what their format asks for.
    pub fn damaged(message: impl fmt::Display) -> Self {
        Self { reason: "damaged", message: format!("the image is damaged: {message}") }
    }

    /// A file that ends before its image does.
    pub fn cut_short() -> Self {
        Self::damaged("the file ends before its image does")
    }

    /// A file that the system does not give.
    pub fn unreadable(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::cut_short(),
            _ => Self { reason: "unreadable", message: error.to_string() },
        }
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
