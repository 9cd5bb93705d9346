//! Where numbers live: flat dfdx tensors, reached as slices on the CPU.

use crate::{Error, Result};
use dfdx::prelude::{Cpu, HasShape, Tensor as Dx, TensorFromVec};
use std::fmt;
use std::sync::OnceLock;

/// Where a tensor's numbers live and where operations on it run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Device {
    /// The host's processor: all threads of the global rayon pool.
    #[default]
    Cpu,
    /// An NVIDIA GPU by its ordinal.
    Cuda(usize),
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

/// A flat dfdx tensor on the CPU.
pub(crate) type CpuBuffer = Dx<(usize,), f32, Cpu>;

/// The numbers of a tensor. Cloning shares them.
#[derive(Clone)]
pub(crate) enum Storage {
    Cpu(CpuBuffer),
}

/// The one CPU device of the process. dfdx devices carry a generator and a cache; we use neither.
pub(crate) fn cpu() -> &'static Cpu {
    static DEVICE: OnceLock<Cpu> = OnceLock::new();
    DEVICE.get_or_init(Cpu::default)
}

impl Storage {
    /// Takes over `data` without a copy.
    pub(crate) fn from_vec(data: Vec<f32>) -> Self {
        let len = data.len();
        Self::Cpu(cpu().tensor_from_vec(data, (len,)))
    }

    pub(crate) fn device(&self) -> Device {
        match self {
            Self::Cpu(_) => Device::Cpu,
        }
    }

    pub(crate) fn as_slice(&self) -> &[f32] {
        match self {
            Self::Cpu(buffer) => {
                let len = buffer.shape().0;
                if len == 0 {
                    return &[];
                }
                let first: *const f32 = &buffer[[0]];
                // SAFETY: a flat dfdx CPU tensor made by `from_vec` is one contiguous Vec of `len` elements, which
                // lives as long as `buffer`; `first` is its start.
                #[allow(unsafe_code)]
                unsafe {
                    std::slice::from_raw_parts(first, len)
                }
            }
        }
    }

    /// The numbers, to be written; copied first if another tensor shares them.
    pub(crate) fn as_mut_slice(&mut self) -> &mut [f32] {
        match self {
            Self::Cpu(buffer) => {
                let len = buffer.shape().0;
                if len == 0 {
                    return &mut [];
                }
                let first: *mut f32 = &mut buffer[[0]];
                // SAFETY: as above; dfdx's IndexMut makes the buffer unique, and the borrow of `self` keeps it so.
                #[allow(unsafe_code)]
                unsafe {
                    std::slice::from_raw_parts_mut(first, len)
                }
            }
        }
    }
}

impl Device {
    /// Checks that the device can be used by this build on this machine.
    ///
    /// # Errors
    /// [`Error::Device`] says what is missing: the `cuda` feature, a driver, or the GPU itself.
    pub fn open(self) -> Result<()> {
        match self {
            Self::Cpu => Ok(()),
            Self::Cuda(_) => {
                Err(Error::Device(format!("{self}: this build has no CUDA support; build with `--features cuda`")))
            }
        }
    }
}
