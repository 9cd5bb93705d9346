//! The tensor's integer companion.

use crate::{Device, Error, Result};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// Indices in a row-major shape: codes, labels, positions. Cloning is cheap. They are where they were made; each device
/// that needs them keeps a copy.
#[derive(Clone)]
pub struct Codes {
    numbers: Arc<Numbers>,
    shape: Arc<[usize]>,
}

/// The host or a GPU has them from the start, the other when it asks.
#[derive(Default)]
struct Numbers {
    host: OnceLock<Vec<u32>>,
    #[cfg(feature = "cuda")]
    gpu: OnceLock<crate::cuda::device::codes::OnGpu>,
    /// All are below this.
    bound: OnceLock<usize>,
}

impl Codes {
    /// Codes of shape `shape` over `data`.
    ///
    /// # Errors
    /// [`Error::Shape`] if `data` has not as many elements as the shape.
    pub fn from_vec(data: Vec<u32>, shape: &[usize]) -> Result<Self> {
        let wanted: usize = shape.iter().product();
        if data.len() != wanted {
            return Err(Error::shape(
                "codes",
                format!("{} indices do not fill shape {shape:?} of {wanted}", data.len()),
            ));
        }
        Ok(Self { numbers: Arc::new(Numbers { host: data.into(), ..Numbers::default() }), shape: shape.into() })
    }

    /// The codes that a kernel has left on a GPU, as many as the shape has and all below `bound`.
    #[cfg(feature = "cuda")]
    pub(crate) fn of_gpu(codes: crate::cuda::device::codes::OnGpu, shape: &[usize], bound: usize) -> Self {
        debug_assert_eq!(codes.len(), shape.iter().product::<usize>());
        let numbers = Numbers { gpu: codes.into(), bound: bound.into(), ..Numbers::default() };
        Self { numbers: Arc::new(numbers), shape: shape.into() }
    }

    /// The codes on `gpu`, copied there once.
    ///
    /// # Errors
    /// [`Error::Device`] if another GPU has them, or the copy fails.
    #[cfg(feature = "cuda")]
    pub(crate) fn on_gpu(&self, gpu: &'static crate::cuda::Gpu) -> Result<crate::cuda::device::codes::OnGpu> {
        if self.numbers.gpu.get().is_none() {
            let copy = crate::cuda::device::codes::OnGpu::upload(gpu, self.as_slice())?;
            // Of two copies that were made at once, one is dropped.
            let _ = self.numbers.gpu.set(copy);
        }
        match self.numbers.gpu.get() {
            Some(codes) if codes.device() == Device::Cuda(gpu.ordinal) => Ok(codes.clone()),
            _ => Err(Error::Device(format!("codes on {} are not on cuda:{}", self.device(), gpu.ordinal))),
        }
    }

