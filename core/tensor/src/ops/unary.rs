//! Functions of one element.

use super::arithmetic::{Binary, binary_into};
use super::kernel::{Kernel, run};
use crate::cpu::isa::math;
use crate::cpu::loops::elementwise::{Map, Sloped, Zip, map, sloped, update};
#[cfg(feature = "cuda")]
use crate::cuda::{Gpu, Numbers};
use crate::{Device, Error, Result, Tensor};
#[cfg(feature = "cuda")]
use dfdx::prelude::CudaError;

/// A function and its derivative, as a function of the input or, where that is cheaper, of the output.
trait Function: Map + 'static {
    const NAME: &'static str;
    const SLOPE_OF_OUTPUT: bool;
    /// Whether the CPU computes the slope along with the value, with which it shares most of the work, and keeps it.
    const SLOPE_KEPT: bool;
    fn slope<const FUSED: bool>(self, at: f32) -> f32;
    /// The fields, for the kernel of a GPU.
    #[cfg(feature = "cuda")]
    fn parameters(self) -> [f32; 2];
}

/// The gradient of the output times the slope.
#[derive(Clone, Copy)]
struct Chain<F>(F);

impl<F: Function> Zip for Chain<F> {
    #[inline(always)]
    fn value<const FUSED: bool>(self, grad: f32, at: f32) -> f32 {
        grad * self.0.slope::<FUSED>(at)
    }
}

/// A function whose value and slope are computed together.
#[derive(Clone, Copy)]
struct Both<F>(F);

impl<F: Function> Sloped for Both<F> {
    #[inline(always)]
    fn both<const FUSED: bool>(self, x: f32) -> (f32, f32) {
        // Once both are inlined, the compiler computes what they share once.
        (self.0.value::<FUSED>(x), self.0.slope::<FUSED>(x))
    }
}

/// The function as a kernel.
struct Apply<F>(F);

impl<F: Function> Kernel<1> for Apply<F> {
    fn cpu(&self, [x]: [&[f32]; 1]) -> Vec<f32> {
        map(self.0, x)
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, gpu: &Gpu, [x]: [&Numbers; 1]) -> Result<Numbers, CudaError> {
        gpu.map(F::NAME, x, self.0.parameters())
    }
}

/// The gradient times the slope at `at`, in place.
fn chain<F: Function>(f: F, mut grad: Tensor, at: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let Some(at) = at.gpu_buffer() {
        grad.storage_mut().write_on_gpu(|grad| at.gpu().chain(F::NAME, at.numbers(), grad, f.parameters()))?;
        return Ok(grad);
    }
    grad.storage_mut().write(|grad| update(Chain(f), grad, at.as_slice()));
    Ok(grad)
}

macro_rules! function {
    ($name:ident($text:literal) { $($field:ident),* }, |$this:ident, $x:ident| $value:expr, slope of $what:ident: |$at:ident| $slope:expr) => {
        #[derive(Clone, Copy)]
        pub(crate) struct $name { $($field: f32),* }
        impl Map for $name {
            #[inline(always)]
            fn value<const FUSED: bool>(self, $x: f32) -> f32 {
                let $this = self;
                let _ = $this;
                $value
            }
        }
        impl Function for $name {
            const NAME: &'static str = $text;
            const SLOPE_OF_OUTPUT: bool = function!(@ $what);
            const SLOPE_KEPT: bool = function!(@kept $what);
            #[inline(always)]
            fn slope<const FUSED: bool>(self, $at: f32) -> f32 {
                let $this = self;
                let _ = $this;
                $slope
            }
            #[cfg(feature = "cuda")]
            fn parameters(self) -> [f32; 2] {
                let all = [$(self.$field,)* 0.0, 0.0];
                [all[0], all[1]]
            }
        }
    };
    (@ output) => { true };
    (@ $other:ident) => { false };
    (@kept kept) => { true };
    (@kept $other:ident) => { false };
}

