//! The pools of Inception's blocks, which leave out what lies beyond the border.

use crate::Result;
use crate::tensor::Tensor;

/// What stands in a block's pooling branch.
#[derive(Debug)]
pub(super) enum Pool {
    /// The mean of 3 x 3 pixels, of those inside the map.
    Mean,
    /// The largest of 3 x 3 pixels.
    Largest,
    /// The largest of 3 x 3 pixels, at every second place.
    Halving,
}

impl Pool {
    /// Of maps `[B, H, W, C]`.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Mean => mean_of_neighbours(x)?,
            Self::Largest => x.max_pool(3, 1, 1)?,
            Self::Halving => x.max_pool(3, 2, 0)?,
        })
    }
}

/// The mean over 3 x 3 pixels of those inside the map. The mean over a row's neighbours is a product with a banded matrix,
/// and so is that over a column's.
fn mean_of_neighbours(x: &Tensor) -> Result<Tensor> {
    let [batch, height, width, channels] = x.dims("mean_of_neighbours")?;
    let band = |size: usize, copies: usize| -> Result<Tensor> {
        let entry = |row: usize, column: usize| {
            let inside = (row + 2).min(size) - row.saturating_sub(1);
            if row.abs_diff(column) <= 1 { 1.0 / inside as f32 } else { 0.0 }
        };
        let one: Vec<f32> = (0..size * size).map(|i| entry(i / size, i % size)).collect();
        Ok(Tensor::from_vec(one.repeat(copies), &[copies, size, size])?)
    };
    let down = band(height, batch)?.matmul(&x.reshape(&[batch, height, width * channels])?)?;
    let across = band(width, batch * height)?.matmul(&down.reshape(&[batch * height, width, channels])?)?;
    Ok(across.reshape(&[batch, height, width, channels])?)
}
