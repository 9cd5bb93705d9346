//! Which published tensors hold a parameter of ours, and how.

use super::published::Published;
use rqlab_sdk::tensor::Tensor;
use rqlab_sdk::{Error, Result};
use rqlab_weights::TensorInfo;
use std::collections::{BTreeMap, BTreeSet};

/// How published tensors hold one of ours.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum How {
    /// As it is, under every name; sides of 1 at the end may be more or fewer (a 1x1 convolution is a matrix).
    Same,
    /// With so many more rows, of zeros, at the end.
    Padded(usize),
    /// Transposed.
    Transposed,
    /// In equal parts, one name for each, one below the other.
    Stacked,
    /// In two parts: all rows but the last, and the last.
    LastRowApart,
}

/// Where a parameter of ours is to be found.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rule {
    /// The published names: all hold the same, or each a part.
    pub(super) names: Vec<String>,
    pub(super) how: How,
}

impl Rule {
    pub(super) fn same(name: impl Into<String>) -> Self {
        Self { names: vec![name.into()], how: How::Same }
    }

    /// Of what published files do not hold.
    pub(super) fn nowhere() -> Self {
        Self { names: vec![], how: How::Same }
    }
}

/// Our parameters: names and shapes.
pub(super) type Shapes = BTreeMap<String, Vec<usize>>;

/// Takes all parameters of ours from the published weights.
///
/// # Errors
/// Everything that does not fit: what is missing, what has another shape, what no parameter is made of.
pub(super) fn take(
    published: &Published,
    ours: &Shapes,
    rule: impl Fn(&str) -> Option<Rule>,
    unused: impl Fn(&str) -> bool,
) -> Result<BTreeMap<String, Tensor>> {
    let (mut taken, mut wrong, mut used) = (BTreeMap::new(), Vec::new(), BTreeSet::new());
    for (name, shape) in ours {
        let Some(rule) = rule(name).filter(|rule| !rule.names.is_empty()) else {
            wrong.push(format!("nothing is known that `{name}` {shape:?} could be made of"));
            continue;
        };
        used.extend(rule.names.iter().cloned());
        match found(published, &rule, shape) {
            Ok(tensor) => drop(taken.insert(name.clone(), tensor)),
            Err(Misfit::Wrong(misfits)) => wrong.extend(misfits),
            Err(Misfit::Failed(error)) => return Err(error),
        }
    }
    let left = published.tensors().iter().filter(|(name, _)| !used.contains(*name) && !unused(name));
    wrong.extend(left.map(|(name, tensor)| format!("`{name}` {:?} is no part of the model", tensor.shape)));
    if wrong.is_empty() {
        return Ok(taken);
    }
    wrong.sort();
    let count = wrong.len();
    Err(published.wrong(format!("{count} of its names and shapes do not fit:\n  {}", wrong.join("\n  "))))
}

enum Misfit {
    Wrong(Vec<String>),
    Failed(Error),
}

impl<E: Into<Error>> From<E> for Misfit {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

fn found(published: &Published, rule: &Rule, shape: &[usize]) -> Result<Tensor, Misfit> {
    let mut wrong = Vec::new();
    let mut tensors: Vec<&TensorInfo> = Vec::new();
    for (part, name) in rule.names.iter().enumerate() {
        let stored = stored_shape(rule, shape, part);
        match published.tensors().get(name) {
            Some(tensor) if agree(&tensor.shape, &stored) => tensors.push(tensor),
            Some(tensor) => wrong.push(format!("`{name}` is {:?}, not {stored:?}", tensor.shape)),
            None => wrong.push(format!("there is no `{name}` {stored:?}")),
        }
    }
    if !wrong.is_empty() {
        return Err(Misfit::Wrong(wrong));
    }
    let read = |tensor: &TensorInfo| {
        published.checkpoint.read_f32(tensor).map_err(|error| Error::Checkpoint(error.to_string()))
    };
    let numbers = match (rule.how, tensors.as_slice()) {
        (How::Stacked | How::LastRowApart, parts) => {
            parts.iter().map(|part| read(part)).collect::<Result<Vec<_>>>()?.concat()
        }
        (_, [first, others @ ..]) => {
            let numbers = read(first)?;
            for (name, other) in rule.names[1..].iter().zip(others) {
                // What shares its storage is the same.
                if !other.is_tied_to(first)
                    && read(other)?.iter().zip(&numbers).any(|(a, b)| a.to_bits() != b.to_bits())
                {
                    wrong.push(format!("`{name}` and `{}` should be one, and differ", rule.names[0]));
                }
            }
            numbers
        }
        (_, []) => vec![],
    };
    if !wrong.is_empty() {
        return Err(Misfit::Wrong(wrong));
    }
    Ok(match rule.how {
        How::Padded(_) => Tensor::from_vec(numbers[..shape.iter().product()].to_vec(), shape)?,
        How::Transposed => Tensor::from_vec(numbers, &stored_shape(rule, shape, 0))?.transpose(0, 1)?,
        _ => Tensor::from_vec(numbers, shape)?,
    })
}

/// The shape that the published tensor of a part has.
fn stored_shape(rule: &Rule, shape: &[usize], part: usize) -> Vec<usize> {
    let mut stored = shape.to_vec();
    match (rule.how, stored.as_mut_slice()) {
        (How::Padded(rows), [first, ..]) => *first += rows,
        (How::Transposed, both) => both.reverse(),
        (How::Stacked, [first, ..]) => *first /= rule.names.len().max(1),
        (How::LastRowApart, [first, ..]) => *first = if part == 0 { first.saturating_sub(1) } else { 1 },
        _ => {}
    }
    stored
}

/// Whether shapes are the same but for sides of 1 at the end.
fn agree(found: &[u64], wanted: &[usize]) -> bool {
    let wanted: Vec<u64> = wanted.iter().map(|&side| side as u64).collect();
    let significant = |shape: &[u64]| shape.iter().rposition(|&side| side != 1).map_or(0, |last| last + 1);
    found[..significant(found)] == wanted[..significant(&wanted)]
}

/// Our parameters under the published names: the inverse of [`take`].
///
/// # Errors
/// Parameters that have no published name.
pub(super) fn give(
    state: &BTreeMap<String, Tensor>,
    rule: impl Fn(&str) -> Option<Rule>,
) -> Result<BTreeMap<String, Tensor>> {
    let mut given = BTreeMap::new();
    let mut nameless = Vec::new();
    for (name, tensor) in state {
        let Some(rule) = rule(name) else {
            nameless.push(format!("`{name}` {:?}", tensor.shape()));
            continue;
        };
        let tensor = match rule.how {
            How::Same => tensor.clone(),
            How::Padded(rows) => {
                let mut padding = tensor.shape().to_vec();
                padding[0] = rows;
                Tensor::concat(&[tensor, &Tensor::zeros(&padding)], 0)?
            }
            How::Transposed => tensor.transpose(0, 1)?,
            How::Stacked | How::LastRowApart => {
                let mut from = 0;
                for (part, name) in rule.names.iter().enumerate() {
                    let rows = stored_shape(&rule, tensor.shape(), part)[0];
                    given.insert(name.clone(), tensor.slice(0, from..from + rows)?);
                    from += rows;
                }
                continue;
            }
        };
        given.extend(rule.names.into_iter().map(|name| (name, tensor.clone())));
    }
    if nameless.is_empty() {
        return Ok(given);
    }
    let count = nameless.len();
    Err(Error::Unsupported(format!("{count} parameters have no published name:\n  {}", nameless.join("\n  "))))
}