function!(Abs("abs") {}, |f, x| x.abs(), slope of input: |x| if x > 0.0 { 1.0 } else if x < 0.0 { -1.0 } else { 0.0 });
function!(Square("square") {}, |f, x| x * x, slope of input: |x| 2.0 * x);
function!(Sqrt("sqrt") {}, |f, x| x.sqrt(), slope of output: |y| 0.5 / y);
function!(Exp("exp") {}, |f, x| math::exp::<FUSED>(x), slope of output: |y| y);
function!(Ln("ln") {}, |f, x| x.ln(), slope of input: |x| 1.0 / x);
function!(Tanh("tanh") {}, |f, x| math::tanh::<FUSED>(x), slope of output: |y| 1.0 - y * y);
function!(Sigmoid("sigmoid") {}, |f, x| math::sigmoid::<FUSED>(x), slope of output: |y| y * (1.0 - y));
// Comparisons are written so that a NaN stays one.
function!(Relu("relu") {}, |f, x| if x < 0.0 { 0.0 } else { x }, slope of output: |y| if y > 0.0 { 1.0 } else { 0.0 });
// Its sign is that of the input: the output tells the slope.
function!(LeakyRelu("leaky_relu") { below }, |f, x| if x < 0.0 { f.below * x } else { x },
    slope of output: |y| if y > 0.0 { 1.0 } else { f.below });
// Its output, above -1, tells the slope.
function!(Elu("elu") {}, |f, x| if x > 0.0 { x } else { math::exp_minus_one::<FUSED>(x) },
    slope of output: |y| if y > 0.0 { 1.0 } else { y + 1.0 });
function!(Softplus("softplus") {}, |f, x| (-x.abs()).exp().ln_1p() + if x < 0.0 { 0.0 } else { x },
    slope of input: |x| math::sigmoid::<FUSED>(x));
function!(Silu("silu") {}, |f, x| x * math::sigmoid::<FUSED>(x), slope of kept: |x| {
    let s = math::sigmoid::<FUSED>(x);
    s * (1.0 + x * (1.0 - s))
});
function!(Gelu("gelu") {}, |f, x| x * math::normal::<FUSED>(x).0, slope of kept: |x| {
    let (cdf, density) = math::normal::<FUSED>(x);
    cdf + x * density
});
// x sigmoid(2 u) with u = sqrt(2 / pi) (x + 0.044715 x^3): half of one plus tanh u is that sigmoid.
function!(GeluTanh("gelu_tanh") {}, |f, x| x * math::sigmoid::<FUSED>(TWICE_ROOT * x * (1.0 + CUBIC * x * x)), slope of kept: |x| {
    let s = math::sigmoid::<FUSED>(TWICE_ROOT * x * (1.0 + CUBIC * x * x));
    s + x * s * (1.0 - s) * TWICE_ROOT * (1.0 + 3.0 * CUBIC * x * x)
});
function!(Clamp("clamp") { low, high },
    |f, x| if x < f.low { f.low } else if x > f.high { f.high } else { x },
    slope of input: |x| if x < f.low || x > f.high { 0.0 } else { 1.0 });
// Steps, flat wherever they have a slope.
function!(Round("round") {}, |f, x| x.round_ties_even(), slope of input: |_x| 0.0);
function!(Floor("floor") {}, |f, x| x.floor(), slope of input: |_x| 0.0);
function!(Heaviside("heaviside") {}, |f, x| if x > 0.0 { 1.0 } else if x <= 0.0 { 0.0 } else { x }, slope of input: |_x| 0.0);

/// Of the tanh approximation of GELU: 2 sqrt(2 / pi), and the share of the cube.
const TWICE_ROOT: f32 = 1.595_769;
const CUBIC: f32 = 0.044_715;

impl Sloped for Gelu {
    #[inline(always)]
    fn both<const FUSED: bool>(self, x: f32) -> (f32, f32) {
        Both(self).both::<FUSED>(x)
    }
}

impl Tensor {
    fn unary<F: Function>(&self, f: F) -> Result<Tensor> {
        if F::SLOPE_KEPT && self.tracked().is_some() && self.device() == Device::Cpu {
            let (out, slope) = sloped(Both(f), self.as_slice());
            let slope = Tensor::output(slope, self.shape(), None);
            return Tensor::output(out, self.shape(), None).with_backward(&[self], |_| {
                move |grad, gradients| gradients.add(0, binary_into(Binary::Mul, grad, &slope)?)
            });
        }
        run(F::NAME, &Apply(f), [self], self.shape())?.with_backward(&[self], |out| {
            let at = if F::SLOPE_OF_OUTPUT { out.clone() } else { self.detach() };
            move |grad, gradients| gradients.add(0, chain(f, grad, &at)?)
        })
    }

    /// `-x`.
    pub fn neg(&self) -> Result<Tensor> {
        self.mul_scalar(-1.0)
    }

    /// `|x|`; slope 0 at 0.
    pub fn abs(&self) -> Result<Tensor> {
        self.unary(Abs {})
    }

    /// `x^2`.
    pub fn square(&self) -> Result<Tensor> {
        self.unary(Square {})
    }

    /// The square root; infinite slope at 0.
    pub fn sqrt(&self) -> Result<Tensor> {
        self.unary(Sqrt {})
    }

