//! 3x3 convolutions of stride 1 by Winograd's minimal filtering F(2x2, 3x3) (Lavin and Gray, "Fast algorithms for
//! convolutional neural networks", CVPR 2016): 16 multiplications for 4 pixels instead of 36.
//!
//! A tile of 4x4 input pixels becomes 16 rows of channels, one for each product; the rows of many tiles are the left
//! operands of 16 matrix products; their results become 2x2 output pixels. If the input was doubled first, so that 2x2
//! pixels are equal, 9 of the 16 products are left: the others multiply by zero.

#![allow(unsafe_code)]

use super::conv::{Geometry, OUTSIDE, Walk, offsets};
use super::gemm::{Shared, TASK};
use super::kernel::Kernels;
use super::product::Product;
use super::scratch::scratch;
use super::winograd_transform::{Map, Tile};
use super::{pack, split};
use rayon::prelude::*;
use std::ptr::{null, null_mut};

/// With fewer channels on either side, what a tile costs besides its products is too much.
const CHANNELS: usize = 16;
/// The most products of a tile.
const PRODUCTS: usize = 16;
/// Numbers between rows of two products beyond the rows themselves: a cache line, so that the rows of one place do not
/// all fall into one set of the cache.
const LINE: usize = 16;
/// Numbers of transformed tiles that the gradient of the weight is summed over at a time: half a mebibyte.
const BLOCK: usize = 1 << 17;

/// Whether a convolution goes this way.
pub(super) fn fits(g: &Geometry) -> bool {
    g.kernel == [3, 3] && g.stride == 1 && g.inputs >= CHANNELS && g.outputs >= CHANNELS && g.batch > 0
}

/// A convolution by tiles of 2x2 output pixels, over one input or its doubled form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Winograd {
    batch: usize,
    inputs: usize,
    outputs: usize,
    input: [usize; 2],
    output: [usize; 2],
    before: [isize; 2],
    /// Every input pixel stands for a cell of 2x2.
    doubled: bool,
}

impl Winograd {
    pub(super) fn new(g: &Geometry) -> Self {
        Self {
            batch: g.batch,
            inputs: g.inputs,
            outputs: g.outputs,
            input: g.input,
            output: g.output,
            before: g.before.map(|before| before as isize),
            doubled: false,
        }
    }

    /// Whether a convolution of doubled maps goes this way.
    pub(crate) fn fits_doubled(inputs: usize, outputs: usize) -> bool {
        inputs >= CHANNELS && outputs >= CHANNELS
    }

    /// Of maps `[batch, height, width, inputs]` that are doubled first and get one row of zeros on every side.
    pub(crate) fn doubled(batch: usize, [height, width]: [usize; 2], inputs: usize, outputs: usize) -> Self {
        let output = [2 * height, 2 * width];
        Self { batch, inputs, outputs, input: [height, width], output, before: [1, 1], doubled: true }
    }

    /// Shape of the output.
    pub(crate) fn shape(&self) -> [usize; 4] {
        [self.batch, self.output[0], self.output[1], self.outputs]
    }

    /// Products of a tile along one axis.
    fn side(&self) -> usize {
        if self.doubled { 3 } else { 4 }
    }

    fn products(&self) -> usize {
        self.side() * self.side()
    }

    fn tiles(&self) -> [usize; 2] {
        self.output.map(|size| size.div_ceil(2))
    }

    /// `y (+)= x * w + bias`.
    pub(crate) fn forward(&self, x: &[f32], w: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
        let maps = if self.doubled { [Map::UpInput, Map::UpOutput] } else { [Map::Input, Map::Output] };
        let (step, before) = if self.doubled { (1, [1, 1]) } else { (2, self.before) };
        let from = Pixels { size: self.input, channels: self.inputs, step, before };
        let to = Pixels { size: self.output, channels: self.outputs, step: 2, before: [0, 0] };
        self.with_weights(w, false, |weights| self.convolve(maps, x, from, weights, bias, y, to, false));
    }

    /// The gradient of the input: a convolution of the output's with the weight turned by half a circle.
    pub(crate) fn backward_data(&self, dy: &[f32], w: &[f32], dx: &mut [f32], accumulate: bool) {
        let (maps, to_step) =
            if self.doubled { ([Map::UpBackInput, Map::UpBackOutput], 1) } else { ([Map::Input, Map::Output], 2) };
        let before = self.before.map(|before| 2 - before);
        let from = Pixels { size: self.output, channels: self.outputs, step: 2, before };
        let to = Pixels { size: self.input, channels: self.inputs, step: to_step, before: [0, 0] };
        self.with_weights(w, true, |weights| self.convolve(maps, dy, from, weights, None, dx, to, accumulate));
    }

