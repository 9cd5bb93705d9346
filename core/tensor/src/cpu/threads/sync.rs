//! What threads of a team share, and what they wait by: the standard library's. `tests/loom` puts loom's in the place of this file.

#![allow(unsafe_code)]

pub(super) use rayon::current_num_threads as thread_count;
pub(super) use std::hint::spin_loop;
pub(super) use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
pub(super) use std::sync::{Condvar, Mutex};
pub(super) use std::thread::yield_now;
pub(super) use std::time::Instant;

use std::cell::UnsafeCell;

/// Spins at a barrier before the waiting thread yields its processor to others: a member may have lost its own.
pub(super) const SPINS: usize = 1 << 10;
/// Looks for a new region between two looks at the clock.
pub(super) const POLLS: usize = 32;

/// A value that one thread writes while no other reads it. Who calls sees to that.
pub(super) struct Cell<T>(UnsafeCell<T>);

impl<T: Copy> Cell<T> {
    pub(super) fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// # Safety
    /// No other thread uses it meanwhile.
    pub(super) unsafe fn set(&self, value: T) {
        // SAFETY: the caller's promise.
        unsafe { *self.0.get() = value }
    }

    /// # Safety
    /// No other thread writes it meanwhile.
    pub(super) unsafe fn get(&self) -> T {
        // SAFETY: the caller's promise.
        unsafe { *self.0.get() }
    }
}
