//! What an image is to show: a class, a text, vectors of another model, or nothing.

use super::tokens::code_rows;
use crate::tensor::{Codes, Rng, Tensor};
use crate::{Error, Result};

/// The space that a prior's conditions are taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ConditionSpace {
    /// There are none: the prior is unconditional.
    #[default]
    None,
    /// One of this many classes.
    Classes(usize),
    /// A text.
    Text {
        /// Number of text tokens.
        vocabulary: usize,
        /// Text tokens per image.
        length: usize,
    },
    /// The output of another model, such as a text encoder.
    Vectors {
        /// Vectors per image.
        length: usize,
        /// Numbers per vector.
        channels: usize,
    },
}

impl ConditionSpace {
    /// Tokens of a condition, L: 1 for a class and where there is none.
    pub fn length(&self) -> usize {
        match self {
            Self::None | Self::Classes(_) => 1,
            Self::Text { length, .. } | Self::Vectors { length, .. } => *length,
        }
    }
}

/// What is given to a batch of B images.
#[derive(Debug, Clone)]
pub enum Given {
    /// Nothing: the prior is unconditional.
    Nothing,
    /// The class of each image, `[B]`.
    Classes(Codes),
    /// Text tokens, `[B, L]`.
    Text(Codes),
    /// Vectors, `[B, L, C]`.
    Vectors(Tensor),
}

/// The condition of a batch of images, each of which may have lost it: priors learn with and without, so that one model
/// can be guided (Ho & Salimans, "Classifier-free diffusion guidance", 2022). The trainer drops, the sampler mixes; a prior
/// only reads [`crate::nn::ConditionEmbedding`].
#[derive(Debug, Clone)]
pub struct Condition {
    /// What is given.
    pub given: Given,
    /// For each image `[B]` whether it has its condition: 0 stands for the null condition.
    pub present: Codes,
}

impl Condition {
    /// No condition for `images` images, of an unconditional prior.
    ///
    /// # Errors
    /// None in practice: a list of flags has a shape.
    pub fn none(images: usize) -> Result<Self> {
        Ok(Self { given: Given::Nothing, present: flags(images, true)? })
    }

    /// A class for each image, `[B]`.
    ///
    /// # Errors
    /// None in practice: a list of flags has a shape.
    pub fn classes(labels: Codes) -> Result<Self> {
        let present = flags(labels.len(), true)?;
        Ok(Self { given: Given::Classes(labels), present })
    }

    /// The text tokens of each image, `[B, L]`, and whether it has a text at all, `[B]`: the null condition stands for an empty
    /// one.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for shapes that do not fit.
    pub fn texts(tokens: Codes, present: Codes) -> Result<Self> {
        if tokens.shape().len() != 2 || tokens.shape().first() != Some(&present.len()) {
            let message = format!("texts {:?} of {} images, expected [B, L]", tokens.shape(), present.len());
            return Err(Error::Unsupported(message));
        }
        Ok(Self { given: Given::Text(tokens), present })
    }

    /// Classes where `space` has some, and nothing where it has none.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a space that classes do not fill.
    pub fn of_labels(space: ConditionSpace, labels: &Codes) -> Result<Self> {
        match space {
            ConditionSpace::None => Self::none(labels.len()),
            ConditionSpace::Classes(_) => Self::classes(labels.clone()),
            ConditionSpace::Text { .. } | ConditionSpace::Vectors { .. } => {
                Err(Error::Unsupported("images have classes, and the prior wants a text or vectors".to_owned()))
            }
        }
    }

    /// How many images, B.
    pub fn images(&self) -> usize {
        self.present.len()
    }

    /// The same images without their condition.
    ///
    /// # Errors
    /// None in practice: a list of flags has a shape.
    pub fn null(&self) -> Result<Self> {
        Ok(Self { given: self.given.clone(), present: flags(self.images(), false)? })
    }

    /// Each image loses its condition with probability `p`, drawn from `rng`.
    ///
    /// # Errors
    /// None in practice: a list of flags has a shape.
    pub fn dropped(&self, p: f32, rng: &Rng) -> Result<Self> {
        if p <= 0.0 || matches!(self.given, Given::Nothing) {
            return Ok(self.clone());
        }
        let kept = self.present.as_slice().iter().zip(rng.uniform(self.images()));
        let present = kept.map(|(&present, u)| if u < p { 0 } else { present }).collect();
        Ok(Self { given: self.given.clone(), present: Codes::from_vec(present, &[self.images()])? })
    }

    /// The conditions of the images `rows`, in that order.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a row that is not there.
    pub fn rows(&self, rows: &[usize]) -> Result<Self> {
        let given = match &self.given {
            Given::Nothing => Given::Nothing,
            Given::Classes(labels) => Given::Classes(code_rows(labels, rows)?),
            Given::Text(text) => Given::Text(code_rows(text, rows)?),
            Given::Vectors(vectors) => {
                let picked = super::Tokens::Vectors(vectors.clone()).rows(rows)?;
                Given::Vectors(picked.vectors()?.clone())
            }
        };
        Ok(Self { given, present: code_rows(&self.present, rows)? })
    }

    /// Each image twice in a row, first with its condition and then without: what a guided sampler asks about.
    ///
    /// # Errors
    /// None in practice: every image has a row.
    pub fn paired(&self) -> Result<Self> {
        let rows: Vec<usize> = (0..self.images()).flat_map(|image| [image, image]).collect();
        let mut paired = self.rows(&rows)?;
        let present = paired.present.as_slice().iter().enumerate();
        let present = present.map(|(row, &present)| if row % 2 == 0 { present } else { 0 }).collect();
        paired.present = Codes::from_vec(present, &[rows.len()])?;
        Ok(paired)
    }
}

fn flags(images: usize, present: bool) -> Result<Codes> {
    Ok(Codes::from_vec(vec![u32::from(present); images], &[images])?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn conditions_are_dropped_as_often_as_asked() {
        let condition = Condition::classes(Codes::from_vec(vec![1; 10_000], &[10_000]).unwrap()).unwrap();
        let dropped = condition.dropped(0.1, &Rng::new(0, "condition", 0)).unwrap();
        let kept: u32 = dropped.present.as_slice().iter().sum();
        // Five standard errors of a share of 0.9 among 10,000 are 150.
        assert!((8_850..=9_150).contains(&kept), "{kept} of 10000 kept");
        assert_eq!(condition.dropped(0.0, &Rng::new(0, "condition", 0)).unwrap().present, condition.present);
    }

    #[test]
    fn a_pair_is_an_image_with_and_without_its_condition() {
        let condition = Condition::classes(Codes::from_vec(vec![3, 4], &[2]).unwrap()).unwrap();
        let pairs = condition.paired().unwrap();
        assert_eq!(pairs.present.as_slice(), [1, 0, 1, 0]);
        let Given::Classes(labels) = &pairs.given else { panic!("classes stay classes") };
        assert_eq!(labels.as_slice(), [3, 3, 4, 4]);
        assert_eq!(condition.null().unwrap().rows(&[1]).unwrap().present.as_slice(), [0]);
        assert!(condition.rows(&[2]).is_err());
    }
}