    /// Transforms the tiles of `x`, multiplies them with `weights` and transforms the results into `y`.
    fn convolve(
        &self,
        [before, after]: [Map; 2],
        x: &[f32],
        from: Pixels,
        weights: &[f32],
        bias: Option<&[f32]>,
        y: &mut [f32],
        to: Pixels,
        accumulate: bool,
    ) {
        let kernels = Kernels::best();
        let (k, n, products) = (from.channels, to.channels, self.products());
        let grid = to.size.map(|size| size.div_ceil(to.step));
        let positions = grid[0] * grid[1];
        let [places, out_places] = [before.sides()[0], after.sides()[1]].map(|side| side * side);
        let (reads, writes) = (from.table(grid, before.sides()[0]), to.table(grid, after.sides()[1]));
        let zeros = vec![0.0; k];
        let walk = from.walk(x, positions, places, &reads, &zeros);
        let image = to.image();
        let out = Shared::new(y);
        let total = self.batch * positions;
        let per_piece = (TASK / (products * k * n)).div_ceil(kernels.rows).clamp(2, 8) * kernels.rows;
        let panel = k * n.next_multiple_of(kernels.width);
        let (transform, back) = (before.kernel(), after.kernel());
        split::each(total.div_ceil(per_piece), |piece| {
            let first = piece * per_piece;
            let count = per_piece.min(total - first);
            let (left_step, out_step) = (count * k + LINE, count * n + LINE);
            let mut pixels = vec![null(); places * count];
            walk.rows(first, count, &mut pixels);
            scratch(products * (left_step + out_step), |memory| {
                let (left, sums) = memory.split_at_mut(products * left_step);
                let left_at = left.as_mut_ptr();
                for t in 0..count {
                    let mut to = [null_mut(); PRODUCTS];
                    for (p, to) in to[..products].iter_mut().enumerate() {
                        *to = left_at.wrapping_add(p * left_step + t * k);
                    }
                    let tile = Tile {
                        from: pixels[t..].as_ptr(),
                        step: count,
                        to: to.as_ptr(),
                        channels: k,
                        bias: null(),
                        accumulate: false,
                    };
                    // SAFETY: pixels have k channels, and so has a row of `left`.
                    unsafe { transform(&tile) };
                }
                for p in 0..products {
                    let product = Product {
                        m: count,
                        n,
                        k,
                        left: left[p * left_step..].as_ptr(),
                        left_stride: k,
                        by_columns: false,
                        panels: weights[p * panel..].as_ptr(),
                        panel_stride: k * kernels.width,
                        bias: null(),
                        out: sums[p * out_step..].as_mut_ptr(),
                        out_stride: n,
                        accumulate: false,
                    };
                    // SAFETY: the operands have these sizes, and `sums` is this piece's own.
                    unsafe { product.run(kernels) };
                }
                for t in 0..count {
                    let mut rows = [null(); PRODUCTS];
                    for (p, row) in rows[..products].iter_mut().enumerate() {
                        *row = sums[p * out_step + t * n..].as_ptr();
                    }
                    let (image_at, position) = ((first + t) / positions * image, (first + t) % positions);
                    let mut to = [null_mut(); 4];
                    for (to, offsets) in to[..out_places].iter_mut().zip(writes.chunks_exact(positions)) {
                        if offsets[position] != OUTSIDE {
                            *to = out.get().wrapping_add(image_at + offsets[position] as usize);
                        }
                    }
                    let tile = Tile {
                        from: rows.as_ptr(),
                        step: 1,
                        to: to.as_ptr(),
                        channels: n,
                        bias: bias.map_or(null(), <[f32]>::as_ptr),
                        accumulate,
                    };
                    // SAFETY: rows and pixels have n channels, and a pixel of the output belongs to one tile.
                    unsafe { back(&tile) };
                }
            });
        });
    }

