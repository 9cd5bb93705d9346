//! A step of a causal convolutional network in one parallel region. On a GPU it is run as the operations that it consists of.

#![allow(unsafe_code)]

use crate::cpu::attention::cached;
use crate::cpu::attention::softmax::LANES;
use crate::cpu::gemm::Shared;
use crate::cpu::gemm::packed::{Operands, Weight};
use crate::cpu::isa::math::{exp_minus_one, sigmoid};
use crate::cpu::isa::{fma, simd};
use crate::cpu::memory::scratch::scratch;
use crate::cpu::norm::rows::stride;
use crate::cpu::threads::team::{Member, region};
use std::ptr::null;
use std::slice::{from_raw_parts, from_raw_parts_mut};

/// Where a register lies: rows of `width` numbers, [`stride`] apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    at: usize,
    width: usize,
}

/// The places of registers of these widths, one behind the other.
pub(crate) fn places(images: usize, widths: &[usize]) -> Vec<Place> {
    let place = |at: &mut usize, &width: &usize| {
        let place = Place { at: *at, width };
        *at += images * stride(width);
        Some(place)
    };
    widths.iter().scan(0, place).collect()
}

/// Maps, and the position that is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) images: usize,
    pub(crate) map: [usize; 2],
    pub(crate) position: usize,
}

/// What windows of `kernel` rows and columns read: for each image the last `kernel` rows of a map, each in the place of the one
/// that no window reaches any more, with columns of zeros on both sides; `width` numbers for every position.
#[derive(Clone, Copy)]
pub(crate) struct History {
    pub(crate) width: usize,
    pub(crate) kernel: usize,
    pub(crate) memory: Shared,
}

/// Numbers of a [`History`] of all images.
pub(crate) fn history_len(images: usize, map: [usize; 2], width: usize, kernel: usize) -> usize {
    images * image_len(map, width, kernel)
}

/// Numbers between two images of a [`History`].
fn image_len([_, columns]: [usize; 2], width: usize, kernel: usize) -> usize {
    stride(kernel * (columns + kernel / 2 * 2) * width)
}

impl History {
    fn image(&self, map: [usize; 2]) -> usize {
        image_len(map, self.width, self.kernel)
    }

    /// Where column `j` of row `i` lies in the first image, counted from the first column of zeros.
    fn at(&self, [_, columns]: [usize; 2], i: usize, j: usize) -> *mut f32 {
        let row = i % self.kernel * (columns + self.kernel / 2 * 2);
        self.memory.get().wrapping_add((row + j) * self.width)
    }
}

/// Numbers of the keys, or the values, of an attention.
pub(crate) fn cache_len(images: usize, map: [usize; 2], width: usize, heads: usize) -> usize {
    images * heads * cached::size(map[0] * map[1], width / heads)
}

