//! What a case computed.

use super::Result;
use super::case::Array;
use rqlab_sdk::params::Params;
use rqlab_sdk::tensor::{Codes, Gradients, Tape, Tensor};
use std::collections::BTreeMap;

/// Computed results by name.
#[derive(Debug, Default)]
pub struct Outputs {
    values: BTreeMap<String, Array>,
    absent: Vec<(String, String)>,
}

impl Outputs {
    /// Numbers in a shape.
    pub fn array(&mut self, name: impl Into<String>, shape: &[usize], data: Vec<f64>) {
        self.values.insert(name.into(), Array { shape: shape.to_vec(), data });
    }

    /// A tensor.
    pub fn tensor(&mut self, name: impl Into<String>, value: &Tensor) {
        self.array(name, value.shape(), value.as_slice().iter().map(|&x| f64::from(x)).collect());
    }

    /// A map `[B, H, W, C]`, to be compared as `[B, C, H, W]`.
    ///
    /// # Errors
    /// Another rank.
    pub fn map(&mut self, name: impl Into<String>, value: &Tensor) -> Result<()> {
        self.tensor(name, &value.permute(&[0, 3, 1, 2])?);
        Ok(())
    }

    /// Codes.
    pub fn codes(&mut self, name: impl Into<String>, value: &Codes) {
        self.array(name, value.shape(), value.as_slice().iter().map(|&x| f64::from(x)).collect());
    }

    /// A single number.
    pub fn number(&mut self, name: impl Into<String>, value: f64) {
        self.array(name, &[], vec![value]);
    }

    /// A list of numbers.
    pub fn numbers(&mut self, name: impl Into<String>, values: impl IntoIterator<Item = f64>) {
        let data: Vec<f64> = values.into_iter().collect();
        self.array(name, &[data.len()], data);
    }

    /// A list of truths, 0 or 1.
    pub fn flags(&mut self, name: impl Into<String>, values: &[bool]) {
        self.numbers(name, values.iter().map(|&x| f64::from(u8::from(x))));
    }

    /// Results whose names begin with `prefix` belong to `part`, which does not exist yet.
    pub fn not_yet(&mut self, prefix: impl Into<String>, part: impl Into<String>) {
        self.absent.push((prefix.into(), part.into()));
    }

    /// The result of that name.
    pub fn get(&self, name: &str) -> Option<&Array> {
        self.values.get(name)
    }

    /// The part that does not exist yet to which a result of that name belongs.
    pub fn absent(&self, name: &str) -> Option<&str> {
        self.absent.iter().find(|(prefix, _)| name.starts_with(prefix)).map(|(_, part)| part.as_str())
    }

    /// The gradients of all trained parameters, each under the name that `named` gives it.
    pub fn parameter_gradients(&mut self, params: &Params, found: &mut Gradients, named: impl Fn(&str) -> String) {
        for (name, var) in params.trained() {
            self.tensor(named(&name), &gradient(found, &var.get()));
        }
    }
}

/// Records `f` and sends the gradient 1 back from the loss that it returns.
///
/// # Errors
/// Those of `f`.
pub(super) fn backward(f: impl FnOnce() -> Result<Tensor>) -> Result<Gradients> {
    let tape = Tape::start()?;
    let loss = f()?;
    Ok(tape.backward(&loss)?)
}

/// The gradient of `leaf`; zeros if none reached it.
pub(super) fn gradient(found: &mut Gradients, leaf: &Tensor) -> Tensor {
    found.take(leaf).unwrap_or_else(|| Tensor::zeros(leaf.shape()))
}

/// `sum(a * b)`, the loss that sends the gradient `b` to `a`.
///
/// # Errors
/// Shapes that do not fit.
pub(super) fn inner(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Ok(a.mul(b)?.sum_all()?)
}
