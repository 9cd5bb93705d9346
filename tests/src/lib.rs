//! What proves the laboratory: agreement with the published systems ([`parity`]), and tests over the whole workspace in
//! `tests/`.

pub mod parity;
