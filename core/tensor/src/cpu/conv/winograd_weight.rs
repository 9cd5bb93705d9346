//! The gradient of the weight of a convolution by [`Winograd`]'s products: the sum over tiles of what the input and the
//! gradient of the output become.

#![allow(unsafe_code)]

use crate::cpu::Output;
use crate::cpu::conv::winograd::{Form, LINE, PRODUCTS, Winograd};
use crate::cpu::conv::winograd_transform::{Map, Tile};
use crate::cpu::gemm::kernel::Kernels;
use crate::cpu::gemm::product::Product;
use crate::cpu::gemm::{self, TASK};
use crate::cpu::memory::scratch::scratch;
use rayon::prelude::*;
use std::ptr::{null, null_mut};

impl Winograd {
    /// The gradient of the weight and, into `db`, that of the bias. The sum over tiles is cut into as many pieces as there
    /// are threads.
    pub(crate) fn backward_weight<'a>(
        &self,
        x: &[f32],
        dy: &[f32],
        dw: Output<'a>,
        db: Option<&mut [f32]>,
    ) -> &'a mut [f32] {
        let (inputs, outputs, products) = (self.inputs, self.outputs, self.products());
        let size = inputs * outputs;
        let [of_x, of_dy] = self.pixels();
        assert!(x.len() == self.batch * of_x.image() && dy.len() == self.batch * of_dy.image());
        assert!(dw.len() == 9 * size && db.as_ref().is_none_or(|db| db.len() == outputs));
        let map = match self.form {
            Form::Two => Map::WeightGradient,
            Form::Four => Map::WeightGradient4,
            Form::Doubled => Map::UpWeightGradient,
        };
        let [grid_h, grid_w] = self.form.grid(self.output);
        let total = self.batch * grid_h * grid_w;
        let pieces = (total * products * size / TASK).clamp(1, rayon::current_num_threads());
        let len = products * size + outputs;
        scratch(pieces * len, |parts| {
            let each: Vec<(usize, &mut [f32])> = parts.chunks_exact_mut(len).enumerate().collect();
            let sum = |(i, part): (usize, &mut [f32])| {
                self.weight_sums(x, dy, i * total / pieces..(i + 1) * total / pieces, part);
            };
            if pieces == 1 {
                each.into_iter().for_each(sum)
            } else {
                each.into_par_iter().with_max_len(1).for_each(sum)
            }
            let parts = &*parts;
            if let Some(db) = db {
                db.fill(0.0);
                parts.chunks_exact(len).for_each(|part| gemm::add_rows(&part[products * size..], db));
            }
            let transform = map.kernel();
            dw.each_chunk(inputs * 9, TASK / 32, |o, dw| {
                scratch(9 * inputs, |taps| {
                    let mut to = [null_mut(); 9];
                    to.iter_mut().zip(taps.chunks_exact_mut(inputs)).for_each(|(to, tap)| *to = tap.as_mut_ptr());
                    // Adding the pieces in order.
                    for (i, part) in parts.chunks_exact(len).enumerate() {
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
                    dw.chunks(9, |i, dw| dw.by_index(|tap| taps[tap * inputs + i]))
                })
            })
        })
    }

    /// For each product `sums [O, I]` over a range of tiles; behind them the sums of the gradient over its pixels.
    fn weight_sums(&self, x: &[f32], dy: &[f32], range: std::ops::Range<usize>, sums: &mut [f32]) {
        if range.is_empty() {
            return sums.fill(0.0);
        }
        let kernels = Kernels::best();
        let (inputs, outputs, products) = (self.inputs, self.outputs, self.products());
        let (sums, bias_sums) = sums.split_at_mut(products * inputs * outputs);
        bias_sums.fill(0.0);
        let width = kernels.width;
        let grid = self.form.grid(self.output);
        let positions = grid[0] * grid[1];
        let maps = match self.form {
            Form::Two => [Map::Input, Map::Gradient],
            Form::Four => [Map::Input4, Map::Gradient4],
            Form::Doubled => [Map::UpInput, Map::UpGradient],
        };
        let [of_x, of_dy] = self.pixels();
        let [x_taps, dy_taps] = maps.map(|map| map.sides()[0] * map.sides()[0]);
        let (x_table, dy_table) = (of_x.table(grid, maps[0].sides()[0]), of_dy.table(grid, maps[1].sides()[0]));
        let zeros = vec![0.0; inputs.max(outputs)];
        let x_indirection = of_x.indirection(x, positions, x_taps, &x_table, &zeros);
        let dy_indirection = of_dy.indirection(dy, positions, dy_taps, &dy_table, &zeros);
        let [x_transform, dy_transform] = maps.map(Map::kernel);
        let panels = inputs.div_ceil(width);
        // As many tiles as make what is read and written for them as much as the sums that they are added to.
        let block = (inputs * outputs / (inputs + outputs)).clamp(32, 128).min(range.len());
        let (x_step, dy_step) = (panels * block * width + LINE, block * outputs + LINE);
        let mut pixels = vec![null(); x_taps.max(dy_taps) * block];
        scratch(products * (x_step + dy_step), |memory| {
            let (right, left) = memory.split_at_mut(products * x_step);
            let (right, left) = (right.as_mut_ptr(), left.as_mut_ptr());
            for from in range.clone().step_by(block) {
                let count = block.min(range.end - from);
                let mut to = [null_mut(); PRODUCTS];
                x_indirection.pointers(from, count, &mut pixels[..x_taps * count]);
                for panel in 0..panels {
                    let first = panel * width;
                    let mut shifted = [null(); PRODUCTS];
                    for t in 0..count {
                        for (tap, shifted) in shifted[..x_taps].iter_mut().enumerate() {
                            *shifted = pixels[tap * count + t].wrapping_add(first);
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
                dy_indirection.pointers(from, count, &mut pixels[..dy_taps * count]);
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
                // The second row of A is ones in every form: one product's rows hold the sums of their tiles.
                let of_tiles = left.wrapping_add((self.form.side() + 1) * dy_step);
                // SAFETY: the transform has written `count` rows there, and nothing writes to them meanwhile.
                gemm::add_rows(unsafe { std::slice::from_raw_parts(of_tiles, count * outputs) }, bias_sums);
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
