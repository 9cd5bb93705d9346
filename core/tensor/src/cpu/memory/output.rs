//! Where the result of a kernel goes.
//!
//! A result that nobody needs before it is complete goes to memory that holds nothing yet: to clear it first would cost a
//! pass over it. So that no number is read that was never written, such memory is a slice of [`MaybeUninit`], and a kernel
//! gives back what it was given as a slice of numbers once all are written. [`buffers`] takes nothing else for proof.

#![allow(unsafe_code)]

use crate::cpu::memory::keep_freed;
use rayon::prelude::*;
use std::mem::MaybeUninit;
use std::ops::Range;

/// The memory of a kernel's result.
#[derive(Debug)]
pub(crate) enum Output<'a> {
    /// Holds nothing: every element is written.
    New(&'a mut [MaybeUninit<f32>]),
    /// Holds numbers: the result is added to them.
    Add(&'a mut [f32]),
}

/// Vectors of these lengths that `write` writes: it returns the slices that it is given, once all of them is written.
pub(crate) fn buffers<const N: usize>(
    lens: [usize; N],
    write: impl for<'a> FnOnce([&'a mut [MaybeUninit<f32>]; N]) -> [&'a mut [f32]; N],
) -> [Vec<f32>; N] {
    keep_freed();
    let mut buffers = lens.map(Vec::with_capacity);
    let mut room = buffers.each_mut().map(Vec::spare_capacity_mut);
    for (room, len) in room.iter_mut().zip(lens) {
        *room = &mut std::mem::take(room)[..len];
    }
    let given = room.each_ref().map(|room| room.as_ptr_range());
    let written = write(room).map(|written| written.as_ptr_range());
    for ((buffer, len), (given, written)) in buffers.iter_mut().zip(lens).zip(given.into_iter().zip(written)) {
        assert!(given.start.cast() == written.start && given.end.cast() == written.end, "another slice than was given");
        // SAFETY: the capacity is there, and what `write` returned are these elements as a slice of numbers.
        unsafe { buffer.set_len(len) };
    }
    buffers
}

/// A vector of `len` numbers that `write` writes; see [`buffers`].
pub(crate) fn buffer(len: usize, write: impl for<'a> FnOnce(Output<'a>) -> &'a mut [f32]) -> Vec<f32> {
    let [buffer] = buffers([len], |[new]| [write(Output::New(new))]);
    buffer
}

