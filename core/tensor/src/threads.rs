//! How many threads the kernels share, and what they compute with.

use crate::cpu::isa::{Level, VARIABLE, best, level};
use crate::{Device, Error, Result};

/// Lets the kernels of this process compute with `threads` threads, of which the calling one is the first: it need not
/// sleep while others work for it. Without this call there is one for each core. Works once, before the first kernel runs.
///
/// If that is one thread, kernels that another thread calls would wait until the first one calls some, too: such a thread
/// says [`beside_the_first`].
///
/// # Errors
/// [`Error::Device`] if the threads cannot be started, or were started before.
pub fn set_threads(threads: usize) -> Result<()> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .use_current_thread()
        .build_global()
        .map_err(|error| Error::Device(format!("{threads} threads: {error}")))
}

/// For a thread that works beside the one that computes, such as one that prepares data: where kernels have a single
/// thread, those that this thread calls run on it, until what this returns is dropped.
///
/// # Errors
/// [`Error::Device`] if it is the thread that computes.
pub fn beside_the_first() -> Result<Option<impl Sized>> {
    if rayon::current_num_threads() > 1 {
        return Ok(None);
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build();
    pool.map(Some).map_err(|error| Error::Device(format!("a thread beside the first: {error}")))
}

/// The vector instructions that the kernels use, in words: the best of this processor, or those that the environment
/// variable `RQLAB_CPU` lowers them to.
pub fn instructions() -> &'static str {
    in_words(level())
}

fn in_words(level: Level) -> &'static str {
    match level {
        Level::Avx512 => "AVX-512",
        Level::Avx2 => "AVX2 and FMA",
        Level::Baseline => "baseline instructions",
    }
}

/// What `RQLAB_CPU` says, if it is set.
///
/// # Errors
/// [`Error::Device`] unless it is `baseline`, `avx2` or `avx512`, and this processor has those instructions; the kernels
/// then use the best that it has.
pub fn instructions_asked_for() -> Result<Option<String>> {
    let Some(name) = std::env::var_os(VARIABLE) else { return Ok(None) };
    let name = name.to_string_lossy().into_owned();
    match Level::named(&name) {
        Some(level) if level <= best() => Ok(Some(name)),
        Some(level) => Err(Error::Device(format!(
            "{VARIABLE} asks for {}, but this processor has no more than {}",
            in_words(level),
            in_words(best())
        ))),
        None => {
            let names = Level::NAMES.map(|(name, _)| name).join(", ");
            Err(Error::Device(format!("{VARIABLE} is {name:?} and should be one of {names}")))
        }
    }
}

/// How many threads the kernels of this process share.
pub fn threads() -> usize {
    rayon::current_num_threads()
}

/// The device that new tensors are placed on.
pub fn device() -> Device {
    Device::default_of_process()
}

/// A device in words: `cpu`, or a GPU with the name that its driver tells, such as `cuda:0, NVIDIA H100 80GB HBM3`.
pub fn device_in_words(device: Device) -> String {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(ordinal) => match crate::cuda::open(ordinal).ok().and_then(crate::cuda::Gpu::name) {
            Some(name) => format!("{device}, {name}"),
            None => device.to_string(),
        },
        _ => device.to_string(),
    }
}

/// Waits until the device that new tensors are placed on has done all that it was asked for: a GPU is asked ahead.
///
/// # Errors
/// [`Error::Device`] if that failed.
pub fn wait_for_device() -> Result<()> {
    Device::default_of_process().wait()
}

/// How many times this process has waited for numbers from a GPU; 0 without one. For tests of what must not wait. Numbers
/// that the host has read already are not read again, and waiting for the device alone ([`wait_for_device`]) reads nothing.
pub fn host_reads() -> u64 {
    #[cfg(feature = "cuda")]
    return crate::cuda::reads();
    #[cfg(not(feature = "cuda"))]
    0
}

/// The precision of the numbers that products on `device` multiply, in words; sums are f32 in every case. On a GPU it is
/// tf32, or f32 or bf16 as the environment variable `RQLAB_GPU` says.
pub fn precision(device: Device) -> &'static str {
    match device {
        Device::Cpu => "f32",
        #[cfg(feature = "cuda")]
        Device::Cuda(_) => crate::cuda::device::precision::math().name(),
        #[cfg(not(feature = "cuda"))]
        Device::Cuda(_) => "none",
    }
}

/// What `RQLAB_GPU` says, if it is set and this build has CUDA support.
///
/// # Errors
/// [`Error::Device`] unless it is `f32`, `tf32` or `bf16`; products then use tf32.
pub fn precision_asked_for() -> Result<Option<String>> {
    #[cfg(feature = "cuda")]
    return crate::cuda::device::precision::asked_for();
    #[cfg(not(feature = "cuda"))]
    Ok(None)
}
