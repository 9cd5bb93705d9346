//! The named parameters and buffers of a model.

use crate::{Error, Result};
use rqlab_tensor::{Rng, Tensor, Var};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};

/// How a parameter gets its first values. Draws depend on the seed and on the parameter's full name alone, not on the
/// order of construction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// Every element the same.
    Constant(f32),
    /// Normal with mean 0 and this standard deviation.
    Normal(f32),
    /// Normal with this mean and standard deviation.
    Around(f32, f32),
    /// Uniform in [-bound, bound).
    Uniform(f32),
}

impl Init {
    /// All zeros.
    pub const ZEROS: Self = Self::Constant(0.0);
    /// All ones.
    pub const ONES: Self = Self::Constant(1.0);

    /// What PyTorch gives linear and convolution weights and biases: U(±1/sqrt(fan_in)) (Kaiming uniform with a = sqrt 5).
    pub fn fan_in(fan_in: usize) -> Self {
        Self::Uniform(1.0 / (fan_in.max(1) as f32).sqrt())
    }

    /// Uniform by inputs and outputs: U(±sqrt(6 / (inputs + outputs))) (Glorot and Bengio, AISTATS 2010).
    pub fn xavier(inputs: usize, outputs: usize) -> Self {
        Self::Uniform((6.0 / (inputs + outputs).max(1) as f32).sqrt())
    }

    fn fill(self, rng: &Rng, len: usize) -> Vec<f32> {
        match self {
            Self::Constant(value) => vec![value; len],
            Self::Normal(std) => rng.normal(len).into_iter().map(|x| x * std).collect(),
            Self::Around(mean, std) => rng.normal(len).into_iter().map(|x| mean + x * std).collect(),
            Self::Uniform(bound) => rng.uniform(len).into_iter().map(|u| (2.0 * u - 1.0) * bound).collect(),
        }
    }
}

/// What moves an entry of a model's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A parameter that an optimizer trains.
    Trained,
    /// A parameter that is an average of what the model saw, such as the codes of an EMA codebook: no optimizer trains it.
    Averaged,
    /// What is kept beside the parameters: counts and sums of averages, running statistics.
    Buffer,
}

/// One entry of a model's state.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The shape that was asked for.
    pub shape: Vec<usize>,
    /// The variable.
    pub var: Var,
    /// What moves it.
    pub role: Role,
}

#[derive(Debug)]
struct Store {
    seed: u64,
    dry: bool,
    entries: Mutex<BTreeMap<String, Entry>>,
}

/// Hands out the parameters of a model under dotted names, and remembers them for optimizers and checkpoints. Clones
/// and [scopes](Params::scope) share one store. Names are those of the published checkpoints where there are any.
#[derive(Debug, Clone)]
pub struct Params {
    store: Arc<Store>,
    prefix: String,
}

impl Params {
    /// An empty store; `seed` drives the initial values.
    pub fn new(seed: u64) -> Self {
        Self::with(seed, false)
    }

    /// A store that only counts: variables are empty, no memory is taken. A model built on it cannot run; the planner
    /// uses it to check a configuration and to count its parameters.
    pub fn dry() -> Self {
        Self::with(0, true)
    }

    fn with(seed: u64, dry: bool) -> Self {
        Self { store: Arc::new(Store { seed, dry, entries: Mutex::default() }), prefix: String::new() }
    }

    /// Whether this store only counts.
    pub fn is_dry(&self) -> bool {
        self.store.dry
    }

    /// The seed of the initial values.
    pub fn seed(&self) -> u64 {
        self.store.seed
    }

    /// The same store, with `name` and a dot put before every name.
    pub fn scope(&self, name: impl Display) -> Self {
        Self { store: self.store.clone(), prefix: format!("{}{name}.", self.prefix) }
    }

    /// A trained parameter.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if the name is taken.
    pub fn parameter(&self, name: &str, shape: &[usize], init: Init) -> Result<Var> {
        self.entry(name, shape, init, Role::Trained)
    }

    /// A parameter that is an average, such as the codes of an EMA codebook: saved and counted, but not trained.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if the name is taken.
    pub fn averaged(&self, name: &str, shape: &[usize], init: Init) -> Result<Var> {
        self.entry(name, shape, init, Role::Averaged)
    }

    /// State that is saved, and is no parameter.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if the name is taken.
    pub fn buffer(&self, name: &str, shape: &[usize], init: Init) -> Result<Var> {
        self.entry(name, shape, init, Role::Buffer)
    }

