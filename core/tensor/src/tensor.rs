//! The tensor.

use crate::storage::Storage;
use crate::tape::GradKey;
use crate::{Device, Error, Result};
use std::fmt;
use std::sync::Arc;

/// Numbers in a row-major shape known at run time. Cloning is cheap: numbers are shared until written to.
///
/// Operations are methods (see [`crate::ops`]); those that depend on a leaf are recorded while a
/// [`Tape`](crate::Tape) is.
#[derive(Clone)]
pub struct Tensor {
    storage: Storage,
    shape: Arc<[usize]>,
    grad: Option<GradKey>,
}

impl Tensor {
    /// A tensor of shape `shape` over `data`, which is not copied on the CPU; on the default device
    /// ([`Device::make_default`]).
    ///
    /// # Errors
    /// [`Error::Shape`] if `data` has not as many elements as the shape.
    pub fn from_vec(data: Vec<f32>, shape: &[usize]) -> Result<Self> {
        let wanted: usize = shape.iter().product();
        if data.len() != wanted {
            return Err(Error::shape(
                "from_vec",
                format!("{} numbers do not fill shape {shape:?} of {wanted}", data.len()),
            ));
        }
        Ok(Self { storage: Storage::on_default_device(data), shape: shape.into(), grad: None })
    }

    /// A tensor with every element `value`.
    pub fn full(value: f32, shape: &[usize]) -> Self {
        let len = shape.iter().product();
        Self { storage: Storage::full(value, len), shape: shape.into(), grad: None }
    }

    /// A tensor of zeros.
    pub fn zeros(shape: &[usize]) -> Self {
        Self::full(0.0, shape)
    }

    /// A tensor of rank 0.
    pub fn scalar(value: f32) -> Self {
        Self::full(value, &[])
    }

    /// The sizes of its axes, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of axes.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The size of the innermost axis; 1 for rank 0.
    pub fn last_dim(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// The sizes of all axes, if there are exactly `N`.
    ///
    /// # Errors
    /// [`Error::Shape`] in the name of `op`.
    pub fn dims<const N: usize>(&self, op: &'static str) -> Result<[usize; N]> {
        self.shape
            .as_ref()
            .try_into()
            .map_err(|_| Error::shape(op, format!("wanted rank {N}, found shape {:?}", self.shape)))
    }

    /// Where the numbers live.
    pub fn device(&self) -> Device {
        self.storage.device()
    }

    /// A copy on `device`, cut off from the graph; on its own device the tensor itself.
    ///
    /// # Errors
    /// [`Error::Device`] if the device cannot be opened, written or read.
    pub fn to_device(&self, device: Device) -> Result<Self> {
        if device == self.device() {
            return Ok(self.clone());
        }
        Ok(Self { storage: self.storage.to_device(device)?, shape: self.shape.clone(), grad: None })
    }

    /// The numbers in row-major order. From a GPU they are copied once; one that cannot be read any more reads as NaN.
    pub fn as_slice(&self) -> &[f32] {
        self.storage.as_slice()
    }

    /// A copy of the numbers in row-major order.
    pub fn to_vec(&self) -> Vec<f32> {
        self.as_slice().to_vec()
    }

    /// The only element.
    ///
    /// # Errors
    /// [`Error::Shape`] unless there is exactly one.
    pub fn item(&self) -> Result<f32> {
        match self.as_slice() {
            [value] => Ok(*value),
            _ => Err(Error::shape("item", format!("wanted one element, found shape {:?}", self.shape))),
        }
    }

    /// The same numbers as the start of a graph: gradients are gathered for them.
    pub fn leaf(&self) -> Self {
        Self { grad: GradKey::at(self), ..self.clone() }
    }

    /// The same numbers, cut off from the graph: stop-gradient.
    pub fn detach(&self) -> Self {
        Self { grad: None, ..self.clone() }
    }

    /// Whether gradients flow to this tensor.
    pub fn wants_grad(&self) -> bool {
        self.grad.is_some()
    }

    pub(crate) fn grad_key(&self) -> Option<&GradKey> {
        self.grad.as_ref()
    }

    /// The key under which gradients of this operand are gathered, if a tape is recording and it wants one.
    pub(crate) fn tracked(&self) -> Option<GradKey> {
        if crate::tape::recording() { self.grad.clone() } else { None }
    }

    /// The same numbers under another shape of equal size, sharing the gradient.
    pub(crate) fn with_shape(&self, shape: &[usize]) -> Self {
        Self { storage: self.storage.clone(), shape: shape.into(), grad: self.grad.clone() }
    }

    /// The same numbers with another gradient, or none.
    pub(crate) fn with_grad(&self, grad: Option<GradKey>) -> Self {
        Self { grad, ..self.clone() }
    }

    /// The output of an operation over `data` on the CPU; the length is the kernel's promise.
    pub(crate) fn output(data: Vec<f32>, shape: &[usize], grad: Option<GradKey>) -> Self {
        debug_assert_eq!(data.len(), shape.iter().product::<usize>());
        Self { storage: Storage::from_vec(data), shape: shape.into(), grad }
    }

    /// The output of an operation on a GPU.
    #[cfg(feature = "cuda")]
    pub(crate) fn on_gpu(buffer: crate::cuda::Buffer, shape: &[usize], grad: Option<GradKey>) -> Self {
        Self { storage: Storage::Cuda(buffer), shape: shape.into(), grad }
    }

    /// The numbers, if a GPU holds them.
    #[cfg(feature = "cuda")]
    pub(crate) fn gpu_buffer(&self) -> Option<&crate::cuda::Buffer> {
        match &self.storage {
            Storage::Cpu(_) => None,
            Storage::Cuda(buffer) => Some(buffer),
        }
    }

    /// The numbers on the host; not copied on the CPU if nothing shares them.
    pub(crate) fn into_vec(self) -> Vec<f32> {
        match self.storage {
            Storage::Cpu(numbers) => Arc::unwrap_or_clone(numbers),
            #[cfg(feature = "cuda")]
            Storage::Cuda(buffer) => buffer.host().to_vec(),
        }
    }

    /// The numbers if a GPU holds them; not copied if nothing shares them.
    #[cfg(feature = "cuda")]
    pub(crate) fn into_numbers(self) -> Result<Option<crate::cuda::Numbers>> {
        match self.storage {
            Storage::Cpu(_) => Ok(None),
            Storage::Cuda(buffer) => buffer.into_numbers().map(Some),
        }
    }

    pub(crate) fn storage(&self) -> &Storage {
        &self.storage
    }

    pub(crate) fn storage_mut(&mut self) -> &mut Storage {
        &mut self.storage
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor{:?} on {}", self.shape, self.device())?;
        if self.wants_grad() {
            f.write_str(" (wants a gradient)")?;
        }
        if self.len() <= 16 {
            write!(f, " {:?}", self.as_slice())?;
        }
        Ok(())
    }
}
