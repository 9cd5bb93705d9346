//! Convolution of maps `[B, H, W, C]` with weights `[O, I, kh, kw]`, without a matrix of columns.
//!
//! The product of a tile of output pixels with a panel of output channels is a sum over taps of the kernel; for each tap
//! the tile's rows are found through pointers into the input, or to a row of zeros outside of it (the "indirect
//! convolution" of Dukhan, 2019).

#![allow(unsafe_code)]

pub(crate) mod weight;
pub(crate) mod winograd;
pub(crate) mod winograd_transform;
pub(crate) mod winograd_weight;

use crate::cpu::Output;
use crate::cpu::conv::winograd::Winograd;
use crate::cpu::gemm::kernel::{DOTS, Dots, Kernels, Tile};
use crate::cpu::gemm::product::tiles;
use crate::cpu::gemm::{self, Shared, TASK};
use crate::cpu::memory::scratch::scratch;
use crate::cpu::threads::split;
use std::ptr::{null, null_mut};

/// The sizes of a convolution: heights before widths.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Geometry {
    pub(crate) batch: usize,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) input: [usize; 2],
    pub(crate) output: [usize; 2],
    pub(crate) kernel: [usize; 2],
    /// Taps of the kernel, row by row, that count; weights of the others are not read.
    pub(crate) seen: usize,
    pub(crate) stride: usize,
    /// Zeros above and to the left.
    pub(crate) before: [usize; 2],
}

impl Geometry {
    /// Whether every pixel is treated for itself: a linear layer over channels.
    pub(crate) fn is_linear(&self) -> bool {
        self.kernel == [1, 1]
            && self.seen == 1
            && self.stride == 1
            && self.input == self.output
            && self.before == [0, 0]
    }

    pub(crate) fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    fn is_empty(&self) -> bool {
        self.input_len() * self.output_len() == 0
    }

    /// Numbers of the input map.
    pub(crate) fn input_len(&self) -> usize {
        self.batch * self.input[0] * self.input[1] * self.inputs
    }

    /// Numbers of the output map.
    pub(crate) fn output_len(&self) -> usize {
        self.batch * self.output[0] * self.output[1] * self.outputs
    }

    /// Numbers of the weight.
    pub(crate) fn weight_len(&self) -> usize {
        self.outputs * self.inputs * self.taps()
    }
}

/// Fewer channels than this are gathered from all taps into one row: the loop over them would be too short.
pub(crate) const FEW_CHANNELS: usize = 12;
/// Numbers of packed panels that are gone through for all tiles of a piece before the next ones.
const GROUP: usize = 48 << 10;
/// Tiles in a piece of work at most.
const TILES: usize = 8;

/// Marks a tap that falls outside of the image.
pub(crate) const OUTSIDE: i32 = -1;

/// Which pixels a set of taps reads for each position of a grid: `[taps][positions]`, offsets into the image or
/// [`OUTSIDE`].
pub(crate) fn offsets(
    grid: [usize; 2],
    image: [usize; 2],
    channels: usize,
    stride: usize,
    taps: impl Iterator<Item = [isize; 2]>,
) -> Vec<i32> {
    let inside = |at: isize, size: usize| usize::try_from(at).ok().filter(|&at| at < size);
    let mut table = Vec::new();
    for [dy, dx] in taps {
        for i in 0..grid[0] {
            let y = inside((i * stride) as isize + dy, image[0]);
            for j in 0..grid[1] {
                let x = inside((j * stride) as isize + dx, image[1]);
                table.push(match (y, x) {
                    (Some(y), Some(x)) => ((y * image[1] + x) * channels) as i32,
                    _ => OUTSIDE,
                });
            }
        }
    }
    table
}

/// Where the taps of a kernel read the input for the positions of a grid: what the indirection buffers of a tile are made from.
pub(crate) struct Indirection<'a> {
    pub(crate) input: &'a [f32],
    /// Numbers in an image of the input.
    pub(crate) image: usize,
    /// Channels of the input.
    pub(crate) channels: usize,
    /// Positions of the grid in an image, and the offsets of each tap.
    pub(crate) positions: usize,
    pub(crate) taps: usize,
    pub(crate) offsets: &'a [i32],
    pub(crate) zeros: &'a [f32],
}