impl<'a> Output<'a> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::New(new) => new.len(),
            Self::Add(sum) => sum.len(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the result is added to what is there.
    pub(crate) fn accumulates(&self) -> bool {
        matches!(self, Self::Add(_))
    }

    /// The first element, for kernels that write through pointers.
    pub(crate) fn as_mut_ptr(&mut self) -> *mut f32 {
        match self {
            Self::New(new) => new.as_mut_ptr().cast(),
            Self::Add(sum) => sum.as_mut_ptr(),
        }
    }

    /// The result.
    ///
    /// # Safety
    /// Every element has been written, or there were numbers before.
    pub(crate) unsafe fn written(self) -> &'a mut [f32] {
        match self {
            // SAFETY: the caller's promise.
            Self::New(new) => unsafe { new.assume_init_mut() },
            Self::Add(sum) => sum,
        }
    }

    /// The elements, and whether the result is added to what is there.
    ///
    /// # Safety
    /// Nothing but numbers is written.
    pub(crate) unsafe fn into_parts(self) -> (&'a mut [MaybeUninit<f32>], bool) {
        match self {
            Self::New(new) => (new, false),
            Self::Add(sum) => {
                let sum: *mut [f32] = sum;
                // SAFETY: numbers lie as their unwritten places do, and stay numbers as the caller promises.
                (unsafe { &mut *(sum as *mut [MaybeUninit<f32>]) }, true)
            }
        }
    }

    /// The elements of a range.
    pub(crate) fn part(&mut self, range: Range<usize>) -> Output<'_> {
        match self {
            Self::New(new) => Output::New(&mut new[range]),
            Self::Add(sum) => Output::Add(&mut sum[range]),
        }
    }

    /// Zeros, or the numbers that are there: the result of nothing.
    pub(crate) fn zeros(self) -> &'a mut [f32] {
        match self {
            new @ Self::New(_) => new.by_index(|_| 0.0),
            Self::Add(sum) => sum,
        }
    }

    /// `f(i)` of every index.
    #[inline(always)]
    pub(crate) fn by_index(self, f: impl Fn(usize) -> f32) -> &'a mut [f32] {
        match self {
            Self::New(new) => {
                for (i, out) in new.iter_mut().enumerate() {
                    out.write(f(i));
                }
                // SAFETY: every element was written.
                unsafe { new.assume_init_mut() }
            }
            Self::Add(sum) => {
                for (i, out) in sum.iter_mut().enumerate() {
                    *out += f(i);
                }
                sum
            }
        }
    }

    /// `f(x)` of every element of `x`, of which there are as many as of the output.
    #[inline(always)]
    pub(crate) fn map<T>(self, x: &[T], f: impl Fn(&T) -> f32) -> &'a mut [f32] {
        assert_eq!(self.len(), x.len());
        match self {
            Self::New(new) => {
                for (out, x) in new.iter_mut().zip(x) {
                    out.write(f(x));
                }
                // SAFETY: as many elements of `x` were gone through.
                unsafe { new.assume_init_mut() }
            }
            Self::Add(sum) => {
                for (out, x) in sum.iter_mut().zip(x) {
                    *out += f(x);
                }
                sum
            }
        }
    }

    /// `f(x, y)` of every two elements, of which there are as many as of the output.
    #[inline(always)]
    pub(crate) fn zip<T, U>(self, x: &[T], y: &[U], f: impl Fn(&T, &U) -> f32) -> &'a mut [f32] {
        assert!(self.len() == x.len() && self.len() == y.len());
        match self {
            Self::New(new) => {
                for ((out, x), y) in new.iter_mut().zip(x).zip(y) {
                    out.write(f(x, y));
                }
                // SAFETY: as many elements of `x` and `y` were gone through.
                unsafe { new.assume_init_mut() }
            }
            Self::Add(sum) => {
                for ((out, x), y) in sum.iter_mut().zip(x).zip(y) {
                    *out += f(x, y);
                }
                sum
            }
        }
    }

    /// `write(index, chunk)` for every chunk of `size` elements, the last of which may be shorter, one after the other.
    #[inline(always)]
    pub(crate) fn chunks(
        self,
        size: usize,
        mut write: impl for<'c> FnMut(usize, Output<'c>) -> &'c mut [f32],
    ) -> &'a mut [f32] {
        match self {
            Self::New(new) => {
                for (i, chunk) in new.chunks_mut(size).enumerate() {
                    write_new(chunk, |chunk| write(i, chunk));
                }
                // SAFETY: every chunk was written.
                unsafe { new.assume_init_mut() }
            }
            Self::Add(sum) => {
                sum.chunks_mut(size).enumerate().for_each(|(i, chunk)| {
                    write(i, Output::Add(chunk));
                });
                sum
            }
        }
    }

    /// The same over all threads; on the calling one if there are at most `alone` elements.
    pub(crate) fn each_chunk(
        self,
        size: usize,
        alone: usize,
        write: impl for<'c> Fn(usize, Output<'c>) -> &'c mut [f32] + Sync,
    ) -> &'a mut [f32] {
        if self.len() <= alone { self.chunks(size, write) } else { self.par_chunks(size, write) }
    }

    /// The same over all threads.
    pub(crate) fn par_chunks(
        self,
        size: usize,
        write: impl for<'c> Fn(usize, Output<'c>) -> &'c mut [f32] + Sync,
    ) -> &'a mut [f32] {
        match self {
            Self::New(new) => {
                new.par_chunks_mut(size).enumerate().for_each(|(i, chunk)| write_new(chunk, |chunk| write(i, chunk)));
                // SAFETY: every chunk was written.
                unsafe { new.assume_init_mut() }
            }
            Self::Add(sum) => {
                sum.par_chunks_mut(size).enumerate().for_each(|(i, chunk)| {
                    write(i, Output::Add(chunk));
                });
                sum
            }
        }
    }
}

/// Lets `write` write new memory, and checks that it was that which it wrote.
#[inline(always)]
fn write_new(new: &mut [MaybeUninit<f32>], write: impl for<'c> FnOnce(Output<'c>) -> &'c mut [f32]) {
    let given = new.as_ptr_range();
    let written = write(Output::New(new)).as_ptr_range();
    assert!(given.start.cast() == written.start && given.end.cast() == written.end, "another slice than was given");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_is_written_and_what_holds_numbers_is_added_to() {
        let x: Vec<f32> = (0..100).map(|x| x as f32).collect();
        let doubled = |out: Output<'_>| -> Vec<f32> {
            let written = out.par_chunks(7, |i, out| {
                out.chunks(3, |j, out| {
                    let x = &x[i * 7 + j * 3..][..out.len()];
                    if j == 1 { out.by_index(|k| 2.0 * x[k]) } else { out.zip(x, x, |x, y| x + y) }
                })
            });
            written.to_vec()
        };
        let wanted: Vec<f32> = x.iter().map(|x| 2.0 * x).collect();
        assert_eq!(doubled(Output::New(&mut [MaybeUninit::uninit(); 100])), wanted);
        let wanted: Vec<f32> = x.iter().map(|x| 2.0 * x + 1.0).collect();
        assert_eq!(doubled(Output::Add(&mut [1.0; 100])), wanted);
    }

    #[test]
    fn buffers_hold_what_was_written() {
        let [x, none, y] = buffers([3, 0, 2], |[x, none, y]| {
            [Output::New(x).by_index(|_| 1.0), Output::New(none).zeros(), Output::New(y).by_index(|_| 3.0)]
        });
        assert_eq!((x, none, y), (vec![1.0; 3], vec![], vec![3.0; 2]));
        assert_eq!(buffer(4, |out| out.zeros()), [0.0; 4]);
    }

    #[test]
    #[should_panic(expected = "another slice")]
    fn another_slice_is_no_proof() {
        buffer(2, |_| Box::leak(Box::new([0.0; 2])));
    }
}
