//! How work is shared among threads.

pub(crate) mod split;
mod sync;
pub(crate) mod team;
