//! What a prior is tested on.

use super::super::random;
use crate::contracts::{
    CodeSpace, Components, Condition, ConditionSpace, Given, LevelInfo, PriorContext, SampleRequest, Targets,
    TokenBatch, TokenSpace, Tokens,
};
use crate::params::Params;
use crate::tensor::{Codes, Rng};
use crate::{Error, Result};

/// Images in a batch.
pub(super) const IMAGES: usize = 3;

/// What a prior is tested on: levels of 2 x 2 tokens, of which it models the last.
#[derive(Debug, Clone)]
pub struct PriorCase {
    /// The levels.
    pub levels: Vec<LevelInfo>,
    /// The conditions.
    pub condition: ConditionSpace,
}

impl PriorCase {
    /// Codes from codebooks of these sizes, one per depth, under one of three classes. There must be few enough maps of codes
    /// to count them all: `(K_1 .. K_D)^4` is at most 4096, as for `[8]` and `[3, 2]`.
    pub fn codes(sizes: &[usize]) -> Self {
        let channels = 5;
        let table = |(d, &size): (usize, &usize)| random(&[size, channels], &format!("codebook {d}"));
        let tables = sizes.iter().enumerate().map(table).collect();
        let space = TokenSpace::Codes(CodeSpace { sizes: sizes.to_vec(), tables, shared: false });
        let level = LevelInfo { height: 2, width: 2, channels, space, scales: None };
        Self { levels: vec![level], condition: ConditionSpace::Classes(3) }
    }

    /// Vectors of that many channels, under one of three classes.
    pub fn vectors(channels: usize) -> Self {
        let level = LevelInfo { height: 2, width: 2, channels, space: TokenSpace::Vectors { channels }, scales: None };
        Self { levels: vec![level], condition: ConditionSpace::Classes(3) }
    }

    /// The same under other conditions.
    #[must_use]
    pub fn under(self, condition: ConditionSpace) -> Self {
        Self { condition, ..self }
    }

    /// The same below another case's levels.
    #[must_use]
    pub fn below(self, above: Self) -> Self {
        Self { levels: above.levels.into_iter().chain(self.levels).collect(), ..self }
    }

    pub(super) fn context(&self, null_condition: bool) -> PriorContext {
        PriorContext {
            levels: self.levels.clone(),
            level: self.levels.len().saturating_sub(1),
            condition: self.condition,
            null_condition,
            params: Params::new(1),
            components: Components::none(),
        }
    }

    pub(super) fn own(&self) -> Result<&LevelInfo> {
        self.levels.last().ok_or_else(|| Error::Unsupported("a case needs a level".to_owned()))
    }

    /// A condition for each image, another for neighbours; the n-th of all is that of image `first + n`.
    pub(super) fn conditions(&self, images: usize, first: usize) -> Result<Condition> {
        let ids = |each: usize, below: usize| -> Result<Codes> {
            let id = |i: usize| ((i / each + i % each + first) % below.max(1)) as u32;
            Ok(Codes::from_vec((0..images * each).map(id).collect(), &[images, each])?)
        };
        let given = match self.condition {
            ConditionSpace::None => Given::Nothing,
            ConditionSpace::Classes(classes) => Given::Classes(ids(1, classes)?.reshape(&[images])?),
            ConditionSpace::Text { vocabulary, length } => Given::Text(ids(length, vocabulary)?),
            ConditionSpace::Vectors { length, channels } => {
                Given::Vectors(random(&[images, length, channels], &format!("condition {first}")))
            }
        };
        Ok(Condition { given, present: Codes::from_vec(vec![1; images], &[images])? })
    }

    pub(super) fn tokens(level: &LevelInfo, images: usize, purpose: &str) -> Result<Tokens> {
        let [_, height, width, _] = level.token_shape(images);
        Ok(match &level.space {
            TokenSpace::Vectors { .. } => Tokens::Vectors(random(&level.token_shape(images), purpose)),
            TokenSpace::Codes(space) => {
                let of_depth = |(d, &size): (usize, &usize)| {
                    let codes = Rng::new(7, purpose, d as u64).below(images * height * width, size as u32);
                    Codes::from_vec(codes, &[images, height, width])
                };
                let columns = space.sizes.iter().enumerate().map(of_depth).collect::<Result<Vec<_>, _>>()?;
                Tokens::Codes(Codes::stack(&columns)?)
            }
        })
    }

    pub(super) fn above(&self, images: usize) -> Result<Vec<Tokens>> {
        let above = &self.levels[..self.levels.len().saturating_sub(1)];
        above.iter().enumerate().map(|(i, level)| Self::tokens(level, images, &format!("level {i}"))).collect()
    }

    pub(super) fn batch(&self) -> Result<TokenBatch> {
        Ok(TokenBatch {
            tokens: Self::tokens(self.own()?, IMAGES, "tokens")?,
            targets: Targets::Hard,
            condition: self.conditions(IMAGES, 0)?,
            above: self.above(IMAGES)?,
        })
    }

    pub(super) fn request(&self) -> Result<SampleRequest> {
        Ok(SampleRequest { above: self.above(IMAGES)?, ..SampleRequest::new(self.conditions(IMAGES, 0)?) })
    }

    /// Every map of codes there is, one image each, all under the n-th condition and the same tokens above.
    pub(super) fn every_map(&self, n: usize) -> Result<TokenBatch> {
        let level = self.own()?;
        let radices: Vec<usize> = (0..level.positions()).flat_map(|_| level.sizes().iter().copied()).collect();
        let maps = radices.iter().try_fold(1usize, |maps, &size| maps.checked_mul(size).filter(|&maps| maps <= 4096));
        let maps =
            maps.ok_or_else(|| Error::Unsupported("more than 4096 maps of codes: take smaller codebooks".to_owned()))?;
        let mut data = Vec::with_capacity(maps * radices.len());
        for map in 0..maps {
            let mut rest = map;
            data.extend(radices.iter().map(|&size| {
                let code = rest % size;
                rest /= size;
                code as u32
            }));
        }
        let rows = vec![0; maps];
        let above = self.above(1)?.iter().map(|level| level.rows(&rows)).collect::<Result<_>>()?;
        Ok(TokenBatch {
            tokens: Tokens::Codes(Codes::from_vec(data, &level.token_shape(maps))?),
            targets: Targets::Hard,
            condition: self.conditions(1, n)?.rows(&rows)?,
            above,
        })
    }
}
