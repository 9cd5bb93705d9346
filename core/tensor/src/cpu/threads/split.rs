//! Pieces of work over the threads of the rayon pool.

use rayon::prelude::*;

/// Runs `f(piece)` for every piece; a single one on the calling thread.
pub(crate) fn each(pieces: usize, f: impl Fn(usize) + Sync + Send) {
    if pieces == 1 {
        f(0);
    } else {
        (0..pieces).into_par_iter().with_max_len(1).for_each(f);
    }
}

/// Runs `f((index, chunk))` for every chunk of `size`; on the calling thread if all of `data` is at most `alone`.
pub(crate) fn each_chunk(data: &mut [f32], size: usize, alone: usize, f: impl Fn((usize, &mut [f32])) + Sync + Send) {
    if data.len() <= alone {
        data.chunks_mut(size).enumerate().for_each(f);
    } else {
        data.par_chunks_mut(size).enumerate().for_each(f);
    }
}