impl Indirection<'_> {
    /// For each tap the input rows of `rows` positions from `first` on, of all images one behind the other.
    pub(crate) fn pointers(&self, first: usize, rows: usize, to: &mut [*const f32]) {
        let (mut at, mut done) = (first, 0);
        while done < rows {
            let (image, position) = (at / self.positions, at % self.positions);
            let count = (self.positions - position).min(rows - done);
            let start = self.input[image * self.image..].as_ptr();
            for tap in 0..self.taps {
                let offsets = &self.offsets[tap * self.positions + position..][..count];
                for (to, &offset) in to[tap * rows + done..][..count].iter_mut().zip(offsets) {
                    let inside = start.wrapping_add(offset as usize);
                    *to = if offset == OUTSIDE { self.zeros.as_ptr() } else { inside };
                }
            }
            at += count;
            done += count;
        }
    }

    /// Copies what [`Indirection::pointers`] points to into rows of `taps * channels`.
    ///
    /// # Safety
    /// `pointers` are those that [`Indirection::pointers`] gave for as many rows.
    pub(crate) unsafe fn gather(&self, pointers: &[*const f32], rows: usize, to: &mut [f32]) {
        let width = self.taps * self.channels;
        for (r, row) in to.chunks_exact_mut(width).enumerate().take(rows) {
            for (tap, to) in row.chunks_exact_mut(self.channels).enumerate() {
                // SAFETY: every pointer is to `channels` numbers of the input, or of the zeros.
                to.copy_from_slice(unsafe { std::slice::from_raw_parts(pointers[tap * rows + r], self.channels) });
            }
        }
    }
}

/// Where the results go: position (i, j) of an image to pixel (i * step + first) of an image of `width`.
struct Target<'a> {
    out: Shared,
    /// Numbers in an image.
    image: usize,
    channels: usize,
    grid_width: usize,
    width: usize,
    step: usize,
    first: [usize; 2],
    bias: Option<&'a [f32]>,
    accumulate: bool,
}

impl Target<'_> {
    fn rows(&self, input: &Indirection<'_>, first: usize, to: &mut [*mut f32]) {
        for (r, to) in to.iter_mut().enumerate() {
            let (image, position) = ((first + r) / input.positions, (first + r) % input.positions);
            let y = position / self.grid_width * self.step + self.first[0];
            let x = position % self.grid_width * self.step + self.first[1];
            *to = self.out.get().wrapping_add(image * self.image + (y * self.width + x) * self.channels);
        }
    }
}

