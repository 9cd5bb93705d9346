//! 3x3 convolutions of stride 1 by Winograd's minimal filtering (Lavin and Gray, "Fast algorithms for convolutional neural
//! networks", CVPR 2016): F(4x4, 3x3) takes 36 multiplications for 16 pixels and F(2x2, 3x3) 16 for 4, where the
//! definition takes 144 and 36.
//!
//! A tile of input pixels becomes as many rows of channels as there are products; the rows of many tiles are the left
//! operands of one matrix product each; the results become output pixels. If the input was doubled first, so that 2x2
//! pixels are equal, 9 of the 16 products of F(2x2, 3x3) are left: the others multiply by zero.

#![allow(unsafe_code)]

use crate::cpu::Output;
use crate::cpu::conv::winograd_transform::{Map, Tile};
use crate::cpu::conv::{Geometry, Indirection, OUTSIDE, offsets};
use crate::cpu::gemm::kernel::Kernels;
use crate::cpu::gemm::pack;
use crate::cpu::gemm::product::Product;
use crate::cpu::gemm::{Shared, TASK};
use crate::cpu::memory::scratch::scratch;
use crate::cpu::threads::split;
use std::ptr::{null, null_mut};

/// With fewer channels on either side, what a tile costs besides its products is too much.
const CHANNELS: usize = 16;
/// The most products of a tile.
pub(crate) const PRODUCTS: usize = 36;
/// Numbers between rows of two products beyond the rows themselves: a cache line, so that the rows of one tile do not
/// all fall into one set of the cache.
pub(crate) const LINE: usize = 16;

/// Whether a convolution goes this way.
pub(crate) fn fits(g: &Geometry) -> bool {
    g.kernel == [3, 3] && g.seen == 9 && g.stride == 1 && g.inputs >= CHANNELS && g.outputs >= CHANNELS && g.batch > 0
}

/// A convolution by tiles of output pixels, over one input or its doubled form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Winograd {
    pub(crate) batch: usize,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    input: [usize; 2],
    pub(crate) output: [usize; 2],
    before: [isize; 2],
    pub(crate) form: Form,
}

/// The tiles of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Tiles of 2x2 pixels: F(2x2, 3x3).
    Two,
    /// Tiles of 4x4 pixels: F(4x4, 3x3).
    Four,
    /// Tiles of 2x2 pixels of an input in which every pixel stands for a cell of 2x2.
    Doubled,
}

impl Winograd {
    pub(crate) fn new(g: &Geometry) -> Self {
        Self {
            batch: g.batch,
            inputs: g.inputs,
            outputs: g.outputs,
            input: g.input,
            output: g.output,
            before: g.before.map(|before| before as isize),
            form: Form::best(g),
        }
    }

    /// Whether a convolution of doubled maps goes this way.
    pub(crate) fn fits_doubled(inputs: usize, outputs: usize) -> bool {
        inputs >= CHANNELS && outputs >= CHANNELS
    }

    /// Of maps `[batch, height, width, inputs]` that are doubled first and get one row of zeros on every side.
    pub(crate) fn doubled(batch: usize, [height, width]: [usize; 2], inputs: usize, outputs: usize) -> Self {
        let output = [2 * height, 2 * width];
        Self { batch, inputs, outputs, input: [height, width], output, before: [1, 1], form: Form::Doubled }
    }

    /// Shape of the output.
    pub(crate) fn shape(&self) -> [usize; 4] {
        [self.batch, self.output[0], self.output[1], self.outputs]
    }

    pub(crate) fn products(&self) -> usize {
        self.form.products()
    }

    /// How tiles lie on the input, and on the output.
    pub(crate) fn pixels(&self) -> [Pixels; 2] {
        let tile = self.form.tile();
        let (step, before) = if self.form == Form::Doubled { (1, [1, 1]) } else { (tile, self.before) };
        [
            Pixels { size: self.input, channels: self.inputs, step, before },
            Pixels { size: self.output, channels: self.outputs, step: tile, before: [0, 0] },
        ]
    }

