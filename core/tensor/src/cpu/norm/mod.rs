//! Normalisation.

pub(crate) mod group;
pub(crate) mod layer;
pub(crate) mod rows;
pub(crate) mod weight;