    /// `e^x`.
    pub fn exp(&self) -> Result<Tensor> {
        self.unary(Exp {})
    }

    /// The natural logarithm.
    pub fn ln(&self) -> Result<Tensor> {
        self.unary(Ln {})
    }

    /// The hyperbolic tangent.
    pub fn tanh(&self) -> Result<Tensor> {
        self.unary(Tanh {})
    }

    /// `1 / (1 + e^-x)`.
    pub fn sigmoid(&self) -> Result<Tensor> {
        self.unary(Sigmoid {})
    }

    /// `max(x, 0)`; slope 0 at 0.
    pub fn relu(&self) -> Result<Tensor> {
        self.unary(Relu {})
    }

    /// `x`, or `below x` where x is negative; slope `below` at 0.
    ///
    /// # Errors
    /// [`Error::Shape`] if `below` is negative: the output would not tell the slope.
    pub fn leaky_relu(&self, below: f32) -> Result<Tensor> {
        if below >= 0.0 {
            self.unary(LeakyRelu { below })
        } else {
            Err(Error::shape("leaky_relu", format!("the slope {below} below zero is negative")))
        }
    }

    /// `x`, or `e^x - 1` where x is negative (Clevert et al., "Fast and accurate deep network learning by exponential linear
    /// units", 2016).
    pub fn elu(&self) -> Result<Tensor> {
        self.unary(Elu {})
    }

    /// `ln(1 + e^x)`, for any x.
    pub fn softplus(&self) -> Result<Tensor> {
        self.unary(Softplus {})
    }

    /// `x sigmoid(x)`, also known as swish.
    pub fn silu(&self) -> Result<Tensor> {
        self.unary(Silu {})
    }

    /// `x Phi(x)` with the exact distribution function of the standard normal, not the tanh approximation
    /// (Hendrycks and Gimpel, "Gaussian error linear units", 2016).
    pub fn gelu(&self) -> Result<Tensor> {
        self.unary(Gelu {})
    }

    /// `x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2`, the approximation of [`Tensor::gelu`] that GPT-2 and VAR take.
    pub fn gelu_tanh(&self) -> Result<Tensor> {
        self.unary(GeluTanh {})
    }

    /// The nearest whole number, of two the even one; slope 0.
    pub fn round(&self) -> Result<Tensor> {
        self.unary(Round {})
    }

    /// The largest whole number that is not above; slope 0.
    pub fn floor(&self) -> Result<Tensor> {
        self.unary(Floor {})
    }

    /// 1 above 0, else 0; slope 0.
    pub fn heaviside(&self) -> Result<Tensor> {
        self.unary(Heaviside {})
    }

