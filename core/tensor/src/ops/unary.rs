//! Functions of one element.

use crate::cpu::elementwise::{Map, Zip, map, update};
use crate::cpu::math;
use crate::tape::{GradKey, record};
use crate::{Error, Result, Tensor};

/// A function and its derivative, as a function of the input or, where that is cheaper, of the output.
trait Function: Map + 'static {
    const SLOPE_OF_OUTPUT: bool;
    fn slope(self, at: f32) -> f32;
}

/// The gradient of the output times the slope.
#[derive(Clone, Copy)]
struct Chain<F>(F);

impl<F: Function> Zip for Chain<F> {
    #[inline(always)]
    fn value(self, grad: f32, at: f32) -> f32 {
        grad * self.0.slope(at)
    }
}

macro_rules! function {
    ($name:ident { $($field:ident),* }, |$this:ident, $x:ident| $value:expr, slope of $what:ident: |$at:ident| $slope:expr) => {
        #[derive(Clone, Copy)]
        struct $name { $($field: f32),* }
        impl Map for $name {
            #[inline(always)]
            fn value(self, $x: f32) -> f32 {
                let $this = self;
                let _ = $this;
                $value
            }
        }
        impl Function for $name {
            const SLOPE_OF_OUTPUT: bool = function!(@ $what);
            #[inline(always)]
            fn slope(self, $at: f32) -> f32 {
                let $this = self;
                let _ = $this;
                $slope
            }
        }
    };
    (@ input) => { false };
    (@ output) => { true };
}

function!(Abs {}, |f, x| x.abs(), slope of input: |x| if x > 0.0 { 1.0 } else if x < 0.0 { -1.0 } else { 0.0 });
function!(Square {}, |f, x| x * x, slope of input: |x| 2.0 * x);
function!(Sqrt {}, |f, x| x.sqrt(), slope of output: |y| 0.5 / y);
function!(Exp {}, |f, x| math::exp(x), slope of output: |y| y);
function!(Ln {}, |f, x| x.ln(), slope of input: |x| 1.0 / x);
function!(Tanh {}, |f, x| math::tanh(x), slope of output: |y| 1.0 - y * y);
function!(Sigmoid {}, |f, x| math::sigmoid(x), slope of output: |y| y * (1.0 - y));
// Comparisons are written so that a NaN stays one.
function!(Relu {}, |f, x| if x < 0.0 { 0.0 } else { x }, slope of output: |y| if y > 0.0 { 1.0 } else { 0.0 });
function!(Silu {}, |f, x| x * math::sigmoid(x), slope of input: |x| {
    let s = math::sigmoid(x);
    s * (1.0 + x * (1.0 - s))
});
function!(Gelu {}, |f, x| x * math::normal(x).0, slope of input: |x| {
    let (cdf, density) = math::normal(x);
    cdf + x * density
});
function!(Clamp { low, high },
    |f, x| if x < f.low { f.low } else if x > f.high { f.high } else { x },
    slope of input: |x| if x < f.low || x > f.high { 0.0 } else { 1.0 });

impl Tensor {
    fn unary<F: Function>(&self, f: F) -> Result<Tensor> {
        let key = self.tracked().map(|x| (x, GradKey::new()));
        let out = Tensor::output(map(f, self.as_slice()), self.shape(), key.as_ref().map(|k| k.1.clone()));
        if let Some((x, key)) = key {
            let at = if F::SLOPE_OF_OUTPUT { out.detach() } else { self.detach() };
            record(&key, move |mut grad, flow| {
                update(Chain(f), &mut grad, at.as_slice());
                flow.add(&x, grad)
            });
        }
        Ok(out)
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

    /// `x sigmoid(x)`, also known as swish.
    pub fn silu(&self) -> Result<Tensor> {
        self.unary(Silu {})
    }

    /// `x Phi(x)` with the exact distribution function of the standard normal, not the tanh approximation
    /// (Hendrycks and Gimpel, "Gaussian error linear units", 2016).
    pub fn gelu(&self) -> Result<Tensor> {
        self.unary(Gelu {})
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
