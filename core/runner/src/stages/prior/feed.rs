//! What a prior is fed: tokens and targets, of what was kept of images or is made of them on the way.

use crate::stages::conditions::{Conditions, TrainingConditions};
use crate::stages::model::multiplied;
use crate::stages::subset::subset;
use crate::stages::token_file::{TokenFile, labels};
use crate::stages::{Context, EncodeTokens, Tokenizer, TrainPrior};
use rqlab_sdk::contracts::{Condition, Dataset, LevelInfo, Split, Targets, TokenBatch, TokenRequest, Tokens};
use rqlab_sdk::tensor::{Rng, Tensor};
use rqlab_sdk::{Error, Result};

/// What is known of a level's tokens of some images.
pub(super) enum Given {
    Tokens(Tokens),
    /// Latents, of which tokens are made anew at each step.
    Latents(Tensor),
}

/// Images for a step, with their conditions.
pub(super) enum Read {
    /// What the files hold of them, by level.
    Kept(Condition, Vec<Given>),
    /// Their pixels.
    Images(Condition, Tensor),
}

/// Where the images of a step come from.
pub(super) enum Source<'a> {
    /// Files of a number of variants of each image, one file per level.
    Files { files: Vec<TokenFile>, latents: bool, variants: usize, conditions: TrainingConditions },
    /// The data set.
    Images { dataset: &'a dyn Dataset, chosen: Vec<usize>, conditions: TrainingConditions },
}

impl<'a> Source<'a> {
    /// Opens the files of the tokens that a prior is trained on; of one that sees images on the way, learns which they are.
    pub(super) fn open(
        cx: &Context<'_>,
        stage: &TrainPrior,
        infos: &[LevelInfo],
        wants: TokenRequest,
        dataset: &'a dyn Dataset,
        conditions: &Conditions,
    ) -> Result<Self> {
        let dir = cx.store.stage(&stage.tokens);
        let labels = labels(&dir)?;
        let conditions = conditions.of_training(&labels)?;
        if stage.on_the_way() {
            return Ok(Self::Images { dataset, chosen: subset(dataset.info().train, labels.len()), conditions });
        }
        let job = dir.job()?;
        let Some(EncodeTokens { latents, variants, .. }) = job.stage.is::<EncodeTokens>() else {
            return Err(Error::Data(format!("stage {} is a {}, not tokens", stage.tokens, job.stage.name())));
        };
        let levels = (0..=stage.level).zip(infos);
        let files = levels.map(|(level, info)| EncodeTokens::open(&dir, level, info)).collect::<Result<Vec<_>>>()?;
        let variants = variants.count();
        if let Some(file) = files.iter().find(|file| file.images() != labels.len() * variants) {
            let message = format!("{} labels and {variants} times that, not {} tokens", labels.len(), file.images());
            return Err(Error::Checkpoint(format!("{}: {message}; delete it", dir.file("").display())));
        }
        if !latents && wants != TokenRequest::default() {
            let message =
                "the prior wants tokens that are made anew at each step, and only tokens were kept; plan again";
            return Err(Error::Checkpoint(message.to_owned()));
        }
        Ok(Self::Files { files, latents: *latents, variants, conditions })
    }

    /// How many images there are.
    pub(super) fn images(&self) -> usize {
        match self {
            Self::Files { conditions, .. } | Self::Images { conditions, .. } => conditions.images(),
        }
    }

    /// The images `rows`, each as a variant that `rng` draws.
    pub(super) fn read(&self, rows: &[usize], rng: &Rng) -> Result<Read> {
        match self {
            Self::Images { dataset, chosen, conditions } => {
                let indices: Vec<usize> = rows.iter().map(|&row| chosen[row]).collect();
                Ok(Read::Images(conditions.rows(rows)?, dataset.batch(Split::Train, &indices, Some(rng))?.pixels))
            }
            Self::Files { files, latents, variants, conditions } => {
                let (drawn, images) = (rng.below(rows.len(), *variants as u32), conditions.images());
                let places: Vec<usize> =
                    rows.iter().zip(drawn).map(|(row, variant)| variant as usize * images + row).collect();
                let given = |file: &TokenFile| {
                    let tokens = file.rows(&places)?;
                    Ok(if *latents { Given::Latents(tokens.vectors()?.clone()) } else { Given::Tokens(tokens) })
                };
                Ok(Read::Kept(conditions.rows(rows)?, files.iter().map(given).collect::<Result<_>>()?))
            }
        }
    }
}

/// Makes what a prior is fed.
pub(super) struct Feed {
    pub(super) wants: TokenRequest,
    /// What vectors are multiplied with, by level; its own is the last.
    pub(super) scales: Vec<f32>,
}

impl Feed {
    /// What is known of images, once they are encoded.
    pub(super) fn encode(&self, model: &Tokenizer, images: &Tensor) -> Result<Vec<Given>> {
        let levels = model.encode(images)?.into_iter().take(self.scales.len());
        let anew = self.wants != TokenRequest::default();
        let given = |(latents, quantized): (Tensor, rqlab_sdk::contracts::Quantized)| match anew {
            true => Given::Latents(latents),
            false => Given::Tokens(quantized.tokens),
        };
        Ok(levels.map(given).collect())
    }

    /// What the prior is fed of images: the tokens that are known, or tokens and targets made of their latents. `dropout` of
    /// the conditions are replaced by the null condition.
    pub(super) fn batch(
        &self,
        model: &Tokenizer,
        condition: &Condition,
        given: &[Given],
        dropout: f32,
        rng: &Rng,
    ) -> Result<TokenBatch> {
        let own = self.scales.len() - 1;
        let made = |level: usize, request: &TokenRequest| -> Result<(Tokens, Targets)> {
            let (tokens, targets) = match &given[level] {
                Given::Tokens(tokens) => (tokens.clone(), Targets::Hard),
                Given::Latents(latents) => {
                    model.quantizers[level].tokens(latents, request, &rng.part("codes", level as u64))?
                }
            };
            Ok((multiplied(&tokens, self.scales[level])?, targets))
        };
        let (tokens, targets) = made(own, &self.wants)?;
        let above = (0..own).map(|level| Ok(made(level, &TokenRequest::default())?.0)).collect::<Result<_>>()?;
        Ok(TokenBatch { tokens, targets, condition: condition.dropped(dropout, &rng.part("condition", 0))?, above })
    }
}
