//! A step through the blocks of a transformer in one parallel region.

#![allow(unsafe_code)]

use crate::cpu::attention::cached;
use crate::cpu::attention::rotary::turn;
use crate::cpu::attention::softmax::LANES;
use crate::cpu::gemm::Shared;
use crate::cpu::gemm::packed::{Operands, Weight};
use crate::cpu::isa::math::normal;
use crate::cpu::isa::simd;
use crate::cpu::loops::swiglu::silu_mul_in_place;
use crate::cpu::memory::scratch::scratch;
use crate::cpu::norm::layer::{RowNorm, layer_norm_rows};
use crate::cpu::norm::rows::{stride, written};
use crate::cpu::threads::team::{Member, region};
use std::ops::Range;

/// Scale and shift of a norm.
pub(crate) type Norm<'a> = [&'a [f32]; 2];

/// The weights of a block, and the keys and values that it has gathered.
pub(crate) struct Block<'a> {
    pub(crate) norm1: Norm<'a>,
    pub(crate) qkv: Weight<'a>,
    pub(crate) proj: Weight<'a>,
    pub(crate) norm2: Norm<'a>,
    /// With one, the hidden state is that of SwiGLU, else that of GELU.
    pub(crate) gate: Option<Weight<'a>>,
    pub(crate) expand: Weight<'a>,
    pub(crate) contract: Weight<'a>,
    pub(crate) keys: &'a mut [f32],
    pub(crate) values: &'a mut [f32],
}

/// `new` positions of `batch` sequences that have `past` positions in caches of `capacity`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes<'a> {
    pub(crate) batch: usize,
    pub(crate) new: usize,
    pub(crate) past: usize,
    pub(crate) capacity: usize,
    pub(crate) heads: usize,
    pub(crate) width: usize,
    pub(crate) norm: RowNorm,
    /// Where queries and keys are turned by their positions, for each of the new ones the cosines of a head's channels, then
    /// the sines with their signs.
    pub(crate) turns: Option<&'a [f32]>,
}

