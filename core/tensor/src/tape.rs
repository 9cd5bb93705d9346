//! The tape: which operations ran, so that gradients can flow back through them.
//!
//! One tape records per thread, between [`Tape::start`] and [`Tape::backward`]. An operation records itself if one of
//! its operands wants a gradient. The record is a dfdx `OwnedTape`, and gradients live in dfdx's map, keyed by the id
//! of an empty dfdx tensor ([`GradKey`]): the map then holds an empty buffer until the first contribution arrives,
//! which is written instead of added to zeros. Each device has a tape of its own: a graph stays on one device.

mod watch;

pub(crate) use watch::used;

use crate::cpu::{Output, buffer};
use crate::ops::kernel::GradientKernel;
use crate::storage::Storage;
use crate::{Error, Result, Tensor};
use dfdx::prelude::{Backward, Cpu, CpuError, OwnedTape, PutTape, Tape as _, Tensor as Dx, TensorFromVec};
use std::cell::RefCell;
use std::marker::PhantomData;
use std::sync::OnceLock;

/// The one CPU device of the process. dfdx devices carry a generator and a cache; we use neither.
fn cpu() -> &'static Cpu {
    static DEVICE: OnceLock<Cpu> = OnceLock::new();
    DEVICE.get_or_init(Cpu::default)
}

/// An empty dfdx tensor on the CPU.
type CpuKey = Dx<(usize,), f32, Cpu>;

type DfdxGradients = dfdx::prelude::Gradients<f32, Cpu>;

/// What is recorded on one thread.
#[derive(Default)]
struct Recording {
    cpu: OwnedTape<f32, Cpu>,
    #[cfg(feature = "cuda")]
    cuda: crate::cuda::device::tape::Recording,
    watch: Option<watch::Watch>,
}

thread_local! {
    static RECORDING: RefCell<Option<Recording>> = const { RefCell::new(None) };
}

/// Names a gradient: an empty dfdx tensor, of which only the id matters.
#[derive(Clone)]
pub(crate) enum GradKey {
    Cpu(CpuKey),
    #[cfg(feature = "cuda")]
    Cuda(crate::cuda::device::tape::Key),
}

impl GradKey {
    /// A new name for a gradient on the CPU.
    pub(crate) fn new() -> Self {
        Self::Cpu(cpu().tensor_from_vec(Vec::new(), (0,)))
    }

    /// A new name for a gradient where `tensor` is; `None` if its device does not answer, which the next operation
    /// there reports.
    pub(crate) fn at(tensor: &Tensor) -> Option<Self> {
        match tensor.storage() {
            Storage::Cpu(_) => Some(Self::new()),
            #[cfg(feature = "cuda")]
            Storage::Cuda(buffer) => crate::cuda::device::tape::Key::new(buffer.gpu()).map(Self::Cuda).ok(),
        }
    }

    /// The name in dfdx's map of the CPU. Operations reach a gradient only on the device that they run on.
    fn on_cpu(&self) -> Result<&CpuKey, CpuError> {
        match self {
            Self::Cpu(name) => Ok(name),
            #[cfg(feature = "cuda")]
            Self::Cuda(_) => Err(CpuError::WrongNumElements),
        }
    }

    /// The name in dfdx's map of the GPUs.
    #[cfg(feature = "cuda")]
    pub(crate) fn on_gpu(&self) -> Option<&crate::cuda::device::tape::Key> {
        match self {
            Self::Cpu(_) => None,
            Self::Cuda(key) => Some(key),
        }
    }
}

/// Gradients during the backward pass, as an operation's backward closure sees them.
pub(crate) struct Flow<'a>(&'a mut DfdxGradients);