    /// `y (+)= x * w + bias`.
    pub(crate) fn forward<'a>(&self, x: &[f32], w: &[f32], bias: Option<&[f32]>, y: Output<'a>) -> &'a mut [f32] {
        assert!(bias.is_none_or(|bias| bias.len() == self.outputs));
        let maps = match self.form {
            Form::Two => [Map::Input, Map::Output],
            Form::Four => [Map::Input4, Map::Output4],
            Form::Doubled => [Map::UpInput, Map::UpOutput],
        };
        let [from, to] = self.pixels();
        self.with_weights(w, false, |weights| self.convolve(maps, x, from, weights, bias, y, to))
    }

    /// The gradient of the input: a convolution of the output's with the weight rotated by 180 degrees.
    pub(crate) fn backward_data<'a>(&self, dy: &[f32], w: &[f32], dx: Output<'a>) -> &'a mut [f32] {
        let (maps, step) = match self.form {
            Form::Two => ([Map::Input, Map::Output], 2),
            Form::Four => ([Map::Input4, Map::Output4], 4),
            Form::Doubled => ([Map::UpBackInput, Map::UpBackOutput], 1),
        };
        let before = self.before.map(|before| 2 - before);
        let from = Pixels { size: self.output, channels: self.outputs, step: self.form.tile(), before };
        let to = Pixels { size: self.input, channels: self.inputs, step, before: [0, 0] };
        self.with_weights(w, true, |weights| self.convolve(maps, dy, from, weights, None, dx, to))
    }

    /// Transforms the tiles of `x`, multiplies them with `weights` and transforms the results into `y`.
    fn convolve<'a>(
        &self,
        [before, after]: [Map; 2],
        x: &[f32],
        from: Pixels,
        weights: &[f32],
        bias: Option<&[f32]>,
        mut y: Output<'a>,
        to: Pixels,
    ) -> &'a mut [f32] {
        assert!(x.len() == self.batch * from.image() && y.len() == self.batch * to.image());
        let (kernels, accumulate) = (Kernels::best(), y.accumulates());
        let (k, n, products) = (from.channels, to.channels, self.products());
        let grid = to.size.map(|size| size.div_ceil(to.step));
        let positions = grid[0] * grid[1];
        let [taps, out_pixels] = [before.sides()[0], after.sides()[1]].map(|side| side * side);
        let (reads, writes) = (from.table(grid, before.sides()[0]), to.table(grid, after.sides()[1]));
        let zeros = vec![0.0; k];
        let indirection = from.indirection(x, positions, taps, &reads, &zeros);
        let image = to.image();
        let out = Shared::new(y.as_mut_ptr());
        let total = self.batch * positions;
        let per_piece = (TASK / (products * k * n)).div_ceil(kernels.rows).clamp(2, 8) * kernels.rows;
        let panel = k * n.next_multiple_of(kernels.width);
        let (transform, back) = (before.kernel(), after.kernel());
        split::each(total.div_ceil(per_piece), |piece| {
            let first = piece * per_piece;
            let count = per_piece.min(total - first);
            let (left_step, out_step) = (count * k + LINE, count * n + LINE);
            let mut pixels = vec![null(); taps * count];
            indirection.pointers(first, count, &mut pixels);
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
                    let mut to = [null_mut(); 16];
                    for (to, offsets) in to[..out_pixels].iter_mut().zip(writes.chunks_exact(positions)) {
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
        // SAFETY: the tiles cover all pixels.
        unsafe { y.written() }
    }

    /// The transformed weights as panels of each product: of `[I, O]`, or rotated by 180 degrees, of `[O, I]`.
    fn with_weights<R>(&self, w: &[f32], rotated: bool, f: impl FnOnce(&[f32]) -> R) -> R {
        assert_eq!(w.len(), self.outputs * self.inputs * 9);
        let width = Kernels::best().width;
        let (inputs, outputs) = (self.inputs, self.outputs);
        let (products, size) = (self.products(), inputs * outputs);
        let (k, n) = if rotated { (outputs, inputs) } else { (inputs, outputs) };
        let transform = match self.form {
            Form::Two => Map::Weight,
            Form::Four => Map::Weight4,
            Form::Doubled => Map::UpWeight,
        }
        .kernel();
        scratch(products * size, |plain| {
            let to = Shared::new(plain.as_mut_ptr());
            let rows = (TASK / 32 / (products * inputs)).max(1);
            split::each(outputs.div_ceil(rows), |piece| {
                scratch(9 * inputs, |taps| {
                    for o in piece * rows..((piece + 1) * rows).min(outputs) {
                        let (of_output, _) = w[o * inputs * 9..(o + 1) * inputs * 9].as_chunks::<9>();
                        for (i, of_input) in of_output.iter().enumerate() {
                            for (tap, x) in of_input.iter().enumerate() {
                                taps[if rotated { 8 - tap } else { tap } * inputs + i] = *x;
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
                    if rotated {
                        pack::rows(&plain[p * size..(p + 1) * size], n, first, columns, k, width, panel);
                    } else {
                        pack::transposed(&plain[p * size + first * k..(p + 1) * size], k, columns, k, width, panel);
                    }
                });
                f(packed)
            })
        })
    }
}

impl Form {
    /// The one with the fewest products.
    fn best(g: &Geometry) -> Self {
        let products = |form: Self| form.grid(g.output).iter().product::<usize>() * form.products();
        if products(Self::Four) < products(Self::Two) { Self::Four } else { Self::Two }
    }

    /// Pixels of an output tile along one axis.
    fn tile(self) -> usize {
        if self == Self::Four { 4 } else { 2 }
    }

    /// Products of a tile along one axis.
    pub(crate) fn side(self) -> usize {
        match self {
            Self::Two => 4,
            Self::Four => 6,
            Self::Doubled => 3,
        }
    }

    fn products(self) -> usize {
        self.side() * self.side()
    }

    /// Tiles of an output.
    pub(crate) fn grid(self, output: [usize; 2]) -> [usize; 2] {
        output.map(|size| size.div_ceil(self.tile()))
    }
}

/// How tiles lie on a map: the tile of position (i, j) begins at pixel (i * step - before, j * step - before).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pixels {
    size: [usize; 2],
    channels: usize,
    step: usize,
    before: [isize; 2],
}

impl Pixels {
    pub(crate) fn image(&self) -> usize {
        self.size[0] * self.size[1] * self.channels
    }

    /// The offsets of tiles of `side x side` pixels at the positions of a grid.
    pub(crate) fn table(&self, grid: [usize; 2], side: usize) -> Vec<i32> {
        let pixel = |at: usize| [(at / side) as isize - self.before[0], (at % side) as isize - self.before[1]];
        offsets(grid, self.size, self.channels, self.step, (0..side * side).map(pixel))
    }

    pub(crate) fn indirection<'a>(
        &self,
        input: &'a [f32],
        positions: usize,
        taps: usize,
        offsets: &'a [i32],
        zeros: &'a [f32],
    ) -> Indirection<'a> {
        Indirection { input, image: self.image(), channels: self.channels, positions, taps, offsets, zeros }
    }
}
