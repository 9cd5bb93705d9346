//! Ranks of MPI.
//!
//! The thread that computes exchanges small numbers; the sums of gradients go on a thread of their own, with a communicator of
//! its own, so that they go on while the backward pass does.

use mpi::Threading;
use mpi::collective::SystemOperation;
use mpi::environment::Universe;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator as _, CommunicatorCollectives as _};
use rqlab_sdk::tensor::ranks::{Communicator, Pending};
use rqlab_sdk::tensor::{self, Error};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

/// Numbers to be summed, and where their sums go.
type Work = (Vec<f32>, Sender<Vec<f32>>);

struct Mpi {
    /// Ends when it is dropped; none where threads may not call MPI side by side.
    beside: Option<(Sender<Work>, JoinHandle<()>)>,
    world: SimpleCommunicator,
    /// Ends MPI when it is dropped, last of all.
    _universe: Universe,
}

/// Sums that the other thread makes.
struct Beside(Receiver<Vec<f32>>);

/// Joins the ranks, of which there must be `count`.
///
/// # Errors
/// There are not.
pub(super) fn connect(count: usize) -> rqlab_sdk::Result<Rc<dyn Communicator>> {
    let started = || Error::Device("MPI was started before in this process".to_owned());
    let (universe, threading) = mpi::initialize_with_threading(Threading::Multiple).ok_or_else(started)?;
    let world = universe.world();
    let found = world.size() as usize;
    if found != count {
        return Err(rqlab_sdk::Error::Unsupported(format!(
            "there are {found} ranks, and {count} were asked for: does mpirun belong to the MPI that rqlab was built with? \
             `ldd` of the program shows that"
        )));
    }
    let beside = match threading {
        Threading::Multiple => Some(start_beside()?),
        _ => None,
    };
    Ok(Rc::new(Mpi { beside, world, _universe: universe }))
}

/// Starts the thread that sums gradients.
fn start_beside() -> rqlab_sdk::Result<(Sender<Work>, JoinHandle<()>)> {
    let (sender, work) = channel::<Work>();
    let (ready, is_ready) = channel();
    let failed = |error| Error::Device(format!("a thread for sums: {error}"));
    let thread = thread::Builder::new()
        .name("sums".to_owned())
        .spawn(move || {
            // All ranks make this one before anything else.
            let own = SimpleCommunicator::world().duplicate();
            let _ = ready.send(());
            for (numbers, to) in work {
                // Nobody waits for what a failed step had begun.
                let _ = to.send(summed(&own, &numbers));
            }
        })
        .map_err(failed)?;
    let _ = is_ready.recv();
    Ok((sender, thread))
}

fn summed(ranks: &SimpleCommunicator, numbers: &[f32]) -> Vec<f32> {
    let mut sums = vec![0.0; numbers.len()];
    ranks.all_reduce_into(numbers, &mut sums[..], SystemOperation::sum());
    sums
}

impl Communicator for Mpi {
    fn rank(&self) -> usize {
        self.world.rank() as usize
    }

    fn size(&self) -> usize {
        self.world.size() as usize
    }

    fn sum(&self, numbers: &mut [f32]) -> tensor::Result<()> {
        numbers.copy_from_slice(&summed(&self.world, numbers));
        Ok(())
    }

    fn begin_sum(&self, numbers: Vec<f32>) -> tensor::Result<Box<dyn Pending>> {
        let Some((thread, _)) = &self.beside else { return Ok(Box::new(summed(&self.world, &numbers))) };
        let (to, sums) = channel();
        thread.send((numbers, to)).map_err(|_| gone())?;
        Ok(Box::new(Beside(sums)))
    }

    fn gather(&self, bytes: &[u8]) -> tensor::Result<Vec<u8>> {
        let mut all = vec![0; bytes.len() * self.size()];
        self.world.all_gather_into(bytes, &mut all[..]);
        Ok(all)
    }
}

impl Pending for Beside {
    fn finish(self: Box<Self>) -> tensor::Result<Vec<f32>> {
        self.0.recv().map_err(|_| gone())
    }
}

fn gone() -> Error {
    Error::Device("the thread that sums gradients over ranks has ended".to_owned())
}

impl Drop for Mpi {
    fn drop(&mut self) {
        if let Some((sender, thread)) = self.beside.take() {
            drop(sender);
            let _ = thread.join();
        }
    }
}
