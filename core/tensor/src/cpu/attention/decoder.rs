//! A step through the blocks of a transformer in one parallel region.

#![allow(unsafe_code)]

use crate::cpu::attention::cached;
use crate::cpu::attention::softmax::LANES;
use crate::cpu::gemm::Shared;
use crate::cpu::gemm::packed::{Operands, Weight};
use crate::cpu::isa::math::normal;
use crate::cpu::isa::simd;
use crate::cpu::memory::scratch::scratch;
use crate::cpu::norm::layer::layer_norm_rows;
use crate::cpu::norm::rows::{stride, written};
use crate::cpu::threads::team::{Member, region};
use std::ops::Range;

/// Scale and shift of a layer norm.
pub(crate) type Norm<'a> = [&'a [f32]; 2];

/// The weights of a block, and the keys and values that it has gathered.
pub(crate) struct Block<'a> {
    pub(crate) norm1: Norm<'a>,
    pub(crate) qkv: Weight<'a>,
    pub(crate) proj: Weight<'a>,
    pub(crate) norm2: Norm<'a>,
    pub(crate) expand: Weight<'a>,
    pub(crate) contract: Weight<'a>,
    pub(crate) keys: &'a mut [f32],
    pub(crate) values: &'a mut [f32],
}

/// `new` positions of `batch` sequences that have `past` positions in caches of `capacity`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) batch: usize,
    pub(crate) new: usize,
    pub(crate) past: usize,
    pub(crate) capacity: usize,
    pub(crate) heads: usize,
    pub(crate) width: usize,
    pub(crate) eps: f32,
}

/// What lies between two products: rows of the normalised input, of query, key and value, of what attention gives, and
/// of the widened state. All but the second are [`stride`] apart.
#[derive(Clone, Copy)]
struct Room {
    normal: Shared,
    qkv: Shared,
    attended: Shared,
    hidden: Shared,
}

/// Pointers to a block's cache.
#[derive(Clone, Copy)]
struct Cache {
    keys: Shared,
    values: Shared,
}

/// Takes `x [batch * new, width]` through the blocks, in place.
///
/// Every number is computed by one thread in one order, whatever the number of threads.
pub(crate) fn step(sizes: &Sizes, blocks: &mut [Block<'_>], x: &mut [f32]) {
    let Sizes { batch, new, width, heads, capacity, .. } = *sizes;
    let rows = batch * new;
    let cache = batch * heads * cached::size(capacity, width / heads);
    let hidden = blocks.iter().map(|block| block.expand.n).max().unwrap_or(0);
    assert!(x.len() == rows * width && sizes.past + new <= capacity);
    assert!(blocks.iter().all(|b| b.keys.len() == cache && b.values.len() == cache && b.fits(width)));
    let caches: Vec<Cache> = blocks
        .iter_mut()
        .map(|b| Cache { keys: Shared::new(b.keys.as_mut_ptr()), values: Shared::new(b.values.as_mut_ptr()) })
        .collect();
    let blocks: Vec<&Block<'_>> = blocks.iter().collect();
    let narrow = stride(width);
    scratch(rows * (3 * width + 2 * narrow + stride(hidden)), |memory| {
        let (normal, memory) = memory.split_at_mut(rows * narrow);
        let (attended, memory) = memory.split_at_mut(rows * narrow);
        let (qkv, hidden) = memory.split_at_mut(rows * 3 * width);
        let room = Room {
            normal: Shared::new(normal.as_mut_ptr()),
            qkv: Shared::new(qkv.as_mut_ptr()),
            attended: Shared::new(attended.as_mut_ptr()),
            hidden: Shared::new(hidden.as_mut_ptr()),
        };
        let x = Shared::new(x.as_mut_ptr());
        region(|member| {
            for (i, (block, cache)) in blocks.iter().zip(&caches).enumerate() {
                // After the last block comes the next step.
                let next = &blocks[(i + 1) % blocks.len()].qkv;
                // SAFETY: all buffers have the sizes that are checked above, and a barrier lies between what one member
                // writes and another reads.
                unsafe { one(sizes, block, next, *cache, x, &room, member) };
            }
        });
    });
}

impl Block<'_> {
    fn fits(&self, width: usize) -> bool {
        let Self { qkv, proj, expand, contract, .. } = self;
        let sizes =
            [(qkv, 3 * width, width), (proj, width, width), (expand, expand.n, width), (contract, width, expand.n)];
        sizes.iter().all(|(w, n, k)| w.n == *n && w.k == *k && w.fits())
            && [self.norm1, self.norm2].iter().flatten().all(|norm| norm.len() == width)
    }
}

