//! Convolutions, as products without a matrix of patches.

use crate::cpu::conv::Geometry;
use crate::cpu::loops::elementwise::Broadcast;
use crate::cuda::device::kernels::{block_grid, check, elements, invalid};
use crate::cuda::device::operands::{on_gpu, output, tracked};
use crate::cuda::{Gpu, Numbers, length};
use crate::tape::record_on_gpu;
use crate::{Result, Tensor};
use cudarc::driver::{DeviceRepr, LaunchAsync};
use dfdx::prelude::CudaError;

/// The kernels of `conv.cu`, which multiply the tiles of `conv_tiles.cu`.
pub(crate) const KERNELS: &[&str] = &[
    "conv_128x64",
    "conv_64x64",
    "conv_128x32",
    "conv_64x32",
    "conv_single_64x64",
    "conv_single_64x32",
    "conv_weight_128x64",
    "conv_weight_128x32",
    "conv_weight_single_64x64",
    "conv_weight_single_64x32",
    "conv_pack",
    "conv_join",
    "conv_weight_join",
];

/// What is convolved.
#[derive(Clone, Copy)]
pub(crate) enum Method {
    /// A map.
    Map(Geometry),
    /// A map that is doubled first, with a kernel of 3x3 that keeps the size of the doubled one.
    Doubled { batch: usize, size: [usize; 2], inputs: usize, outputs: usize },
}

/// One axis of a problem: `ConvAxis` in `conv.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Axis {
    read: i32,
    written: i32,
    phases: i32,
    stride: i32,
    first: i32,
    taps: i32,
    scatter: i32,
}

/// `Conv` in `conv.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Problem {
    y: Axis,
    x: Axis,
    slabs: i32,
    slabs_x: i32,
    batch: i32,
    inputs: i32,
    outputs: i32,
    padded: i32,
}

// SAFETY: plain numbers in C's layout, the same as in `conv.cu`.
#[allow(unsafe_code)]
unsafe impl DeviceRepr for Problem {}

fn int(size: usize) -> Result<i32, CudaError> {
    // Kernels add up a few sizes in 32 bits.
    if size < 1 << 30 { Ok(size as i32) } else { Err(invalid()) }
}

/// Blocks that fill a GPU a few times over; half as many large ones fill it, too.
const FILL: usize = 512;

/// Numbers that a step of a block sums over at most, DEPTH in `conv_tiles.cu`, and steps that are worth a block.
const DEPTH: usize = 32;
const STEPS: usize = 4;

/// Positions that a block of the weight's gradient looks up together: LANES in `common.cu`.
const RUN: usize = 256;

impl Method {
    fn batch(&self) -> usize {
        match self {
            Self::Map(g) => g.batch,
            Self::Doubled { batch, .. } => *batch,
        }
    }

    /// Input and output channels.
    fn channels(&self) -> [usize; 2] {
        match self {
            Self::Map(g) => [g.inputs, g.outputs],
            Self::Doubled { inputs, outputs, .. } => [*inputs, *outputs],
        }
    }

    fn kernel(&self) -> [usize; 2] {
        match self {
            Self::Map(g) => g.kernel,
            Self::Doubled { .. } => [3, 3],
        }
    }

    /// Height and width of the input and of the output.
    fn sizes(&self) -> [[usize; 2]; 2] {
        match self {
            Self::Map(g) => [g.input, g.output],
            Self::Doubled { size, .. } => [*size, size.map(|n| 2 * n)],
        }
    }

    fn shape(&self) -> [usize; 4] {
        let [_, [height, width]] = self.sizes();
        [self.batch(), height, width, self.channels()[1]]
    }

    fn is_doubled(&self) -> bool {
        matches!(self, Self::Doubled { .. })
    }

    /// Slabs of the packed weight, by rows and columns.
    fn slabs(&self) -> [usize; 2] {
        if self.is_doubled() { [4, 4] } else { self.kernel() }
    }

