//! The network and its likelihood.

use crate::body::Body;
use crate::condition::Start;
use crate::order::Reading;
use crate::{ArConfig, BlockKind, Rotary};
use rqlab_sdk::config::ConfigError;
use rqlab_sdk::nn::codes::{self, CodeEmbedding, Embedding};
use rqlab_sdk::nn::{Linear, Orders, sample_codes};
use rqlab_sdk::prelude::*;

/// The flat autoregressive transformer. It reads the condition, then all codes but the last in their order, and predicts at
/// each the code that follows; the first at the last token of the condition.
///
/// Parameters: `cond_emb.weight` `[V, W]` and, under a condition of several tokens, L, `pos_emb_cond` `[1, L - 1, W]`, `tok_emb` (or
/// `input_mlp` where codes enter as codebook vectors), those of positions, `transformer`, `classifier` (of other blocks than gpt's
/// `output`).
#[derive(Debug)]
pub struct Ar {
    config: ArConfig,
    pub(crate) level: LevelInfo,
    pub(crate) condition: Start,
    pub(crate) embedding: CodeEmbedding,
    pub(crate) reading: Reading,
    input: Option<Linear>,
    pub(crate) body: Body,
}

impl Ar {
    /// A model of the codes of one level, under the conditions of `cx` if the configuration agrees.
    ///
    /// # Errors
    /// `heads` that do not divide `width`, choices that its blocks do not have; rar blocks under a condition of several
    /// tokens; [`Error::Unsupported`] for vectors or levels above.
    pub fn new(config: ArConfig, cx: &PriorContext) -> Result<Self> {
        let level = codes::only_level(cx, "ar")?;
        let condition = config.condition.of(cx.condition);
        if config.anneal[0] > config.anneal[1] {
            let message = "annealing ends before it begins; give the earlier share first";
            return Err(ConfigError::field("anneal", message.to_owned()).into());
        }
        let (params, width, init) = (&cx.params, config.width, config.init);
        let embedding = CodeEmbedding::new(config.embedding, level, width, init, &params.scope("tok_emb"))?;
        let frozen = config.embedding == Embedding::Codebook;
        let input = frozen.then(|| init.linear(&params.scope("input_mlp"), embedding.width(), width)).transpose()?;
        Ok(Self {
            condition: Start::new(&config, condition, cx)?,
            reading: Reading::new(config.order, config.anneal, level),
            input,
            body: Body::new(params, &config, level, condition.length())?,
            embedding,
            level: level.clone(),
            config,
        })
    }

    /// The hidden state `[B, T D, W]` from which each code of `[B, h, w, D]` is predicted, read in these orders of all T D.
    ///
    /// # Errors
    /// Shapes that do not fit, codes or conditions out of range.
    pub fn forward(&self, codes: &Codes, condition: &Condition, orders: &Orders, mode: &Mode) -> Result<Tensor> {
        let codes = codes::by_position(codes, &self.level)?;
        let (images, length) = (codes.shape()[0], orders.length());
        let vectors = self.embedding.forward(&codes)?.reshape(&[images, length, self.embedding.width()])?;
        let start = self.start(condition)?;
        let known = self.read(&orders.pick(&vectors, 0..length - 1)?)?;
        orders.restore(&self.body.forward(&start, &known, orders, mode)?)
    }

    /// The embedded condition `[B, L, W]`: what the first code is predicted from.
    pub(crate) fn start(&self, condition: &Condition) -> Result<Tensor> {
        self.condition.forward(condition, |codes| self.read(&self.embedding.at(0, codes)?))
    }

    /// Vectors of codes `[.., E] -> [.., W]`.
    pub(crate) fn read(&self, vectors: &Tensor) -> Result<Tensor> {
        match &self.input {
            Some(input) => input.forward(vectors),
            None => Ok(vectors.clone()),
        }
    }

    /// The rotations of llama blocks; none of others.
    pub fn rotary(&self) -> Option<&Rotary> {
        match &self.body {
            Body::Llama { model, .. } => Some(&model.rotary),
            Body::Gpt { .. } | Body::Rar { .. } => None,
        }
    }

    /// Logits of every code, `[B T, K_d]` for each depth, read in the order of evaluation.
    ///
    /// # Errors
    /// As for [`Ar::forward`].
    pub fn logits(&self, codes: &Codes, condition: &Condition) -> Result<Vec<Tensor>> {
        let orders = self.reading.orders(condition.images(), &Mode::Eval)?;
        self.logits_in(codes, condition, &orders)
    }

    /// The same, read in given orders of all codes.
    ///
    /// # Errors
    /// As for [`Ar::forward`].
    pub fn logits_in(&self, codes: &Codes, condition: &Condition, orders: &Orders) -> Result<Vec<Tensor>> {
        let depth = self.level.depth();
        let hidden = self.forward(codes, condition, orders, &Mode::Eval)?;
        self.body.by_depth(&hidden.reshape(&[codes.len() / depth, depth, self.config.width])?)
    }

    fn losses(&self, codes: &Codes, condition: &Condition, targets: &Targets, mode: &Mode) -> Result<Tensor> {
        let orders = self.reading.orders(condition.images(), mode)?;
        self.body.losses(&self.forward(codes, condition, &orders, mode)?, codes, targets)
    }
}

impl Prior for Ar {
    fn wants(&self) -> TokenRequest {
        codes::token_request(self.config.targets, self.config.codes, self.config.temperature)
    }

    fn can_be_guided(&self) -> bool {
        self.condition.space() != ConditionSpace::None
    }

    /// As published: of LlamaGen's matrices alone, and of RAR's but for embeddings.
    fn decays(&self, name: &str, shape: &[usize]) -> bool {
        match self.config.block {
            BlockKind::Gpt => true,
            BlockKind::Llama => shape.len() == 2,
            BlockKind::Rar => shape.len() == 2 && !name.contains("_emb"),
        }
    }

    fn begin_step(&mut self, step: u64, steps: u64) {
        self.reading.begin_step(step, steps);
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
