//! Fused optimizer steps over variables, in place and multi-threaded.

use crate::cpu::{optim, sum};
use crate::{Error, Result, Tensor, Var};

/// What one step of Adam or AdamW does; `Default` has the usual constants and no decay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamStep {
    /// The learning rate of this step.
    pub lr: f64,
    /// Decay of the average gradient.
    pub beta1: f64,
    /// Decay of the average squared gradient.
    pub beta2: f64,
    /// Added to the root of the corrected average square.
    pub eps: f64,
    /// Decoupled decay: the parameter is multiplied by `1 - lr * weight_decay` first (AdamW).
    pub weight_decay: f64,
    /// Coupled decay: `l2 * parameter` is added to the gradient (Adam).
    pub l2: f64,
    /// Which step this is, from 1, for the bias correction.
    pub step: u64,
}

impl Default for AdamStep {
    fn default() -> Self {
        Self { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, l2: 0.0, step: 1 }
    }
}

/// One step of Adam (Kingma and Ba, ICLR 2015) or AdamW (Loshchilov and Hutter, ICLR 2019) on `param`, given its
/// gradient times `grad_scale` and the averages `m` and `v`, buffers of the parameter's shape that start at zero.
///
/// # Errors
/// [`Error::Shape`] if the sizes differ or `step` is 0.
pub fn adam(param: &Var, grad: &Tensor, m: &Var, v: &Var, grad_scale: f32, how: &AdamStep) -> Result<()> {
    if how.step == 0 {
        return Err(Error::shape("adam", "steps count from 1, found step 0"));
    }
    let power = how.step as f64;
    let (correction1, correction2) = (1.0 - how.beta1.powf(power), 1.0 - how.beta2.powf(power));
    let constants = optim::Adam {
        grad_scale,
        l2: how.l2 as f32,
        keep: (1.0 - how.lr * how.weight_decay) as f32,
        beta1: how.beta1 as f32,
        rest1: (1.0 - how.beta1) as f32,
        beta2: how.beta2 as f32,
        rest2: (1.0 - how.beta2) as f32,
        step_size: (how.lr / correction1) as f32,
        root_scale: (1.0 / correction2.sqrt()) as f32,
        eps: how.eps as f32,
    };
    param.write(|p| {
        m.write(|m| {
            v.write(|v| {
                if [grad.len(), m.len(), v.len()] != [p.len(); 3] {
                    return Err(Error::shape(
                        "adam",
                        format!(
                            "a parameter of {} elements with a gradient of {} and averages of {} and {}",
                            p.len(),
                            grad.len(),
                            m.len(),
                            v.len()
                        ),
                    ));
                }
                optim::adam(constants, p, grad.as_slice(), m, v);
                Ok(())
            })
        })
    })
}

/// `average = decay * average + (1 - decay) * param`.
///
/// # Errors
/// [`Error::Shape`] if the sizes differ.
pub fn ema(average: &Var, param: &Tensor, decay: f32) -> Result<()> {
    average.write(|average| {
        if average.len() != param.len() {
            return Err(Error::shape(
                "ema",
                format!("an average of {} elements and a value of {}", average.len(), param.len()),
            ));
        }
        optim::ema(average, param.as_slice(), decay, (1.0 - f64::from(decay)) as f32);
        Ok(())
    })
}

/// The sum of squares of all elements, in f64 and in a fixed order.
pub fn sum_of_squares(t: &Tensor) -> f64 {
    sum::sum_of_squares(t.as_slice())
}
