//! Arithmetic with broadcasting (NumPy's rules: shapes are aligned at the innermost axis; size 1 stretches).

use crate::cpu::elementwise::{Map, Walk, Zip, map, update, zip};
use crate::cpu::sum::sum_to_shape;
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
    fn value(self, x: f32, y: f32) -> f32 {
        x + y
    }
}
impl Zip for Sub {
    #[inline(always)]
    fn value(self, x: f32, y: f32) -> f32 {
        x - y
    }
}
impl Zip for Mul {
    #[inline(always)]
    fn value(self, x: f32, y: f32) -> f32 {
        x * y
    }
}
impl Zip for Div {
    #[inline(always)]
    fn value(self, x: f32, y: f32) -> f32 {
        x / y
    }
}
impl Zip for First {
    #[inline(always)]
    fn value(self, x: f32, _: f32) -> f32 {
        x
    }
}
impl Zip for MinusMul {
    #[inline(always)]
    fn value(self, x: f32, y: f32) -> f32 {
        -(x * y)
    }
}

#[derive(Clone, Copy)]
struct AddScalar(f32);
#[derive(Clone, Copy)]
struct MulScalar(f32);

impl Map for AddScalar {
    #[inline(always)]
    fn value(self, x: f32) -> f32 {
        x + self.0
    }
}
impl Map for MulScalar {
    #[inline(always)]
    fn value(self, x: f32) -> f32 {
        x * self.0
    }
}

/// The shape that `x` and `y` stretch to.
fn broadcast_shape(op: &'static str, x: &[usize], y: &[usize]) -> Result<Vec<usize>> {
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
        // The gradient is that of the operand: the output shares its key, and nothing need be recorded.
        Ok(Tensor::output(map(AddScalar(value), self.as_slice()), self.shape(), self.tracked()))
    }

    /// `self * value`.
    pub fn mul_scalar(&self, value: f32) -> Result<Tensor> {
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
