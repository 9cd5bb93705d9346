//! Arithmetic with broadcasting (NumPy's rules: shapes are aligned at the innermost axis; size 1 stretches).

use super::on_cpu;
use crate::cpu::loops::elementwise::{Map, Walk, Zip, map, update, zip};
use crate::cpu::loops::reduce::sum_to_shape;
use crate::tape::{GradKey, record};
use crate::{Error, Result, Tensor};

#[derive(Clone, Copy)]
struct Add;
#[derive(Clone, Copy)]
struct Sub;
#[derive(Clone, Copy)]
struct Mul;
#[derive(Clone, Copy)]
struct Div;
#[derive(Clone, Copy)]
struct First;
/// -(x * y), the first half of a division's gradient in its divisor.
#[derive(Clone, Copy)]
struct MinusMul;

impl Zip for Add {
    #[inline(always)]
    fn value<const FUSED: bool>(self, x: f32, y: f32) -> f32 {
        x + y
    }
}
impl Zip for Sub {
    #[inline(always)]
    fn value<const FUSED: bool>(self, x: f32, y: f32) -> f32 {
        x - y
    }
}
impl Zip for Mul {
    #[inline(always)]
    fn value<const FUSED: bool>(self, x: f32, y: f32) -> f32 {
        x * y
    }
}
impl Zip for Div {
    #[inline(always)]
    fn value<const FUSED: bool>(self, x: f32, y: f32) -> f32 {
        x / y
    }
}
impl Zip for First {
    #[inline(always)]
    fn value<const FUSED: bool>(self, x: f32, _: f32) -> f32 {
        x
    }
}
impl Zip for MinusMul {
    #[inline(always)]
    fn value<const FUSED: bool>(self, x: f32, y: f32) -> f32 {
        -(x * y)
    }
}

#[derive(Clone, Copy)]
struct AddScalar(f32);
#[derive(Clone, Copy)]
struct MulScalar(f32);

impl Map for AddScalar {
    #[inline(always)]
    fn value<const FUSED: bool>(self, x: f32) -> f32 {
        x + self.0
    }
}
impl Map for MulScalar {
    #[inline(always)]
    fn value<const FUSED: bool>(self, x: f32) -> f32 {
        x * self.0
    }
}

/// The shape that `x` and `y` stretch to.
pub(crate) fn broadcast_shape(op: &'static str, x: &[usize], y: &[usize]) -> Result<Vec<usize>> {
    let rank = x.len().max(y.len());
    let size = |shape: &[usize], axis: usize| (axis + shape.len()).checked_sub(rank).map_or(1, |axis| shape[axis]);
    (0..rank)
        .map(|axis| match (size(x, axis), size(y, axis)) {
            (a, b) if a == b => Ok(a),
            (1, b) => Ok(b),
            (a, 1) => Ok(a),
            _ => Err(Error::shape(op, format!("shapes {x:?} and {y:?} do not broadcast"))),
        })
        .collect()
}

/// `f(x, y)`, broadcast, with the key of its gradient if one is wanted.
fn binary<F: Zip>(op: &'static str, f: F, x: &Tensor, y: &Tensor) -> Result<(Tensor, Option<GradKey>)> {
    on_cpu(op, [x, y])?;
    let shape = broadcast_shape(op, x.shape(), y.shape())?;
    let data = zip(f, &Walk::new(&shape, x.shape(), y.shape()), x.as_slice(), y.as_slice());
    let key = (x.tracked().is_some() || y.tracked().is_some()).then(GradKey::new);
    Ok((Tensor::output(data, &shape, key.clone()), key))
}

/// `f(grad, other)` where `grad` has shape `shape`; in place if `other` is not stretched.
fn chain<F: Zip>(f: F, mut grad: Vec<f32>, shape: &[usize], other: &Tensor) -> Vec<f32> {
    if other.len() == grad.len() {
        update(f, &mut grad, other.as_slice());
        return grad;
    }
    zip(f, &Walk::new(shape, shape, other.shape()), &grad, other.as_slice())
}

