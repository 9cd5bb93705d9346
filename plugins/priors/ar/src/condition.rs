//! What a sequence begins with.

use crate::{ArConfig, ConditionRows};
use rqlab_sdk::config::ConfigError;
use rqlab_sdk::nn::ConditionEmbedding;
use rqlab_sdk::prelude::*;

/// What stands for the condition. Parameters: `cond_emb`, unless codes stand for it.
#[derive(Debug)]
pub(crate) enum Start {
    Own(ConditionEmbedding),
    /// Codes of the first depth.
    Codes(ConditionSpace),
}

impl Start {
    pub(crate) fn new(config: &ArConfig, space: ConditionSpace, cx: &PriorContext) -> Result<Self> {
        if space.length() != 1 {
            let message =
                "ar reads a condition of one token, such as a class; take `condition: none`, or rq_transformer";
            return Err(Error::Unsupported(message.to_owned()));
        }
        if config.condition_rows == ConditionRows::Own {
            let scope = cx.params.scope("cond_emb");
            return Ok(Self::Own(ConditionEmbedding::new(
                &scope,
                space,
                cx.null_condition,
                config.width,
                config.init,
            )?));
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
            Self::Own(embedding) => embedding.space(),
            Self::Codes(space) => *space,
        }
    }

    /// Vectors `[B, 1, W]`; `embed` gives those of codes `[B, 1]`.
    pub(crate) fn forward(&self, condition: &Condition, embed: impl Fn(&Codes) -> Result<Tensor>) -> Result<Tensor> {
        let space = match self {
            Self::Own(embedding) => return embedding.forward(condition),
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
