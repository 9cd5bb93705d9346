//! How work is shared among threads.

pub(crate) mod split;
pub(crate) mod team;
