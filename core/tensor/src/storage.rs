//! Where numbers live: a shared vector on the CPU, an allocation of dfdx on a GPU.

use crate::Result;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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

/// The numbers of a tensor. Cloning shares them.
#[derive(Clone)]
pub(crate) enum Storage {
    Cpu(Arc<Vec<f32>>),
    #[cfg(feature = "cuda")]
    Cuda(crate::cuda::Buffer),
}

impl Storage {
    /// Takes over `data` on the CPU without a copy.
    pub(crate) fn from_vec(data: Vec<f32>) -> Self {
        Self::Cpu(Arc::new(data))
    }

    /// Takes over `data` on the device that new tensors are placed on. If that fails they stay on the host, which the
    /// next operation reports.
    pub(crate) fn on_default_device(data: Vec<f32>) -> Self {
        let host = Self::from_vec(data);
        match Device::default_of_process() {
            Device::Cpu => host,
            device => host.to_device(device).unwrap_or(host),
        }
    }

    /// `len` times `value` on the device that new tensors are placed on; on the host as
    /// [`on_default_device`](Self::on_default_device) does.
    pub(crate) fn full(value: f32, len: usize) -> Self {
        #[cfg(feature = "cuda")]
        if let Device::Cuda(ordinal) = Device::default_of_process()
            && let Ok(gpu) = crate::cuda::open(ordinal)
            && let Ok(numbers) = gpu.full(value, len)
        {
            return Self::Cuda(crate::cuda::Buffer::new(gpu, numbers));
        }
        Self::from_vec(vec![value; len])
    }

    pub(crate) fn device(&self) -> Device {
        match self {
            Self::Cpu(_) => Device::Cpu,
            #[cfg(feature = "cuda")]
            Self::Cuda(buffer) => buffer.device(),
        }
    }

    /// The same numbers on another device.
    pub(crate) fn to_device(&self, device: Device) -> Result<Self> {
        match (self, device) {
            (storage, device) if storage.device() == device => Ok(storage.clone()),
            #[cfg(feature = "cuda")]
            (storage, Device::Cuda(ordinal)) => {
                let gpu = crate::cuda::open(ordinal)?;
                let host = match storage {
                    Self::Cpu(_) => gpu.upload(storage.as_slice())?,
                    Self::Cuda(buffer) => gpu.upload(&buffer.download()?)?,
                };
                Ok(Self::Cuda(crate::cuda::Buffer::new(gpu, host)))
            }
            #[cfg(feature = "cuda")]
            (Self::Cuda(buffer), Device::Cpu) => Ok(Self::from_vec(buffer.download()?)),
            (_, device) => device.open().map(|()| self.clone()),
        }
    }

    /// Makes this the only owner of numbers on a GPU, so that kernels may write them.
    #[cfg(feature = "cuda")]
    pub(crate) fn own_on_gpu(&mut self) -> Result<()> {
        match self {
            Self::Cpu(_) => Err(crate::Error::Device("numbers on the CPU cannot be written by a GPU".to_owned())),
            Self::Cuda(buffer) => buffer.own().map(|_| ()),
        }
    }

    /// Lets `f` write numbers on a GPU in place; copied first if another tensor shares them.
    #[cfg(feature = "cuda")]
    pub(crate) fn write_on_gpu<R>(
        &mut self,
        f: impl FnOnce(&mut crate::cuda::Numbers) -> Result<R, dfdx::prelude::CudaError>,
    ) -> Result<R> {
        match self {
            Self::Cpu(_) => Err(crate::Error::Device("numbers on the CPU cannot be written by a GPU".to_owned())),
            Self::Cuda(buffer) => Ok(f(buffer.own()?)?),
        }
    }

    /// The numbers, read on the host: from a GPU a copy, made once.
    pub(crate) fn as_slice(&self) -> &[f32] {
        match self {
            #[cfg(feature = "cuda")]
            Self::Cuda(buffer) => buffer.host(),
            Self::Cpu(numbers) => numbers,
        }
    }

    /// Lets `f` write the numbers in place; copied first if another tensor shares them. Those of a GPU are written on
    /// the host and copied back; if that fails they stay on the host, which the next operation reports.
    pub(crate) fn write<R>(&mut self, f: impl FnOnce(&mut [f32]) -> R) -> R {
        match self {
            Self::Cpu(numbers) => f(Arc::<Vec<f32>>::make_mut(numbers)),
            #[cfg(feature = "cuda")]
            Self::Cuda(buffer) => {
                let device = buffer.device();
                let mut host = buffer.host().to_vec();
                let result = f(&mut host);
                let host = Self::from_vec(host);
                *self = host.to_device(device).unwrap_or(host);
                result
            }
        }
    }
}

