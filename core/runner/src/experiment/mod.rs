//! Experiment files: what they say, and where they say it.
//!
//! [`document::read`] takes a file, what it is based on and what the command line sets, and gives a
//! [`Document`] whose every value is a [`Piece`] of the text that it came from. What
//! the components think of their fields is asked later, by [`plan`](crate::plan), which hands them one composed call
//! and finds the origin of whatever they complain about.
//!
//! A field may hold the call of another component, or a list of calls; what is [`Written`] is taken apart as far as somebody
//! looks into it, since only the component says which of its fields hold calls.

mod brackets;
mod complaint;
pub mod condition;
pub mod diagnostic;
pub mod document;
mod files;
pub mod header;
pub mod path;
pub mod raw;
pub mod reach;
pub mod report;
pub mod setup;
pub mod slot;
pub mod source;
pub mod sweep;
pub mod written;

pub use complaint::help_of;
pub use diagnostic::{Complaints, Diagnostic, Invalid, Severity};
pub use document::{Document, read};
pub use files::{experiments_under, find};
pub use path::{Assignment, Path};
pub use setup::Setup;
pub use slot::Slot;
pub use source::Piece;
pub use written::{Written, WrittenCall};
