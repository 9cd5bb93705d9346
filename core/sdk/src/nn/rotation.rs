//! The rotation trick.

use crate::Result;
use crate::tensor::Tensor;

/// The value of `target` `[.., C]`, up to rounding, as a rotation and scaling of `x` `[.., C]` with both held constant: with
/// `a = x / |x|`, `b = target / |target|` and `w = (a + b) / |a + b|`,
/// `y = |target| / |x| (I - 2 w wᵀ + 2 b aᵀ) x`. The gradient at `x` is the gradient at `y`, rotated back. Norms below 1e-6
/// count as 1e-6. The target gets no gradient (Fifty et al., "Restructuring vector quantization with the rotation trick",
/// ICLR 2025).
///
/// # Errors
/// Shapes that do not fit.
pub fn rotate_to(x: &Tensor, target: &Tensor) -> Result<Tensor> {
    let (source, target) = (x.detach(), target.detach());
    let (a, source_norm) = direction(&source)?;
    let (b, target_norm) = direction(&target)?;
    let (w, _) = direction(&a.add(&b)?)?;
    let along = |v: &Tensor| -> Result<Tensor> {
        let last = x.rank().saturating_sub(1);
        Ok(x.mul(v)?.sum(&[last], true)?.mul_scalar(2.0)?)
    };
    let rotated = x.sub(&along(&w)?.mul(&w)?)?.add(&along(&a)?.mul(&b)?)?;
    Ok(rotated.mul(&target_norm.div(&source_norm)?)?)
}

/// Vectors `[.., C]` divided by their norms, and the norms `[.., 1]`, at least 1e-6.
fn direction(v: &Tensor) -> Result<(Tensor, Tensor)> {
    let last = v.rank().saturating_sub(1);
    let norm = v.square()?.sum(&[last], true)?.sqrt()?.clamp(1e-6, f32::INFINITY)?;
    Ok((v.div(&norm)?, norm))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::tensor::{Rng, Tape};

    /// A rotation keeps lengths and angles: the gradient `g` comes back with length `|q| / |x| |g|`, and the gradient along
    /// the target comes back along the source.
    #[test]
    fn the_gradient_is_rotated_back() {
        let random = |seed| Tensor::from_vec(Rng::new(seed, "test", 0).normal(15), &[3, 5]).unwrap();
        let (x, q, g) = (random(1).leaf(), random(2), random(3));
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let backward = |g: &Tensor| {
            let tape = Tape::start().unwrap();
            let y = rotate_to(&x, &q).unwrap();
            y.as_slice().iter().zip(q.as_slice()).for_each(|(y, q)| assert!((y - q).abs() < 1e-5, "{y} {q}"));
            tape.backward(&y.mul(g).unwrap().sum_all().unwrap()).unwrap().take(&x).unwrap()
        };
        let (back, along) = (backward(&g), backward(&q));
        for i in 0..3 {
            let row = |t: &Tensor| t.as_slice()[5 * i..5 * i + 5].to_vec();
            let scale = (dot(&row(&q), &row(&q)) / dot(&row(&x), &row(&x))).sqrt();
            let (got, wanted) = (dot(&row(&back), &row(&back)).sqrt(), scale * dot(&row(&g), &row(&g)).sqrt());
            assert!((got - wanted).abs() < 1e-4 * wanted, "{got} {wanted}");
            for (a, x) in row(&along).iter().zip(row(&x)) {
                assert!((a - x * scale * scale).abs() < 1e-4 * scale * scale, "{a} {x}");
            }
        }
    }
}
