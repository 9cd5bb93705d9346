//! The largest numbers of overlapping windows of a map.

use crate::cpu::Output;
use std::ops::Range;

/// Windows over a map `[B, H, W, C]`, of which only the pixels inside count.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Windows {
    /// Height and width of the map.
    pub(crate) input: [usize; 2],
    /// Windows down and across.
    pub(crate) output: [usize; 2],
    pub(crate) channels: usize,
    pub(crate) layout: Layout,
}

/// Where windows lie.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Layout {
    /// Squares at equal distances.
    Even {
        /// Pixels of a window's side.
        side: usize,
        /// Pixels between two windows.
        stride: usize,
        /// Pixels by which the first window begins before the map; fewer than a side.
        before: usize,
    },
    /// Equal shares of the map, which share a pixel that two of them touch.
    Shares,
}

impl Windows {
    /// The pixels of window `i` along an axis.
    pub(crate) fn pixels(&self, i: usize, axis: usize) -> Range<usize> {
        let (input, output) = (self.input[axis], self.output[axis]);
        match self.layout {
            Layout::Even { side, stride, before } => {
                (i * stride).saturating_sub(before)..(i * stride + side - before).min(input)
            }
            Layout::Shares => i * input / output..((i + 1) * input).div_ceil(output),
        }
    }

    /// Elements of an image of the map, and of its windows.
    pub(crate) fn images(&self) -> [usize; 2] {
        [self.input, self.output].map(|[height, width]| height * width * self.channels)
    }

    /// The channels of every pixel of the window at `row` and `column` of an image, pixels in reading order.
    fn cells<'a>(&self, image: &'a [f32], row: usize, column: usize) -> impl Iterator<Item = (usize, &'a [f32])> {
        let (channels, width, across) = (self.channels, self.input[1], self.pixels(column, 1));
        let places = self.pixels(row, 0).flat_map(move |y| across.clone().map(move |x| (y * width + x) * channels));
        places.map(move |place| (place, &image[place..][..channels]))
    }

    /// The largest number of each window and channel of `x`; NaN where there is one.
    pub(crate) fn largest<'a>(&self, x: &[f32], out: Output<'a>) -> &'a mut [f32] {
        let (image, line) = (self.images()[0], self.output[1] * self.channels);
        out.par_chunks(line.max(1), |row, out| {
            let out = out.zeros();
            let (image, row) = (&x[row / self.output[0] * image..][..image], row % self.output[0]);
            for (column, largest) in out.chunks_exact_mut(self.channels).enumerate() {
                largest.fill(f32::NEG_INFINITY);
                for (_, cell) in self.cells(image, row, column) {
                    for (largest, &value) in largest.iter_mut().zip(cell) {
                        *largest = if value > *largest || value.is_nan() { value } else { *largest };
                    }
                }
            }
            out
        })
    }

    /// Adds `grad`, of the windows' largest numbers, to where the first of them lie in `x`.
    pub(crate) fn spread<'a>(&self, x: &[f32], grad: &[f32], out: Output<'a>) -> &'a mut [f32] {
        let [image, windows] = self.images();
        out.par_chunks(image.max(1), |i, out| {
            let out = out.zeros();
            let (x, grad) = (&x[i * image..][..image], &grad[i * windows..][..windows]);
            let mut first = vec![(f32::NEG_INFINITY, 0); self.channels];
            for (window, grad) in grad.chunks_exact(self.channels).enumerate() {
                first.fill((f32::NEG_INFINITY, usize::MAX));
                for (place, cell) in self.cells(x, window / self.output[1], window % self.output[1]) {
                    for (channel, (first, &value)) in first.iter_mut().zip(cell).enumerate() {
                        if value > first.0 || value.is_nan() || first.1 == usize::MAX {
                            *first = (value, place + channel);
                        }
                    }
                }
                first.iter().zip(grad).for_each(|((_, place), grad)| out[*place] += grad);
            }
            out
        })
    }
}
