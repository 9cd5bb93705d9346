//! What can go wrong in a component or in the building blocks.

use std::path::PathBuf;

/// The result of an sdk call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a component could not do its work. Every message names the thing, what was found and what was wanted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] crate::tensor::Error),
    /// A configuration does not parse or asks for the impossible.
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    /// A measure could not be taken.
    #[error(transparent)]
    Metric(#[from] crate::metrics::Error),
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Data (images, Parquet, folders) that cannot be used; the message names file and place.
    #[error("{0}")]
    Data(String),
    /// A checkpoint that does not fit or is damaged.
    #[error("{0}")]
    Checkpoint(String),
    /// The component cannot do what was asked of it, and why.
    #[error("{0}")]
    Unsupported(String),
    /// Training left the numbers: a loss or gradient that is not finite.
    #[error("{0}")]
    Diverged(String),
}

impl Error {
    /// A file error at `path`, for use in `map_err`.
    pub fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}
