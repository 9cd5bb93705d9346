//! Tensors that were found in a file, not yet read.

use crate::dtype::Dtype;
use crate::error::{Fault, Found};

/// Where the bytes of a storage lie. Tensors of one storage are views of the same numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Storage {
    /// Which of the checkpoint's files holds it.
    pub(crate) file: usize,
    /// Its first byte in that file.
    pub(crate) start: u64,
    /// Its length in bytes.
    pub(crate) bytes: u64,
    /// Whether its elements are big-endian.
    pub(crate) big_endian: bool,
}

/// What a file says of a tensor: a view of a storage. Every element lies within the storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// The type of its elements.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<u64>,
    /// Elements from one to the next along each axis.
    pub(crate) strides: Vec<u64>,
    /// The first element's place in the storage, in elements.
    pub(crate) offset: u64,
    pub(crate) storage: Storage,
}

impl TensorInfo {
    /// A view, if every element lies within the storage.
    pub(crate) fn new(dtype: Dtype, shape: Vec<u64>, strides: Vec<u64>, offset: u64, storage: Storage) -> Found<Self> {
        let held = storage.bytes / dtype.size();
        if shape.len() != strides.len() {
            return Err(Fault::new(format!("a tensor has {} sizes and {} strides", shape.len(), strides.len())));
        }
        let overflow = || Fault::new(format!("a tensor of shape {shape:?} and strides {strides:?} is beyond any file"));
        let elements = shape.iter().try_fold(1u64, |n, &size| n.checked_mul(size)).ok_or_else(overflow)?;
        elements.checked_mul(dtype.size()).ok_or_else(overflow)?;
        let mut last = offset;
        for (&size, &stride) in shape.iter().zip(&strides) {
            let reach = size.saturating_sub(1).checked_mul(stride).ok_or_else(overflow)?;
            last = last.checked_add(reach).ok_or_else(overflow)?;
        }
        if if elements == 0 { offset > held } else { last >= held } {
            return Err(Fault::new(format!(
                "a tensor of shape {shape:?}, strides {strides:?} and offset {offset} does not lie within its storage of {held} \
                 elements of {dtype}"
            )));
        }
        Ok(Self { dtype, shape, strides, offset, storage })
    }

    /// A whole storage, row-major.
    pub(crate) fn whole(dtype: Dtype, shape: Vec<u64>, storage: Storage) -> Found<Self> {
        let mut strides = vec![1u64; shape.len()];
        for axis in (1..shape.len()).rev() {
            strides[axis - 1] = strides[axis].saturating_mul(shape[axis].max(1));
        }
        Self::new(dtype, shape, strides, 0, storage)
    }

    /// How many elements it has.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }

    /// How many bytes its elements take, one after another.
    pub fn bytes(&self) -> u64 {
        self.elements() * self.dtype.size()
    }

    /// Whether two tensors are the same view of the same numbers: one parameter under two names.
    pub fn is_tied_to(&self, other: &Self) -> bool {
        self == other
    }

    /// The bytes of the storage between its first and its last element.
    pub(crate) fn span(&self) -> (u64, u64) {
        if self.elements() == 0 {
            return (0, 0);
        }
        let reach: u64 = self.shape.iter().zip(&self.strides).map(|(size, stride)| (size - 1) * stride).sum();
        (self.offset * self.dtype.size(), (reach + 1) * self.dtype.size())
    }

    /// Its elements, row-major and little-endian, from the bytes of its span.
    pub(crate) fn gather(&self, mut span: Vec<u8>) -> Vec<u8> {
        let size = self.dtype.size() as usize;
        if self.storage.big_endian {
            span.chunks_exact_mut(size).for_each(<[u8]>::reverse);
        }
        let row_major = self.strides.iter().zip(&self.shape).rev().try_fold(1, |expected, (&stride, &length)| {
            (length == 1 || stride == expected).then_some(expected * length)
        });
        if row_major.is_some() || span.is_empty() {
            return span;
        }
        let mut gathered = Vec::with_capacity(self.bytes() as usize);
        let mut index = vec![0u64; self.shape.len()];
        for _ in 0..self.elements() {
            let place = index.iter().zip(&self.strides).map(|(i, stride)| i * stride).sum::<u64>() as usize * size;
            gathered.extend_from_slice(&span[place..place + size]);
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                if index[axis] < self.shape[axis] {
                    break;
                }
                index[axis] = 0;
            }
        }
        gathered
    }
}