    /// The GPU that holds the codes or, if none does, is to hold them: the one that new tensors are placed on.
    #[cfg(feature = "cuda")]
    pub(crate) fn gpu(&self) -> Result<Option<&'static crate::cuda::Gpu>> {
        match (self.numbers.gpu.get(), Device::default_of_process()) {
            (Some(codes), _) => Ok(Some(codes.gpu())),
            (None, Device::Cuda(ordinal)) => crate::cuda::open(ordinal).map(Some),
            (None, Device::Cpu) => Ok(None),
        }
    }

    /// Where the codes are: a GPU, if they were made or have been used there.
    pub fn device(&self) -> Device {
        #[cfg(feature = "cuda")]
        if let Some(codes) = self.numbers.gpu.get() {
            return codes.device();
        }
        Device::Cpu
    }

    /// A copy on `device`; on its own device the codes themselves.
    ///
    /// # Errors
    /// [`Error::Device`] if the device cannot be opened or written.
    pub fn to_device(&self, device: Device) -> Result<Self> {
        if device == self.device() {
            return Ok(self.clone());
        }
        device.open()?;
        let copy = Self::from_vec(self.as_slice().to_vec(), &self.shape)?;
        #[cfg(feature = "cuda")]
        if let Device::Cuda(ordinal) = device {
            copy.on_gpu(crate::cuda::open(ordinal)?)?;
        }
        Ok(copy)
    }

    /// The sizes of its axes, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of codes.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The size of the innermost axis; 1 for rank 0.
    pub fn last_dim(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// A number that all codes are below. It need not be the lowest: codes from a GPU carry what their maker knows.
    pub(crate) fn bound(&self) -> usize {
        *self.numbers.bound.get_or_init(|| self.as_slice().iter().max().map_or(0, |&code| code as usize + 1))
    }

    /// The codes in row-major order. From a GPU they are copied once; a code that cannot be read any more is `u32::MAX`,
    /// which is below no bound.
    pub fn as_slice(&self) -> &[u32] {
        self.numbers.host.get_or_init(|| {
            #[cfg(feature = "cuda")]
            if let Some(Ok(codes)) = self.numbers.gpu.get().map(crate::cuda::device::codes::OnGpu::download) {
                return codes;
            }
            vec![u32::MAX; self.len()]
        })
    }

    /// The same codes under another shape of equal size.
    ///
    /// # Errors
    /// [`Error::Shape`] if the sizes differ.
    pub fn reshape(&self, shape: &[usize]) -> Result<Self> {
        if shape.iter().product::<usize>() != self.len() {
            return Err(Error::shape("reshape", format!("codes of shape {:?} do not fill {shape:?}", self.shape)));
        }
        Ok(Self { numbers: self.numbers.clone(), shape: shape.into() })
    }

    /// A copy of the codes `range` of `axis`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the axis or the range does not exist, [`Error::Device`] if the GPU that holds the codes fails.
    pub fn slice(&self, axis: usize, range: Range<usize>) -> Result<Self> {
        let size = self.shape.get(axis).copied().unwrap_or(0);
        if range.start > range.end || range.end > size || axis >= self.shape.len() {
            let message = format!("no range {range:?} in axis {axis} of codes of shape {:?}", self.shape);
            return Err(Error::shape("slice", message));
        }
        let inner: usize = self.shape[axis + 1..].iter().product();
        let mut shape = self.shape.to_vec();
        shape[axis] = range.len();
        self.blocks(range.start * inner..range.end * inner, size * inner, &shape)
    }

    /// Column `index` of the innermost axis: of codes `[.., D]`, those of one depth, `[..]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if there is no such column, [`Error::Device`] if the GPU that holds the codes fails.
    pub fn column(&self, index: usize) -> Result<Self> {
        let depth = self.last_dim();
        if index >= depth {
            return Err(Error::shape("column", format!("no column {index} in codes of shape {:?}", self.shape)));
        }
        self.blocks(index..index + 1, depth, &self.shape[..self.shape.len().saturating_sub(1)])
    }

    /// Of every `step` codes those of `range`.
    fn blocks(&self, range: Range<usize>, step: usize, shape: &[usize]) -> Result<Self> {
        #[cfg(feature = "cuda")]
        if let Some(gpu) = self.gpu()? {
            let blocks = self.on_gpu(gpu)?.blocks(range.start, range.len(), step)?;
            return Ok(Self::of_gpu(blocks, shape, self.bound()));
        }
        let blocks = self.as_slice().chunks_exact(step.max(1));
        Self::from_vec(blocks.flat_map(|block| &block[range.clone()]).copied().collect(), shape)
    }

    /// Joins codes along `axis`.
    ///
    /// # Errors
    /// [`Error::Shape`] if there are none, the axis does not exist, or other axes differ, [`Error::Device`] if the GPU that
    /// holds them fails.
    pub fn concat(parts: &[&Self], axis: usize) -> Result<Self> {
        let first = parts.first().ok_or_else(|| Error::shape("concat", "no codes to join"))?;
        let others = |codes: &Self| [&codes.shape[..axis], &codes.shape[axis + 1..]].concat();
        if axis >= first.shape.len() {
            return Err(Error::shape("concat", format!("no axis {axis} in codes of shape {:?}", first.shape)));
        }
        if let Some(odd) = parts.iter().find(|c| c.shape.len() != first.shape.len() || others(c) != others(first)) {
            let message = format!("{:?} and {:?} differ beside axis {axis}", first.shape, odd.shape);
            return Err(Error::shape("concat", message));
        }
        let inner: usize = first.shape[axis + 1..].iter().product();
        let mut shape = first.shape.to_vec();
        shape[axis] = parts.iter().map(|part| part.shape[axis]).sum();
        let lens: Vec<usize> = parts.iter().map(|part| part.shape[axis] * inner).collect();
        Self::joined(parts, &lens, &shape)
    }

    /// Joins `D` codes of one shape `[..]` into `[.., D]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if there are none or their shapes differ, [`Error::Device`] if the GPU that holds them fails.
    pub fn stack(columns: &[Self]) -> Result<Self> {
        let first = columns.first().ok_or_else(|| Error::shape("stack", "no codes to stack"))?;
        if let Some(odd) = columns.iter().find(|c| c.shape != first.shape) {
            return Err(Error::shape("stack", format!("shapes differ: {:?} and {:?}", first.shape, odd.shape)));
        }
        let mut shape = first.shape.to_vec();
        shape.push(columns.len());
        Self::joined(&columns.iter().collect::<Vec<_>>(), &vec![1; columns.len()], &shape)
    }

    /// By turns so many codes of each part.
    fn joined(parts: &[&Self], lens: &[usize], shape: &[usize]) -> Result<Self> {
        #[cfg(feature = "cuda")]
        if let Some(gpu) = parts.first().map(|part| part.gpu()).transpose()?.flatten() {
            let there = parts.iter().zip(lens).map(|(part, &len)| Ok((part.on_gpu(gpu)?, len)));
            let bound = parts.iter().map(|part| part.bound()).max().unwrap_or(0);
            let joined = crate::cuda::device::codes::OnGpu::join(gpu, &there.collect::<Result<Vec<_>>>()?)?;
            return Ok(Self::of_gpu(joined, shape, bound));
        }
        let step: usize = lens.iter().sum();
        let total: usize = shape.iter().product();
        let mut data = Vec::with_capacity(total);
        for block in 0..total.checked_div(step).unwrap_or(0) {
            for (part, &len) in parts.iter().zip(lens) {
                data.extend_from_slice(&part.as_slice()[block * len..(block + 1) * len]);
            }
        }
        Self::from_vec(data, shape)
    }
}