/// An instruction; see [`crate::ops::raster::RasterDecoder`].
pub(crate) enum Work<'a> {
    Linear { weight: Weight<'a>, from: Place, to: Place },
    Remember { from: Place, history: History },
    Window { rows: Vec<Weight<'a>>, history: History, to: Place },
    Elu { from: Place, to: Place },
    AddGlu { x: Place, gates: Place, to: Place },
    Add { parts: [Place; 2], to: Place },
    Concat { parts: Vec<Place>, to: Place },
    Attend { parts: [Place; 3], heads: usize, cache: [Shared; 2], to: Place },
}

/// Runs instructions, each after as many barriers as it says, in order, and gives the rows of `output`.
///
/// Every number is computed by one thread in one order, whatever the number of threads.
pub(crate) fn step(sizes: &Sizes, inputs: &[(Place, &[f32])], work: &[(usize, Work<'_>)], output: Place) -> Vec<f32> {
    let images = sizes.images;
    let end = |place: &Place| place.at + images * stride(place.width);
    let places = work.iter().flat_map(|(_, work)| work.places());
    let len = places.chain(inputs.iter().map(|(place, _)| *place)).chain([output]).map(|place| end(&place)).max();
    assert!(sizes.position < sizes.map[0] * sizes.map[1] && work.iter().all(|(_, work)| work.fits()));
    scratch(len.unwrap_or(0), |memory| {
        for (place, rows) in inputs {
            assert!(rows.len() == images * place.width);
            for (b, row) in rows.chunks_exact(place.width.max(1)).enumerate() {
                memory[place.at + b * stride(place.width)..][..place.width].copy_from_slice(row);
            }
        }
        let registers = Shared::new(memory.as_mut_ptr());
        region(|member| {
            let mut passed = 0;
            for (barriers, work) in work {
                while passed < *barriers {
                    member.barrier();
                    passed += 1;
                }
                // SAFETY: all registers lie in the memory, histories and caches have the lengths of [`history_len`] and
                // [`cache_len`], and what another member wrote is read after a barrier.
                unsafe { work.run(sizes, registers, member) };
            }
        });
        let rows = (0..images).map(|b| &memory[output.at + b * stride(output.width)..][..output.width]);
        rows.flatten().copied().collect()
    })
}

impl Work<'_> {
    /// The registers that it reads and writes.
    fn places(&self) -> Vec<Place> {
        match self {
            Self::Linear { from, to, .. } | Self::Elu { from, to } => vec![*from, *to],
            Self::Remember { from, .. } => vec![*from],
            Self::Window { to, .. } => vec![*to],
            Self::AddGlu { x, gates, to } => vec![*x, *gates, *to],
            Self::Add { parts, to } => [&parts[..], &[*to]].concat(),
            Self::Concat { parts, to } => [&parts[..], &[*to]].concat(),
            Self::Attend { parts, to, .. } => [&parts[..], &[*to]].concat(),
        }
    }

    /// Whether weights and registers have the sizes that they must have for each other.
    fn fits(&self) -> bool {
        match self {
            Self::Linear { weight, from, to } => weight.fits() && weight.k == from.width && weight.n == to.width,
            Self::Remember { from, history } => from.width == history.width,
            Self::Window { rows, history, to } => {
                let taps = |up: usize| if up == 0 { history.kernel / 2 } else { history.kernel };
                let fits = |(up, weight): (usize, &Weight<'_>)| {
                    weight.fits() && weight.k == taps(up) * history.width && weight.n == to.width
                };
                rows.len() == history.kernel && rows.iter().enumerate().all(fits)
            }
            Self::Elu { from, to } => from.width == to.width,
            Self::AddGlu { x, gates, to } => x.width == to.width && gates.width == 2 * to.width,
            Self::Add { parts, to } => parts.iter().all(|part| part.width == to.width),
            Self::Concat { parts, to } => parts.iter().map(|part| part.width).sum::<usize>() == to.width,
            Self::Attend { parts, heads, to, .. } => {
                parts.iter().all(|part| part.width == to.width) && to.width.is_multiple_of(*heads)
            }
        }
    }

    /// This member's part.
    ///
    /// # Safety
    /// Registers, histories and caches are valid for the sizes, and every member of the region calls this.
    unsafe fn run(&self, sizes: &Sizes, registers: Shared, member: &Member<'_>) {
        let (images, map) = (sizes.images, sizes.map);
        let [i, j] = [sizes.position / map[1], sizes.position % map[1]];
        let start = |place: &Place| registers.get().wrapping_add(place.at);
        let row = |place: &Place, b: usize| {
            // SAFETY: a register's row lies in it, and is written by one member.
            unsafe { from_raw_parts(start(place).add(b * stride(place.width)), place.width) }
        };
        #[allow(clippy::mut_from_ref, reason = "each row is one member's")]
        let row_mut = |place: &Place, b: usize| {
            // SAFETY: as above.
            unsafe { from_raw_parts_mut(start(place).add(b * stride(place.width)), place.width) }
        };
        let multiply = |weight: &Weight<'_>, left: *const f32, left_stride: usize, to: &Place, accumulate: bool| {
            let (out, out_stride) = (start(to), stride(to.width));
            let operands = Operands { rows: images, left, left_stride, out, out_stride, accumulate };
            // SAFETY: the sizes fit, and these columns are this member's own.
            unsafe { weight.multiply(&operands, member.share(weight.pieces()), null()) };
        };
        match self {
            Self::Linear { weight, from, to } => multiply(weight, start(from), stride(from.width), to, false),
            Self::Window { rows, history, to } => {
                for (up, weight) in rows.iter().enumerate().take(i + 1) {
                    multiply(weight, history.at(map, i - up, j), history.image(map), to, up > 0);
                }
            }
            Self::Remember { from, history } => {
                for b in member.share(images) {
                    let to = history.at(map, i, j + history.kernel / 2).wrapping_add(b * history.image(map));
                    // SAFETY: the place of this position in an image that is this member's.
                    unsafe { from_raw_parts_mut(to, history.width) }.copy_from_slice(row(from, b));
                }
            }
            Self::Elu { from, to } => member.share(images).for_each(|b| elu(row(from, b), row_mut(to, b))),
            Self::AddGlu { x, gates, to } => {
                for b in member.share(images) {
                    let (a, gate) = row(gates, b).split_at(to.width);
                    add_glu(row(x, b), a, gate, row_mut(to, b));
                }
            }
            Self::Add { parts: [x, y], to } => {
                member.share(images).for_each(|b| add(row(x, b), row(y, b), row_mut(to, b)));
            }
            Self::Concat { parts, to } => {
                for b in member.share(images) {
                    let mut rest = row_mut(to, b);
                    for part in parts {
                        let (own, others) = rest.split_at_mut(part.width);
                        own.copy_from_slice(row(part, b));
                        rest = others;
                    }
                }
            }
            Self::Attend { parts: [q, k, v], heads, cache: [keys, values], to } => {
                let (head, seen) = (to.width / heads, sizes.position);
                let size = cached::size(map[0] * map[1], head);
                scratch(seen.next_multiple_of(LANES), |weights| {
                    for pair in member.share(images * heads) {
                        let (b, columns) = (pair / heads, pair % heads * head..(pair % heads + 1) * head);
                        // SAFETY: each pair of image and head has its own part of the cache and of the result.
                        let (keys, values, out) = unsafe {
                            (
                                from_raw_parts_mut(keys.get().add(pair * size), size),
                                from_raw_parts_mut(values.get().add(pair * size), size),
                                from_raw_parts_mut(start(to).add(b * stride(to.width) + columns.start), head),
                            )
                        };
                        if seen == 0 {
                            out.fill(0.0);
                        } else {
                            cached::attend(seen, &row(q, b)[columns.clone()], keys, values, weights, out, null());
                        }
                        cached::append(seen, &row(k, b)[columns.clone()], &row(v, b)[columns], keys, values);
                    }
                });
            }
        }
    }
}

simd! {
    fn elu(x: &[f32], out: &mut [f32]) {
        for (out, &x) in out.iter_mut().zip(x) {
            *out = if x > 0.0 { x } else { exp_minus_one::<FUSED>(x) };
        }
    }
}

simd! {
    fn add_glu(x: &[f32], a: &[f32], b: &[f32], out: &mut [f32]) {
        for (((out, &x), &a), &b) in out.iter_mut().zip(x).zip(a).zip(b) {
            *out = fma::<FUSED>(a, sigmoid::<FUSED>(b), x);
        }
    }
}

simd! {
    fn add(x: &[f32], y: &[f32], out: &mut [f32]) {
        for ((out, &x), &y) in out.iter_mut().zip(x).zip(y) {
            *out = x + y;
        }
    }
}
