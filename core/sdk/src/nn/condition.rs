//! The embedding of a condition, with one null row for images that have lost theirs.

use super::Linear;
use super::transformer::WeightInit;
use crate::contracts::{Condition, ConditionSpace, Given};
use crate::params::{Init, Params};
use crate::tensor::{Codes, Tensor, Var};
use crate::{Error, Result};

crate::choice! {
    /// What a prior is conditioned on.
    pub enum ConditionKind {
        /// What the data give: a class, a text or vectors, if anything.
        Class = "class",
        /// Nothing.
        None = "none",
    }
}

impl ConditionKind {
    /// What a prior of this choice reads of the conditions that it could see.
    pub fn of(self, space: ConditionSpace) -> ConditionSpace {
        match self {
            Self::Class => space,
            Self::None => ConditionSpace::None,
        }
    }
}

/// Conditions as vectors `[B, L, W]` for a transformer to read.
///
/// Parameters: classes and texts have `weight` `[V, W]`, with one row more, the last, for the null condition where it occurs;
/// without any condition it is one row, the start token. Vectors have `proj` and, where the null condition occurs, `null`
/// `[L, C]`, which stands in their place.
#[derive(Debug, Clone)]
pub struct ConditionEmbedding {
    space: ConditionSpace,
    null: bool,
    table: Table,
}

#[derive(Debug, Clone)]
enum Table {
    Rows(Var),
    Projected { projection: Linear, null: Option<Var> },
}

impl ConditionEmbedding {
    /// An embedding of conditions of `space` in the model width `width`; `null` says whether the null condition
    /// will occur.
    ///
    /// # Errors
    /// A name that is taken.
    pub fn new(params: &Params, space: ConditionSpace, null: bool, width: usize, init: WeightInit) -> Result<Self> {
        let extra = usize::from(null);
        let rows = |rows: usize| -> Result<Table> {
            Ok(Table::Rows(params.parameter("weight", &[rows, width], init.embedding())?))
        };
        let table = match space {
            ConditionSpace::None => rows(1)?,
            ConditionSpace::Classes(classes) => rows(classes + extra)?,
            ConditionSpace::Text { vocabulary, .. } => rows(vocabulary + extra)?,
            ConditionSpace::Vectors { length, channels } => {
                let vectors =
                    || params.parameter("null", &[length, channels], Init::Normal(1.0 / (channels as f32).sqrt()));
                let projection = init.linear(&params.scope("proj"), channels, width)?;
                Table::Projected { projection, null: null.then(vectors).transpose()? }
            }
        };
        Ok(Self { space, null, table })
    }

    /// What it embeds.
    pub fn space(&self) -> ConditionSpace {
        self.space
    }

    /// Vectors per condition, L.
    pub fn length(&self) -> usize {
        self.space.length()
    }

    /// The vectors of a batch of conditions, `[B, L, W]`. An unconditional embedding gives its start token whatever is given.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a condition of another kind or length, for a class or token that is out of range, and for a
    /// null condition that training never showed.
    pub fn forward(&self, condition: &Condition) -> Result<Tensor> {
        let (images, length) = (condition.images(), self.length());
        let rows = |table: &Var, ids: &Codes, count: usize| -> Result<Tensor> {
            Ok(table
                .get()
                .embedding(&self.with_null(ids, condition, images * length, count)?.reshape(&[images, length])?)?)
        };
        match (&self.table, self.space, &condition.given) {
            (Table::Rows(table), ConditionSpace::None, _) => {
                Ok(table.get().embedding(&Codes::from_vec(vec![0; images], &[images, 1])?)?)
            }
            (Table::Rows(table), ConditionSpace::Classes(count), Given::Classes(ids)) => rows(table, ids, count),
            (Table::Rows(table), ConditionSpace::Text { vocabulary, .. }, Given::Text(ids)) => {
                rows(table, ids, vocabulary)
            }
            (Table::Projected { projection, null }, _, Given::Vectors(vectors)) => {
                projection.forward(&self.vectors_with_null(vectors, null.as_ref(), condition)?)
            }
            (_, space, given) => Err(Error::Unsupported(format!(
                "the prior expects a condition of {space:?} and was given {}",
                kind(given)
            ))),
        }
    }