/// Convolves with `weights`: panels `[tap][channel][width]` of the output channels, or with few of these, rows
/// `[tap][channel]` of each. All of the target's pixels at the grid's positions are written.
///
/// # Safety
/// The input has `batch` images, and offsets lead to pixels of them; the target has as many images that have these pixels, and
/// nothing else touches them meanwhile.
unsafe fn convolve(kernels: &Kernels, batch: usize, input: &Indirection<'_>, weights: &[f32], target: &Target<'_>) {
    let total = batch * input.positions;
    let (k, n) = (input.taps * input.channels, target.channels);
    let by_dots = few_columns(k, n, input.channels);
    let most = if by_dots { DOTS[0] } else { kernels.rows };
    let per_piece = (TASK / (k * n).max(1)).div_ceil(most).clamp(2, TILES) * most;
    let gathered = input.channels < FEW_CHANNELS && !by_dots;
    let panels = n.div_ceil(kernels.width);
    let group = (GROUP / (k * kernels.width).max(1)).max(1);
    split::each(total.div_ceil(per_piece), |piece| {
        let from = piece * per_piece;
        let count = per_piece.min(total - from);
        let mut rows_of = [(0, 0); 2 * TILES];
        let tile_count = count.div_ceil(most);
        rows_of.iter_mut().zip(tiles(count, most)).for_each(|(to, tile)| *to = tile);
        let rows_of = &rows_of[..tile_count];
        let mut left = vec![null(); input.taps.max(1) * count];
        let mut out = vec![null_mut(); count];
        target.rows(input, from, &mut out);
        for &(first, rows) in rows_of {
            input.pointers(from + first, rows, &mut left[input.taps * first..input.taps * (first + rows)]);
        }
        scratch(if gathered { count * k } else { 0 }, |columns| {
            if gathered && k > 0 {
                for &(first, rows) in rows_of {
                    let columns = &mut columns[first * k..(first + rows) * k];
                    // SAFETY: the pointers were made above.
                    unsafe { input.gather(&left[input.taps * first..], rows, columns) };
                }
                for (r, row) in columns.chunks_exact(k).enumerate() {
                    left[r] = row.as_ptr();
                }
            }
            let taps = if gathered { 1 } else { input.taps };
            if by_dots {
                for &(first, rows) in rows_of {
                    let block = Dots {
                        left: left[taps * first..].as_ptr(),
                        groups: taps,
                        depth: input.channels,
                        right: weights.as_ptr(),
                        right_stride: k,
                        bias: target.bias.map_or(null(), <[f32]>::as_ptr),
                        out: out[first..].as_ptr(),
                        accumulate: target.accumulate,
                    };
                    // SAFETY: the pointers lead to `channels` numbers each; a pixel of the output belongs to one
                    // position, and a position to one piece.
                    unsafe { kernels.dots(rows, n, &block) };
                }
                return;
            }
            for first_panel in (0..panels).step_by(group) {
                for &(first, rows) in rows_of {
                    let tile = Tile {
                        left: left[taps * first..].as_ptr(),
                        groups: taps,
                        depth: if gathered { k } else { input.channels },
                        step: 0,
                        panel: weights[first_panel * k * kernels.width..].as_ptr(),
                        panel_stride: k * kernels.width,
                        bias: target.bias.map_or(null(), <[f32]>::as_ptr),
                        out: out[first..].as_ptr(),
                        first: first_panel * kernels.width,
                        columns: ((first_panel + group) * kernels.width).min(n),
                        accumulate: target.accumulate,
                    };
                    // SAFETY: as above.
                    unsafe { kernels.tile(rows, false, &tile) };
                }
            }
        });
    });
}

/// Whether a convolution of `k = taps * channels` to `n` channels goes by dot products.
fn few_columns(k: usize, n: usize, channels: usize) -> bool {
    n <= DOTS[1] && channels >= FEW_CHANNELS && k > 0
}

/// Weights for [`convolve`]: `weight(n, tap, channel)` in its order.
fn with_weights(
    kernels: &Kernels,
    n: usize,
    taps: usize,
    channels: usize,
    weight: impl Fn(usize, usize, usize) -> f32 + Sync,
    f: impl FnOnce(&[f32]),
) {
    let k = taps * channels;
    let dots = few_columns(k, n, channels);
    let width = if dots { 1 } else { kernels.width };
    scratch(n.next_multiple_of(width) * k, |weights| {
        if k > 0 {
            split::each_chunk(weights, k * width, TASK / 32, |(panel, weights)| {
                for (at, row) in weights.chunks_exact_mut(width).enumerate() {
                    let (tap, channel) = (at / channels, at % channels);
                    for (j, to) in row.iter_mut().enumerate() {
                        let column = panel * width + j;
                        *to = if column < n { weight(column, tap, channel) } else { 0.0 };
                    }
                }
            });
        }
        f(weights);
    });
}

/// `y [B, H2, W2, O] = x * w + bias`.
pub(crate) fn forward<'a>(
    g: &Geometry,
    x: &[f32],
    w: &[f32],
    bias: Option<&[f32]>,
    mut y: Output<'a>,
) -> &'a mut [f32] {
    assert!(x.len() == g.input_len() && w.len() == g.weight_len() && y.len() == g.output_len());
    assert!(bias.is_none_or(|bias| bias.len() == g.outputs));
    if g.is_linear() && !g.is_empty() {
        return gemm::nt(g.outputs, g.inputs, x, w, bias, y);
    }
    if y.is_empty() {
        return y.zeros();
    }
    if winograd::fits(g) {
        return Winograd::new(g).forward(x, w, bias, y);
    }
    let kernels = Kernels::best();
    let taps = g.seen;
    let [top, left] = g.before;
    let of_tap =
        |tap: usize| [(tap / g.kernel[1]) as isize - top as isize, (tap % g.kernel[1]) as isize - left as isize];
    let offsets = offsets(g.output, g.input, g.inputs, g.stride, (0..taps).map(of_tap));
    let zeros = vec![0.0; g.inputs];
    let indirection = Indirection {
        input: x,
        image: g.input[0] * g.input[1] * g.inputs,
        channels: g.inputs,
        positions: g.output[0] * g.output[1],
        taps,
        offsets: &offsets,
        zeros: &zeros,
    };
    let target = Target {
        out: Shared::new(y.as_mut_ptr()),
        image: g.output[0] * g.output[1] * g.outputs,
        channels: g.outputs,
        grid_width: g.output[1],
        width: g.output[1],
        step: 1,
        first: [0, 0],
        bias,
        accumulate: y.accumulates(),
    };
    let weight = |o: usize, tap: usize, i: usize| w[(o * g.inputs + i) * g.taps() + tap];
    with_weights(kernels, g.outputs, taps, g.inputs, weight, |weights| {
        // SAFETY: the maps have the sizes asserted above, and the grid is the whole output.
        unsafe { convolve(kernels, g.batch, &indirection, weights, &target) };
    });
    // SAFETY: every position of the grid was written.
    unsafe { y.written() }
}

