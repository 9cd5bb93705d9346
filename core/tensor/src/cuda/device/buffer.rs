//! The numbers of a tensor on a GPU.

use crate::cuda::{Gpu, Numbers, length};
use crate::{Device, Error, Result};
use std::sync::{Arc, OnceLock};

/// Numbers on a GPU that are not written to while they are shared. Cloning shares them.
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

    /// Makes this the only owner of its numbers, which may then be written: a copy if they are shared. What the host has
    /// read of them is forgotten.
    pub(crate) fn own(&mut self) -> Result<&mut Numbers> {
        if Arc::get_mut(&mut self.0).is_none() {
            *self = Self::new(self.gpu(), self.gpu().copy(self.numbers())?);
        }
        match Arc::get_mut(&mut self.0) {
            Some(own) => {
                own.host = OnceLock::new();
                Ok(&mut own.numbers)
            }
            None => Err(Error::Device("numbers to be written are shared".to_owned())),
        }
    }

    /// The numbers; copied if they are shared.
    pub(crate) fn into_numbers(self) -> Result<Numbers> {
        let gpu = self.gpu();
        match Arc::try_unwrap(self.0) {
            Ok(own) => Ok(own.numbers),
            Err(shared) => Ok(gpu.copy(&shared.numbers)?),
        }
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
