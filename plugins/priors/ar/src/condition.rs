//! What a sequence begins with.

use crate::{ArConfig, BlockKind, ConditionRows};
use rqlab_sdk::config::ConfigError;
use rqlab_sdk::nn::ConditionEmbedding;
use rqlab_sdk::prelude::*;

/// What stands for the condition of L tokens: the first code is predicted from the last of them. Parameters: `cond_emb`,
/// unless codes stand for it, and, where L is above 1 and blocks are not rar, `pos_emb_cond` `[1, L - 1, W]` for the tokens before
/// the last.
#[derive(Debug)]
pub(crate) enum Start {
    Own {
        embedding: ConditionEmbedding,
        positions: Option<Var>,
    },
    /// Codes of the first depth.
    Codes(ConditionSpace),
}

impl Start {
    pub(crate) fn new(config: &ArConfig, space: ConditionSpace, cx: &PriorContext) -> Result<Self> {
        let before = space.length().saturating_sub(1);
        if config.condition_rows == ConditionRows::Own {
            let (scope, width) = (cx.params.scope("cond_emb"), config.width);
            let table = || cx.params.parameter("pos_emb_cond", &[1, before, width], Init::Normal(0.02));
            // Rar's blocks have positions of all inputs.
            let placed = before > 0 && config.block != BlockKind::Rar;
            return Ok(Self::Own {
                embedding: ConditionEmbedding::new(&scope, space, cx.null_condition, width, config.init)?,
                positions: placed.then(table).transpose()?,
            });
        }
        let refused = |message: String| Err(ConfigError::field("condition_rows", message).into());
        let codes = cx.own()?.sizes().first().copied().unwrap_or(0);
        match space {
            ConditionSpace::Classes(classes) if classes > codes => {
                refused(format!("{codes} codes cannot stand for {classes} classes; take `own`"))
            }
            ConditionSpace::None | ConditionSpace::Classes(_) if !cx.null_condition => Ok(Self::Codes(space)),
            ConditionSpace::None | ConditionSpace::Classes(_) => refused(
                "no code stands for the null condition; take `own`, or leave `prior_training.condition_dropout` at 0"
                    .to_owned(),
            ),
            _ => refused("codes stand for classes alone; take `own`".to_owned()),
        }
    }

    /// The conditions that it reads.
    pub(crate) fn space(&self) -> ConditionSpace {
        match self {
            Self::Own { embedding, .. } => embedding.space(),
            Self::Codes(space) => *space,
        }
    }

    /// Vectors `[B, L, W]`; `embed` gives those of codes `[B, 1]`.
    pub(crate) fn forward(&self, condition: &Condition, embed: impl Fn(&Codes) -> Result<Tensor>) -> Result<Tensor> {
        let space = match self {
            Self::Own { embedding, positions } => {
                let tokens = embedding.forward(condition)?;
                let Some(positions) = positions else { return Ok(tokens) };
                let before = positions.get().shape()[1];
                let placed = tokens.slice(1, 0..before)?.add(&positions.get())?;
                return Ok(Tensor::concat(&[&placed, &tokens.slice(1, before..before + 1)?], 1)?);
            }
            Self::Codes(space) => *space,
        };
        let images = condition.images();
        let ids = match (space, &condition.given) {
            (ConditionSpace::Classes(classes), Given::Classes(ids)) => {
                let told = condition.present.as_slice().iter().all(|&present| present != 0);
                if !told || ids.as_slice().iter().any(|&id| id as usize >= classes) {
                    let message = format!("each of {images} images must have one of {classes} classes");
                    return Err(Error::Unsupported(message));
                }
                ids.clone()
            }
            (ConditionSpace::None, _) => Codes::from_vec(vec![0; images], &[images])?,
            _ => return Err(Error::Unsupported(format!("the prior expects a condition of {space:?}"))),
        };
        embed(&ids.reshape(&[images, 1])?)
    }
}
