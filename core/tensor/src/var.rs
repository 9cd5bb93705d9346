//! Variables: tensors that training writes to.

use crate::{Device, Error, Result, Tensor};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

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
        let value = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(key) = value.grad_key() {
            crate::tape::used(self.address(), key);
        }
        value
    }

    /// Replaces the value; the gradient's key and the device stay.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shape differs, [`Error::Device`] if the value cannot be copied to the device.
    pub fn set(&self, value: &Tensor) -> Result<()> {
        let mut current = self.lock();
        if current.len() != value.len() {
            return Err(Error::shape("set", "a variable keeps its shape"));
        }
        match current.device() {
            Device::Cpu => current.storage_mut().write(|current| current.copy_from_slice(value.as_slice())),
            device => *current.storage_mut() = value.storage().to_device(device)?,
        }
        Ok(())
    }

    /// Exchanges the values of two variables of one shape; gradients' keys stay where they are. Nothing is copied.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes differ, [`Error::Device`] if the devices do.
    pub fn swap(&self, other: &Self) -> Result<()> {
        let (mine, theirs) = (self.get(), other.get());
        if mine.shape() != theirs.shape() {
            return Err(Error::shape("swap", format!("{:?} and {:?} differ", mine.shape(), theirs.shape())));
        }
        if mine.device() != theirs.device() {
            return Err(Error::Device(format!("swap: variables on {} and on {}", mine.device(), theirs.device())));
        }
        *self.lock().storage_mut() = theirs.storage().clone();
        *other.lock().storage_mut() = mine.storage().clone();
        Ok(())
    }

    /// Runs `f` while no gradient flows to `vars`: what [`Var::get`] gives there is a constant.
    pub fn frozen<R>(vars: &[Self], f: impl FnOnce() -> R) -> R {
        struct Thaw<'a>(Vec<(&'a Var, Tensor)>);
        impl Drop for Thaw<'_> {
            fn drop(&mut self) {
                for (var, before) in self.0.drain(..) {
                    let mut current = var.lock();
                    // The numbers may have been written meanwhile; only the gradient's key comes back.
                    *current = current.clone().with_grad(before.grad_key().cloned());
                }
            }
        }
        let freeze = |var| {
            let mut current = Self::lock(var);
            let constant = current.detach();
            (var, std::mem::replace(&mut *current, constant))
        };
        let _thaw = Thaw(vars.iter().map(freeze).collect());
        f()
    }

    pub(crate) fn lock(&self) -> RwLockWriteGuard<'_, Tensor> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// What tells it from other variables.
    pub(crate) fn address(&self) -> usize {
        Arc::as_ptr(&self.0) as usize
    }

    /// Lets `f` write the numbers in place; they are copied first only if a tensor taken by [`Var::get`] still lives.
    /// Those on a GPU are copied to the host and back.
    pub fn write<R>(&self, f: impl FnOnce(&mut [f32]) -> R) -> R {
        self.lock().storage_mut().write(f)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first failure")]
mod tests {
    use super::*;
    use crate::Tape;

    #[test]
    fn a_frozen_variable_is_a_constant_and_thaws_with_its_key() {
        let (a, b) = (Var::parameter(&Tensor::full(2.0, &[1])), Var::parameter(&Tensor::full(3.0, &[1])));
        let tape = Tape::start().unwrap();
        let product = Var::frozen(std::slice::from_ref(&a), || a.get().mul(&b.get())).unwrap();
        let mut gradients = tape.backward(&product).unwrap();
        assert!(gradients.take(&a.get()).is_none());
        assert_eq!(gradients.take(&b.get()).unwrap().to_vec(), [2.0]);
        let tape = Tape::start().unwrap();
        let mut gradients = tape.backward(&a.get().mul(&b.get()).unwrap()).unwrap();
        assert_eq!(gradients.take(&a.get()).unwrap().to_vec(), [3.0]);
    }
    use crate::ops::testing::{on_every_device, random};

    #[test]
    fn swapped_variables_exchange_values_and_keep_their_gradients() {
        on_every_device(|| {
            let (x, y) = (random(&[3], 1), random(&[3], 2));
            let (parameter, average) = (Var::parameter(&x), Var::buffer(&y));
            parameter.swap(&average).unwrap();
            assert_eq!((parameter.get().to_vec(), average.get().to_vec()), (y.to_vec(), x.to_vec()));
            let tape = Tape::start().unwrap();
            let loss = parameter.get().mul(&average.get()).unwrap().sum_all().unwrap();
            let mut found = tape.backward(&loss).unwrap();
            assert_eq!(found.take(&parameter.get()).unwrap().to_vec(), x.to_vec());
            assert!(found.take(&average.get()).is_none());
            assert!(parameter.swap(&Var::buffer(&Tensor::zeros(&[2]))).is_err());
        });
    }

    /// A tensor that was taken before keeps its numbers.
    #[test]
    fn what_was_taken_stays_when_the_variable_is_written() {
        on_every_device(|| {
            let x = random(&[5], 3);
            let (var, value) = (Var::buffer(&x), Tensor::zeros(&[5]));
            let taken = var.get();
            for _ in 0..2 {
                crate::ops::optim::ema(&var, &value, 0.5).unwrap();
            }
            let wanted: Vec<f32> = x.as_slice().iter().map(|x| 0.25 * x).collect();
            assert_eq!((taken.to_vec(), var.get().to_vec()), (x.to_vec(), wanted));
        });
    }
}