impl Tensor {
    /// `self + other`, broadcast.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes do not broadcast.
    pub fn add(&self, other: &Tensor) -> Result<Tensor> {
        return_from_gpu!(crate::cuda::loops::arithmetic::binary(
            crate::cuda::loops::arithmetic::Binary::Add,
            self,
            other
        ));
        let (out, key) = binary("add", Add, self, other)?;
        if let Some(key) = key {
            let (x, y) = (self.tracked(), other.tracked());
            let (shape, x_shape, y_shape) = (out.shape().to_vec(), self.shape().to_vec(), other.shape().to_vec());
            record(&key, move |grad, flow| match (x, y) {
                (Some(x), Some(y)) => {
                    flow.add(&y, sum_to_shape(grad.clone(), &shape, &y_shape))?;
                    flow.add(&x, sum_to_shape(grad, &shape, &x_shape))
                }
                (Some(x), None) => flow.add(&x, sum_to_shape(grad, &shape, &x_shape)),
                (None, Some(y)) => flow.add(&y, sum_to_shape(grad, &shape, &y_shape)),
                (None, None) => Ok(()),
            });
        }
        Ok(out)
    }

    /// `self - other`, broadcast.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes do not broadcast.
    pub fn sub(&self, other: &Tensor) -> Result<Tensor> {
        return_from_gpu!(crate::cuda::loops::arithmetic::binary(
            crate::cuda::loops::arithmetic::Binary::Sub,
            self,
            other
        ));
        let (out, key) = binary("sub", Sub, self, other)?;
        if let Some(key) = key {
            let (x, y) = (self.tracked(), other.tracked());
            let (shape, x_shape, y_shape) = (out.shape().to_vec(), self.shape().to_vec(), other.shape().to_vec());
            record(&key, move |grad, flow| {
                if let Some(y) = y {
                    flow.add(&y, sum_to_shape(map(MulScalar(-1.0), &grad), &shape, &y_shape))?;
                }
                match x {
                    Some(x) => flow.add(&x, sum_to_shape(grad, &shape, &x_shape)),
                    None => Ok(()),
                }
            });
        }
        Ok(out)
    }

    /// `self * other`, broadcast.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes do not broadcast.
    pub fn mul(&self, other: &Tensor) -> Result<Tensor> {
        return_from_gpu!(crate::cuda::loops::arithmetic::binary(
            crate::cuda::loops::arithmetic::Binary::Mul,
            self,
            other
        ));
        let (out, key) = binary("mul", Mul, self, other)?;
        if let Some(key) = key {
            let (x_key, y_key) = (self.tracked(), other.tracked());
            let (shape, x, y) = (out.shape().to_vec(), self.detach(), other.detach());
            record(&key, move |grad, flow| {
                if let Some(y_key) = y_key {
                    let full = zip(Mul, &Walk::new(&shape, &shape, x.shape()), &grad, x.as_slice());
                    flow.add(&y_key, sum_to_shape(full, &shape, y.shape()))?;
                }
                match x_key {
                    Some(x_key) => flow.add(&x_key, sum_to_shape(chain(Mul, grad, &shape, &y), &shape, x.shape())),
                    None => Ok(()),
                }
            });
        }
        Ok(out)
    }

    /// `self / other`, broadcast.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes do not broadcast.
    pub fn div(&self, other: &Tensor) -> Result<Tensor> {
        return_from_gpu!(crate::cuda::loops::arithmetic::binary(
            crate::cuda::loops::arithmetic::Binary::Div,
            self,
            other
        ));
        let (out, key) = binary("div", Div, self, other)?;
        if let Some(key) = key {
            let (x_key, y_key) = (self.tracked(), other.tracked());
            let (x_shape, quotient, y) = (self.shape().to_vec(), out.detach(), other.detach());
            record(&key, move |grad, flow| {
                let shape = quotient.shape();
                let over_y = chain(Div, grad, shape, &y);
                if let Some(y_key) = y_key {
                    // d(x / y)/dy = -(x / y) / y
                    let full = zip(MinusMul, &Walk::new(shape, shape, shape), &over_y, quotient.as_slice());
                    flow.add(&y_key, sum_to_shape(full, shape, y.shape()))?;
                }
                match x_key {
                    Some(x_key) => flow.add(&x_key, sum_to_shape(over_y, shape, &x_shape)),
                    None => Ok(()),
                }
            });
        }
        Ok(out)
    }

