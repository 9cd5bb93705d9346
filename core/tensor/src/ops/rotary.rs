//! Rotary positions.

use super::kernel::{Kernel, run};
use crate::cpu::attention::rotary::{Turned, rotated};
#[cfg(feature = "cuda")]
use crate::cuda::{Gpu, Numbers};
use crate::{Error, Result, Tensor};
#[cfg(feature = "cuda")]
use dfdx::prelude::CudaError;

impl Kernel<2> for Turned {
    fn cpu(&self, [x, table]: [&[f32]; 2]) -> Vec<f32> {
        rotated(*self, x, table)
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, gpu: &Gpu, [x, table]: [&Numbers; 2]) -> Result<Numbers, CudaError> {
        gpu.rotated(*self, x, table, 0)
    }
}

/// Queries and keys of `qkv` `[B, T, 3W]` turned by their positions, values as they are (Su et al., "RoFormer: enhanced
/// transformer with rotary position embedding", 2021). `turns` `[1 or B, T, 2, h]` has for each channel of a head of h the
/// cosine of its pair's angle, and the sine: of channels 2i and 2i + 1, `(a, b)` becomes `(a cos + b sin_2i, b cos + a
/// sin_2i+1)`, so that a rotation has `sin_2i = -sin_2i+1`. No gradient flows to it.
///
/// # Errors
/// [`Error::Shape`] if the sizes do not fit, or h is odd.
pub fn rotate_qk(qkv: &Tensor, turns: &Tensor) -> Result<Tensor> {
    let [batch, length, row] = qkv.dims("rotate_qk")?;
    let [tables, positions, two, head] = turns.dims("rotate_qk")?;
    let width = row / 3;
    let fits = (tables == 1 || tables == batch) && positions == length && two == 2 && head > 0;
    if !fits || !row.is_multiple_of(3) || !width.is_multiple_of(head) || !head.is_multiple_of(2) {
        let message = format!("{:?} is not turned by {:?}", qkv.shape(), turns.shape());
        return Err(Error::shape("rotate_qk", message));
    }
    let turned = Turned { head, row, turned: 2 * width, period: tables * length, back: false };
    if qkv.is_empty() {
        return Ok(qkv.clone());
    }
    run("rotate_qk", &turned, [qkv, turns], qkv.shape())?.with_backward(&[qkv], |_| {
        let turns = turns.detach();
        move |grad, gradients| {
            let back = Turned { back: true, ..turned };
            gradients.add(0, run("rotate_qk", &back, [&grad, &turns], grad.shape())?)
        }
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first failure")]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, check_gradients, on_every_device, random};

    /// Tables of any angles, some of length 0.
    fn turns(tables: usize, length: usize, head: usize) -> Tensor {
        let angles = random(&[tables * length * head / 2], 9).to_vec();
        let mut data = Vec::new();
        for (row, angles) in angles.chunks(head / 2).enumerate() {
            let scale = if row % 3 == 0 { 0.0 } else { 1.0 };
            data.extend(angles.iter().flat_map(|a| [scale * a.cos(); 2]));
            data.extend(angles.iter().flat_map(|a| [-scale * a.sin(), scale * a.sin()]));
        }
        Tensor::from_vec(data, &[tables, length, 2, head]).unwrap()
    }

    #[test]
    fn pairs_turn_by_their_angles() {
        on_every_device(|| {
            for (batch, length, heads, head, tables) in
                [(1, 1, 1, 2, 1), (2, 5, 3, 6, 1), (3, 4, 2, 20, 3), (2, 9, 4, 32, 1)]
            {
                let width = heads * head;
                let (x, table) = (random(&[batch, length, 3 * width], 1), turns(tables, length, head));
                let mut wanted = x.to_vec();
                for (r, row) in wanted.chunks_mut(3 * width).enumerate() {
                    let at = &table.as_slice()[r % (tables * length) * 2 * head..];
                    for (i, pair) in row[..2 * width].chunks_mut(2).enumerate() {
                        let c = 2 * i % head;
                        let (cos, sin, [a, b]) = (at[c], at[head + c + 1], [pair[0], pair[1]]);
                        (pair[0], pair[1]) = (a * cos - b * sin, b * cos + a * sin);
                    }
                }
                assert_close(rotate_qk(&x, &table).unwrap().as_slice(), &wanted, 1e-6);
                check_gradients(std::slice::from_ref(&x), |t| rotate_qk(&t[0], &table), 1e-3);
            }
        });
    }

    #[test]
    fn misfits_are_errors() {
        on_every_device(|| {
            let x = Tensor::zeros(&[2, 3, 12]);
            assert!(rotate_qk(&x, &turns(2, 3, 4)).is_ok());
            for (tables, length, head) in [(3, 3, 4), (1, 2, 4), (1, 3, 6)] {
                assert!(rotate_qk(&x, &turns(tables, length, head)).is_err());
            }
            assert!(rotate_qk(&Tensor::zeros(&[2, 3, 10]), &turns(1, 3, 2)).is_err());
        });
    }
}
