//! What can go wrong in a tensor operation.

use crate::Device;

/// The result of a tensor operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a tensor operation could not be done. Shapes are in the message.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operands' shapes do not fit the operation.
    #[error("{op}: {detail}")]
    Shape {
        /// The operation that was asked for.
        op: &'static str,
        /// What was found and what was wanted.
        detail: String,
    },
    /// The operation has no kernel for this device yet.
    #[error("{op} has no kernel for {device} yet; run this model on the CPU")]
    NoKernel {
        /// The operation that was asked for.
        op: &'static str,
        /// The device that lacks it.
        device: Device,
    },
    /// The device cannot be opened or ran out of memory.
    #[error("{0}")]
    Device(String),
    /// The tape was used out of order.
    #[error("tape: {0}")]
    Tape(&'static str),
}

impl Error {
    /// A shape error of `op`.
    pub fn shape(op: &'static str, detail: impl Into<String>) -> Self {
        Self::Shape { op, detail: detail.into() }
    }
}
