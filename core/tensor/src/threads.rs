//! How many threads the kernels share.

use crate::{Error, Result};

/// Lets the kernels of this process compute with `threads` threads; without this call there is one for each core. Works
/// once, before the first kernel runs.
///
/// # Errors
/// [`Error::Device`] if the threads cannot be started, or were started before.
pub fn set_threads(threads: usize) -> Result<()> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()
        .map_err(|error| Error::Device(format!("{threads} threads: {error}")))
}

/// The vector instructions that the kernels use on this processor, in words.
pub fn instructions() -> &'static str {
    use crate::cpu::dispatch::{Level, level};
    match level() {
        Level::Avx512 => "AVX-512",
        Level::Avx2 => "AVX2 and FMA",
        Level::Baseline => "baseline instructions",
    }
}
