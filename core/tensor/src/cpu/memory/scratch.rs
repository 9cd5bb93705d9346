//! Scratch memory that a thread keeps between calls: fresh pages cost more than the work on small pieces.

use crate::cpu::memory::LINE;
use std::cell::RefCell;

thread_local! {
    static POOL: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Lends `f` scratch memory of `len` numbers that starts at a cache line. Its contents are unspecified. Calls nest.
pub(crate) fn scratch<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    // Taken out of the pool for the time of `f`, which may run other pieces of work on this thread.
    let mut memory = POOL.with_borrow_mut(Vec::pop).unwrap_or_default();
    if memory.len() < len + LINE {
        // Not resized: nothing in it is worth a copy.
        memory = vec![0.0; (len + LINE).next_power_of_two()];
    }
    let start = memory.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE);
    let result = f(&mut memory[start..start + len]);
    POOL.with_borrow_mut(|pool| pool.push(memory));
    result
}