/// The gradient of the input from that of the output. A pixel of the input is reached through the taps that fall on it
/// in steps of the stride: pixels of one remainder modulo the stride share their taps, and are a convolution of the
/// gradient with them.
pub(crate) fn backward_data<'a>(g: &Geometry, dy: &[f32], w: &[f32], mut dx: Output<'a>) -> &'a mut [f32] {
    assert!(dx.len() == g.input_len() && w.len() == g.weight_len() && dy.len() == g.output_len());
    if g.is_linear() && !g.is_empty() {
        return gemm::nn(g.inputs, g.outputs, dy, w, dx);
    }
    if dx.is_empty() {
        return dx.zeros();
    }
    if winograd::fits(g) {
        return Winograd::new(g).backward_data(dy, w, dx);
    }
    let kernels = Kernels::best();
    let zeros = vec![0.0; g.outputs];
    for class in 0..g.stride * g.stride {
        let first = [class / g.stride, class % g.stride];
        let grid = [0, 1].map(|axis| g.input[axis].saturating_sub(first[axis]).div_ceil(g.stride));
        if grid[0] * grid[1] == 0 {
            continue;
        }
        // Along each axis, the taps that reach this class, and how far from the position they find the gradient.
        let along = |axis: usize| {
            let meets = move |tap: &usize| {
                (first[axis] + g.before[axis] + g.stride * g.kernel[axis] - tap).is_multiple_of(g.stride)
            };
            let far = move |tap: usize| {
                (tap, ((first[axis] + g.before[axis]) as isize - tap as isize).div_euclid(g.stride as isize))
            };
            (0..g.kernel[axis]).filter(meets).map(far).collect::<Vec<_>>()
        };
        let (down, across) = (along(0), along(1));
        let taps: Vec<(usize, [isize; 2])> = down
            .iter()
            .flat_map(|&(r, dy)| across.iter().map(move |&(s, dx)| (r * g.kernel[1] + s, [dy, dx])))
            .filter(|(tap, _)| *tap < g.seen)
            .collect();
        let offsets = offsets(grid, g.output, g.outputs, 1, taps.iter().map(|&(_, offset)| offset));
        let indirection = Indirection {
            input: dy,
            image: g.output[0] * g.output[1] * g.outputs,
            channels: g.outputs,
            positions: grid[0] * grid[1],
            taps: taps.len(),
            offsets: &offsets,
            zeros: &zeros,
        };
        let target = Target {
            out: Shared::new(dx.as_mut_ptr()),
            image: g.input[0] * g.input[1] * g.inputs,
            channels: g.inputs,
            grid_width: grid[1],
            width: g.input[1],
            step: g.stride,
            first,
            bias: None,
            accumulate: dx.accumulates(),
        };
        let weight = |i: usize, tap: usize, o: usize| w[(o * g.inputs + i) * g.taps() + taps[tap].0];
        with_weights(kernels, g.inputs, taps.len(), g.outputs, weight, |weights| {
            // SAFETY: the maps have the sizes asserted above, and the grid's pixels lie in the input.
            unsafe { convolve(kernels, g.batch, &indirection, weights, &target) };
        });
    }
    // SAFETY: every pixel belongs to one class of remainders, all of whose pixels were written.
    unsafe { dx.written() }
}
