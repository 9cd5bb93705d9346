//! Rows that all members of a team read, each written by whoever makes that cheapest.

#![allow(unsafe_code)]

use crate::cpu::gemm::Shared;
use crate::cpu::loops::reduce::LANES;
use crate::cpu::memory::scratch::scratch;
use crate::cpu::threads::team::Member;
use std::ops::Range;

/// Up to so many rows, each member writes all of them for itself: cheaper than a barrier.
const FEW: usize = 4;

/// Numbers between the rows of a product's left operand: rows that lay a power of two apart would share few lines of
/// the first-level cache, and push each other out.
pub(crate) fn stride(columns: usize) -> usize {
    columns.next_multiple_of(LANES) + LANES
}

/// Hands `rows` rows to `read`, [`stride`] of `width` apart. `write` fills those of a range in memory that begins with row 0:
/// memory of the member's own, or `common` memory, of which each member fills its share before a barrier.
///
/// # Safety
/// `common` has room for all rows, and nobody else touches it; every member calls this with the same sizes, and `write` writes
/// the rows that it is asked for and no others.
pub(crate) unsafe fn written(
    rows: usize,
    width: usize,
    common: Shared,
    member: &Member<'_>,
    write: impl Fn(Range<usize>, *mut f32),
    read: impl FnOnce(*const f32),
) {
    if rows <= FEW || member.count() == 1 {
        scratch(rows * stride(width), |own| {
            write(0..rows, own.as_mut_ptr());
            read(own.as_ptr());
        });
    } else {
        write(member.share(rows), common.get());
        member.barrier();
        read(common.get());
    }
}
