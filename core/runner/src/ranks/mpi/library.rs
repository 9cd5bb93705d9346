//! The library of an MPI, found when it is needed: a program that was built without one works with those that are there.
//!
//! MPI leaves to its makers what a communicator and a type are. There are two answers: Open MPI has addresses of variables, and
//! MPICH, with all that follow its interface (Intel MPI, MVAPICH), fixed numbers. Functions are those of the standard.

#![allow(unsafe_code, reason = "functions of a C library")]

use libloading::os::unix::{Library as Loaded, RTLD_GLOBAL, RTLD_NOW, Symbol};
use rqlab_sdk::tensor::{Error, Result};
use std::ffi::{c_char, c_int, c_void};
use std::ptr::null_mut;

/// `MPI_THREAD_MULTIPLE`, in both.
const THREAD_MULTIPLE: c_int = 3;
/// The most that one call is given: counts are C's int.
const MOST: usize = 1 << 30;

/// What handles are.
pub(super) trait Abi: Sized + 'static {
    /// Whose it is.
    const NAME: &'static str;
    /// Where sums find their numbers, in place of another array: `MPI_IN_PLACE`.
    const IN_PLACE: isize;
    /// A communicator, a type, an operation.
    type Handle: Copy + Default + Send + Sync + 'static;

    /// `MPI_COMM_WORLD`, `MPI_FLOAT`, `MPI_BYTE` and `MPI_SUM`.
    fn handles(library: &Loaded) -> std::result::Result<[Self::Handle; 4], libloading::Error>;
}

/// Open MPI, 4 and 5.
pub(super) struct OpenMpi;

impl Abi for OpenMpi {
    const NAME: &'static str = "Open MPI";
    const IN_PLACE: isize = 1;
    /// An address, which C passes as it passes a number of this size.
    type Handle = usize;

    fn handles(library: &Loaded) -> std::result::Result<[usize; 4], libloading::Error> {
        let address = |name: &str| {
            // SAFETY: the address of the variable is taken, and nothing read there.
            unsafe { library.get::<*const c_void>(name.as_bytes()) }.map(|symbol| symbol.into_raw() as usize)
        };
        Ok([
            address("ompi_mpi_comm_world")?,
            address("ompi_mpi_float")?,
            address("ompi_mpi_byte")?,
            address("ompi_mpi_op_sum")?,
        ])
    }
}

/// MPICH and what follows its interface.
pub(super) struct Mpich;

impl Abi for Mpich {
    const NAME: &'static str = "MPICH";
    const IN_PLACE: isize = -1;
    type Handle = c_int;

    fn handles(_: &Loaded) -> std::result::Result<[c_int; 4], libloading::Error> {
        Ok([0x4400_0000, 0x4c00_040a, 0x4c00_010d, 0x5800_0003])
    }
}

type InitThread = unsafe extern "C" fn(*mut c_int, *mut *mut *mut c_char, c_int, *mut c_int) -> c_int;
type Ask<H> = unsafe extern "C" fn(H, *mut c_int) -> c_int;
type Duplicate<H> = unsafe extern "C" fn(H, *mut H) -> c_int;
type AllReduce<H> = unsafe extern "C" fn(*const c_void, *mut c_void, c_int, H, H, H) -> c_int;
type AllGather<H> = unsafe extern "C" fn(*const c_void, c_int, H, *mut c_void, c_int, H, H) -> c_int;
type Finalize = unsafe extern "C" fn() -> c_int;

/// The functions that are called here.
pub(super) struct Library<A: Abi> {
    world: A::Handle,
    float: A::Handle,
    byte: A::Handle,
    sum: A::Handle,
    init_thread: Symbol<InitThread>,
    rank: Symbol<Ask<A::Handle>>,
    size: Symbol<Ask<A::Handle>>,
    duplicate: Symbol<Duplicate<A::Handle>>,
    all_reduce: Symbol<AllReduce<A::Handle>>,
    all_gather: Symbol<AllGather<A::Handle>>,
    finalize: Symbol<Finalize>,
}