impl Flow<'_> {
    /// Moves a finished gradient out: all contributions to an output are in when its operation runs backward.
    /// Empty if nothing flowed.
    pub(crate) fn take(&mut self, key: &GradKey) -> Result<Vec<f32>, CpuError> {
        Ok(std::mem::take(&mut **self.0.get_or_alloc_mut(key.on_cpu()?)?))
    }

    /// Adds `contribution` to a gradient; the first one is moved in.
    pub(crate) fn add(&mut self, key: &GradKey, contribution: Vec<f32>) -> Result<(), CpuError> {
        let slot = self.0.get_or_alloc_mut(key.on_cpu()?)?;
        if slot.is_empty() {
            **slot = contribution;
        } else {
            crate::cpu::loops::elementwise::add_assign(slot, &contribution);
        }
        Ok(())
    }

    /// The contributions to a gradient that are in already, if any are.
    pub(crate) fn started(&mut self, key: &GradKey) -> Result<Option<&mut [f32]>, CpuError> {
        let slot = self.0.get_or_alloc_mut(key.on_cpu()?)?;
        Ok((!slot.is_empty()).then_some(slot))
    }

    /// Lets a kernel write the gradient of `len` elements, or add to the contributions that are in already.
    pub(crate) fn with(
        &mut self,
        key: &GradKey,
        len: usize,
        write: impl for<'a> FnOnce(Output<'a>) -> &'a mut [f32],
    ) -> Result<(), CpuError> {
        let slot = self.0.get_or_alloc_mut(key.on_cpu()?)?;
        if slot.is_empty() {
            **slot = buffer(len, write);
        } else {
            write(Output::Add(slot));
        }
        Ok(())
    }
}

/// Whether operations on this thread are being recorded.
pub(crate) fn recording() -> bool {
    RECORDING.with_borrow(Option::is_some)
}

