//! Loops over elements, rows and blocks, bound by memory: element-wise functions, reductions, changes of layout.

pub(crate) mod by_code;
pub(crate) mod dropout;
pub(crate) mod elementwise;
pub(crate) mod filter;
pub(crate) mod gate;
pub(crate) mod layout;
pub(crate) mod loss;
pub(crate) mod pool;
pub(crate) mod reduce;
pub(crate) mod resample;
pub(crate) mod rows;
pub(crate) mod swiglu;
