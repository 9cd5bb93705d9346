//! Ranks whose GPUs exchange numbers directly, by NCCL.
//!
//! Sums run on the stream of the kernels, so that nobody waits for them. What lies on the host goes by the ranks' own
//! communicator, by which the GPUs find each other, too.

use crate::cuda::{Buffer, Gpu, length};
use crate::ranks::{Communicator, Pending};
use crate::storage::Storage;
use crate::{Error, Result, Tensor};
use cudarc::nccl::result::NcclError;
use cudarc::nccl::safe::{Comm, Id, ReduceOp};
use std::rc::Rc;

struct Nccl {
    ranks: Rc<dyn Communicator>,
    gpu: &'static Gpu,
    comm: Comm,
}

/// Joins the GPUs of ranks, of which this process's is `gpu`.
///
/// # Errors
/// [`Error::Device`] if they do not reach each other, or two ranks have one GPU.
pub(crate) fn connect(gpu: &'static Gpu, ranks: Rc<dyn Communicator>) -> Result<Rc<dyn Communicator>> {
    let own = if ranks.rank() == 0 { *Id::new().map_err(failed)?.internal() } else { [0; 128] };
    let all = ranks.gather(&own.map(|byte| byte.to_ne_bytes()[0]))?;
    let mut id = own;
    id.iter_mut().zip(all).for_each(|(to, byte)| *to = std::ffi::c_char::from_ne_bytes([byte]));
    let comm = Comm::from_rank(gpu.driver.clone(), ranks.rank(), ranks.size(), Id::uninit(id)).map_err(failed)?;
    Ok(Rc::new(Nccl { ranks, gpu, comm }))
}

fn failed(NcclError(result): NcclError) -> Error {
    Error::Device(format!("NCCL: {result:?}; each rank needs a GPU of its own, and NCCL_DEBUG=INFO tells more"))
}

impl Communicator for Nccl {
    fn rank(&self) -> usize {
        self.ranks.rank()
    }

    fn size(&self) -> usize {
        self.ranks.size()
    }

    fn sum(&self, numbers: &mut [f32]) -> Result<()> {
        self.ranks.sum(numbers)
    }

    fn begin_sum(&self, numbers: Vec<f32>) -> Result<Box<dyn Pending>> {
        self.ranks.begin_sum(numbers)
    }

    fn sum_on_device(&self, numbers: &Tensor) -> Result<Option<Tensor>> {
        match numbers.storage() {
            Storage::Cuda(buffer) if buffer.gpu().ordinal == self.gpu.ordinal => {
                let mut sums = self.gpu.room(length(buffer.numbers()))?;
                self.comm.all_reduce(buffer.numbers(), &mut *sums, &ReduceOp::Sum).map_err(failed)?;
                Ok(Some(Tensor::on_gpu(Buffer::new(self.gpu, sums), numbers.shape(), None)))
            }
            _ => Ok(None),
        }
    }

    fn gather(&self, bytes: &[u8]) -> Result<Vec<u8>> {
        self.ranks.gather(bytes)
    }
}