/// Appends an operation's backward pass. `backward` receives the gradient of the output, of the output's length; it is
/// not called when no gradient reached the output.
pub(crate) fn record(
    output: &GradKey,
    backward: impl FnOnce(Vec<f32>, &mut Flow<'_>) -> Result<(), CpuError> + 'static,
) {
    let output = output.clone();
    RECORDING.with_borrow_mut(|tape| {
        if let Some(tape) = tape {
            tape.cpu.add_backward_op(move |gradients| {
                let mut flow = Flow(gradients);
                let grad = flow.take(&output)?;
                if grad.is_empty() { Ok(()) } else { backward(grad, &mut flow) }
            });
        }
    });
}

/// The same for an operation on a GPU.
#[cfg(feature = "cuda")]
pub(crate) fn record_on_gpu(
    output: &crate::cuda::device::tape::Key,
    backward: impl FnOnce(
        crate::cuda::Numbers,
        &mut crate::cuda::device::tape::Flow<'_>,
    ) -> Result<(), dfdx::prelude::CudaError>
    + 'static,
) {
    RECORDING.with_borrow_mut(|tape| {
        if let Some(tape) = tape {
            crate::cuda::device::tape::append(&mut tape.cuda, output, backward);
        }
    });
}

thread_local! {
    /// Why the backward pass on this thread failed: dfdx's errors have no room for it.
    static FAILURE: RefCell<Option<Error>> = const { RefCell::new(None) };
}

/// The gradients of an operation's operands during the backward pass, on any device.
pub(crate) struct OperandGradients<'f, 'g> {
    keys: &'f [Option<GradKey>],
    flow: DeviceFlow<'f, 'g>,
}

enum DeviceFlow<'f, 'g> {
    Cpu(&'f mut Flow<'g>),
    #[cfg(feature = "cuda")]
    Cuda(&'f mut crate::cuda::device::tape::Flow<'g>),
}

impl OperandGradients<'_, '_> {
    /// Whether a gradient is gathered for this operand.
    pub(crate) fn wanted(&self, operand: usize) -> bool {
        self.keys[operand].is_some()
    }

    /// Adds `contribution` to the gradient of an operand, if one is gathered.
    pub(crate) fn add(&mut self, operand: usize, contribution: Tensor) -> Result<()> {
        let Some(key) = &self.keys[operand] else { return Ok(()) };
        match &mut self.flow {
            DeviceFlow::Cpu(flow) => flow.add(key, contribution.into_vec()).map_err(failed),
            #[cfg(feature = "cuda")]
            DeviceFlow::Cuda(flow) => match (key, contribution.into_numbers()?) {
                (GradKey::Cuda(key), Some(numbers)) => Ok(flow.add(key, numbers)?),
                _ => Err(Error::Device("a gradient on another device than its operand".to_owned())),
            },
        }
    }

    /// Lets a kernel make the gradient of an operand of `len` elements from that of the output, or add to what is there.
    pub(crate) fn write(
        &mut self,
        operand: usize,
        len: usize,
        kernel: &impl GradientKernel,
        grad: &Tensor,
    ) -> Result<()> {
        let Some(key) = &self.keys[operand] else { return Ok(()) };
        match &mut self.flow {
            DeviceFlow::Cpu(flow) => flow.with(key, len, |out| kernel.cpu(grad.as_slice(), out)).map_err(failed),
            #[cfg(feature = "cuda")]
            DeviceFlow::Cuda(flow) => match (key, grad.gpu_buffer()) {
                (GradKey::Cuda(key), Some(grad)) => {
                    Ok(flow.with(key, |out, adds| kernel.cuda(grad.gpu(), grad.numbers(), out, len, adds))?)
                }
                _ => Err(Error::Device("a gradient on another device than its operand".to_owned())),
            },
        }
    }
}

fn failed(error: CpuError) -> Error {
    Error::Device(format!("backward pass: {error}"))
}

/// Appends the backward pass of an operation, the same for all devices: it receives the gradient of the output, of shape
/// `shape`, and is not called when none reached it. `keys` are those of the operands.
pub(crate) fn record_for_all(
    output: &GradKey,
    shape: &[usize],
    keys: Vec<Option<GradKey>>,
    backward: impl FnOnce(Tensor, &mut OperandGradients<'_, '_>) -> Result<()> + 'static,
) {
    let shape = shape.to_vec();
    match output {
        GradKey::Cpu(_) => record(output, move |grad, flow| {
            let grad = Tensor::output(grad, &shape, None);
            backward(grad, &mut OperandGradients { keys: &keys, flow: DeviceFlow::Cpu(flow) }).map_err(|error| {
                FAILURE.set(Some(error));
                CpuError::WrongNumElements
            })
        }),
        #[cfg(feature = "cuda")]
        GradKey::Cuda(key) => {
            let gpu = key.gpu();
            record_on_gpu(key, move |grad, flow| {
                let grad = Tensor::on_gpu(crate::cuda::Buffer::new(gpu, grad), &shape, None);
                backward(grad, &mut OperandGradients { keys: &keys, flow: DeviceFlow::Cuda(flow) }).map_err(|error| {
                    FAILURE.set(Some(error));
                    crate::cuda::device::kernels::invalid()
                })
            });
        }
    }
}

/// A recording in progress on this thread. Dropping it forgets what was recorded.
///
/// ```
/// use rqlab_tensor::{Tape, Tensor};
/// let x = Tensor::from_vec(vec![1.0, 2.0, 3.0], &[3])?.leaf();
/// let tape = Tape::start()?;
/// let loss = x.square()?.sum_all()?;
/// let mut gradients = tape.backward(&loss)?;
/// assert_eq!(gradients.take(&x).map(|g| g.to_vec()), Some(vec![2.0, 4.0, 6.0]));
/// # Ok::<(), rqlab_tensor::Error>(())
/// ```
pub struct Tape(PhantomData<*const ()>);

impl Tape {
    /// Starts to record on this thread.
    ///
    /// # Errors
    /// [`Error::Tape`] if this thread is recording already.
    pub fn start() -> Result<Self> {
        RECORDING.with_borrow_mut(|tape| {
            if tape.is_some() {
                return Err(Error::Tape("a recording is already in progress on this thread"));
            }
            *tape = Some(Recording::default());
            Ok(Self(PhantomData))
        })
    }

    /// Ends the recording and sends the gradient 1 back from `loss`, a tensor of one element.
    ///
    /// # Errors
    /// [`Error::Shape`] if `loss` has more than one element, [`Error::Tape`] if it depends on no tensor that wants a
    /// gradient.
    pub fn backward(self, loss: &Tensor) -> Result<Gradients> {
        if loss.len() != 1 {
            return Err(Error::shape(
                "backward",
                format!("the loss must have one element, found shape {:?}", loss.shape()),
            ));
        }
        self.backward_from_vec(loss, vec![1.0])
    }

    /// Ends the recording and sends `gradient`, of the shape and on the device of `output`, back from there. The numbers
    /// are copied on that device, and the host waits for none of them.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes differ, [`Error::Device`] if the devices do, [`Error::Tape`] if `output` depends on
    /// no tensor that wants a gradient.
    pub fn backward_from(self, output: &Tensor, gradient: &Tensor) -> Result<Gradients> {
        crate::ops::common_device("backward", [output, gradient])?;
        if output.shape() != gradient.shape() {
            return Err(Error::shape(
                "backward",
                format!("{:?} is no shape of a gradient of shape {:?}", gradient.shape(), output.shape()),
            ));
        }
        match gradient.storage() {
            Storage::Cpu(_) => self.backward_from_vec(output, gradient.to_vec()),
            #[cfg(feature = "cuda")]
            Storage::Cuda(buffer) => match self.end(output)? {
                (recording, GradKey::Cuda(key)) => {
                    let gradient = key.gpu().copy(buffer.numbers())?;
                    crate::cuda::device::tape::backward(recording.cuda, &key, gradient)
                        .map(|left| Gradients(Left::Cuda(left)))
                        .map_err(|error| FAILURE.take().unwrap_or(error))
                }
                (_, GradKey::Cpu(_)) => Err(Error::Tape("the output's gradient is on another device")),
            },
        }
    }

    /// The same from numbers on the host, row by row: moved in on the CPU, sent to a GPU.
    ///
    /// # Errors
    /// [`Error::Shape`] if there are not as many as `output` has elements, [`Error::Tape`] if `output` depends on no
    /// tensor that wants a gradient.
    pub fn backward_from_vec(self, output: &Tensor, gradient: Vec<f32>) -> Result<Gradients> {
        if output.len() != gradient.len() {
            return Err(Error::shape(
                "backward",
                format!("{} numbers are no gradient of shape {:?}", gradient.len(), output.shape()),
            ));
        }
        let (recording, key) = self.end(output)?;
        #[cfg(feature = "cuda")]
        if let GradKey::Cuda(key) = &key {
            // That of a loss is made on the GPU: a copy would wait for all that the forward pass has still to do.
            let gradient = match gradient[..] {
                [value] => key.gpu().full(value, 1),
                _ => key.gpu().upload(&gradient),
            }?;
            return crate::cuda::device::tape::backward(recording.cuda, key, gradient)
                .map(|left| Gradients(Left::Cuda(left)))
                .map_err(|error| FAILURE.take().unwrap_or(error));
        }
        let mut tape = recording.cpu;
        tape.add_backward_op(move |gradients| Flow(gradients).add(&key, gradient));
        // dfdx starts a backward pass from a tensor of rank 0; the operation above starts ours.
        let start = cpu().tensor_from_vec(vec![0.0], ());
        let gradients = start.put_tape(tape).try_backward().map_err(|error| FAILURE.take().unwrap_or(failed(error)))?;
        Ok(Gradients(Left::Cpu(gradients)))
    }

    /// What was recorded, and the name of the gradient of `output`.
    fn end(self, output: &Tensor) -> Result<(Recording, GradKey)> {
        let key =
            output.grad_key().cloned().ok_or(Error::Tape("the output depends on no tensor that wants a gradient"))?;
        let recording = RECORDING.take().ok_or(Error::Tape("nothing is being recorded on this thread"))?;
        Ok((recording, key))
    }
}

impl Drop for Tape {
    fn drop(&mut self) {
        RECORDING.take();
    }
}

/// Runs `f` without recording, as evaluation and statistics should.
pub fn no_grad<R>(f: impl FnOnce() -> R) -> R {
    struct Restore(Option<Recording>);
    impl Drop for Restore {
        fn drop(&mut self) {
            RECORDING.set(self.0.take());
        }
    }
    let _restore = Restore(RECORDING.take());
    f()
}

/// The gradients that a backward pass left at the leaves.
pub struct Gradients(Left);

enum Left {
    Cpu(DfdxGradients),
    #[cfg(feature = "cuda")]
    Cuda(crate::cuda::device::tape::Left),
}

impl Gradients {
    /// Moves out the gradient of `leaf`, in its shape and on its device; `None` if none reached it.
    pub fn take(&mut self, leaf: &Tensor) -> Option<Tensor> {
        match (&mut self.0, leaf.grad_key()?) {
            (Left::Cpu(gradients), key @ GradKey::Cpu(_)) => {
                let data = Flow(gradients).take(key).ok()?;
                (!data.is_empty()).then(|| Tensor::output(data, leaf.shape(), None))
            }
            #[cfg(feature = "cuda")]
            (Left::Cuda(gradients), GradKey::Cuda(key)) => gradients
                .take(key)
                .map(|data| Tensor::on_gpu(crate::cuda::Buffer::new(key.gpu(), data), leaf.shape(), None)),
            #[cfg(feature = "cuda")]
            _ => None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first failure")]
mod tests {
    use super::*;
    use crate::Device;
    use crate::ops::testing::{on_every_device, random};

    /// The gradient of x is that of 2 x, doubled, and a pass leaves the tensor that it starts from as it was.
    #[test]
    fn a_pass_starts_from_a_gradient_on_the_device_of_its_output() {
        on_every_device(|| {
            let (x, gradient) = (random(&[3, 5], 1).leaf(), random(&[3, 5], 2));
            let given = gradient.to_vec();
            let double = || Ok::<_, Error>((Tape::start()?, x.mul_scalar(2.0)?));
            let wanted: Vec<f32> = given.iter().map(|g| 2.0 * g).collect();
            let (tape, y) = double().unwrap();
            let found = tape.backward_from(&y, &gradient).unwrap().take(&x).unwrap();
            assert_eq!((found.device(), found.to_vec()), (x.device(), wanted.clone()));
            assert_eq!(gradient.to_vec(), given);
            let (tape, y) = double().unwrap();
            let found = tape.backward_from_vec(&y, given).unwrap().take(&x).unwrap();
            assert_eq!((found.device(), found.to_vec()), (x.device(), wanted));
        });
    }

    #[test]
    fn a_gradient_of_another_shape_or_device_is_refused() {
        on_every_device(|| {
            let x = random(&[3, 5], 1).leaf();
            for shape in [&[5, 3][..], &[15], &[3, 4], &[]] {
                let tape = Tape::start().unwrap();
                let y = x.mul_scalar(2.0).unwrap();
                let refused = tape.backward_from(&y, &random(shape, 2)).map(|_| ()).unwrap_err();
                assert!(matches!(refused, Error::Shape { op: "backward", .. }), "{refused}");
            }
            let tape = Tape::start().unwrap();
            let y = x.mul_scalar(2.0).unwrap();
            let elsewhere = random(&[3, 5], 2).to_device(Device::Cpu).unwrap();
            assert_eq!(tape.backward_from(&y, &elsewhere).is_ok(), x.device() == Device::Cpu);
        });
    }
}
