//! The operations, one file each (or one family): shape check, forward, and what the backward pass needs.
//!
//! Unless a page says otherwise an operation is a method of [`Tensor`](crate::Tensor), is differentiable in every
//! floating-point operand, and fails with [`Error::Shape`](crate::Error::Shape) alone.

pub mod arithmetic;
pub mod attention;
pub mod conv;
pub mod dropout;
pub mod embedding;
pub mod linear;
pub mod loss;
pub mod nearest;
pub mod norm;
pub mod optim;
pub mod reduce;
pub mod sampling;
pub mod shape;
pub mod softmax;
pub mod unary;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests stop at the first failure")]
pub(crate) mod testing;
