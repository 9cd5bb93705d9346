//! What proves the laboratory: agreement with the published systems ([`parity`]), a folder
//! and a program for end-to-end tests ([`lab`]), and tests over the whole workspace in
//! `tests/`.

pub mod lab;
pub mod parity;