/// One block; `next` is the weight that follows it. Each line that begins with a product or a norm reads what all members wrote before the barrier.
///
/// # Safety
/// All pointers are valid for the sizes, and every member of the region calls this.
unsafe fn one(
    sizes: &Sizes,
    block: &Block<'_>,
    next: &Weight<'_>,
    cache: Cache,
    x: Shared,
    room: &Room,
    member: &Member<'_>,
) {
    let rows = sizes.batch * sizes.new;
    let (width, narrow, wide) = (sizes.width, stride(sizes.width), stride(block.expand.n));
    let multiply =
        |[weight, next]: [&Weight<'_>; 2], left: *const f32, left_stride, out: Shared, out_stride, accumulate| {
            let (pieces, ahead) = (member.share(weight.pieces()), next.start(member.share(next.pieces()).start));
            let operands = Operands { rows, left, left_stride, out: out.get(), out_stride, accumulate };
            // SAFETY: the sizes fit, and these columns are this member's own.
            unsafe { weight.multiply(&operands, pieces.clone(), ahead) };
            weight.columns(pieces)
        };
    // SAFETY: as the caller promises.
    unsafe {
        normalised(sizes, block.norm1, x, room.normal, member, |left| {
            multiply([&block.qkv, &block.proj], left, narrow, room.qkv, 3 * width, false);
        });
        member.barrier();
        attention(sizes, cache, room, member);
        member.barrier();
        multiply([&block.proj, &block.expand], room.attended.get(), narrow, x, width, true);
        member.barrier();
        normalised(sizes, block.norm2, x, room.normal, member, |left| {
            let columns = multiply([&block.expand, &block.contract], left, narrow, room.hidden, wide, false);
            for row in 0..rows {
                let at = room.hidden.get().wrapping_add(row * wide + columns.start);
                gelu(std::slice::from_raw_parts_mut(at, columns.len()));
            }
        });
        member.barrier();
        multiply([&block.contract, next], room.hidden.get(), wide, x, width, true);
        member.barrier();
    }
}

simd! {
    fn gelu(x: &mut [f32]) {
        for x in x {
            *x *= normal::<FUSED>(*x).0;
        }
    }
}

/// Hands the layer norm of all rows of `x` to `f`.
///
/// # Safety
/// As for [`one`]; no member writes to `x` before the next barrier.
unsafe fn normalised(
    sizes: &Sizes,
    [weight, bias]: Norm<'_>,
    x: Shared,
    normal: Shared,
    member: &Member<'_>,
    f: impl FnOnce(*const f32),
) {
    let (rows, width) = (sizes.batch * sizes.new, sizes.width);
    let stride = stride(width);
    let norm = |rows: Range<usize>, out: *mut f32| {
        for row in rows {
            // SAFETY: the row lies inside `x`, and inside `out` where this member alone writes.
            let (x, out) = unsafe {
                (
                    std::slice::from_raw_parts(x.get().add(row * width), width),
                    std::slice::from_raw_parts_mut(out.add(row * stride).cast(), width),
                )
            };
            layer_norm_rows(x, weight, bias, sizes.eps, out, &mut [[0.0; 2]]);
        }
    };
    // SAFETY: the room was made for these rows, and `norm` writes those of its range.
    unsafe { written(rows, width, normal, member, norm, f) };
}

/// Gathers the new keys and values of this member's heads, and attends with their queries.
///
/// # Safety
/// As for [`one`].
unsafe fn attention(sizes: &Sizes, cache: Cache, room: &Room, member: &Member<'_>) {
    let Sizes { batch, new, past, capacity, heads, width, .. } = *sizes;
    let (head, stride) = (width / heads, stride(width));
    let size = cached::size(capacity, head);
    scratch((past + new).next_multiple_of(LANES), |weights| {
        for pair in member.share(batch * heads) {
            let (b, h) = (pair / heads, pair % heads);
            // SAFETY: each pair of sequence and head has its own part of the cache.
            let (keys, values) = unsafe {
                (
                    std::slice::from_raw_parts_mut(cache.keys.get().add(pair * size), size),
                    std::slice::from_raw_parts_mut(cache.values.get().add(pair * size), size),
                )
            };
            for t in 0..new {
                let row = b * new + t;
                // SAFETY: a row of three times the width, which nobody writes meanwhile, and this head's part of the
                // result.
                let (qkv, out) = unsafe {
                    (
                        std::slice::from_raw_parts(room.qkv.get().add(row * 3 * width), 3 * width),
                        std::slice::from_raw_parts_mut(room.attended.get().add(row * stride + h * head), head),
                    )
                };
                let third = |i: usize| &qkv[i * width + h * head..][..head];
                cached::append(past + t, third(1), third(2), keys, values);
                let seen = past + t + 1;
                // After a head's last position comes the next head, which need not be there.
                let next = keys.as_ptr().wrapping_add(if t + 1 < new { 0 } else { size });
                cached::attend(seen, third(0), keys, values, &mut weights[..seen.next_multiple_of(LANES)], out, next);
            }
        }
    });
}