impl PartialEq for Codes {
    fn eq(&self, other: &Self) -> bool {
        self.shape == other.shape && (Arc::ptr_eq(&self.numbers, &other.numbers) || self.as_slice() == other.as_slice())
    }
}

impl Eq for Codes {}

impl fmt::Debug for Codes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Codes{:?}", self.shape)?;
        if self.len() <= 16 {
            write!(f, " {:?}", self.as_slice())?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first failure")]
mod tests {
    use super::*;
    use crate::ops::testing::on_every_device;
    use crate::{Rng, Tensor};

    /// Rows of an image after those of another, not the two images by turns.
    #[test]
    fn an_inner_axis_is_joined_block_by_block() {
        on_every_device(|| {
            let codes = |data: &[u32], shape: &[usize]| Codes::from_vec(data.to_vec(), shape).unwrap();
            let (a, b) = (codes(&[1, 2, 3, 4], &[2, 2]), codes(&[5, 6], &[2, 1]));
            let both = Codes::concat(&[&a, &b], 1).unwrap();
            assert_eq!((both.shape(), both.as_slice()), (&[2, 3][..], &[1, 2, 5, 3, 4, 6][..]));
            assert_eq!(both.slice(1, 1..3).unwrap().as_slice(), [2, 5, 4, 6]);
            assert!(Codes::concat(&[&a, &b], 0).is_err() && Codes::concat(&[&a], 2).is_err());
        });
    }

    #[test]
    fn columns_and_their_stack_are_the_same_codes() {
        on_every_device(|| {
            for shape in [&[5, 3][..], &[2, 300, 4], &[0, 2], &[7]] {
                let codes = Codes::from_vec(Rng::new(1, "codes", 0).below(shape.iter().product(), 900), shape).unwrap();
                let depth = codes.last_dim();
                let columns: Vec<Codes> = (0..depth).map(|d| codes.column(d).unwrap()).collect();
                for (d, column) in columns.iter().enumerate() {
                    let wanted: Vec<u32> = codes.as_slice().chunks(depth).map(|row| row[d]).collect();
                    assert_eq!((column.shape(), column.as_slice()), (&shape[..shape.len() - 1], &wanted[..]));
                    assert_eq!(column.device(), Tensor::zeros(&[1]).device());
                }
                let stacked = Codes::stack(&columns).unwrap();
                assert_eq!(stacked, codes);
                assert!(stacked.bound() <= 900 && stacked.as_slice().iter().all(|&c| (c as usize) < stacked.bound()));
                assert_eq!(codes.reshape(&[codes.len()]).unwrap().as_slice(), codes.as_slice());
                for axis in 0..shape.len() {
                    let middle = shape[axis] / 2;
                    let halves = [0..middle, middle..shape[axis]].map(|range| codes.slice(axis, range).unwrap());
                    assert_eq!(halves[1].shape()[axis], shape[axis] - middle);
                    let joined = Codes::concat(&[&halves[0], &halves[1]], axis).unwrap();
                    assert_eq!(joined, codes);
                    assert_eq!(joined.device(), Tensor::zeros(&[1]).device());
                    assert!(codes.slice(axis, 0..shape[axis] + 1).is_err());
                }
                assert!(codes.slice(shape.len(), 0..0).is_err() && Codes::concat(&[], 0).is_err());
                let there = codes.to_device(Tensor::zeros(&[1]).device()).unwrap();
                assert_eq!(there.to_device(Device::Cpu).unwrap(), codes);
            }
        });
    }
}
