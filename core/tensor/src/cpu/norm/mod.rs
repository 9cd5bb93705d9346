//! Normalisation.

pub(crate) mod group;
pub(crate) mod layer;
