//! Tokens as the vectors that a diffusion models.

use super::{NoiseSchedule, Process};
use crate::config::ConfigError;
use crate::contracts::{LevelInfo, TokenSpace, Tokens};
use crate::tensor::ops::nearest::nearest;
use crate::tensor::{Codes, Tensor};
use crate::{Error, Result};

crate::choice! {
    /// How a token is predicted.
    pub enum TokenLoss {
        /// Its codes, by cross entropy.
        CrossEntropy = "cross_entropy",
        /// Its vector, or the sum of its codes' embeddings, by diffusion (DiffLoss).
        Diffusion = "diffusion",
        /// The same by flow matching, for few steps.
        Flow = "flow",
    }
}

impl TokenLoss {
    /// How noise becomes a vector of `level`, a diffusion with `schedule` in `steps` steps; `None` under cross entropy.
    ///
    /// # Errors
    /// [`ConfigError`] of the field `loss` for cross entropy of vectors.
    pub fn process(self, level: &LevelInfo, schedule: NoiseSchedule, steps: usize) -> Result<Option<Process>> {
        match self {
            Self::CrossEntropy if level.code_space().is_none() => {
                let message = "cross entropy predicts codes, and the quantizer of this level makes vectors; take `loss: \
                               diffusion`, or a quantizer that makes codes";
                Err(ConfigError::field("loss", message).into())
            }
            Self::CrossEntropy => Ok(None),
            Self::Diffusion => Ok(Some(Process::Diffusion { schedule, steps })),
            Self::Flow => Ok(Some(Process::Flow)),
        }
    }
}

/// The tokens of a level as vectors of about unit variance, which those of a continuous bottleneck are as they come. Codes are
/// the sum over depths of their embeddings, times a constant.
#[derive(Debug, Clone)]
pub struct TokenVectors {
    level: LevelInfo,
    scale: f32,
}

impl TokenVectors {
    /// The tokens of `level`. Where codes have no embeddings, as in a plan, they cannot be converted.
    pub fn new(level: &LevelInfo) -> Self {
        let variance = |table: &Tensor| {
            let numbers = table.as_slice().iter().map(|&x| f64::from(x));
            let mean = numbers.clone().sum::<f64>() / table.len().max(1) as f64;
            numbers.map(|x| (x - mean).powi(2)).sum::<f64>() / table.len().max(1) as f64
        };
        let sum = level.code_space().map_or(0.0, |space| space.tables.iter().map(variance).sum::<f64>());
        let scale = if sum > 0.0 { sum.sqrt().recip() as f32 } else { 1.0 };
        Self { level: level.clone(), scale }
    }

    /// Numbers of a vector, C.
    pub fn channels(&self) -> usize {
        match self.level.space {
            TokenSpace::Vectors { channels } => channels,
            TokenSpace::Codes(_) => self.level.channels,
        }
    }

    /// Tokens of images as vectors `[B, h, w, C]`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for tokens of another kind or shape than the level has, and codes without embeddings.
    pub fn of(&self, tokens: &Tokens) -> Result<Tensor> {
        let wanted = self.level.token_shape(tokens.images());
        if tokens.shape() != wanted {
            return Err(Error::Unsupported(format!("expected tokens {wanted:?}, found {:?}", tokens.shape())));
        }
        match (tokens, self.tables()) {
            (Tokens::Codes(codes), Some(tables)) => self.embedded(codes, tables),
            (Tokens::Vectors(vectors), None) => Ok(vectors.clone()),
            _ => Err(Error::Unsupported("these tokens are not what the prior models".to_owned())),
        }
    }

    /// The tokens that vectors `[B, h, w, C]` stand for: themselves, or the nearest codes.
    ///
    /// # Errors
    /// As for [`TokenVectors::of`].
    pub fn tokens(&self, vectors: &Tensor) -> Result<Tokens> {
        match self.tables() {
            Some(tables) => Ok(Tokens::Codes(self.nearest(vectors, tables)?)),
            None => Ok(Tokens::Vectors(vectors.clone())),
        }
    }

    /// Drawn vectors `[.., C]` as those of the tokens that they stand for, which is how a network reads them.
    ///
    /// # Errors
    /// As for [`TokenVectors::of`].
    pub fn settled(&self, vectors: &Tensor) -> Result<Tensor> {
        match self.tables() {
            Some(tables) => self.embedded(&self.nearest(vectors, tables)?, tables),
            None => Ok(vectors.clone()),
        }
    }

    fn tables(&self) -> Option<&[Tensor]> {
        self.level.code_space().map(|space| space.tables.as_slice())
    }