    /// The rows of the table for `ids`, all below `count`: themselves, or `count`, the null row, where an image has no
    /// condition.
    fn with_null(&self, ids: &Codes, condition: &Condition, wanted: usize, count: usize) -> Result<Codes> {
        if ids.len() != wanted {
            let message = format!(
                "conditions {:?} for {} images of {} tokens each",
                ids.shape(),
                condition.images(),
                self.length()
            );
            return Err(Error::Unsupported(message));
        }
        if let Some(id) = ids.as_slice().iter().find(|&&id| id as usize >= count) {
            return Err(Error::Unsupported(format!(
                "there is no condition {id}: they are numbered from 0 to {}",
                count.max(1) - 1
            )));
        }
        let present = condition.present.as_slice();
        if present.iter().all(|&present| present != 0) {
            return Ok(ids.clone());
        }
        self.allow_null()?;
        let length = self.length().max(1);
        let data = ids.as_slice().iter().enumerate();
        let data = data.map(|(i, &id)| if present[i / length] == 0 { count as u32 } else { id }).collect();
        Ok(Codes::from_vec(data, ids.shape())?)
    }

    fn vectors_with_null(&self, vectors: &Tensor, null: Option<&Var>, condition: &Condition) -> Result<Tensor> {
        let ConditionSpace::Vectors { length, channels } = self.space else { return Ok(vectors.clone()) };
        let images = condition.images();
        if vectors.shape() != [images, length, channels] {
            let message = format!("condition vectors {:?}, expected {:?}", vectors.shape(), [images, length, channels]);
            return Err(Error::Unsupported(message));
        }
        let present = condition.present.as_slice();
        if present.iter().all(|&present| present != 0) {
            return Ok(vectors.clone());
        }
        self.allow_null()?;
        let Some(null) = null else { return Ok(vectors.clone()) };
        let mask: Vec<f32> = present.iter().map(|&present| if present == 0 { 0.0 } else { 1.0 }).collect();
        let mask = Tensor::from_vec(mask, &[images, 1, 1])?.to_device(vectors.device())?;
        let absent = mask.mul_scalar(-1.0)?.add_scalar(1.0)?;
        Ok(vectors.mul(&mask)?.add(&absent.mul(&null.get().reshape(&[1, length, channels])?)?)?)
    }

    fn allow_null(&self) -> Result<()> {
        if self.null {
            return Ok(());
        }
        Err(Error::Unsupported(
            "this prior never saw the null condition, which guidance compares with: train it with \
             `prior_training: (condition_dropout: 0.1)`"
                .to_owned(),
        ))
    }
}

fn kind(given: &Given) -> &'static str {
    match given {
        Given::Nothing => "none",
        Given::Classes(_) => "classes",
        Given::Text(_) => "a text",
        Given::Vectors(_) => "vectors",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn embedding(space: ConditionSpace, null: bool) -> ConditionEmbedding {
        ConditionEmbedding::new(&Params::new(1), space, null, 4, WeightInit::Published).unwrap()
    }

    fn classes(labels: &[u32]) -> Condition {
        Condition::classes(Codes::from_vec(labels.to_vec(), &[labels.len()]).unwrap()).unwrap()
    }

    #[test]
    fn the_null_row_is_the_last_and_the_same_for_all_classes() {
        let e = embedding(ConditionSpace::Classes(3), true);
        let out = e.forward(&classes(&[0, 2]).paired().unwrap()).unwrap().to_vec();
        assert_eq!(out[4..8], out[12..16]);
        assert_ne!(out[0..4], out[8..12]);
        let Table::Rows(table) = &e.table else { unreachable!() };
        assert_eq!(table.get().as_slice()[12..16], out[4..8]);
    }

    #[test]
    fn without_dropout_there_is_no_null_row_and_no_guidance() {
        let e = embedding(ConditionSpace::Classes(3), false);
        let Table::Rows(table) = &e.table else { unreachable!() };
        assert_eq!(table.get().shape(), [3, 4]);
        let refused = e.forward(&classes(&[1]).null().unwrap()).unwrap_err().to_string();
        assert!(refused.contains("condition_dropout"), "{refused}");
        assert!(e.forward(&classes(&[3])).is_err());
    }

    #[test]
    fn an_unconditional_prior_reads_its_start_token() {
        let e = embedding(ConditionSpace::None, false);
        let out = e.forward(&Condition::none(2).unwrap()).unwrap();
        assert_eq!(out.shape(), [2, 1, 4]);
        assert_eq!(out.to_vec(), e.forward(&classes(&[7, 9])).unwrap().to_vec());
    }

    #[test]
    fn absent_vectors_are_replaced_by_learned_ones() {
        let space = ConditionSpace::Vectors { length: 2, channels: 3 };
        let e = embedding(space, true);
        let vectors = Tensor::from_vec((0..12).map(|x| x as f32).collect(), &[2, 2, 3]).unwrap();
        let condition =
            Condition { given: Given::Vectors(vectors), present: Codes::from_vec(vec![1, 1], &[2]).unwrap() };
        let out = e.forward(&condition.paired().unwrap()).unwrap().to_vec();
        assert_eq!(out[8..16], out[24..32]);
        assert_ne!(out[0..8], out[16..24]);
        assert!(e.forward(&classes(&[0])).is_err());
    }
}
