//! What stands in the place of `core/tensor/src/cpu/threads/sync.rs`: loom's threads and variables, and a clock that shows that
//! little time has passed, enough to park and too little for a straggler.

pub(super) use loom::hint::spin_loop;
pub(super) use loom::sync::{Condvar, Mutex};
pub(super) use loom::thread::yield_now;
pub(super) use std::sync::atomic::Ordering;

use loom::cell::UnsafeCell;
use loom::sync::atomic;
use std::time::Duration;

pub(super) const SPINS: usize = 1;
pub(super) const POLLS: usize = 1;

/// A variable. Sequentially consistent loads read what was written last, which loom, that knows no total order, does not do by
/// itself: they are written as exchanges that change nothing.
pub(super) struct AtomicUsize(atomic::AtomicUsize);

impl AtomicUsize {
    pub(super) fn new(value: usize) -> Self {
        Self(atomic::AtomicUsize::new(value))
    }

    pub(super) fn load(&self, order: Ordering) -> usize {
        if order == Ordering::SeqCst { self.0.fetch_add(0, Ordering::AcqRel) } else { self.0.load(order) }
    }

    pub(super) fn store(&self, value: usize, order: Ordering) {
        self.0.store(value, order);
    }

    pub(super) fn fetch_add(&self, value: usize, order: Ordering) -> usize {
        self.0.fetch_add(value, order)
    }

    pub(super) fn fetch_sub(&self, value: usize, order: Ordering) -> usize {
        self.0.fetch_sub(value, order)
    }
}

impl Default for AtomicUsize {
    fn default() -> Self {
        Self::new(0)
    }
}

/// What is only counted, and decides nothing, is not worth an order of its own.
pub(super) struct AtomicU64(std::sync::atomic::AtomicU64);

impl AtomicU64 {
    pub(super) fn new(value: u64) -> Self {
        Self(value.into())
    }

    pub(super) fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
        self.0.fetch_add(value, order)
    }

    pub(super) fn swap(&self, value: u64, order: Ordering) -> u64 {
        self.0.swap(value, order)
    }
}

pub(super) fn thread_count() -> usize {
    1
}

pub(super) struct Instant;

impl Instant {
    pub(super) fn now() -> Self {
        Self
    }

    pub(super) fn elapsed(&self) -> Duration {
        Duration::from_micros(300)
    }
}

/// A value whose readers and writers loom tells apart: two at once end the test.
pub(super) struct Cell<T>(UnsafeCell<T>);

impl<T: Copy> Cell<T> {
    pub(super) fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// # Safety
    /// No other thread uses it meanwhile.
    pub(super) unsafe fn set(&self, value: T) {
        // SAFETY: the caller's promise, which loom checks.
        self.0.with_mut(|place| unsafe { *place = value });
    }

    /// # Safety
    /// No other thread writes it meanwhile.
    pub(super) unsafe fn get(&self) -> T {
        // SAFETY: the caller's promise, which loom checks.
        self.0.with(|place| unsafe { *place })
    }
}
