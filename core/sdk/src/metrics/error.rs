//! Why a measure could not be taken.

/// The result of a measure.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a measure could not be taken. The message names the measure, what was found and what was wanted.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The sizes of the inputs do not fit each other or the measure.
    #[error("{measure}: {detail}")]
    Shape {
        /// The measure that was asked for.
        measure: &'static str,
        /// What was found and what was wanted.
        detail: String,
    },
    /// There are too few images, rows or codes for the measure to be defined.
    #[error("{measure} needs at least {wanted} {of}, found {found}")]
    TooFew {
        /// The measure that was asked for.
        measure: &'static str,
        /// What there is too little of.
        of: &'static str,
        /// How many there are.
        found: usize,
        /// How many it takes.
        wanted: usize,
    },
    /// A value or a parameter lies outside what the measure is defined for.
    #[error("{measure}: {detail}")]
    Value {
        /// The measure that was asked for.
        measure: &'static str,
        /// What was found and what was wanted.
        detail: String,
    },
    /// The eigenvalue iteration did not converge.
    #[error("{measure}: the eigenvalues of a {size} x {size} matrix did not converge")]
    NoConvergence {
        /// The measure that was asked for.
        measure: &'static str,
        /// The order of the matrix.
        size: usize,
    },
}

impl Error {
    pub(super) fn shape(measure: &'static str, detail: impl Into<String>) -> Self {
        Self::Shape { measure, detail: detail.into() }
    }

    pub(super) fn value(measure: &'static str, detail: impl Into<String>) -> Self {
        Self::Value { measure, detail: detail.into() }
    }
}
