//! Copies and sums between a map and its cells of `factor` x `factor` pixels.

#![allow(unsafe_code)]

use crate::cpu::Output;

/// The cells of a map `[B, H, W, C]`, seen as a smaller map of one pixel per cell. Rows and columns that fill no whole
/// cell belong to none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cells {
    /// Height and width of the map, in pixels.
    pub(crate) size: [usize; 2],
    pub(crate) channels: usize,
    /// Pixels of a cell's side.
    pub(crate) factor: usize,
    /// What numbers are multiplied by on the way.
    pub(crate) scale: f32,
}

impl Cells {
    /// Height and width of the smaller map.
    pub(crate) fn count(&self) -> [usize; 2] {
        self.size.map(|size| size / self.factor)
    }

    /// Elements of an image of the map, and of the smaller one.
    pub(crate) fn images(&self) -> [usize; 2] {
        [self.size, self.count()].map(|[height, width]| height * width * self.channels)
    }

    /// Asserts that the maps have these lengths for the same number of images, and gives the lengths of a row of each.
    fn rows(&self, large: usize, small: usize) -> [usize; 2] {
        let [image, cells] = self.images();
        let images = large.checked_div(image).unwrap_or(0);
        assert!(large == images * image && small == images * cells, "{large} and {small} elements are not of {self:?}");
        [self.size, self.count()].map(|[_, width]| width * self.channels)
    }

    /// Spreads every pixel of `small`, times the scale, over its cell; what belongs to no cell is 0.
    pub(crate) fn repeat<'a>(&self, small: &[f32], large: Output<'a>) -> &'a mut [f32] {
        let [large_row, small_row] = self.rows(large.len(), small.len());
        let (height, rows, channels) = (self.size[0], self.count()[0], self.channels);
        let inside = small_row * self.factor;
        large.par_chunks(large_row.max(1), |line, mut out| {
            let (image, row) = (line / height, line % height / self.factor);
            if row >= rows {
                return out.zeros();
            }
            let pixels = &small[(image * rows + row) * small_row..][..small_row];
            out.part(0..inside).chunks(channels * self.factor, |i, cell| {
                let pixel = &pixels[i * channels..][..channels];
                cell.chunks(channels, |_, out| out.map(pixel, |x| self.scale * x))
            });
            out.part(inside..large_row).zeros();
            // SAFETY: these are both parts.
            unsafe { out.written() }
        })
    }

    /// Sums every cell of `large`, times the scale, into its pixel.
    pub(crate) fn sum<'a>(&self, large: &[f32], small: Output<'a>) -> &'a mut [f32] {
        let [large_row, small_row] = self.rows(large.len(), small.len());
        let (height, rows, channels) = (self.size[0], self.count()[0], self.channels);
        small.par_chunks(small_row.max(1), |line, pixels| {
            let pixels = pixels.zeros();
            let first = (line / rows * height + line % rows * self.factor) * large_row;
            for line in large[first..][..self.factor * large_row].chunks_exact(large_row) {
                for (pixel, cell) in pixels.chunks_exact_mut(channels).zip(line.chunks_exact(channels * self.factor)) {
                    for part in cell.chunks_exact(channels) {
                        pixel.iter_mut().zip(part).for_each(|(o, p)| *o += self.scale * p);
                    }
                }
            }
            pixels
        })
    }
}