impl<A: Abi> Library<A> {
    /// Loads the first of `names` that is found; it stays loaded.
    pub(super) fn open(names: &[&str]) -> std::result::Result<&'static Self, libloading::Error> {
        // SAFETY: what a library of MPI does when it is loaded is what every program of MPI starts with. Its own plugins look
        // for its symbols among the global ones.
        let open = |name: &&str| unsafe { Loaded::open(Some(name), RTLD_NOW | RTLD_GLOBAL) };
        let mut found = open(&names[0]);
        for name in &names[1..] {
            found = found.or_else(|first| open(name).map_err(|_| first));
        }
        let loaded: &'static Loaded = Box::leak(Box::new(found?));
        let [world, float, byte, sum] = A::handles(loaded)?;
        // SAFETY: the types are those that the standard gives the functions, with the handles of this interface.
        let library = unsafe {
            Self {
                world,
                float,
                byte,
                sum,
                init_thread: loaded.get(b"MPI_Init_thread")?,
                rank: loaded.get(b"MPI_Comm_rank")?,
                size: loaded.get(b"MPI_Comm_size")?,
                duplicate: loaded.get(b"MPI_Comm_dup")?,
                all_reduce: loaded.get(b"MPI_Allreduce")?,
                all_gather: loaded.get(b"MPI_Allgather")?,
                finalize: loaded.get(b"MPI_Finalize")?,
            }
        };
        Ok(Box::leak(Box::new(library)))
    }

    /// All ranks.
    pub(super) fn world(&self) -> A::Handle {
        self.world
    }

    /// Starts MPI in this process; says whether threads may call it side by side.
    pub(super) fn initialize(&self) -> Result<bool> {
        let mut provided = 0;
        // SAFETY: the standard allows null for the arguments; `provided` is written.
        checked("MPI_Init_thread", unsafe {
            (self.init_thread)(null_mut(), null_mut(), THREAD_MULTIPLE, &raw mut provided)
        })?;
        Ok(provided == THREAD_MULTIPLE)
    }

    /// This process's rank, and how many there are.
    pub(super) fn place(&self) -> Result<(usize, usize)> {
        let (mut rank, mut size) = (0, 0);
        // SAFETY: MPI runs, and both numbers are written.
        unsafe {
            checked("MPI_Comm_rank", (self.rank)(self.world, &raw mut rank))?;
            checked("MPI_Comm_size", (self.size)(self.world, &raw mut size))?;
        }
        Ok((rank as usize, size as usize))
    }

    /// Another communicator of all ranks.
    pub(super) fn duplicate(&self) -> Result<A::Handle> {
        let mut own = A::Handle::default();
        // SAFETY: MPI runs, and the handle is written.
        checked("MPI_Comm_dup", unsafe { (self.duplicate)(self.world, &raw mut own) })?;
        Ok(own)
    }

    /// Replaces numbers by their sums over all ranks.
    pub(super) fn sum(&self, ranks: A::Handle, numbers: &mut [f32]) -> Result<()> {
        for numbers in numbers.chunks_mut(MOST) {
            let (data, count) = (numbers.as_mut_ptr().cast(), numbers.len() as c_int);
            // SAFETY: `count` numbers are read and written at `data`, which nothing else refers to meanwhile.
            checked("MPI_Allreduce", unsafe {
                (self.all_reduce)(A::IN_PLACE as *const c_void, data, count, self.float, self.sum, ranks)
            })?;
        }
        Ok(())
    }

    /// What all `size` ranks have, each as many bytes.
    pub(super) fn gather(&self, ranks: A::Handle, bytes: &[u8], size: usize) -> Result<Vec<u8>> {
        let mut all = vec![0; bytes.len() * size];
        let mut part = vec![0; bytes.len().min(MOST) * size];
        for (i, bytes) in bytes.chunks(MOST).enumerate() {
            let (count, data) = (bytes.len() as c_int, bytes.as_ptr().cast());
            // SAFETY: `count` bytes are read, and `size` times as many written, for which `part` has room.
            checked("MPI_Allgather", unsafe {
                (self.all_gather)(data, count, self.byte, part.as_mut_ptr().cast(), count, self.byte, ranks)
            })?;
            let of_each = all.len() / size;
            let of_ranks = all.chunks_mut(of_each).zip(part.chunks(bytes.len()));
            of_ranks.for_each(|(all, part)| all[i * MOST..][..part.len()].copy_from_slice(part));
        }
        Ok(all)
    }

    /// Ends MPI in this process, once all ranks come to it.
    pub(super) fn finalize(&self) {
        // SAFETY: MPI runs, and nothing of it is used afterwards. What goes wrong at the end concerns nobody.
        let _ = unsafe { (self.finalize)() };
    }
}

fn checked(function: &str, code: c_int) -> Result<()> {
    if code == 0 { Ok(()) } else { Err(Error::Device(format!("{function} failed with {code}"))) }
}
