//! Memory from the system, as kernels want it.

#![allow(unsafe_code)]

pub(crate) mod output;
pub(crate) mod scratch;

use std::ops::{Deref, DerefMut, Range};

/// Asks the system's allocator to keep what a step frees for the next one. By default glibc gives large blocks back at
/// once, and the kernel clears every page of the next one anew: about a tenth of a training step.
pub(crate) fn keep_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]
    {
        static ASKED: std::sync::Once = std::sync::Once::new();
        ASKED.call_once(|| {
            // SAFETY: mallopt only sets parameters of the allocator, and is called once.
            unsafe {
                // No block is mapped on its own: a threshold would do, but may be 32 MiB at most.
                libc::mallopt(libc::M_MMAP_MAX, 0);
                libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX);
            }
        });
    }
}

/// Numbers in a cache line.
pub(crate) const LINE: usize = 16;

/// Numbers for something so large that a processor does not remember where its pages lie: asks for large pages, which
/// Linux gives to memory that has not been touched. Begins at a cache line.
#[derive(Debug)]
pub(crate) struct LargePages {
    memory: Vec<f32>,
    numbers: Range<usize>,
}

impl LargePages {
    /// So many zeros.
    pub(crate) fn zeros(len: usize) -> Self {
        keep_freed();
        let memory = vec![0.0f32; len + LINE];
        #[cfg(all(target_os = "linux", not(miri)))]
        {
            /// Advice is for whole pages, which are no larger than this.
            const PAGE: usize = 1 << 16;
            let skipped = memory.as_ptr().addr().next_multiple_of(PAGE) - memory.as_ptr().addr();
            let whole = size_of_val(memory.as_slice()).saturating_sub(skipped) / PAGE * PAGE;
            let start = memory.as_ptr().wrapping_byte_add(skipped).cast_mut().cast();
            // SAFETY: the pages lie inside `memory`, and the advice changes nothing that a program sees. Where it is not
            // taken, pages stay small.
            unsafe { libc::madvise(start, whole, libc::MADV_HUGEPAGE) };
        }
        let start = memory.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE);
        Self { memory, numbers: start..start + len }
    }
}

impl Clone for LargePages {
    fn clone(&self) -> Self {
        let mut copy = Self::zeros(self.len());
        copy.copy_from_slice(self);
        copy
    }
}

impl Deref for LargePages {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.memory[self.numbers.clone()]
    }
}

impl DerefMut for LargePages {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.memory[self.numbers.clone()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_pages_are_zeros_from_a_cache_line_on_and_a_copy_holds_the_same() {
        for len in [0, 1, 100, 3 << 20] {
            // Memory that was used before is cleared.
            drop(vec![1.0f32; len + LINE]);
            let mut numbers = LargePages::zeros(len);
            assert!(numbers.len() == len && numbers.iter().all(|&x| x == 0.0));
            numbers.iter_mut().enumerate().for_each(|(i, x)| *x = i as f32);
            let copy = numbers.clone();
            assert_eq!(copy[..], numbers[..]);
            assert!([numbers, copy].iter().all(|x| x.as_ptr().addr().is_multiple_of(LINE * size_of::<f32>())));
        }
    }
}