    /// How an axis (0: y, 1: x) of the output is made from the input, or, `back`, the gradient of the input from that of
    /// the output.
    fn axis(&self, axis: usize, back: bool) -> Result<Axis, CudaError> {
        let [input, output] = self.sizes().map(|size| int(size[axis]));
        let (read, written) = if back { (output?, input?) } else { (input?, output?) };
        let taps = int(self.slabs()[axis])?;
        Ok(match (self, back) {
            (Self::Map(g), false) => {
                let first = -int(g.before[axis])?;
                Axis { read, written, phases: 1, stride: int(g.stride)?, first, taps, scatter: 0 }
            }
            (Self::Map(g), true) => {
                let (phases, first) = (int(g.stride)?, int(g.before[axis])?);
                Axis { read, written, phases, stride: 1, first, taps, scatter: 1 }
            }
            (Self::Doubled { .. }, false) => {
                Axis { read, written, phases: 2, stride: 1, first: -1, taps: 2, scatter: 0 }
            }
            (Self::Doubled { .. }, true) => Axis { read, written, phases: 1, stride: 2, first: -1, taps, scatter: 0 },
        })
    }

    /// The whole problem, for a packed weight of tiles of `columns` columns.
    fn problem(&self, back: bool, columns: usize) -> Result<Problem, CudaError> {
        let [mut inputs, mut outputs] = self.channels();
        if back {
            (inputs, outputs) = (outputs, inputs);
        }
        let [down, across] = self.slabs();
        for size in self.sizes() {
            int(self.batch() * size[0] * size[1])?;
        }
        int(down * across * inputs.max(outputs))?;
        int(inputs * outputs)?;
        Ok(Problem {
            y: self.axis(0, back)?,
            x: self.axis(1, back)?,
            slabs: int(down * across)?,
            slabs_x: int(across)?,
            batch: int(self.batch())?,
            inputs: int(inputs)?,
            outputs: int(outputs)?,
            padded: int(outputs.next_multiple_of(columns))?,
        })
    }
}

impl Problem {
    fn phases(&self) -> usize {
        self.y.phases as usize * self.x.phases as usize
    }

    /// Pixels written in the largest phase.
    fn positions(&self) -> usize {
        let count = |axis: &Axis| (axis.written as usize).div_ceil(axis.phases as usize);
        self.batch as usize * count(&self.y) * count(&self.x)
    }

    /// Places of the kernel times input channels, as a phase sees them at most.
    fn places(&self) -> usize {
        let taps =
            |axis: &Axis| (axis.taps as usize).div_ceil(if axis.scatter == 1 { axis.phases as usize } else { 1 });
        taps(&self.y) * taps(&self.x) * self.inputs as usize
    }

    /// Numbers of the map that is read and of that which is written.
    fn lengths(&self) -> [usize; 2] {
        let pixels = |y: i32, x: i32| self.batch as usize * y as usize * x as usize;
        [
            pixels(self.y.read, self.x.read) * self.inputs as usize,
            pixels(self.y.written, self.x.written) * self.outputs as usize,
        ]
    }
}

/// Columns of a tile: few channels do not fill the larger one.
fn tile_columns(outputs: usize) -> usize {
    if outputs <= 96 && outputs.next_multiple_of(32) < outputs.next_multiple_of(64) { 32 } else { 64 }
}

/// Convolves operands that fit, and records the way back.
pub(crate) fn convolution(
    op: &'static str,
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    method: Method,
) -> Result<Option<Tensor>> {
    let Some((gpu, [input, w])) = on_gpu(op, [x, weight])? else {
        return Ok(None);
    };
    let shape = method.shape();
    let b = bias.and_then(Tensor::gpu_buffer).cloned();
    let data = gpu.convolve(method, input.numbers(), w.numbers(), b.as_ref().map(|b| b.numbers()))?;
    let (x_key, w_key, b_key) = (tracked(x), tracked(weight), bias.and_then(tracked));
    let (out, key) = output(gpu, data, &shape, x_key.is_some() || w_key.is_some() || b_key.is_some())?;
    if let Some(key) = key {
        // Only what the wanted gradients need is kept alive.
        let (input, w) = (w_key.as_ref().map(|_| input), x_key.as_ref().map(|_| w));
        record_on_gpu(&key, move |dy, flow| {
            if let (Some(key), Some(w)) = (&x_key, &w) {
                flow.add(key, gpu.convolve_back(method, &dy, w.numbers())?)?;
            }
            if let (Some(key), Some(input)) = (&w_key, &input) {
                flow.add(key, gpu.convolve_weight(method, input.numbers(), &dy)?)?;
            }
            if let Some(key) = &b_key {
                flow.add(key, gpu.column_sums(&dy, shape[3], 1.0)?)?;
            }
            Ok(())
        });
    }
    Ok(Some(out))
}

