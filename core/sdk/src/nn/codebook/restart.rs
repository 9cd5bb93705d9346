//! What dead codes restart from.

use crate::tensor::{Codes, Rng, Tensor};
use crate::{Error, Result};

/// The random numbers of one restart.
#[derive(Debug, Clone, PartialEq)]
pub struct RestartDraw {
    /// An order of the rows of the pool: the vectors, repeated until there are as many as codes.
    pub order: Vec<usize>,
    /// Uniform in [0, 1), one for each element of the pool; read only if vectors are repeated.
    pub noise: Vec<f32>,
}

impl RestartDraw {
    /// Draws for `rows` vectors of `channels` and a codebook of `size`.
    pub fn new(rows: usize, channels: usize, size: usize, rng: &Rng) -> Self {
        let pool = pool_rows(rows, size);
        let noise = if pool > rows { rng.part("noise", 0).whole().uniform(pool * channels) } else { Vec::new() };
        Self { order: rng.part("order", 0).permutation(pool), noise }
    }
}

/// Rows of the pool that restarts draw from: `rows`, or the least multiple of it that reaches `size`.
fn pool_rows(rows: usize, size: usize) -> usize {
    if rows == 0 { 0 } else { rows * size.div_ceil(rows).max(1) }
}

/// A candidate `[K, C]` for each of `size` codes, from vectors `[.., C]` in random order without repetition. If there are
/// fewer vectors than codes, all are repeated in order until there are enough, each element moved by
/// `u * 0.01 / sqrt(C)`.
///
/// # Errors
/// [`Error::Unsupported`] if there is no vector, or the draw was made for other sizes.
pub fn restart_candidates(vectors: &Tensor, size: usize, draw: &RestartDraw) -> Result<Tensor> {
    let channels = vectors.last_dim();
    let rows = vectors.len() / channels.max(1);
    let pool = pool_rows(rows, size);
    let repeated = pool > rows;
    if rows == 0 || draw.order.len() != pool || (repeated && draw.noise.len() != pool * channels) {
        return Err(Error::Unsupported(format!(
            "cannot restart {size} codes from {rows} vectors with an order of {} and {} numbers of noise",
            draw.order.len(),
            draw.noise.len()
        )));
    }
    let width = 0.01 / (channels as f32).sqrt();
    let order = &draw.order[..size];
    let rows_of = Codes::from_vec(order.iter().map(|row| (row % rows) as u32).collect(), &[size])?;
    let picked = vectors.detach().reshape(&[rows, channels])?.embedding(&rows_of)?;
    if !repeated {
        return Ok(picked);
    }
    let noise = order.iter().flat_map(|row| &draw.noise[row * channels..(row + 1) * channels]).map(|u| u * width);
    let noise = Tensor::from_vec(noise.collect(), &[size, channels])?.to_device(picked.device())?;
    Ok(picked.add(&noise)?)
}

/// `size` of the vectors `[.., C]` at random: `[K, C]`. None comes twice if there are enough of them; else each is drawn
/// from all (vector-quantize-pytorch).
///
/// # Errors
/// [`Error::Unsupported`] if there is no vector.
pub fn sample_vectors(vectors: &Tensor, size: usize, rng: &Rng) -> Result<Tensor> {
    let channels = vectors.last_dim();
    let rows = vectors.len() / channels.max(1);
    if rows == 0 {
        return Err(Error::Unsupported(format!("there are no vectors to draw {size} from")));
    }
    let picked: Vec<u32> = if rows < size {
        rng.whole().below(size, rows as u32)
    } else {
        rng.permutation(rows).into_iter().take(size).map(|row| row as u32).collect()
    };
    Ok(vectors.detach().reshape(&[rows, channels])?.embedding(&Codes::from_vec(picked, &[size])?)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::nn::testing::random;

    #[test]
    fn few_vectors_are_repeated_with_a_little_noise() {
        let x = random(&[3, 4], 4);
        let draw = RestartDraw::new(3, 4, 8, &Rng::new(2, "restart", 0));
        assert_eq!((draw.order.len(), draw.noise.len()), (9, 36));
        let candidates = restart_candidates(&x, 8, &draw).unwrap();
        for (candidate, &row) in candidates.as_slice().chunks(4).zip(&draw.order) {
            for (a, b) in candidate.iter().zip(&x.as_slice()[row % 3 * 4..]) {
                assert!((0.0..0.01 / 2.0 + 1e-6).contains(&(a - b)), "{a} {b}");
            }
        }
        assert!(restart_candidates(&Tensor::zeros(&[0, 4]), 8, &draw).is_err());
    }

    #[test]
    fn vectors_come_twice_only_if_there_are_too_few() {
        let x = random(&[9, 4], 5);
        let row_of = |row: &[f32]| x.as_slice().chunks(4).position(|x| x == row).unwrap();
        let rows = |size: usize| {
            let sample = sample_vectors(&x, size, &Rng::new(3, "restart", 0)).unwrap();
            sample.as_slice().chunks(4).map(row_of).collect::<Vec<_>>()
        };
        let mut all = rows(9);
        all.sort_unstable();
        assert_eq!(all, (0..9).collect::<Vec<_>>());
        assert_eq!(rows(30).len(), 30);
        assert!(sample_vectors(&Tensor::zeros(&[0, 4]), 8, &Rng::new(3, "restart", 0)).is_err());
    }
}
