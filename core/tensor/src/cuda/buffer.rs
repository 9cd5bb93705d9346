//! The numbers of a tensor on a GPU.

use super::{Gpu, Numbers, length};
use crate::{Device, Result};
use std::sync::{Arc, OnceLock};

/// Numbers on a GPU that are not written to any more. Cloning shares them.
#[derive(Clone)]
pub(crate) struct Buffer(Arc<Shared>);

struct Shared {
    gpu: &'static Gpu,
    numbers: Numbers,
    /// What the host has read of them.
    host: OnceLock<Vec<f32>>,
}

impl Buffer {
    pub(crate) fn new(gpu: &'static Gpu, numbers: Numbers) -> Self {
        Self(Arc::new(Shared { gpu, numbers, host: OnceLock::new() }))
    }

    pub(crate) fn gpu(&self) -> &'static Gpu {
        self.0.gpu
    }

    pub(crate) fn device(&self) -> Device {
        Device::Cuda(self.0.gpu.ordinal)
    }

    pub(crate) fn numbers(&self) -> &Numbers {
        &self.0.numbers
    }

    /// A copy on the host.
    pub(crate) fn download(&self) -> Result<Vec<f32>> {
        match self.0.host.get() {
            Some(host) => Ok(host.clone()),
            None => Ok(self.0.gpu.download(&self.0.numbers)?),
        }
    }

    /// The numbers on the host, copied once and kept as long as these live. A GPU that cannot be read any more reads
    /// as NaN, which no training mistakes for a result.
    pub(crate) fn host(&self) -> &[f32] {
        self.0.host.get_or_init(|| self.download().unwrap_or_else(|_| vec![f32::NAN; length(&self.0.numbers)]))
    }
}