impl Gpu {
    fn convolve(
        &self,
        method: Method,
        x: &Numbers,
        weight: &Numbers,
        bias: Option<&Numbers>,
    ) -> Result<Numbers, CudaError> {
        self.convolve_map(method, false, x, weight, bias)
    }

    /// The gradient of the input.
    pub(crate) fn convolve_back(&self, method: Method, dy: &Numbers, weight: &Numbers) -> Result<Numbers, CudaError> {
        self.convolve_map(method, true, dy, weight, None)
    }

    fn convolve_map(
        &self,
        method: Method,
        back: bool,
        from: &Numbers,
        weight: &Numbers,
        bias: Option<&Numbers>,
    ) -> Result<Numbers, CudaError> {
        let columns = tile_columns(method.channels()[usize::from(!back)]);
        let problem = method.problem(back, columns)?;
        let [read, written] = problem.lengths();
        check(length(from) == read && bias.is_none_or(|bias| length(bias) == problem.outputs as usize))?;
        if written == 0 || problem.inputs == 0 {
            // A sum over no channels: the bias alone.
            return match bias.filter(|_| written > 0) {
                Some(bias) => {
                    let own = [length(bias)];
                    self.stretch(&Broadcast::new(&[written / own[0], own[0]], &own, &own), bias)
                }
                None => self.zeros(written),
            };
        }
        let packed = self.pack(method, back, &problem, weight)?;
        let column_tiles = problem.padded as usize / columns;
        let quads = problem.inputs % 4 == 0;
        let blocks = |rows: usize| problem.positions().div_ceil(rows) * column_tiles * problem.phases();
        let rows = if quads && blocks(128) >= FILL / 2 { 128 } else { 64 };
        // Small maps have few tiles: their sums are cut, in a way that depends on sizes alone.
        let steps = problem.places().div_ceil(DEPTH);
        let pieces = (FILL / 2 / blocks(rows)).min(steps / STEPS).max(1);
        let piece = steps.div_ceil(pieces);
        let pieces = steps.div_ceil(piece);
        let mut out = self.room(written * pieces)?;
        let single = if quads { "" } else { "single_" };
        let kernel = self.kernel(&format!("conv_{single}{rows}x{columns}"))?;
        let grid = block_grid([blocks(rows) / problem.phases(), problem.phases(), pieces], 0)?;
        let piece = int(piece * DEPTH)?;
        // SAFETY: the kernel reads `from` inside the map, `packed` inside slabs * inputs * padded elements, and the
        // bias, if there is one, below `outputs`; it writes each pixel of each of the pieces of `out` once. The lengths
        // are checked here and in `pack`. No bias is a null pointer.
        #[allow(unsafe_code)]
        unsafe {
            match bias.filter(|_| pieces == 1) {
                Some(bias) => kernel.launch(grid, (&**from, &*packed, &**bias, &mut *out, problem, piece))?,
                None => kernel.launch(grid, (&**from, &*packed, 0u64, &mut *out, problem, piece))?,
            }
        }
        if pieces == 1 {
            return Ok(out);
        }
        let mut joined = self.room(written)?;
        let kernel = self.kernel("conv_join")?;
        let sizes = (written as u64, problem.outputs as u64, int(pieces)?);
        // SAFETY: the kernel writes the elements of `joined` and reads as many of each piece, and the bias as above.
        #[allow(unsafe_code)]
        unsafe {
            let grid = elements(written);
            match bias {
                Some(bias) => kernel.launch(grid, (&*out, &**bias, &mut *joined, sizes.0, sizes.1, sizes.2))?,
                None => kernel.launch(grid, (&*out, 0u64, &mut *joined, sizes.0, sizes.1, sizes.2))?,
            }
        }
        Ok(joined)
    }