    /// The transformed weights as panels of each product: of `[I, O]`, or turned by half a circle, of `[O, I]`.
    fn with_weights(&self, w: &[f32], turned: bool, f: impl FnOnce(&[f32])) {
        let width = Kernels::best().width;
        let (inputs, outputs, side) = (self.inputs, self.outputs, self.side());
        let (products, size) = (self.products(), inputs * outputs);
        let (k, n) = if turned { (outputs, inputs) } else { (inputs, outputs) };
        let transform = if self.doubled { Map::UpWeight } else { Map::Weight }.kernel();
        scratch(products * size, |plain| {
            let to = Shared::new(plain);
            let rows = (TASK / 32 / (products * inputs)).max(1);
            split::each(outputs.div_ceil(rows), |piece| {
                scratch(9 * inputs, |taps| {
                    for o in piece * rows..((piece + 1) * rows).min(outputs) {
                        let (of_output, _) = w[o * inputs * 9..(o + 1) * inputs * 9].as_chunks::<9>();
                        for (i, of_input) in of_output.iter().enumerate() {
                            for (tap, x) in of_input.iter().enumerate() {
                                taps[tap * inputs + i] = *x;
                            }
                        }
                        let mut from = [null(); 9];
                        from.iter_mut().zip(taps.chunks_exact(inputs)).for_each(|(to, tap)| *to = tap.as_ptr());
                        let mut rows = [null_mut(); PRODUCTS];
                        for (p, row) in rows[..products].iter_mut().enumerate() {
                            *row = to.get().wrapping_add(p * size + o * inputs);
                        }
                        let tile = Tile {
                            from: from.as_ptr(),
                            step: 1,
                            to: rows.as_ptr(),
                            channels: inputs,
                            bias: null(),
                            accumulate: false,
                        };
                        // SAFETY: nine rows of taps, and a row of each product that is this output's own.
                        unsafe { transform(&tile) };
                    }
                });
            });
            let plain = &*plain;
            let panels = n.div_ceil(width);
            scratch(products * panels * k * width, |packed| {
                split::each_chunk(packed, k * width, TASK / 16, |(at, panel)| {
                    let (p, first) = (at / panels, at % panels * width);
                    let columns = (n - first).min(width);
                    if turned {
                        // Turning exchanges the first product along an axis with the last.
                        let turn = |i: usize| match i {
                            0 => side - 1,
                            i if i == side - 1 => 0,
                            i => i,
                        };
                        let product = &plain[(turn(p / side) * side + turn(p % side)) * size..][..size];
                        pack::rows(product, n, first, columns, k, width, panel);
                    } else {
                        pack::transposed(&plain[p * size + first * k..(p + 1) * size], k, columns, k, width, panel);
                    }
                });
                f(packed);
            });
        });
    }

    /// The gradient of the weight. The sum over tiles is cut into as many pieces as there are threads.
    pub(crate) fn backward_weight(&self, x: &[f32], dy: &[f32], dw: &mut [f32], accumulate: bool) {
        let (inputs, outputs, products) = (self.inputs, self.outputs, self.products());
        let size = inputs * outputs;
        let map = if self.doubled { Map::UpWeightGradient } else { Map::WeightGradient };
        let [grid_h, grid_w] = self.tiles();
        let total = self.batch * grid_h * grid_w;
        let pieces = (total * products * size / TASK).clamp(1, rayon::current_num_threads());
        scratch(pieces * products * size, |parts| {
            let each: Vec<(usize, &mut [f32])> = parts.chunks_exact_mut(products * size).enumerate().collect();
            let sum = |(i, part): (usize, &mut [f32])| {
                self.weight_sums(x, dy, i * total / pieces..(i + 1) * total / pieces, part);
            };
            if pieces == 1 {
                each.into_iter().for_each(sum)
            } else {
                each.into_par_iter().with_max_len(1).for_each(sum)
            }
            let parts = &*parts;
            let transform = map.kernel();
            split::each_chunk(dw, inputs * 9, TASK / 32, |(o, dw)| {
                scratch(9 * inputs, |taps| {
                    let mut to = [null_mut(); 9];
                    to.iter_mut().zip(taps.chunks_exact_mut(inputs)).for_each(|(to, tap)| *to = tap.as_mut_ptr());
                    // Adding the pieces in order.
                    for (i, part) in parts.chunks_exact(products * size).enumerate() {
                        let mut rows = [null(); PRODUCTS];
                        for (p, row) in rows[..products].iter_mut().enumerate() {
                            *row = part[p * size + o * inputs..].as_ptr();
                        }
                        let tile = Tile {
                            from: rows.as_ptr(),
                            step: 1,
                            to: to.as_ptr(),
                            channels: inputs,
                            bias: null(),
                            accumulate: i > 0,
                        };
                        // SAFETY: a row of each product, and nine rows of taps.
                        unsafe { transform(&tile) };
                    }
                    let (of_output, _) = dw.as_chunks_mut::<9>();
                    for (i, of_input) in of_output.iter_mut().enumerate() {
                        for (tap, dw) in of_input.iter_mut().enumerate() {
                            let sum = taps[tap * inputs + i];
                            *dw = if accumulate { *dw + sum } else { sum };
                        }
                    }
                });
            });
        });
    }