    fn entry(&self, name: &str, shape: &[usize], init: Init, role: Role) -> Result<Var> {
        let name = format!("{}{name}", self.prefix);
        let value = if self.store.dry {
            Tensor::zeros(&[0])
        } else {
            let rng = Rng::new(self.store.seed, &name, 0);
            Tensor::from_vec(init.fill(&rng, shape.iter().product()), shape)?
        };
        let var = if role == Role::Trained { Var::parameter(&value) } else { Var::buffer(&value) };
        let entry = Entry { shape: shape.to_vec(), var: var.clone(), role };
        match self.lock().insert(name.clone(), entry) {
            None => Ok(var),
            Some(_) => Err(Error::Checkpoint(format!("two parameters are called `{name}`"))),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Entry>> {
        self.store.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All entries under this scope, by full name, in the order of their names.
    pub fn entries(&self) -> Vec<(String, Entry)> {
        self.lock()
            .iter()
            .filter(|(name, _)| name.starts_with(&self.prefix))
            .map(|(name, entry)| (name.clone(), entry.clone()))
            .collect()
    }

    /// The trained parameters under this scope, by full name.
    pub fn trained(&self) -> Vec<(String, Var)> {
        self.entries().into_iter().filter(|(_, e)| e.role == Role::Trained).map(|(name, e)| (name, e.var)).collect()
    }

    /// How many numbers the parameters under this scope have, trained and averaged: a codebook has K x C, however it moves.
    pub fn count(&self) -> usize {
        self.numbers(|role| role != Role::Buffer)
    }

    /// How many numbers the buffers under this scope have.
    pub fn buffers(&self) -> usize {
        self.numbers(|role| role == Role::Buffer)
    }

    fn numbers(&self, counts: impl Fn(Role) -> bool) -> usize {
        self.entries().iter().filter(|(_, e)| counts(e.role)).map(|(_, e)| e.shape.iter().product::<usize>()).sum()
    }

    /// Parameters and buffers under this scope by full name, sharing the numbers.
    pub fn state(&self) -> BTreeMap<String, Tensor> {
        self.entries().into_iter().map(|(name, e)| (name, e.var.get().detach())).collect()
    }

    /// Sets every parameter and buffer under this scope from `state` (full names). Other names in `state` are ignored.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] names the first entry that is missing or has another shape; nothing is changed then.
    pub fn load(&self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        let entries = self.entries();
        for (name, entry) in &entries {
            match state.get(name) {
                None => return Err(Error::Checkpoint(format!("the checkpoint lacks `{name}` {:?}", entry.shape))),
                Some(value) if value.shape() != entry.shape => {
                    return Err(Error::Checkpoint(format!(
                        "`{name}` has shape {:?} in the checkpoint and {:?} in the model",
                        value.shape(),
                        entry.shape
                    )));
                }
                Some(_) => {}
            }
        }
        for (name, entry) in entries {
            if let Some(value) = state.get(&name) {
                entry.var.set(value)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn values_depend_on_seed_and_name_alone() {
        let (a, b, c) = (Params::new(1), Params::new(1), Params::new(2));
        let x = a.scope("m").parameter("w", &[4], Init::Normal(1.0)).unwrap();
        b.parameter("other", &[3], Init::Normal(1.0)).unwrap();
        let y = b.parameter("m.w", &[4], Init::Normal(1.0)).unwrap();
        let z = c.parameter("m.w", &[4], Init::Normal(1.0)).unwrap();
        assert_eq!(x.get().to_vec(), y.get().to_vec());
        assert_ne!(x.get().to_vec(), z.get().to_vec());
    }

    #[test]
    fn loading_checks_names_and_shapes_before_it_writes() {
        let params = Params::new(0);
        let w = params.parameter("w", &[2], Init::ZEROS).unwrap();
        params.parameter("x", &[2], Init::ZEROS).unwrap();
        let one = BTreeMap::from([("w".to_owned(), Tensor::full(1.0, &[2]))]);
        assert!(params.load(&one).unwrap_err().to_string().contains("lacks `x`"));
        assert_eq!(w.get().to_vec(), [0.0; 2]);
        let two = BTreeMap::from([("w".to_owned(), Tensor::zeros(&[3])), ("x".to_owned(), Tensor::zeros(&[2]))]);
        assert!(params.load(&two).unwrap_err().to_string().contains("[3] in the checkpoint and [2]"));
    }

    #[test]
    fn a_dry_store_counts_and_holds_nothing() {
        let params = Params::dry();
        let w = params.parameter("w", &[1 << 20, 1 << 20], Init::fan_in(4)).unwrap();
        params.buffer("codebook", &[7], Init::ONES).unwrap();
        assert_eq!(params.count(), 1 << 40);
        assert!(w.get().is_empty());
    }

    #[test]
    fn a_name_can_be_taken_once() {
        let params = Params::new(0);
        params.parameter("w", &[1], Init::ZEROS).unwrap();
        assert!(params.buffer("w", &[1], Init::ZEROS).is_err());
    }
}
