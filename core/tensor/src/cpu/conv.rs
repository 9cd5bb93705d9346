//! Convolution of maps `[B, H, W, C]` with weights `[O, I, kh, kw]`.

use super::{buffer, gemm};
use rayon::prelude::*;

/// The sizes of a convolution: heights before widths.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Geometry {
    pub(crate) batch: usize,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) input: [usize; 2],
    pub(crate) output: [usize; 2],
    pub(crate) kernel: [usize; 2],
    pub(crate) stride: usize,
    /// Zeros above and to the left.
    pub(crate) before: [usize; 2],
}

impl Geometry {
    /// Calls `f(row of the columns matrix, offset of the pixel in the image, offset in the row)` for every element.
    fn taps(&self, mut f: impl FnMut(usize, Option<usize>, usize)) {
        let [height, width] = self.input;
        for y in 0..self.output[0] {
            for x in 0..self.output[1] {
                for r in 0..self.kernel[0] {
                    for s in 0..self.kernel[1] {
                        let v = (y * self.stride + r).wrapping_sub(self.before[0]);
                        let u = (x * self.stride + s).wrapping_sub(self.before[1]);
                        let pixel = (v < height && u < width).then_some(v * width + u);
                        f(y * self.output[1] + x, pixel, r * self.kernel[1] + s);
                    }
                }
            }
        }
    }

    fn columns(&self, image: &[f32]) -> Vec<f32> {
        let taps = self.kernel[0] * self.kernel[1];
        let mut columns = vec![0.0; self.output[0] * self.output[1] * taps * self.inputs];
        self.taps(|row, pixel, tap| {
            if let Some(pixel) = pixel {
                for i in 0..self.inputs {
                    columns[(row * self.inputs + i) * taps + tap] = image[pixel * self.inputs + i];
                }
            }
        });
        columns
    }
}

/// `y [B, H2, W2, O] = x * w + bias`.
pub(crate) fn forward(g: &Geometry, x: &[f32], w: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    let (image, out) = (g.input[0] * g.input[1] * g.inputs, g.output[0] * g.output[1] * g.outputs);
    if image == 0 || out == 0 {
        return;
    }
    let k = g.inputs * g.kernel[0] * g.kernel[1];
    y.par_chunks_mut(out).zip(x.par_chunks(image)).for_each(|(y, x)| {
        gemm::nt(g.outputs, k, &g.columns(x), w, bias, y, false);
    });
}

/// The gradient of the input from that of the output.
pub(crate) fn backward_data(g: &Geometry, dy: &[f32], w: &[f32], dx: &mut [f32], accumulate: bool) {
    let (image, out) = (g.input[0] * g.input[1] * g.inputs, g.output[0] * g.output[1] * g.outputs);
    if image == 0 || out == 0 {
        return;
    }
    let taps = g.kernel[0] * g.kernel[1];
    let k = g.inputs * taps;
    dx.par_chunks_mut(image).zip(dy.par_chunks(out)).for_each(|(dx, dy)| {
        let mut columns = buffer(g.output[0] * g.output[1] * k);
        gemm::nn(k, g.outputs, dy, w, &mut columns, false);
        if !accumulate {
            dx.fill(0.0);
        }
        g.taps(|row, pixel, tap| {
            if let Some(pixel) = pixel {
                for i in 0..g.inputs {
                    dx[pixel * g.inputs + i] += columns[(row * g.inputs + i) * taps + tap];
                }
            }
        });
    });
}

/// The gradient of the weight from that of the output.
pub(crate) fn backward_weight(g: &Geometry, x: &[f32], dy: &[f32], dw: &mut [f32], accumulate: bool) {
    let (image, out) = (g.input[0] * g.input[1] * g.inputs, g.output[0] * g.output[1] * g.outputs);
    if image == 0 || out == 0 {
        return;
    }
    let k = g.inputs * g.kernel[0] * g.kernel[1];
    for (i, (x, dy)) in x.chunks(image).zip(dy.chunks(out)).enumerate() {
        gemm::tn(g.outputs, k, g.output[0] * g.output[1], dy, &g.columns(x), dw, accumulate || i > 0);
    }
}