    /// Codes `[.., D] -> [.., C]`.
    fn embedded(&self, codes: &Codes, tables: &[Tensor]) -> Result<Tensor> {
        let mut sum: Option<Tensor> = None;
        for (d, table) in tables.iter().enumerate() {
            let rows = table.detach().embedding(&codes.column(d)?)?;
            sum = Some(match sum {
                Some(sum) => sum.add(&rows)?,
                None => rows,
            });
        }
        let none = || {
            Error::Unsupported(
                "a diffusion over codes models their embeddings, and this quantizer has none; take `loss: cross_entropy`"
                    .to_owned(),
            )
        };
        Ok(sum.ok_or_else(none)?.mul_scalar(self.scale)?)
    }

    /// The codes of vectors `[.., C] -> [.., D]`: the nearest, at each depth of what is left.
    fn nearest(&self, vectors: &Tensor, tables: &[Tensor]) -> Result<Codes> {
        let mut left = vectors.mul_scalar(1.0 / self.scale)?;
        let mut columns = Vec::with_capacity(tables.len());
        for table in tables {
            let codes = nearest(&left, table)?;
            left = left.sub(&table.embedding(&codes)?)?;
            columns.push(codes);
        }
        Ok(Codes::stack(&columns)?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::contracts::CodeSpace;
    use crate::nn::testing::random;

    fn level(space: TokenSpace) -> LevelInfo {
        LevelInfo { height: 1, width: 3, channels: 2, space, scales: None }
    }

    /// The second codebook refines the first, as of a residual quantizer: codes survive the way to vectors and back.
    #[test]
    fn codes_are_the_nearest_to_the_sum_of_their_embeddings() {
        let coarse = Tensor::from_vec(vec![10.0, 0.0, -10.0, 0.0, 0.0, 10.0], &[3, 2]).unwrap();
        let fine = Tensor::from_vec(vec![1.0, 0.0, 0.0, -1.0], &[2, 2]).unwrap();
        let space = CodeSpace { sizes: vec![3, 2], tables: vec![coarse, fine], shared: false };
        let vectors = TokenVectors::new(&level(TokenSpace::Codes(space)));
        assert_eq!(vectors.channels(), 2);
        let codes = Codes::from_vec(vec![0, 1, 2, 0, 1, 1], &[1, 1, 3, 2]).unwrap();
        let embedded = vectors.of(&Tokens::Codes(codes.clone())).unwrap();
        let scaled: Vec<f32> = [10.0, -1.0, 1.0, 10.0, -10.0, -1.0].map(|x: f32| x * vectors.scale).to_vec();
        assert_eq!((embedded.shape(), embedded.to_vec()), ([1, 1, 3, 2].as_slice(), scaled));
        // Six numbers of 10, 0, -10, 0, 0, 10 and four of 1, 0, 0, -1.
        let variance: f32 = (300.0 / 6.0 - (10.0f32 / 6.0).powi(2)) + 0.5;
        assert!((vectors.scale - variance.sqrt().recip()).abs() < 1e-6);
        let moved = embedded.add(&random(&[1, 1, 3, 2], 1).mul_scalar(0.01).unwrap()).unwrap();
        assert_eq!(vectors.tokens(&moved).unwrap().codes().unwrap(), &codes);
        assert_eq!(vectors.settled(&moved).unwrap().to_vec(), embedded.to_vec());
        assert!(vectors.of(&Tokens::Vectors(embedded)).unwrap_err().to_string().contains("not what the prior models"));
    }

    #[test]
    fn vectors_are_themselves() {
        let vectors = TokenVectors::new(&level(TokenSpace::Vectors { channels: 4 }));
        let x = random(&[2, 1, 3, 4], 1);
        assert_eq!(vectors.channels(), 4);
        assert_eq!(vectors.of(&Tokens::Vectors(x.clone())).unwrap().to_vec(), x.to_vec());
        assert_eq!(vectors.tokens(&x).unwrap().vectors().unwrap().to_vec(), x.to_vec());
        assert_eq!(vectors.settled(&x).unwrap().to_vec(), x.to_vec());
        assert!(vectors.of(&Tokens::Vectors(random(&[2, 3, 1, 4], 1))).is_err());
    }

    #[test]
    fn codes_without_embeddings_are_refused() {
        let space = CodeSpace { sizes: vec![3], tables: vec![], shared: false };
        let vectors = TokenVectors::new(&level(TokenSpace::Codes(space)));
        let codes = Codes::from_vec(vec![0, 1, 2], &[1, 1, 3, 1]).unwrap();
        let refused = vectors.of(&Tokens::Codes(codes)).unwrap_err().to_string();
        assert!(refused.contains("`loss: cross_entropy`"), "{refused}");
    }
}