    /// `self + value`.
    pub fn add_scalar(&self, value: f32) -> Result<Tensor> {
        return_from_gpu!(crate::cuda::loops::arithmetic::add_scalar(self, value));
        on_cpu("add_scalar", [self])?;
        // The gradient is that of the operand: the output shares its key, and nothing need be recorded.
        Ok(Tensor::output(map(AddScalar(value), self.as_slice()), self.shape(), self.tracked()))
    }

    /// `self * value`.
    pub fn mul_scalar(&self, value: f32) -> Result<Tensor> {
        return_from_gpu!(crate::cuda::loops::arithmetic::mul_scalar(self, value));
        on_cpu("mul_scalar", [self])?;
        let key = self.tracked().map(|x| (x, GradKey::new()));
        let out =
            Tensor::output(map(MulScalar(value), self.as_slice()), self.shape(), key.as_ref().map(|k| k.1.clone()));
        if let Some((x, key)) = key {
            record(&key, move |grad, flow| flow.add(&x, map(MulScalar(value), &grad)));
        }
        Ok(out)
    }

    /// Copies along axes of size 1 (or new outer axes) to `shape`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shape cannot be stretched to `shape`.
    pub fn broadcast_to(&self, shape: &[usize]) -> Result<Tensor> {
        return_from_gpu!(crate::cuda::loops::arithmetic::broadcast_to(self, shape));
        on_cpu("broadcast_to", [self])?;
        if broadcast_shape("broadcast_to", self.shape(), shape)? != shape {
            return Err(Error::shape("broadcast_to", format!("{:?} does not stretch to {shape:?}", self.shape())));
        }
        let data = zip(First, &Walk::new(shape, self.shape(), self.shape()), self.as_slice(), self.as_slice());
        let key = self.tracked().map(|x| (x, GradKey::new()));
        let out = Tensor::output(data, shape, key.as_ref().map(|k| k.1.clone()));
        if let Some((x, key)) = key {
            let (from, to) = (shape.to_vec(), self.shape().to_vec());
            record(&key, move |grad, flow| flow.add(&x, sum_to_shape(grad, &from, &to)));
        }
        Ok(out)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first failure")]
mod tests {
    use super::*;
    use crate::Tape;
    use crate::ops::testing::{assert_close, check_gradients, on_every_device, random};

    /// The element of `x` that index `at` of an output of shape `shape` reads, axis by axis.
    fn stretched(x: &Tensor, shape: &[usize], mut at: usize) -> f32 {
        let (mut position, mut stride) = (0, 1);
        for (i, &size) in shape.iter().rev().enumerate() {
            let index = at % size;
            at /= size;
            if let Some(own) = x.rank().checked_sub(i + 1).map(|axis| x.shape()[axis]) {
                position += if own == 1 { 0 } else { index * stride };
                stride *= own;
            }
        }
        x.as_slice()[position]
    }

    const MIXES: [(&[usize], &[usize], &[usize]); 11] = [
        (&[], &[], &[]),
        (&[5], &[], &[5]),
        (&[1], &[17], &[17]),
        (&[3, 7], &[7], &[3, 7]),
        (&[3, 7], &[3, 1], &[3, 7]),
        (&[3, 1], &[1, 7], &[3, 7]),
        (&[2, 1, 5], &[3, 1], &[2, 3, 5]),
        (&[4, 1, 3, 1], &[2, 1, 19], &[4, 2, 3, 19]),
        (&[1, 1, 2, 3], &[5, 4, 1, 1], &[5, 4, 2, 3]),
        (&[33, 1000], &[33, 1000], &[33, 1000]),
        (&[40, 3, 257], &[257], &[40, 3, 257]),
    ];

    #[test]
    fn operations_broadcast_as_in_numpy() {
        on_every_device(|| {
            for (x_shape, y_shape, shape) in MIXES {
                for (x_shape, y_shape) in [(x_shape, y_shape), (y_shape, x_shape)] {
                    let (x, y) = (random(x_shape, 1), random(y_shape, 2));
                    type Operation = (fn(&Tensor, &Tensor) -> Result<Tensor>, fn(f32, f32) -> f32);
                    let operations: [Operation; 4] = [
                        (Tensor::add, |x, y| x + y),
                        (Tensor::sub, |x, y| x - y),
                        (Tensor::mul, |x, y| x * y),
                        (Tensor::div, |x, y| x / y),
                    ];
                    for (ours, twin) in operations {
                        let got = ours(&x, &y).unwrap();
                        assert_eq!(got.shape(), shape);
                        let wanted: Vec<f32> =
                            (0..got.len()).map(|i| twin(stretched(&x, shape, i), stretched(&y, shape, i))).collect();
                        assert_eq!(got.as_slice(), wanted, "{x_shape:?} {y_shape:?}");
                    }
                    if x_shape.len() <= shape.len() && broadcast_shape("", x_shape, shape).is_ok() {
                        let got = x.broadcast_to(shape).unwrap();
                        assert!((0..got.len()).all(|i| got.as_slice()[i] == stretched(&x, shape, i)));
                    }
                }
            }
        });
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        on_every_device(|| {
            for (x_shape, y_shape, shape) in &MIXES[..9] {
                let x = random(x_shape, 3);
                // Divisors well away from zero.
                let y = random(y_shape, 4);
                let y = Tensor::from_vec(y.as_slice().iter().map(|y| y + 1.5f32.copysign(*y)).collect(), y.shape())
                    .unwrap();
                let both = [x.clone(), y];
                check_gradients(&both, |t| t[0].add(&t[1]), 1e-3);
                check_gradients(&both, |t| t[1].sub(&t[0]), 1e-3);
                check_gradients(&both, |t| t[0].mul(&t[1]), 1e-3);
                check_gradients(&both, |t| t[0].div(&t[1]), 1e-3);
                check_gradients(std::slice::from_ref(&x), |t| t[0].add_scalar(3.0)?.mul_scalar(-0.7), 1e-3);
                check_gradients(std::slice::from_ref(&x), |t| t[0].broadcast_to(shape), 1e-3);
                check_gradients(&[x], |t| t[0].mul(&t[0])?.sub(&t[0]), 1e-3);
            }
        });
    }

    #[test]
    fn an_operand_without_a_gradient_costs_none() {
        on_every_device(|| {
            let (x, y) = (random(&[2, 3], 5).leaf(), random(&[3], 6));
            for f in [Tensor::add, Tensor::sub, Tensor::mul, Tensor::div] {
                for (a, b) in [(&x, &y), (&y, &x)] {
                    let tape = Tape::start().unwrap();
                    let loss = f(a, b).unwrap().sum_all().unwrap();
                    let mut gradients = tape.backward(&loss).unwrap();
                    assert!(gradients.take(&x).is_some() && gradients.take(&y).is_none());
                }
            }
        });
    }

    #[test]
    fn a_large_sum_of_gradients_stays_accurate() {
        on_every_device(|| {
            // Each of 7 biases gathers 30 000 ones.
            let bias = Tensor::zeros(&[7]).leaf();
            let tape = Tape::start().unwrap();
            let loss = Tensor::zeros(&[3, 10_000, 7]).add(&bias).unwrap().sum_all().unwrap();
            assert_close(tape.backward(&loss).unwrap().take(&bias).unwrap().as_slice(), &[30_000.0; 7], 1e-7);
        });
    }

    #[test]
    fn misfits_are_errors() {
        on_every_device(|| {
            let (x, y) = (Tensor::zeros(&[2, 3]), Tensor::zeros(&[2]));
            assert_eq!(x.add(&y).unwrap_err().to_string(), "add: shapes [2, 3] and [2] do not broadcast");
            assert!(x.broadcast_to(&[3]).is_err() && x.broadcast_to(&[1, 3]).is_err());
            assert!(Tensor::zeros(&[0, 3]).add(&Tensor::zeros(&[3])).unwrap().is_empty());
        });
    }
}