/// What lies between two products: rows of the normalised input, of query, key and value, of what attention gives, of the
/// widened state, and of its gate. All but the second are [`stride`] apart.
#[derive(Clone, Copy)]
struct Room {
    normal: Shared,
    qkv: Shared,
    attended: Shared,
    hidden: Shared,
    gate: Shared,
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
pub(crate) fn step(sizes: &Sizes<'_>, blocks: &mut [Block<'_>], x: &mut [f32]) {
    let Sizes { batch, new, width, heads, capacity, .. } = *sizes;
    let rows = batch * new;
    let cache = batch * heads * cached::size(capacity, width / heads);
    let hidden = blocks.iter().map(|block| block.expand.n).max().unwrap_or(0);
    let gate = blocks.iter().filter_map(|block| block.gate.map(|gate| gate.n)).max().unwrap_or(0);
    assert!(x.len() == rows * width && sizes.past + new <= capacity);
    assert!(sizes.turns.is_none_or(|turns| turns.len() == new * 2 * width / heads));
    assert!(blocks.iter().all(|b| b.keys.len() == cache && b.values.len() == cache && b.fits(width)));
    let caches: Vec<Cache> = blocks
        .iter_mut()
        .map(|b| Cache { keys: Shared::new(b.keys.as_mut_ptr()), values: Shared::new(b.values.as_mut_ptr()) })
        .collect();
    let blocks: Vec<&Block<'_>> = blocks.iter().collect();
    let narrow = stride(width);
    scratch(rows * (3 * width + 2 * narrow + stride(hidden) + stride(gate)), |memory| {
        let (normal, memory) = memory.split_at_mut(rows * narrow);
        let (attended, memory) = memory.split_at_mut(rows * narrow);
        let (qkv, memory) = memory.split_at_mut(rows * 3 * width);
        let (hidden, gate) = memory.split_at_mut(rows * stride(hidden));
        let room = Room {
            normal: Shared::new(normal.as_mut_ptr()),
            qkv: Shared::new(qkv.as_mut_ptr()),
            attended: Shared::new(attended.as_mut_ptr()),
            hidden: Shared::new(hidden.as_mut_ptr()),
            gate: Shared::new(gate.as_mut_ptr()),
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
        let Self { qkv, proj, gate, expand, contract, .. } = self;
        let sizes = [
            (qkv, 3 * width, width),
            (proj, width, width),
            (gate.as_ref().unwrap_or(expand), expand.n, width),
            (expand, expand.n, width),
            (contract, width, expand.n),
        ];
        sizes.iter().all(|(w, n, k)| w.n == *n && w.k == *k && w.fits())
            && [self.norm1, self.norm2].iter().flatten().all(|norm| norm.len() == width)
    }
}

/// One block; `next` is the weight that follows it. Each line that begins with a product or a norm reads what all members wrote
/// before the barrier.
///
/// # Safety
/// All pointers are valid for the sizes, and every member of the region calls this.
unsafe fn one(
    sizes: &Sizes<'_>,
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
        attention(sizes, cache, [room.qkv, room.attended], narrow, member);
        member.barrier();
        multiply([&block.proj, &block.expand], room.attended.get(), narrow, x, width, true);
        member.barrier();
        normalised(sizes, block.norm2, x, room.normal, member, |left| {
            if let Some(gate) = &block.gate {
                multiply([gate, &block.expand], left, narrow, room.gate, wide, false);
            }
            let columns = multiply([&block.expand, &block.contract], left, narrow, room.hidden, wide, false);
            for row in 0..rows {
                let at = row * wide + columns.start;
                let hidden = std::slice::from_raw_parts_mut(room.hidden.get().wrapping_add(at), columns.len());
                if block.gate.is_some() {
                    // Of as many columns as the hidden state, the same ones.
                    let gate = room.gate.get().wrapping_add(at);
                    silu_mul_in_place(std::slice::from_raw_parts(gate, columns.len()), hidden);
                } else {
                    gelu(hidden);
                }
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

/// Hands the norm of all rows of `x` to `f`.
///
/// # Safety
/// As for [`one`]; no member writes to `x` before the next barrier.
unsafe fn normalised(
    sizes: &Sizes<'_>,
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
            layer_norm_rows(x, weight, bias, sizes.norm, out, &mut [[0.0; 2]]);
        }
    };
    // SAFETY: the room was made for these rows, and `norm` writes those of its range.
    unsafe { written(rows, width, normal, member, norm, f) };
}

/// Attention of new positions, `qkv [batch * new, 3 width]`, over the keys and values of past ones and themselves, which are
/// added to these: `out [batch * new, width]`.
///
/// Every number is computed by one thread in one order, whatever the number of threads.
pub(crate) fn attend(sizes: &Sizes<'_>, [keys, values]: [&mut [f32]; 2], qkv: &mut [f32], out: &mut [f32]) {
    let Sizes { batch, new, past, capacity, heads, width, turns, .. } = *sizes;
    let (rows, cache) = (batch * new, batch * heads * cached::size(capacity, width / heads));
    assert!(qkv.len() == rows * 3 * width && out.len() == rows * width && past + new <= capacity);
    assert!(keys.len() == cache && values.len() == cache);
    assert!(turns.is_none_or(|turns| turns.len() == new * 2 * width / heads));
    let cache = Cache { keys: Shared::new(keys.as_mut_ptr()), values: Shared::new(values.as_mut_ptr()) };
    let rows = [qkv, out].map(|rows| Shared::new(rows.as_mut_ptr()));
    region(|member| {
        // SAFETY: all buffers have the sizes that are checked above.
        unsafe { attention(sizes, cache, rows, width, member) };
    });
}

/// Gathers the new keys and values of this member's heads, and attends with their queries: from rows of three times the width
/// to rows that lie `stride` apart.
///
/// # Safety
/// As for [`one`].
unsafe fn attention(sizes: &Sizes<'_>, cache: Cache, [qkv, attended]: [Shared; 2], stride: usize, member: &Member<'_>) {
    let Sizes { batch, new, past, capacity, heads, width, turns, .. } = *sizes;
    let head = width / heads;
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
                // SAFETY: this head's parts of a row of three times the width, and of the result, which nobody else touches.
                let ([query, key, value], out) = unsafe {
                    let third = |i: usize| qkv.get().add(row * 3 * width + i * width + h * head);
                    (
                        [0, 1, 2].map(|i| std::slice::from_raw_parts_mut(third(i), head)),
                        std::slice::from_raw_parts_mut(attended.get().add(row * stride + h * head), head),
                    )
                };
                if let Some(turns) = turns {
                    let (cos, sin) = turns[t * 2 * head..][..2 * head].split_at(head);
                    turn(query, cos, sin, 1.0);
                    turn(key, cos, sin, 1.0);
                }
                cached::append(past + t, key, value, keys, values);
                let seen = past + t + 1;
                // After a head's last position comes the next head, which need not be there.
                let next = keys.as_ptr().wrapping_add(if t + 1 < new { 0 } else { size });
                cached::attend(seen, query, keys, values, &mut weights[..seen.next_multiple_of(LANES)], out, next);
            }
        }
    });
}
