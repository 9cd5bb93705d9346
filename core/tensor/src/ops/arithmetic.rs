//! Arithmetic with broadcasting (NumPy's rules: shapes are aligned at the innermost axis; size 1 stretches).

use super::kernel::{Kernel, run};
use super::reduce::sum_to;
use crate::cpu::loops::elementwise::{Broadcast, Map, Zip, map, update, zip};
#[cfg(feature = "cuda")]
use crate::cuda::{Gpu, Numbers};
use crate::{Device, Error, Result, Tensor};
#[cfg(feature = "cuda")]
use dfdx::prelude::CudaError;

macro_rules! functions_of_two {
    ($($(#[$doc:meta])* $Name:ident($text:literal): |$x:ident, $y:ident| $value:expr;)*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy)]
            pub(crate) struct $Name;

            impl Zip for $Name {
                #[inline(always)]
                fn value<const FUSED: bool>(self, $x: f32, $y: f32) -> f32 {
                    $value
                }
            }
        )*

        /// A function of two elements.
        #[derive(Debug, Clone, Copy)]
        pub(crate) enum Binary {
            $($Name),*
        }

        impl Binary {
            /// The operation's name, and that of its kernel on a GPU.
            fn name(self) -> &'static str {
                match self {
                    $(Self::$Name => $text),*
                }
            }

            fn zip(self, broadcast: &Broadcast, x: &[f32], y: &[f32]) -> Vec<f32> {
                match self {
                    $(Self::$Name => zip($Name, broadcast, x, y)),*
                }
            }

            fn update(self, x: &mut [f32], y: &[f32]) {
                match self {
                    $(Self::$Name => update($Name, x, y)),*
                }
            }
        }
    };
}

functions_of_two! {
    Add("add"): |x, y| x + y;
    Sub("sub"): |x, y| x - y;
    Mul("mul"): |x, y| x * y;
    Div("div"): |x, y| x / y;
    /// The first half of a division's gradient in its divisor.
    MinusMul("minus_mul"): |x, y| -(x * y);
}

struct Zipped {
    function: Binary,
    broadcast: Broadcast,
}

impl Kernel<2> for Zipped {
    fn cpu(&self, [x, y]: [&[f32]; 2]) -> Vec<f32> {
        self.function.zip(&self.broadcast, x, y)
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, gpu: &Gpu, [x, y]: [&Numbers; 2]) -> Result<Numbers, CudaError> {
        gpu.zip(self.function.name(), &self.broadcast, x, y)
    }
}

/// `x + self.0`.
#[derive(Clone, Copy)]
struct AddScalar(f32);

/// `x * self.0`.
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

impl Kernel<1> for AddScalar {
    fn cpu(&self, [x]: [&[f32]; 1]) -> Vec<f32> {
        map(*self, x)
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, gpu: &Gpu, [x]: [&Numbers; 1]) -> Result<Numbers, CudaError> {
        gpu.map("add_scalar", x, [self.0, 0.0])
    }
}

impl Kernel<1> for MulScalar {
    fn cpu(&self, [x]: [&[f32]; 1]) -> Vec<f32> {
        map(*self, x)
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, gpu: &Gpu, [x]: [&Numbers; 1]) -> Result<Numbers, CudaError> {
        gpu.map("mul_scalar", x, [self.0, 0.0])
    }
}

/// The operand's numbers times `scale`, repeated where they are stretched.
pub(crate) struct Stretch {
    broadcast: Broadcast,
    scale: f32,
}

impl Stretch {
    /// From shape `from` to `to`, which it stretches to.
    pub(crate) fn new(from: &[usize], to: &[usize], scale: f32) -> Self {
        Self { broadcast: Broadcast::new(to, from, from), scale }
    }
}

/// `scale * x`.
#[derive(Clone, Copy)]
struct Scaled(f32);

impl Zip for Scaled {
    #[inline(always)]
    fn value<const FUSED: bool>(self, x: f32, _: f32) -> f32 {
        x * self.0
    }
}

