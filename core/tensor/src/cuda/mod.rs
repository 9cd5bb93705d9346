//! NVIDIA GPUs. A kernel (`.cu`) lies beside the code that launches it, and its twin on the CPU has its name in `cpu/`;
//! `device/` opens a GPU and has what all launches share.

pub(crate) mod attention;
pub(crate) mod conv;
pub(crate) mod device;
pub(crate) mod gemm;
pub(crate) mod loops;
pub(crate) mod nearest;
pub(crate) mod norm;
pub(crate) mod optim;
pub(crate) mod sampling;

pub(crate) use device::buffer::Buffer;
pub(crate) use device::{Gpu, Numbers, length, open, reads};
