//! Experiment files: what they say, and where they say it.
//!
//! [`document::read`] takes a file, what it is based on and what the command line sets, and gives a
//! [`Document`] whose every value is a [`Piece`](source::Piece) of the text that it came from. What
//! the components think of their fields is asked later, by [`plan`](crate::plan), which hands them one composed call
//! and finds the origin of whatever they complain about.

pub mod component;
pub mod diagnostic;
pub mod document;
mod files;
pub mod raw;
pub mod source;
pub mod sweep;

pub use diagnostic::{Complaints, Diagnostic, Invalid, Severity};
pub use document::{Document, read};
pub use files::find;