    /// For each product `sums [O, I]` over a range of tiles.
    fn weight_sums(&self, x: &[f32], dy: &[f32], range: std::ops::Range<usize>, sums: &mut [f32]) {
        if range.is_empty() {
            return sums.fill(0.0);
        }
        let kernels = Kernels::best();
        let (inputs, outputs, products) = (self.inputs, self.outputs, self.products());
        let width = kernels.width;
        let grid = self.tiles();
        let positions = grid[0] * grid[1];
        let maps = if self.doubled { [Map::UpInput, Map::UpGradient] } else { [Map::Input, Map::Gradient] };
        let (step, before) = if self.doubled { (1, [1, 1]) } else { (2, self.before) };
        let of_x = Pixels { size: self.input, channels: inputs, step, before };
        let of_dy = Pixels { size: self.output, channels: outputs, step: 2, before: [0, 0] };
        let [x_places, dy_places] = maps.map(|map| map.sides()[0] * map.sides()[0]);
        let (x_table, dy_table) = (of_x.table(grid, maps[0].sides()[0]), of_dy.table(grid, maps[1].sides()[0]));
        let zeros = vec![0.0; inputs.max(outputs)];
        let x_walk = of_x.walk(x, positions, x_places, &x_table, &zeros);
        let dy_walk = of_dy.walk(dy, positions, dy_places, &dy_table, &zeros);
        let [x_transform, dy_transform] = maps.map(Map::kernel);
        let panels = inputs.div_ceil(width);
        let block = (BLOCK / (products * (panels * width + outputs))).clamp(16, 128).min(range.len());
        let (x_step, dy_step) = (panels * block * width + LINE, block * outputs + LINE);
        let mut pixels = vec![null(); x_places.max(dy_places) * block];
        scratch(products * (x_step + dy_step), |memory| {
            let (right, left) = memory.split_at_mut(products * x_step);
            let (right, left) = (right.as_mut_ptr(), left.as_mut_ptr());
            for from in range.clone().step_by(block) {
                let count = block.min(range.end - from);
                let mut to = [null_mut(); PRODUCTS];
                x_walk.rows(from, count, &mut pixels[..x_places * count]);
                for panel in 0..panels {
                    let first = panel * width;
                    let mut shifted = [null(); PRODUCTS];
                    for t in 0..count {
                        for (place, shifted) in shifted[..x_places].iter_mut().enumerate() {
                            *shifted = pixels[place * count + t].wrapping_add(first);
                        }
                        for (p, to) in to[..products].iter_mut().enumerate() {
                            *to = right.wrapping_add(p * x_step + (panel * block + t) * width);
                        }
                        let tile = Tile {
                            from: shifted.as_ptr(),
                            step: 1,
                            to: to.as_ptr(),
                            channels: (inputs - first).min(width),
                            bias: null(),
                            accumulate: false,
                        };
                        // SAFETY: a pixel has these channels from `first` on, and a row of a panel is as wide.
                        unsafe { x_transform(&tile) };
                    }
                }
                dy_walk.rows(from, count, &mut pixels[..dy_places * count]);
                for t in 0..count {
                    for (p, to) in to[..products].iter_mut().enumerate() {
                        *to = left.wrapping_add(p * dy_step + t * outputs);
                    }
                    let tile = Tile {
                        from: pixels[t..].as_ptr(),
                        step: count,
                        to: to.as_ptr(),
                        channels: outputs,
                        bias: null(),
                        accumulate: false,
                    };
                    // SAFETY: pixels and rows of `left` have as many numbers as there are outputs.
                    unsafe { dy_transform(&tile) };
                }
                for (p, sums) in sums.chunks_exact_mut(inputs * outputs).enumerate() {
                    let product = Product {
                        m: outputs,
                        n: inputs,
                        k: count,
                        left: left.wrapping_add(p * dy_step),
                        left_stride: outputs,
                        by_columns: true,
                        panels: right.wrapping_add(p * x_step),
                        panel_stride: block * width,
                        bias: null(),
                        out: sums.as_mut_ptr(),
                        out_stride: inputs,
                        accumulate: from > range.start,
                    };
                    // SAFETY: both operands hold `count` rows.
                    unsafe { product.run(kernels) };
                }
            }
        });
    }
}

/// How tiles lie on a map: the tile of position (i, j) begins at pixel (i * step - before, j * step - before).
#[derive(Debug, Clone, Copy)]
struct Pixels {
    size: [usize; 2],
    channels: usize,
    step: usize,
    before: [isize; 2],
}

impl Pixels {
    fn image(&self) -> usize {
        self.size[0] * self.size[1] * self.channels
    }

    /// The offsets of tiles of `side x side` pixels at the positions of a grid.
    fn table(&self, grid: [usize; 2], side: usize) -> Vec<i32> {
        let place = |at: usize| [(at / side) as isize - self.before[0], (at % side) as isize - self.before[1]];
        offsets(grid, self.size, self.channels, self.step, (0..side * side).map(place))
    }

    fn walk<'a>(
        &self,
        input: &'a [f32],
        positions: usize,
        places: usize,
        offsets: &'a [i32],
        zeros: &'a [f32],
    ) -> Walk<'a> {
        Walk { input, image: self.image(), channels: self.channels, positions, taps: places, offsets, zeros }
    }
}