    /// `x` limited to `low..=high`; slope 1 within, the ends included.
    ///
    /// # Errors
    /// [`Error::Shape`] unless `low <= high`.
    pub fn clamp(&self, low: f32, high: f32) -> Result<Tensor> {
        if low <= high {
            self.unary(Clamp { low, high })
        } else {
            Err(Error::shape("clamp", format!("the range {low}..={high} is empty")))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first failure")]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, check_gradients, on_every_device, random};

    fn check(f: fn(&Tensor) -> Result<Tensor>, exact: fn(f64) -> f64, x: &Tensor) {
        let wanted: Vec<f32> = x.as_slice().iter().map(|&x| exact(f64::from(x)) as f32).collect();
        assert_close(f(x).unwrap().as_slice(), &wanted, 1e-6);
        check_gradients(std::slice::from_ref(x), |x| f(&x[0]), 2e-3);
    }

    /// x (1 + erf(x / sqrt 2)) / 2, by integrating the density with Simpson's rule.
    fn gelu(x: f64) -> f64 {
        let density = |t: f64| (-t * t / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let n = 2000;
        let h = x / f64::from(n);
        let weight = |i| {
            if i == 0 || i == n {
                1.0
            } else if i % 2 == 1 {
                4.0
            } else {
                2.0
            }
        };
        x * (0.5 + h / 3.0 * (0..=n).map(|i| weight(i) * density(f64::from(i) * h)).sum::<f64>())
    }

    /// By its definition.
    fn gelu_tanh(x: f64) -> f64 {
        x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh()) / 2.0
    }

    #[test]
    fn functions_equal_their_definitions_and_slopes_the_finite_differences() {
        on_every_device(|| {
            for shape in [&[1][..], &[3, 7], &[2, 5, 13], &[65]] {
                let x = random(shape, 1);
                // Away from kinks and poles, where differences say nothing.
                let away =
                    Tensor::from_vec(x.as_slice().iter().map(|x| x + 0.1 * x.signum()).collect(), shape).unwrap();
                let positive = Tensor::from_vec(x.as_slice().iter().map(|x| x.abs() + 0.3).collect(), shape).unwrap();
                check(Tensor::neg, |x| -x, &x);
                check(Tensor::abs, f64::abs, &away);
                check(Tensor::square, |x| x * x, &x);
                check(Tensor::sqrt, f64::sqrt, &positive);
                check(Tensor::exp, f64::exp, &x);
                check(Tensor::ln, f64::ln, &positive);
                check(Tensor::tanh, f64::tanh, &x);
                check(Tensor::sigmoid, |x| 1.0 / (1.0 + (-x).exp()), &x);
                check(Tensor::relu, |x| x.max(0.0), &away);
                check(|x| x.leaky_relu(0.2), |x| if x < 0.0 { 0.2 * x } else { x }, &away);
                check(Tensor::elu, |x| if x < 0.0 { x.exp_m1() } else { x }, &x);
                check(Tensor::softplus, |x| x.exp().ln_1p(), &x);
                check(Tensor::silu, |x| x / (1.0 + (-x).exp()), &x);
                check(Tensor::gelu, gelu, &x);
                check(Tensor::gelu_tanh, gelu_tanh, &x);
                check(|x| x.clamp(-10.0, 10.0), |x| x, &x);
            }
        });
    }

    #[test]
    fn clamp_passes_gradients_only_within_the_range() {
        on_every_device(|| {
            let x = Tensor::from_vec(vec![-2.0, -1.0, 0.5, 1.0, 3.0], &[5]).unwrap();
            assert_eq!(x.clamp(-1.0, 1.0).unwrap().to_vec(), [-1.0, -1.0, 0.5, 1.0, 1.0]);
            let leaf = x.leaf();
            let tape = crate::Tape::start().unwrap();
            let loss = leaf.clamp(-1.0, 1.0).unwrap().sum_all().unwrap();
            assert_eq!(tape.backward(&loss).unwrap().take(&leaf).unwrap().to_vec(), [0.0, 1.0, 1.0, 1.0, 0.0]);
            assert!(x.clamp(1.0, -1.0).is_err());
        });
    }

    #[test]
    fn softplus_neither_overflows_nor_loses_digits() {
        on_every_device(|| {
            let x = Tensor::from_vec(vec![-100.0, -20.0, 0.0, 100.0], &[4]).unwrap();
            let found = x.softplus().unwrap().to_vec();
            let wanted = [(-100f32).exp(), (-20f32).exp(), std::f32::consts::LN_2, 100.0];
            assert!(found.iter().zip(wanted).all(|(x, y)| (x - y).abs() <= 1e-6 * y + f32::MIN_POSITIVE), "{found:?}");
            assert!(x.leaky_relu(-0.1).is_err());
        });
    }

    #[test]
    fn steps_are_whole_numbers_and_stop_gradients() {
        on_every_device(|| {
            let x = Tensor::from_vec(vec![-2.5, -1.5, -0.6, -0.0, 0.0, 0.5, 1.5, 2.4, 9.5e6], &[9]).unwrap();
            let leaf = x.leaf();
            for (step, wanted) in [
                (Tensor::round as fn(&Tensor) -> _, [-2.0, -2.0, -1.0, 0.0, 0.0, 0.0, 2.0, 2.0, 9.5e6]),
                (Tensor::floor, [-3.0, -2.0, -1.0, 0.0, 0.0, 0.0, 1.0, 2.0, 9.5e6]),
                (Tensor::heaviside, [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]),
            ] {
                assert_eq!(step(&x).unwrap().to_vec(), wanted);
                let tape = crate::Tape::start().unwrap();
                let loss = step(&leaf).unwrap().sum_all().unwrap();
                assert_eq!(tape.backward(&loss).unwrap().take(&leaf).unwrap().to_vec(), [0.0; 9]);
            }
        });
    }

    #[test]
    fn a_nan_stays_visible() {
        on_every_device(|| {
            let x = Tensor::scalar(f32::NAN);
            for f in [
                Tensor::relu,
                Tensor::elu,
                Tensor::softplus,
                Tensor::silu,
                Tensor::gelu,
                Tensor::gelu_tanh,
                Tensor::tanh,
                Tensor::exp,
                Tensor::round,
                Tensor::heaviside,
            ] {
                assert!(f(&x).unwrap().item().unwrap().is_nan());
            }
            assert!(x.clamp(0.0, 1.0).unwrap().item().unwrap().is_nan());
        });
    }
}
