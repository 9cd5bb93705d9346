//! Variables: tensors that training writes to.

use crate::{Device, Error, Result, Tensor};
use std::sync::{Arc, PoisonError, RwLock};

/// A tensor that can be written in place: a trained parameter, or a buffer such as an EMA codebook. Clones are the
/// same variable. Its gradient is kept under one key for life, so that [`crate::Gradients::take`] finds it.
#[derive(Clone, Debug)]
pub struct Var(Arc<RwLock<Tensor>>);

impl Var {
    /// A trained parameter with its first value.
    pub fn parameter(value: &Tensor) -> Self {
        Self(Arc::new(RwLock::new(value.leaf())))
    }

    /// A buffer: state that no gradient flows to.
    pub fn buffer(value: &Tensor) -> Self {
        Self(Arc::new(RwLock::new(value.detach())))
    }

    /// The current value, as an operand. Cheap.
    pub fn get(&self) -> Tensor {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the value; the gradient's key and the device stay.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shape differs, [`Error::Device`] if the value cannot be copied to the device.
    pub fn set(&self, value: &Tensor) -> Result<()> {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if current.len() != value.len() {
            return Err(Error::shape("set", "a variable keeps its shape"));
        }
        match current.device() {
            Device::Cpu => current.storage_mut().write(|current| current.copy_from_slice(value.as_slice())),
            device => *current.storage_mut() = value.storage().to_device(device)?,
        }
        Ok(())
    }

    /// Lets `f` write the numbers in place; they are copied first only if a tensor taken by [`Var::get`] still lives.
    /// Those on a GPU are copied to the host and back.
    pub fn write<R>(&self, f: impl FnOnce(&mut [f32]) -> R) -> R {
        self.0.write().unwrap_or_else(PoisonError::into_inner).storage_mut().write(f)
    }
}
