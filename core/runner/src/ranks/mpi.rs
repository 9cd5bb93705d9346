//! Ranks of MPI.
//!
//! The thread that computes exchanges small numbers; the sums of gradients go on a thread of their own, with a communicator of
//! its own, so that they go on while the backward pass does.

mod library;

use library::{Abi, Library, Mpich, OpenMpi};
use rqlab_sdk::tensor::ranks::{Communicator, Pending};
use rqlab_sdk::tensor::{self, Error};
use std::env;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

/// Names the library, where the linker does not find it or finds another one.
const LIBRARY: &str = "RQLAB_MPI";

/// Numbers to be summed, and where their sums go.
type Work = (Vec<f32>, Sender<tensor::Result<Vec<f32>>>);

struct Mpi<A: Abi> {
    library: &'static Library<A>,
    rank: usize,
    size: usize,
    /// None where threads may not call MPI side by side.
    beside: Option<(Sender<Work>, JoinHandle<()>)>,
}

/// Sums that the other thread makes.
struct Beside(Receiver<tensor::Result<Vec<f32>>>);

/// Joins the ranks, of which there must be `count`.
///
/// # Errors
/// There are not; no library of MPI is found.
pub(super) fn connect(count: usize) -> rqlab_sdk::Result<Rc<dyn Communicator>> {
    // mpirun says by its variables whose it is. Open MPI's library has one name in 4 and 5; MPICH's interface is Intel's, too.
    let is_open_mpi = ["OMPI_COMM_WORLD_SIZE", "PRTE_LAUNCHED"].iter().any(|name| env::var_os(name).is_some());
    match is_open_mpi {
        true => join::<OpenMpi>(count, &["libmpi.so.40", "libmpi.so"]),
        false => join::<Mpich>(count, &["libmpi.so.12", "libmpich.so.12", "libmpi.so"]),
    }
}

fn join<A: Abi>(count: usize, names: &[&str]) -> rqlab_sdk::Result<Rc<dyn Communicator>> {
    let named = env::var(LIBRARY).ok();
    let names: Vec<&str> = named.as_deref().map_or_else(|| names.to_vec(), |name| vec![name]);
    let library = Library::<A>::open(&names).map_err(|error| {
        rqlab_sdk::Error::Unsupported(format!(
            "no library of {} is found ({error}): load its module, or set {LIBRARY} to the library's path",
            A::NAME
        ))
    })?;
    let beside = library.initialize()?;
    let (rank, size) = library.place()?;
    if size != count {
        return Err(rqlab_sdk::Error::Unsupported(format!(
            "there are {size} ranks, and {count} were asked for: mpirun does not belong to the library of {} that is found; \
             set {LIBRARY} to the path of the one that it belongs to",
            A::NAME
        )));
    }
    let beside = beside.then(|| start_beside(library)).transpose()?;
    Ok(Rc::new(Mpi { library, rank, size, beside }))
}

/// Starts the thread that sums gradients.
fn start_beside<A: Abi>(library: &'static Library<A>) -> tensor::Result<(Sender<Work>, JoinHandle<()>)> {
    // All ranks make this one before anything else.
    let own = library.duplicate()?;
    let (sender, work) = channel::<Work>();
    let run = move || {
        for (mut numbers, to) in work {
            let sums = library.sum(own, &mut numbers).map(|()| numbers);
            // Nobody waits for what a failed step had begun.
            let _ = to.send(sums);
        }
    };
    let thread = thread::Builder::new().name("sums".to_owned()).spawn(run);
    Ok((sender, thread.map_err(|error| Error::Device(format!("a thread for sums: {error}")))?))
}

impl<A: Abi> Communicator for Mpi<A> {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn sum(&self, numbers: &mut [f32]) -> tensor::Result<()> {
        self.library.sum(self.library.world(), numbers)
    }

    fn begin_sum(&self, mut numbers: Vec<f32>) -> tensor::Result<Box<dyn Pending>> {
        let Some((thread, _)) = &self.beside else {
            self.sum(&mut numbers)?;
            return Ok(Box::new(numbers));
        };
        let (to, sums) = channel();
        thread.send((numbers, to)).map_err(|_| gone())?;
        Ok(Box::new(Beside(sums)))
    }

    fn gather(&self, bytes: &[u8]) -> tensor::Result<Vec<u8>> {
        self.library.gather(self.library.world(), bytes, self.size)
    }
}

impl Pending for Beside {
    fn finish(self: Box<Self>) -> tensor::Result<Vec<f32>> {
        self.0.recv().map_err(|_| gone())?
    }
}

fn gone() -> Error {
    Error::Device("the thread that sums gradients over ranks has ended".to_owned())
}

impl<A: Abi> Drop for Mpi<A> {
    fn drop(&mut self) {
        if let Some((sender, thread)) = self.beside.take() {
            drop(sender);
            let _ = thread.join();
        }
        self.library.finalize();
    }
}
