//! The network and its likelihood.

use crate::body::Body;
use crate::{ArConfig, BlockKind, Position, Rotary};
use rqlab_sdk::nn::codes::{self, CodeEmbedding, Embedding};
use rqlab_sdk::nn::{ConditionEmbedding, Linear, sample_codes};
use rqlab_sdk::prelude::*;

/// The flat autoregressive transformer. It reads the condition, then all codes but the last, each with the position
/// embedding of the code that is to be predicted there.
///
/// T positions of the map, D depths. Parameters: `cond_emb.weight` `[V, W]`, `tok_emb` (or `input_mlp` where codes enter as
/// codebook vectors), `pos_emb` `[1, T D, W]` (or `pos_emb_hw` `[1, T, 1, W]` and `pos_emb_d` `[1, 1, D, W]`; of llama blocks
/// the latter alone, if D is above 1), `transformer`, `classifier` (of llama blocks `output`).
#[derive(Debug)]
pub struct Ar {
    config: ArConfig,
    pub(crate) level: LevelInfo,
    pub(crate) condition: ConditionEmbedding,
    position: PositionEmbedding,
    pub(crate) embedding: CodeEmbedding,
    input: Option<Linear>,
    pub(crate) body: Body,
}

#[derive(Debug)]
enum PositionEmbedding {
    Flat(Var),
    Factored { position: Var, depth: Var },
    // Places in the map come from rotations.
    Depth(Option<Var>),
}

impl Ar {
    /// A model of the codes of one level, conditioned on the class if there are classes and the configuration agrees.
    ///
    /// # Errors
    /// `heads` that do not divide `width`, choices that its blocks do not have; [`Error::Unsupported`] for vectors, levels
    /// above, or a condition of several tokens.
    pub fn new(config: ArConfig, cx: &PriorContext) -> Result<Self> {
        let level = codes::only_level(cx, "ar")?;
        let condition = config.condition.of(cx.condition);
        if condition.length() != 1 {
            let message =
                "ar reads a condition of one token, such as a class; take `condition: none`, or rq_transformer";
            return Err(Error::Unsupported(message.to_owned()));
        }
        let (params, width, init) = (&cx.params, config.width, config.init);
        let (positions, depth) = (level.positions(), level.depth());
        let embedding = CodeEmbedding::new(config.embedding, level, width, init, &params.scope("tok_emb"))?;
        let frozen = config.embedding == Embedding::Codebook;
        let input = frozen.then(|| init.linear(&params.scope("input_mlp"), embedding.width(), width)).transpose()?;
        let table = |name: &str, shape: &[usize]| params.parameter(name, shape, Init::Normal(0.02));
        let position = match config.position {
            _ if config.block == BlockKind::Llama => {
                PositionEmbedding::Depth((depth > 1).then(|| table("pos_emb_d", &[1, 1, depth, width])).transpose()?)
            }
            Position::Flat => PositionEmbedding::Flat(table("pos_emb", &[1, positions * depth, width])?),
            Position::Factored => PositionEmbedding::Factored {
                position: table("pos_emb_hw", &[1, positions, 1, width])?,
                depth: table("pos_emb_d", &[1, 1, depth, width])?,
            },
        };
        let scope = params.scope("cond_emb");
        Ok(Self {
            condition: ConditionEmbedding::new(&scope, condition, cx.null_condition, width, init)?,
            position,
            input,
            body: Body::new(params, &config, level)?,
            embedding,
            level: level.clone(),
            config,
        })
    }

    /// The hidden state `[B, T D, W]` from which each code of `[B, h, w, D]` is predicted.
    ///
    /// # Errors
    /// Shapes that do not fit, codes or conditions out of range.
    pub fn forward(&self, codes: &Codes, condition: &Condition, mode: &Mode) -> Result<Tensor> {
        let codes = codes::by_position(codes, &self.level)?;
        let (images, length) = (codes.shape()[0], self.level.positions() * self.level.depth());
        let vectors = self.embedding.forward(&codes)?.reshape(&[images, length, self.embedding.width()])?;
        let start = self.condition.forward(condition)?;
        let sequence = if length > 1 {
            Tensor::concat(&[&start, &self.read(&vectors.slice(1, 0..length - 1)?)?], 1)?
        } else {
            start
        };
        let sequence = match self.positions()? {
            Some(positions) => sequence.add(&positions)?,
            None => sequence,
        };
        let sequence = mode.dropout(&sequence, self.config.embedding_dropout, "input")?;
        self.body.forward(&sequence, mode)
    }

    /// Vectors of codes `[.., E] -> [.., W]`.
    pub(crate) fn read(&self, vectors: &Tensor) -> Result<Tensor> {
        match &self.input {
            Some(input) => input.forward(vectors),
            None => Ok(vectors.clone()),
        }
    }

    /// The position embedding of the sequence, `[1, T D, W]`; none where rotations say all.
    pub(crate) fn positions(&self) -> Result<Option<Tensor>> {
        let (width, positions, depths) = (self.config.width, self.level.positions(), self.level.depth());
        let table = match &self.position {
            PositionEmbedding::Depth(None) => return Ok(None),
            PositionEmbedding::Flat(table) => table.get(),
            PositionEmbedding::Factored { position, depth } => position.get().add(&depth.get())?,
            PositionEmbedding::Depth(Some(depth)) => depth.get().broadcast_to(&[1, positions, depths, width])?,
        };
        Ok(Some(table.reshape(&[1, positions * depths, width])?))
    }

    /// The rotations of llama blocks; none of others.
    pub fn rotary(&self) -> Option<&Rotary> {
        match &self.body {
            Body::Llama { model, .. } => Some(&model.rotary),
            Body::Gpt { .. } => None,
        }
    }

    /// Logits of every code, `[B T, K_d]` for each depth.
    ///
    /// # Errors
    /// As for [`Ar::forward`].
    pub fn logits(&self, codes: &Codes, condition: &Condition) -> Result<Vec<Tensor>> {
        let depth = self.level.depth();
        let hidden = self.forward(codes, condition, &Mode::Eval)?;
        self.body.by_depth(&hidden.reshape(&[codes.len() / depth, depth, self.config.width])?)
    }

    fn losses(&self, codes: &Codes, condition: &Condition, targets: &Targets, mode: &Mode) -> Result<Tensor> {
        self.body.losses(&self.forward(codes, condition, mode)?, codes, targets)
    }
}

impl Prior for Ar {
    fn wants(&self) -> TokenRequest {
        codes::token_request(self.config.targets, self.config.codes, self.config.temperature)
    }

    fn can_be_guided(&self) -> bool {
        self.condition.space() != ConditionSpace::None
    }

    fn loss(&self, batch: &TokenBatch, mode: &Mode) -> Result<PriorLoss> {
        codes::prior_loss(&self.losses(batch.tokens.codes()?, &batch.condition, &batch.targets, mode)?)
    }

    fn likelihood(&self, batch: &TokenBatch) -> Result<Option<Tensor>> {
        let nats = codes::likelihood(batch, &self.level, |codes, condition, _| {
            self.losses(codes, condition, &Targets::Hard, &Mode::Eval)
        })?;
        Ok(Some(nats))
    }

    fn sample(&self, request: &SampleRequest, rng: &Rng) -> Result<Tokens> {
        sample_codes(self, request, rng)
    }
}
