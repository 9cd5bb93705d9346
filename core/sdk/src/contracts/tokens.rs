//! What stands between a tokenizer and a prior: maps of tokens, which are codes or vectors.

use crate::contracts::{MapShape, Scales};
use crate::tensor::{Codes, Tensor};
use crate::{Error, Result};

/// What one level of tokens is: its map, and the space that a token is taken from.
#[derive(Debug, Clone)]
pub struct LevelInfo {
    /// Rows of the token map.
    pub height: usize,
    /// Columns of the token map.
    pub width: usize,
    /// Channels of what the tokens stand for: of quantized latents, which a decoder reads.
    pub channels: usize,
    /// What a token is.
    pub space: TokenSpace,
    /// The maps that its one row of tokens consists of; none where the tokens are one map.
    pub scales: Option<Scales>,
}

/// What a token is: a stack of codes, or a vector.
#[derive(Debug, Clone)]
pub enum TokenSpace {
    /// A stack of D codes.
    Codes(CodeSpace),
    /// A vector.
    Vectors {
        /// Its length.
        channels: usize,
    },
}

/// The codebooks that the D codes of a position are taken from.
#[derive(Debug, Clone)]
pub struct CodeSpace {
    /// Codebook size K of each depth; one entry for plain vector quantization.
    pub sizes: Vec<usize>,
    /// The codebook `[K_d, C]` of each depth, frozen; depths that share one have the same table. Empty when only a plan is
    /// being made, and where codes have no table of vectors.
    pub tables: Vec<Tensor>,
    /// Whether all depths share one codebook.
    pub shared: bool,
}

impl CodeSpace {
    /// Codes per position, D.
    pub fn depth(&self) -> usize {
        self.sizes.len()
    }
}

impl LevelInfo {
    /// Positions of the map, T.
    pub fn positions(&self) -> usize {
        self.height * self.width
    }

    /// The shape of the latents that the tokens stand for: as large as the map, or as the last of several scales.
    pub fn latents(&self) -> MapShape {
        let last = self.scales.as_ref().and_then(|scales| scales.sizes().last().copied());
        let [height, width] = last.unwrap_or([self.height, self.width]);
        MapShape { height, width, channels: self.channels }
    }

    /// The codebooks, if tokens are codes.
    pub fn code_space(&self) -> Option<&CodeSpace> {
        match &self.space {
            TokenSpace::Codes(codes) => Some(codes),
            TokenSpace::Vectors { .. } => None,
        }
    }

    /// The codebooks: what a prior over codes begins with.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if tokens are vectors.
    pub fn codes(&self) -> Result<&CodeSpace> {
        self.code_space().ok_or_else(|| {
            Error::Unsupported(
                "it needs codes, and the quantizer of this level makes vectors; take a quantizer that makes codes"
                    .to_owned(),
            )
        })
    }

    /// The length of a token vector: what a prior over vectors begins with.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if tokens are codes.
    pub fn vector_channels(&self) -> Result<usize> {
        match self.space {
            TokenSpace::Vectors { channels } => Ok(channels),
            TokenSpace::Codes(_) => Err(Error::Unsupported(
                "it needs vectors, and the quantizer of this level makes codes; take a continuous bottleneck"
                    .to_owned(),
            )),
        }
    }

    /// Codes per position, D; 0 for vectors.
    pub fn depth(&self) -> usize {
        self.code_space().map_or(0, CodeSpace::depth)
    }

    /// Codebook size K of each depth; empty for vectors.
    pub fn sizes(&self) -> &[usize] {
        self.code_space().map_or(&[], |codes| &codes.sizes)
    }

    /// Bits of an image when every code is stored with log2 K bits: `h w sum_d log2 K_d`. Vectors have none.
    pub fn nominal_bits(&self) -> Option<f64> {
        let codes = self.code_space()?;
        Some(self.positions() as f64 * codes.sizes.iter().map(|&k| (k as f64).log2()).sum::<f64>())
    }

    /// The shape of the tokens of `images` images: `[B, h, w, D]` or `[B, h, w, C]`.
    pub fn token_shape(&self, images: usize) -> [usize; 4] {
        let last = match &self.space {
            TokenSpace::Codes(codes) => codes.depth(),
            TokenSpace::Vectors { channels } => *channels,
        };
        [images, self.height, self.width, last]
    }
}

/// The tokens of a batch of images at one level.
#[derive(Debug, Clone)]
pub enum Tokens {
    /// Codes `[B, h, w, D]`.
    Codes(Codes),
    /// Vectors `[B, h, w, C]`.
    Vectors(Tensor),
}

impl Tokens {
    /// How many images, B.
    pub fn images(&self) -> usize {
        self.shape().first().copied().unwrap_or(0)
    }

    /// The shape, `[B, h, w, D]` or `[B, h, w, C]`.
    pub fn shape(&self) -> &[usize] {
        match self {
            Self::Codes(codes) => codes.shape(),
            Self::Vectors(vectors) => vectors.shape(),
        }
    }

    /// The codes.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if they are vectors.
    pub fn codes(&self) -> Result<&Codes> {
        match self {
            Self::Codes(codes) => Ok(codes),
            Self::Vectors(_) => Err(Error::Unsupported("expected tokens that are codes, found vectors".to_owned())),
        }
    }

    /// The codes `[B, h, w]` of tokens whose depth is 1, where latents of `depth` are asked for.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if they are vectors, or either depth is not 1.
    pub fn codes_of_depth_1(&self, depth: Option<usize>) -> Result<Codes> {
        let (codes, asked) = (self.codes()?, depth.unwrap_or(1));
        if asked != 1 || codes.last_dim() != 1 {
            let message =
                format!("there is one code per position; asked for depth {asked} of codes {:?}", codes.shape());
            return Err(Error::Unsupported(message));
        }
        Ok(codes.column(0)?)
    }