    /// The weight as `conv.cu` reads it: `[slabs][inputs][padded]` of the problem.
    fn pack(&self, method: Method, back: bool, problem: &Problem, weight: &Numbers) -> Result<Numbers, CudaError> {
        let ([inputs, outputs], [height, width]) = (method.channels(), method.kernel());
        check(length(weight) == outputs * inputs * height * width)?;
        let n = problem.slabs as usize * problem.inputs as usize * problem.padded as usize;
        let mut packed = self.room(n)?;
        let kernel = self.kernel("conv_pack")?;
        let sizes = (int(outputs)?, int(inputs)?, int(height)?, int(width)?);
        // SAFETY: the kernel writes the n elements of `packed`, and reads `weight` of the length just checked.
        #[allow(unsafe_code)]
        unsafe {
            let flags = (i32::from(back), i32::from(method.is_doubled()));
            let all = (
                &**weight,
                &mut *packed,
                n as u64,
                sizes.0,
                sizes.1,
                sizes.2,
                sizes.3,
                problem.padded,
                flags.0,
                flags.1,
            );
            kernel.launch(elements(n), all)?;
        }
        Ok(packed)
    }

    /// The gradient of the weight.
    pub(crate) fn convolve_weight(&self, method: Method, x: &Numbers, dy: &Numbers) -> Result<Numbers, CudaError> {
        let ([inputs, outputs], [height, width]) = (method.channels(), method.kernel());
        let n = outputs * inputs * height * width;
        let columns = tile_columns(outputs);
        let problem = method.problem(false, columns)?;
        let positions = problem.positions();
        check([length(x), length(dy)] == problem.lengths())?;
        if n == 0 || positions == 0 {
            return self.zeros(n);
        }
        let quads = inputs.is_multiple_of(4) && outputs.is_multiple_of(4);
        let rows = if quads { 128 } else { 64 };
        let tiles = problem.places().div_ceil(rows) * outputs.div_ceil(columns);
        // As many pieces as fill a GPU, whatever GPU it is: sums must not depend on that.
        let pieces = (FILL / (tiles * problem.phases())).clamp(1, positions.div_ceil(RUN));
        let piece = positions.div_ceil(pieces).next_multiple_of(RUN);
        let pieces = positions.div_ceil(piece);
        let mut partial = self.room(pieces * problem.slabs as usize * inputs * outputs)?;
        let single = if quads { "" } else { "single_" };
        let kernel = self.kernel(&format!("conv_weight_{single}{rows}x{columns}"))?;
        let grid = block_grid([tiles, pieces, problem.phases()], 0)?;
        let mut out = self.room(n)?;
        let join = self.kernel("conv_weight_join")?;
        let sizes = (int(outputs)?, int(inputs)?, int(height)?, int(width)?, int(pieces)?);
        // Many pieces are of few numbers, for which a thread each would leave the GPU idle.
        let lines = if pieces >= 8 { 8 } else { 1 };
        // SAFETY: the kernel reads both maps inside their lengths, just checked, and writes every element of `partial`
        // once. The second reads these and writes the n elements of `out`.
        #[allow(unsafe_code)]
        unsafe {
            kernel.launch(grid, (&**x, &**dy, &mut *partial, problem, int(piece)?))?;
            let doubled = i32::from(method.is_doubled());
            let all =
                (&*partial, &mut *out, n as u64, sizes.0, sizes.1, sizes.2, sizes.3, sizes.4, doubled, lines as u32);
            join.launch(elements(n * lines), all)?;
        }
        Ok(out)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first failure")]
mod tests;