impl Kernel<1> for Stretch {
    fn cpu(&self, [x]: [&[f32]; 1]) -> Vec<f32> {
        zip(Scaled(self.scale), &self.broadcast, x, x)
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, gpu: &Gpu, [x]: [&Numbers; 1]) -> Result<Numbers, CudaError> {
        match self.scale {
            1.0 => gpu.stretch(&self.broadcast, x),
            scale => gpu.stretch(&self.broadcast, &gpu.map("mul_scalar", x, [scale, 0.0])?),
        }
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

/// `function(x, y)`, broadcast, without a gradient.
fn binary(function: Binary, x: &Tensor, y: &Tensor) -> Result<Tensor> {
    let op = function.name();
    let shape = broadcast_shape(op, x.shape(), y.shape())?;
    let broadcast = Broadcast::new(&shape, x.shape(), y.shape());
    run(op, &Zipped { function, broadcast }, [x, y], &shape)
}

/// The same where `x` has the shape of the result and is not needed any more: on the CPU in place, if `y` is not stretched.
pub(crate) fn binary_into(function: Binary, mut x: Tensor, y: &Tensor) -> Result<Tensor> {
    if x.shape() != y.shape() || x.device() != Device::Cpu || y.device() != Device::Cpu {
        return binary(function, &x, y);
    }
    x.storage_mut().write(|x| function.update(x, y.as_slice()));
    Ok(x)
}

impl Tensor {
    /// `self + other`, broadcast.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes do not broadcast.
    pub fn add(&self, other: &Tensor) -> Result<Tensor> {
        binary(Binary::Add, self, other)?.with_backward(&[self, other], |_| {
            let (x_shape, y_shape) = (self.shape().to_vec(), other.shape().to_vec());
            move |grad, gradients| {
                if gradients.wanted(1) {
                    gradients.add(1, sum_to(grad.clone(), &y_shape)?)?;
                }
                if gradients.wanted(0) {
                    gradients.add(0, sum_to(grad, &x_shape)?)?;
                }
                Ok(())
            }
        })
    }

    /// `self - other`, broadcast.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes do not broadcast.
    pub fn sub(&self, other: &Tensor) -> Result<Tensor> {
        binary(Binary::Sub, self, other)?.with_backward(&[self, other], |_| {
            let (x_shape, y_shape) = (self.shape().to_vec(), other.shape().to_vec());
            move |grad, gradients| {
                if gradients.wanted(1) {
                    gradients.add(1, sum_to(grad.neg()?, &y_shape)?)?;
                }
                if gradients.wanted(0) {
                    gradients.add(0, sum_to(grad, &x_shape)?)?;
                }
                Ok(())
            }
        })
    }

    /// `self * other`, broadcast.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes do not broadcast.
    pub fn mul(&self, other: &Tensor) -> Result<Tensor> {
        binary(Binary::Mul, self, other)?.with_backward(&[self, other], |_| {
            let (x, y) = (self.detach(), other.detach());
            move |grad, gradients| {
                if gradients.wanted(1) {
                    gradients.add(1, sum_to(binary(Binary::Mul, &grad, &x)?, y.shape())?)?;
                }
                if gradients.wanted(0) {
                    gradients.add(0, sum_to(binary_into(Binary::Mul, grad, &y)?, x.shape())?)?;
                }
                Ok(())
            }
        })
    }

    /// `self / other`, broadcast.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes do not broadcast.
    pub fn div(&self, other: &Tensor) -> Result<Tensor> {
        binary(Binary::Div, self, other)?.with_backward(&[self, other], |quotient| {
            let (x_shape, y, quotient) = (self.shape().to_vec(), other.detach(), quotient.clone());
            move |grad, gradients| {
                let over_y = binary_into(Binary::Div, grad, &y)?;
                if gradients.wanted(1) {
                    // d(x / y)/dy = -(x / y) / y
                    gradients.add(1, sum_to(binary(Binary::MinusMul, &over_y, &quotient)?, y.shape())?)?;
                }
                if gradients.wanted(0) {
                    gradients.add(0, sum_to(over_y, &x_shape)?)?;
                }
                Ok(())
            }
        })
    }

    /// `self + value`.
    pub fn add_scalar(&self, value: f32) -> Result<Tensor> {
        // The gradient is that of the operand: the output shares its key, and nothing need be recorded.
        Ok(run("add_scalar", &AddScalar(value), [self], self.shape())?.with_grad(self.tracked()))
    }

    /// `self * value`.
    pub fn mul_scalar(&self, value: f32) -> Result<Tensor> {
        run("mul_scalar", &MulScalar(value), [self], self.shape())?
            .with_backward(&[self], |_| move |grad, gradients| gradients.add(0, grad.mul_scalar(value)?))
    }

    /// Copies along axes of size 1 (or new outer axes) to `shape`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shape cannot be stretched to `shape`.
    pub fn broadcast_to(&self, shape: &[usize]) -> Result<Tensor> {
        if broadcast_shape("broadcast_to", self.shape(), shape)? != shape {
            return Err(Error::shape("broadcast_to", format!("{:?} does not stretch to {shape:?}", self.shape())));
        }
        run("broadcast_to", &Stretch::new(self.shape(), shape, 1.0), [self], shape)?.with_backward(&[self], |_| {
            let own = self.shape().to_vec();
            move |grad, gradients| gradients.add(0, sum_to(grad, &own)?)
        })
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
