//! The operators `+`, `-`, `*` and `/` of tensors: the methods of [`arithmetic`](super::arithmetic), written as in a paper.

use crate::{Result, Tensor};
use std::borrow::Borrow;
use std::ops::{Add, Div, Mul, Neg, Sub};

macro_rules! operators {
    ($($Operator:ident $method:ident),*) => {$(
        impl<T: Borrow<Tensor>> $Operator<T> for &Tensor {
            type Output = Result<Tensor>;

            fn $method(self, other: T) -> Result<Tensor> {
                Tensor::$method(self, other.borrow())
            }
        }

        impl<T: Borrow<Tensor>> $Operator<T> for Tensor {
            type Output = Result<Tensor>;

            fn $method(self, other: T) -> Result<Tensor> {
                Tensor::$method(&self, other.borrow())
            }
        }
    )*};
}

operators!(Add add, Sub sub, Mul mul, Div div);

impl Neg for &Tensor {
    type Output = Result<Tensor>;

    fn neg(self) -> Result<Tensor> {
        Tensor::neg(self)
    }
}

impl Neg for Tensor {
    type Output = Result<Tensor>;

    fn neg(self) -> Result<Tensor> {
        Tensor::neg(&self)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first failure")]
mod tests {
    use super::*;
    use crate::ops::testing::{check_gradients, on_every_device, random};

    #[test]
    fn operators_are_the_methods_of_arithmetic() {
        on_every_device(|| {
            let (x, y) = (random(&[3, 5], 1), random(&[5], 2));
            let values = |t: Result<Tensor>| t.unwrap().to_vec();
            let of = |f: fn(f32, f32) -> f32| -> Vec<f32> {
                x.as_slice().iter().zip(y.as_slice().iter().cycle()).map(|(&x, &y)| f(x, y)).collect()
            };
            assert_eq!(values(&x + &y), of(|x, y| x + y));
            assert_eq!(values(&x - &y), of(|x, y| x - y));
            assert_eq!(values(&x * &y), of(|x, y| x * y));
            assert_eq!(values(&x / &y), of(|x, y| x / y));
            assert_eq!(values(-&x), of(|x, _| -x));
            // Both sides may be owned, as intermediate results are.
            assert_eq!(values((x.clone() - y.clone()).unwrap() * (-&y).unwrap()), of(|x, y| (x - y) * -y));
        });
    }

    #[test]
    fn gradients_flow_through_operators() {
        on_every_device(|| {
            let operands = [random(&[2, 3], 3), random(&[3], 4)];
            check_gradients(&operands, |t| ((&t[0] * &t[1])? - (&t[0] + (-&t[1])?)?)? * &t[1], 1e-3);
        });
    }

    #[test]
    fn misfits_are_errors() {
        assert_eq!(
            (&Tensor::zeros(&[2, 3]) - &Tensor::zeros(&[2])).unwrap_err().to_string(),
            "sub: shapes [2, 3] and [2] do not broadcast"
        );
    }
}
