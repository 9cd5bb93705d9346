//! Gradients against finite differences.

use super::{Broken, Check, ensure, finite, random};
use crate::Result;
use crate::params::Params;
use crate::tensor::{Tape, Tensor, no_grad};

/// Gradients may differ by this share from finite differences.
const SHARE: f64 = 0.02;

/// A loss is a sum in f32: it may be off by this share of itself (or of 1, if it is smaller).
const ROUNDING: f64 = 2e-6;

/// Fails unless the gradient of `loss` at every trained parameter is the slope of the loss there.
pub(super) fn parameters(params: &Params, mut loss: impl FnMut() -> Result<Tensor>) -> Check {
    let tape = Tape::start()?;
    let value = loss()?;
    finite("the loss", &value)?;
    let mut gradients = tape.backward(&value)?;
    for (name, var) in params.trained() {
        let start = var.get().detach();
        let gradient = gradients.take(&var.get());
        let slope = slope(&name, &start, gradient.as_ref(), |moved| {
            var.set(moved)?;
            no_grad(&mut loss)
        });
        var.set(&start)?;
        slope?;
    }
    Ok(())
}

/// Fails unless the gradient of `loss` at `x` is the slope of the loss there.
pub(super) fn input(name: &str, x: &Tensor, mut loss: impl FnMut(&Tensor) -> Result<Tensor>) -> Check {
    let leaf = x.leaf();
    let tape = Tape::start()?;
    let value = loss(&leaf)?;
    finite("the loss", &value)?;
    let gradient = tape.backward(&value)?.take(&leaf);
    ensure(gradient.is_some(), || format!("no gradient reaches {name}"))?;
    slope(name, x, gradient.as_ref(), |moved| no_grad(|| loss(moved)))
}

/// Compares with differences along one direction, between that of the gradient and a random one: one direction sees a wrong
/// length as well as a wrong direction, and has a slope that stands out from rounding.
fn slope(
    name: &str,
    start: &Tensor,
    gradient: Option<&Tensor>,
    mut loss: impl FnMut(&Tensor) -> Result<Tensor>,
) -> Check {
    let unit = |values: &[f32]| -> Vec<f64> {
        let length = values.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
        values.iter().map(|&x| f64::from(x) / length).collect()
    };
    let mut direction = unit(random(start.shape(), name).as_slice());
    let mut wanted = 0.0;
    if let Some(gradient) = gradient {
        ensure(gradient.as_slice().iter().all(|g| g.is_finite()), || format!("the gradient of {name} is not finite"))?;
        let both: Vec<f32> =
            unit(gradient.as_slice()).iter().zip(&direction).map(|(g, r)| (g + 0.5 * r) as f32).collect();
        direction = unit(&both);
        wanted = gradient.as_slice().iter().zip(&direction).map(|(&g, d)| f64::from(g) * d).sum();
    }
    let size = start.as_slice().iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    let step = (0.005 * size).max(0.0025 * (start.len() as f64).sqrt());
    let mut at = |t: f64| -> Check<f64> {
        let moved = start.as_slice().iter().zip(&direction).map(|(&x, d)| (f64::from(x) + t * d) as f32).collect();
        finite("the loss", &loss(&Tensor::from_vec(moved, start.shape())?)?)
    };
    let mut found = 0.0;
    // Kinks, as of ReLU, bend a difference over a wide step: where it disagrees, narrower ones are tried, as long as rounding
    // leaves most of the slope.
    for (trial, step) in [step, step / 4.0, step / 16.0].into_iter().enumerate() {
        let values = [at(step)?, at(-step)?, at(step / 2.0)?, at(-step / 2.0)?];
        let coarse = (values[0] - values[1]) / (2.0 * step);
        let fine = (values[2] - values[3]) / step;
        // Richardson's extrapolation: the error of second order cancels.
        let difference = (4.0 * fine - coarse) / 3.0;
        let largest = values.iter().fold(1.0f64, |largest, value| largest.max(value.abs()));
        let rounding = ROUNDING * largest / step;
        if trial > 0 && rounding > 0.25 * wanted.abs() {
            break;
        }
        found = difference;
        if (found - wanted).abs() <= SHARE * wanted.abs().max(found.abs()) + rounding {
            return Ok(());
        }
    }
    let gradient = if gradient.is_some() { format!("{wanted:e}") } else { "nothing".to_owned() };
    Err(Broken(format!(
        "along a direction the loss changes with {name} by {found:e}, and the gradient says {gradient}"
    )))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::params::Init;

    fn check(gradient_of: impl Fn(&Tensor) -> Tensor) -> Check {
        let params = Params::new(1);
        let w = params.parameter("w", &[3, 4], Init::Normal(1.0)).unwrap();
        parameters(&params, || Ok(gradient_of(&w.get())))
    }

    #[test]
    fn gradients_that_are_none_are_found() {
        check(|w| w.tanh().unwrap().square().unwrap().mean_all().unwrap()).unwrap();
        let half = |w: &Tensor| w.square().unwrap().add(&w.detach().square().unwrap()).unwrap().mean_all().unwrap();
        assert!(check(half).unwrap_err().0.contains('w'));
        // The value of one function with the gradient of another.
        let other = |w: &Tensor| w.straight_through(&w.sigmoid().unwrap()).unwrap().mean_all().unwrap();
        check(other).unwrap_err();
    }

    #[test]
    fn a_parameter_that_counts_and_gets_no_gradient_is_found() {
        let params = Params::new(1);
        let a = params.parameter("a", &[5], Init::Normal(1.0)).unwrap();
        let b = params.parameter("b", &[5], Init::Normal(1.0)).unwrap();
        let loss = || Ok(a.get().mul(&b.get().detach())?.sum_all()?);
        assert!(parameters(&params, loss).unwrap_err().0.contains("nothing"));
        let loss = || Ok(a.get().mul(&b.get())?.sum_all()?);
        parameters(&params, loss).unwrap();
    }

    #[test]
    fn an_input_without_gradient_is_found() {
        let x = random(&[6], "x");
        input("x", &x, |x| Ok(x.exp()?.mean_all()?)).unwrap();
        let w = random(&[6], "w").leaf();
        input("x", &x, |x| Ok(x.detach().mul(&w)?.sum_all()?)).unwrap_err();
    }
}
