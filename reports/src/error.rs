//! What can go wrong while a report is made.

use std::io;
use std::path::PathBuf;

/// The crate's result.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a report could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is not what a report writes.
    #[error("{} cannot be used: {message}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A file for programs could not be encoded.
    #[error("cannot make {name}: {source}")]
    Encode {
        /// The file's name.
        name: &'static str,
        /// What serde said.
        source: serde_json::Error,
    },
    /// A table could not be built or encoded.
    #[error("cannot make the table {table}: {source}")]
    Table {
        /// File name of the table.
        table: &'static str,
        /// What polars said.
        source: polars::error::PolarsError,
    },
    /// An axis or a measure would make two columns of one name.
    #[error("the table would have two columns named `{name}`; rename the axis or the measure")]
    Column {
        /// The name.
        name: String,
    },
    /// A trial has two values of one quantity.
    #[error("trial {trial} has two readings of `{quantity}`; each quantity is measured once per trial")]
    Reading {
        /// The trial's identifier.
        trial: String,
        /// Name of the quantity's column.
        quantity: String,
    },
    /// A figure could not be drawn.
    #[error("cannot draw the figure `{figure}`: {message}")]
    Figure {
        /// Identifier of the figure.
        figure: String,
        /// What plotters said.
        message: String,
    },
    /// An image could not be decoded or encoded.
    #[error("cannot read or write an image: {0}")]
    Image(#[source] image::ImageError),
    /// The bytes of an image do not fit its size.
    #[error("an image of {width} x {height} pixels needs {wanted} bytes of RGB, found {found}")]
    ImageSize {
        /// Pixels across.
        width: u32,
        /// Pixels down.
        height: u32,
        /// Bytes needed.
        wanted: usize,
        /// Bytes found.
        found: usize,
    },
    /// A curve whose steps and values differ in number.
    #[error("curve `{curve}` of trial {trial} has {steps} steps but {values} values")]
    Curve {
        /// The trial's identifier.
        trial: String,
        /// Stage and name.
        curve: String,
        /// Number of steps.
        steps: usize,
        /// Number of values.
        values: usize,
    },
}