    /// The vectors.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if they are codes.
    pub fn vectors(&self) -> Result<&Tensor> {
        match self {
            Self::Vectors(vectors) => Ok(vectors),
            Self::Codes(_) => Err(Error::Unsupported("expected tokens that are vectors, found codes".to_owned())),
        }
    }

    /// The tokens of the images `rows`, in that order.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a row that is not there.
    pub fn rows(&self, rows: &[usize]) -> Result<Self> {
        Ok(match self {
            Self::Codes(codes) => {
                let (data, shape) = pick(codes.as_slice(), codes.shape(), rows)?;
                Self::Codes(Codes::from_vec(data, &shape)?)
            }
            Self::Vectors(vectors) => {
                let (data, shape) = pick(vectors.as_slice(), vectors.shape(), rows)?;
                Self::Vectors(Tensor::from_vec(data, &shape)?)
            }
        })
    }

    /// The tokens of several batches, one after the other.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if there are none, or codes and vectors are mixed; shapes that do not fit.
    pub fn concat(parts: &[&Self]) -> Result<Self> {
        let [first, ..] = parts else {
            return Err(Error::Unsupported("tokens of no batch have no shape".to_owned()));
        };
        match first {
            Self::Codes(_) => {
                let parts = parts.iter().map(|part| part.codes()).collect::<Result<Vec<_>>>()?;
                Ok(Self::Codes(concat_codes(&parts)?))
            }
            Self::Vectors(_) => {
                let parts = parts.iter().map(|part| part.vectors()).collect::<Result<Vec<_>>>()?;
                Ok(Self::Vectors(Tensor::concat(&parts, 0)?))
            }
        }
    }
}

/// The entries `rows` of codes `[N, ..]`, in that order.
///
/// # Errors
/// [`Error::Unsupported`] for a row that is not there.
pub fn code_rows(codes: &Codes, rows: &[usize]) -> Result<Codes> {
    let (data, shape) = pick(codes.as_slice(), codes.shape(), rows)?;
    Ok(Codes::from_vec(data, &shape)?)
}

/// Codes `[N_i, ..]` one after the other.
///
/// # Errors
/// Shapes that do not fit.
pub fn concat_codes(parts: &[&Codes]) -> Result<Codes> {
    let Some(first) = parts.first() else {
        return Err(Error::Unsupported("codes of no batch have no shape".to_owned()));
    };
    let tail = first.shape().get(1..).unwrap_or_default();
    if let Some(other) = parts.iter().find(|part| part.shape().get(1..) != Some(tail)) {
        let message = format!("codes {:?} cannot follow codes {:?}", other.shape(), first.shape());
        return Err(Error::Unsupported(message));
    }
    let images: usize = parts.iter().map(|part| part.shape()[0]).sum();
    let mut data = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
    parts.iter().for_each(|part| data.extend_from_slice(part.as_slice()));
    let shape: Vec<usize> = std::iter::once(images).chain(tail.iter().copied()).collect();
    Ok(Codes::from_vec(data, &shape)?.to_device(first.device())?)
}

/// The rows of an array `[N, ..]`, with their shape.
fn pick<T: Copy>(data: &[T], shape: &[usize], rows: &[usize]) -> Result<(Vec<T>, Vec<usize>)> {
    let Some((&count, tail)) = shape.split_first() else {
        return Err(Error::Unsupported("a single token has no images to pick".to_owned()));
    };
    let size: usize = tail.iter().product();
    let mut picked = Vec::with_capacity(rows.len() * size);
    for &row in rows {
        if row >= count {
            return Err(Error::Unsupported(format!("there is no image {row} among {count}")));
        }
        picked.extend_from_slice(&data[row * size..(row + 1) * size]);
    }
    Ok((picked, std::iter::once(rows.len()).chain(tail.iter().copied()).collect()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn codes(values: &[u32], shape: &[usize]) -> Tokens {
        Tokens::Codes(Codes::from_vec(values.to_vec(), shape).unwrap())
    }

    #[test]
    fn rows_and_concat_undo_each_other() {
        let all = codes(&[0, 1, 2, 3, 4, 5], &[3, 1, 2, 1]);
        let (a, b) = (all.rows(&[2]).unwrap(), all.rows(&[0, 1]).unwrap());
        assert_eq!(a.codes().unwrap().as_slice(), [4, 5]);
        let back = Tokens::concat(&[&b, &a]).unwrap();
        assert_eq!((back.codes().unwrap(), back.images()), (all.codes().unwrap(), 3));
        assert!(all.rows(&[3]).unwrap_err().to_string().contains("no image 3 among 3"));
    }

    #[test]
    fn codes_and_vectors_do_not_mix() {
        let vectors = Tokens::Vectors(Tensor::zeros(&[1, 1, 2, 3]));
        assert!(Tokens::concat(&[&codes(&[0, 1], &[1, 1, 2, 1]), &vectors]).is_err());
        assert!(vectors.codes().is_err() && vectors.vectors().is_ok());
    }

    #[test]
    fn a_level_of_vectors_has_no_nominal_bits() {
        let space = CodeSpace { sizes: vec![256, 16], tables: vec![], shared: false };
        let mut level = LevelInfo { height: 4, width: 2, channels: 8, space: TokenSpace::Codes(space), scales: None };
        assert_eq!(level.nominal_bits(), Some(8.0 * 12.0));
        assert_eq!(level.token_shape(5), [5, 4, 2, 2]);
        level.space = TokenSpace::Vectors { channels: 8 };
        assert_eq!((level.nominal_bits(), level.token_shape(5)), (None, [5, 4, 2, 8]));
        assert!(level.codes().is_err() && level.vector_channels().is_ok());
    }
}