impl Device {
    /// Checks that the device can be used by this build on this machine.
    ///
    /// # Errors
    /// [`crate::Error::Device`] says what is missing: the `cuda` feature, a driver, or the GPU itself.
    pub fn open(self) -> Result<()> {
        match self {
            Self::Cpu => Ok(()),
            #[cfg(feature = "cuda")]
            Self::Cuda(ordinal) => crate::cuda::open(ordinal).map(|_| ()),
            #[cfg(not(feature = "cuda"))]
            Self::Cuda(_) => Err(crate::Error::Device(format!(
                "{self}: this build has no CUDA support; build with `--features rqlab/cuda`"
            ))),
        }
    }

    /// Waits until the device has done all that it was asked for.
    pub(crate) fn wait(self) -> Result<()> {
        match self {
            #[cfg(feature = "cuda")]
            Self::Cuda(ordinal) => crate::cuda::open(ordinal)?.wait(),
            _ => Ok(()),
        }
    }

    /// Opens the device and makes it the one that new tensors are placed on in this process
    /// ([`Tensor::from_vec`](crate::Tensor::from_vec) and its like); the CPU until then.
    ///
    /// # Errors
    /// As for [`Device::open`].
    pub fn make_default(self) -> Result<()> {
        self.open()?;
        let code = match self {
            Self::Cpu => 0,
            Self::Cuda(ordinal) => ordinal + 1,
        };
        DEFAULT.store(code, Ordering::Relaxed);
        Ok(())
    }

    /// The device that new tensors are placed on.
    pub(crate) fn default_of_process() -> Self {
        #[cfg(test)]
        if let Some(device) = crate::ops::testing::device() {
            return device;
        }
        match DEFAULT.load(Ordering::Relaxed) {
            0 => Self::Cpu,
            code => Self::Cuda(code - 1),
        }
    }
}

/// The default device: 0 for the CPU, or one more than a GPU's ordinal.
static DEFAULT: AtomicUsize = AtomicUsize::new(0);

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first failure")]
mod tests {
    use crate::ops::optim::Squares;
    use crate::ops::testing::{on_every_device, random};
    use crate::{Device, Error, Tape, Tensor, Var, host_reads};

    #[test]
    fn numbers_survive_the_way_to_a_device_and_back() {
        on_every_device(|| {
            let x = random(&[3, 5], 1);
            let there = x.to_device(Device::Cpu).unwrap().to_device(x.device()).unwrap();
            assert_eq!((there.device(), there.to_vec()), (x.device(), x.to_vec()));
            assert!(Tensor::zeros(&[0, 3]).to_vec().is_empty());
        });
    }

    /// Other tests read at the same time: a count is a lower bound.
    #[test]
    fn what_the_host_reads_of_a_gpu_is_counted() {
        on_every_device(|| {
            let x = random(&[3, 5], 1).exp().unwrap();
            let codes = x.argmax_last().unwrap();
            let before = host_reads();
            x.to_vec();
            codes.as_slice();
            Squares::of(&[&x]).unwrap().to_vec().unwrap();
            assert!(x.device() == Device::Cpu || host_reads() - before >= 3);
        });
    }

    #[test]
    fn a_variable_stays_on_its_device_when_written() {
        on_every_device(|| {
            let var = Var::parameter(&Tensor::zeros(&[2, 2]));
            let device = var.get().device();
            var.write(|x| x[3] = 7.0);
            assert_eq!((var.get().device(), var.get().to_vec()), (device, vec![0.0, 0.0, 0.0, 7.0]));
            var.set(&Tensor::full(2.0, &[2, 2]).to_device(Device::Cpu).unwrap()).unwrap();
            assert_eq!((var.get().device(), var.get().to_vec()), (device, vec![2.0; 4]));
        });
    }

    #[test]
    fn gradients_are_where_their_leaf_is() {
        on_every_device(|| {
            let x = random(&[4], 2).leaf();
            let tape = Tape::start().unwrap();
            let loss = x.square().unwrap().add(&x).unwrap().sum_all().unwrap();
            let grad = tape.backward(&loss).unwrap().take(&x).unwrap();
            let wanted: Vec<f32> = x.as_slice().iter().map(|x| 2.0 * x + 1.0).collect();
            assert_eq!((grad.device(), grad.to_vec()), (x.device(), wanted));
        });
    }

    #[test]
    fn operands_on_two_devices_are_an_error() {
        on_every_device(|| {
            let x = random(&[2, 3], 3);
            let here = x.to_device(Device::Cpu).unwrap();
            assert_eq!(here.add(&x).is_ok(), x.device() == Device::Cpu);
        });
    }

    /// Whatever this machine and this build lack, the message begins with the device.
    #[test]
    fn a_device_that_does_not_open_says_why() {
        let error = Device::Cuda(1000).open().unwrap_err();
        assert!(matches!(&error, Error::Device(message) if message.starts_with("cuda:1000: ")), "{error}");
    }
}
