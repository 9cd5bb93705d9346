//! Convolutions of maps of codes, each code as a vector of one 1 and zeros otherwise: sums of rows of a table, which has one for
//! every code at every place of the kernel, and a last row of zeros for what lies outside of the map.

use crate::layers::WeightNorm;
use rqlab_sdk::prelude::*;

/// Where a kernel looks from a position: rows down and columns to the right.
pub(crate) type Tap = [isize; 2];

/// The table of convolutions `[O, I, kh, kw]` whose sum is wanted: `[T I + 1, O]`, T places of all kernels in their order.
///
/// # Errors
/// Shapes that do not fit.
pub(crate) fn table(weights: &[Tensor]) -> Result<Tensor> {
    let mut parts = Vec::new();
    for weight in weights {
        let [outputs, ..] = weight.dims::<4>("table")?;
        parts.push(weight.permute(&[2, 3, 1, 0])?.reshape(&[weight.len() / outputs, outputs])?);
    }
    let outputs = parts.first().map_or(0, Tensor::last_dim);
    parts.push(Tensor::zeros(&[1, outputs]).to_device(parts.first().map_or_else(Default::default, Tensor::device))?);
    Ok(Tensor::concat(&parts.iter().collect::<Vec<_>>(), 0)?)
}

/// The rows of a [`table`] whose sum is the convolution at every position of maps `[B, h, w, D]`: `[B, h, w, T D]`. The D codes of
/// a position, below `sizes`, are vectors side by side.
///
/// # Errors
/// [`Error::Unsupported`] for a code that is out of range.
pub(crate) fn rows(codes: &Codes, sizes: &[usize], taps: &[Tap]) -> Result<Codes> {
    let &[images, height, width, depth] = codes.shape() else {
        return Err(Error::Unsupported(format!("codes are maps [B, h, w, D], not {:?}", codes.shape())));
    };
    let inputs: usize = sizes.iter().sum();
    let starts: Vec<usize> = sizes.iter().scan(0, |at, size| Some(std::mem::replace(at, *at + size))).collect();
    let data = codes.as_slice();
    if let Some(at) = (0..data.len()).find(|at| data[*at] as usize >= sizes[at % depth]) {
        return Err(Error::Unsupported(format!("code {} is not below {}", data[at], sizes[at % depth])));
    }
    let mut rows = Vec::with_capacity(images * height * width * taps.len() * depth);
    for image in 0..images {
        for i in 0..height as isize {
            for j in 0..width as isize {
                for (tap, [down, right]) in taps.iter().enumerate() {
                    let (y, x) = (i + down, j + right);
                    let inside = (0..height as isize).contains(&y) && (0..width as isize).contains(&x);
                    rows.extend((0..depth).map(|d| match inside {
                        true => {
                            let at = ((image * height + y as usize) * width + x as usize) * depth + d;
                            (tap * inputs + starts[d] + data[at] as usize) as u32
                        }
                        false => (taps.len() * inputs) as u32,
                    }));
                }
            }
        }
    }
    Ok(Codes::from_vec(rows, &[images, height, width, taps.len() * depth])?)
}

/// What the network begins with: a convolution of the rows above each position, and one of what lies left of it in its own and
/// the nearest rows. Parameters: `horizontal` and `vertical`. A position without rows above it, or nothing to its left, gets no
/// bias of the convolution that would look there.
#[derive(Debug)]
pub(crate) struct Stem {
    horizontal: WeightNorm,
    vertical: WeightNorm,
    pub(crate) taps: Vec<Tap>,
    /// `[H W, 2]`: which biases a position gets.
    has: Tensor,
}

impl Stem {
    /// Of maps of `map` rows and columns.
    ///
    /// # Errors
    /// A name that is taken.
    pub(crate) fn new(params: &Params, codes: usize, width: usize, kernel: usize, map: [usize; 2]) -> Result<Self> {
        let half = kernel / 2;
        let conv = |name: &str, rows: usize, columns: usize| {
            WeightNorm::new(&params.scope(name).scope("conv.conv"), &[width, codes, rows, columns], true)
        };
        let window = |rows: usize, columns: usize, down: usize| {
            let tap =
                move |tap: usize| [(tap / columns) as isize - down as isize, (tap % columns) as isize - half as isize];
            (0..rows * columns).map(tap)
        };
        let has = |i: usize| [usize::from(i >= map[1]), usize::from(!i.is_multiple_of(map[1]))].map(|has| has as f32);
        Ok(Self {
            horizontal: conv("horizontal", half, kernel)?,
            vertical: conv("vertical", kernel.div_ceil(2), half)?,
            taps: window(half, kernel, half).chain(window(kernel.div_ceil(2), half, half)).collect(),
            has: Tensor::from_vec((0..map[0] * map[1]).flat_map(has).collect(), &[map[0] * map[1], 2])?,
        })
    }

    /// The table of both convolutions.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub(crate) fn table(&self) -> Result<Tensor> {
        table(&[self.horizontal.weight()?, self.vertical.weight()?])
    }

    /// The biases of every position, `[H W, C]`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub(crate) fn biases(&self) -> Result<Tensor> {
        let biases: Vec<Tensor> = [&self.horizontal, &self.vertical].iter().filter_map(|conv| conv.bias()).collect();
        Ok(self.has.matmul(&Tensor::stack(&biases.iter().collect::<Vec<_>>(), 0)?)?)
    }
}
