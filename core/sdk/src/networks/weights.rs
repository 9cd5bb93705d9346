//! The tensors of a published network, taken one by one by name and shape.

use crate::checkpoint::Checkpoint;
use crate::tensor::Tensor;
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;

/// Tensors by their published names. A network takes those that it has, and [`Weights::finish`] asks whether any is left:
/// a file of another network is found by what it lacks, by shapes, or by what it has more.
#[derive(Debug, Clone)]
pub struct Weights {
    tensors: BTreeMap<String, Tensor>,
    source: String,
}

impl Weights {
    /// Tensors, and where they are from, for messages.
    pub fn new(tensors: BTreeMap<String, Tensor>, source: impl Into<String>) -> Self {
        Self { tensors, source: source.into() }
    }

    /// The tensors of a safetensors file.
    ///
    /// # Errors
    /// Those of [`Checkpoint::load`].
    pub fn load(path: &Path) -> Result<Self> {
        Ok(Self::new(Checkpoint::load(path)?.tensors, path.display().to_string()))
    }

    /// Whether there is a tensor `name`.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The shape of the tensor `name`.
    ///
    /// # Errors
    /// There is none.
    pub fn shape(&self, name: &str) -> Result<&[usize]> {
        self.tensors.get(name).map(Tensor::shape).ok_or_else(|| self.wrong(format!("there is no `{name}`")))
    }

    /// Takes the tensor `name` of shape `shape`.
    ///
    /// # Errors
    /// There is none of that name and shape.
    pub fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let found = self.shape(name)?;
        if found != shape {
            return Err(self.wrong(format!("`{name}` is {found:?}, not {shape:?}")));
        }
        self.tensors.remove(name).ok_or_else(|| self.wrong(format!("there is no `{name}`")))
    }

    /// Leaves out what a network of this kind may have and has no use for.
    pub fn leave_out(&mut self, unused: impl Fn(&str) -> bool) {
        self.tensors.retain(|name, _| !unused(name));
    }

    /// Checks that all tensors were taken.
    ///
    /// # Errors
    /// One is left.
    pub fn finish(self) -> Result<()> {
        match self.tensors.keys().next() {
            Some(name) => Err(self.wrong(format!("`{name}` is no part of it ({} such tensors)", self.tensors.len()))),
            None => Ok(()),
        }
    }

    fn wrong(&self, what: String) -> Error {
        let message = format!("{} holds another network: {what}; docs/weights.md tells how to convert it", self.source);
        Error::Checkpoint(message)
    }
}
