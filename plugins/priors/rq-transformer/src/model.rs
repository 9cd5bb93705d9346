//! The network, and its likelihood.

use crate::{ConditionPosition, RqTransformerConfig};
use rqlab_sdk::nn::codes::{self, CodeClassifier, CodeEmbedding};
use rqlab_sdk::nn::transformer::{BlockConfig, Stack};
use rqlab_sdk::nn::{ConditionEmbedding, Linear, sample_codes};
use rqlab_sdk::prelude::*;

/// The RQ-Transformer. Parameters have the published names, except that `attn.query`, `attn.key` and `attn.value` are
/// one `attn.qkv` (see [`rqlab_sdk::nn::transformer::fuse_projections`]).
///
/// T positions in raster order, D depths; e(c) is the vector of a code. The body reads the condition, then for each
/// position but the last `sum_d (W e(c_d) + b) + pos_emb_hw`, so that its output for position t knows all codes before t.
/// The head reads that output, then `V sum_{j<d} e(c_j) + c` for d = 1, .., D - 1, each with `pos_emb_d`.
#[derive(Debug)]
pub struct RqTransformer {
    pub(crate) config: RqTransformerConfig,
    pub(crate) level: LevelInfo,
    /// `cond_emb.weight` `[V, W]`; one row, the start token, without condition.
    pub(crate) condition: ConditionEmbedding,
    /// `pos_emb_cond` `[1, L, W]`, if the condition has positions of its own.
    condition_position: Option<Var>,
    /// `pos_emb_hw` `[1, T, W]`, or `[1, L + T - 1, W]` for the whole sequence.
    pub(crate) position: Var,
    /// `pos_emb_d` `[1, D, W]`.
    pub(crate) depth_position: Var,
    /// `tok_emb`, where vectors are learned.
    pub(crate) embedding: CodeEmbedding,
    /// `input_mlp`.
    pub(crate) input: Linear,
    /// `head_mlp`; a head over one depth has no codes to read.
    pub(crate) head_input: Option<Linear>,
    /// `body_transformer`.
    pub(crate) body: Stack,
    /// `head_transformer`.
    pub(crate) head: Stack,
    /// `classifier`.
    pub(crate) classifier: CodeClassifier,
    /// `cond_classifier`, where the condition is a text of several tokens.
    text_classifier: Option<CodeClassifier>,
}

/// What the network computes before its classifiers.
#[derive(Debug, Clone)]
pub struct Hidden {
    /// The head's output `[B T, D, W]`.
    pub codes: Tensor,
    /// The body's output at all condition tokens but the last, `[B, L - 1, W]`, where there are several.
    pub condition: Option<Tensor>,
}

impl RqTransformer {
    /// A model of the codes of one level, under the conditions of `cx` if the configuration agrees.
    ///
    /// # Errors
    /// `heads` that do not divide `width`; [`Error::Unsupported`] for vectors or levels above.
    pub fn new(config: RqTransformerConfig, cx: &PriorContext) -> Result<Self> {
        let level = codes::level_without_above(cx, "rq_transformer")?;
        if level.code_space().is_none() {
            let message = "rq_transformer predicts codes depth by depth, and the quantizer of this level makes vectors; its body \
                           with a diffusion at each position is the prior `ar(loss: diffusion)`: take that, or a quantizer that \
                           makes codes";
            return Err(Error::Unsupported(message.to_owned()));
        }
        let (params, sizes, width, init) = (&cx.params, level.sizes(), config.width, config.init);
        let (positions, depth) = (level.positions(), level.depth());
        let block = BlockConfig {
            width,
            heads: config.heads,
            causal: true,
            dropout: config.dropout,
            attention_dropout: config.attention_dropout,
            init,
        };
        let space = config.condition.of(cx.condition);
        let condition = ConditionEmbedding::new(&params.scope("cond_emb"), space, cx.null_condition, width, init)?;
        let length = condition.length();
        let embedding = CodeEmbedding::new(config.embedding, level, width, init, &params.scope("tok_emb"))?;
        let linear = |name: &str| init.linear(&params.scope(name), embedding.width(), width);
        let table = |name: &str, rows: usize| params.parameter(name, &[1, rows, width], Init::Normal(0.02));
        let classifier = |name: &str, sizes: &[usize]| CodeClassifier::new(&params.scope(name), width, sizes, init);
        let separate = config.condition_position == ConditionPosition::Separate;
        let text_classifier = match space {
            ConditionSpace::Text { vocabulary, length } if length > 1 => {
                Some(classifier("cond_classifier", &[vocabulary])?)
            }
            _ => None,
        };
        Ok(Self {
            condition,
            condition_position: separate.then(|| table("pos_emb_cond", length)).transpose()?,
            position: table("pos_emb_hw", if separate { positions } else { length + positions - 1 })?,
            depth_position: table("pos_emb_d", depth)?,
            input: linear("input_mlp")?,
            head_input: (depth > 1).then(|| linear("head_mlp")).transpose()?,
            body: Stack::new(&params.scope("body_transformer"), config.body_layers, &block)?,
            head: Stack::new(&params.scope("head_transformer"), config.head_layers, &block)?,
            classifier: classifier("classifier", sizes)?,
            text_classifier,
            embedding,
            level: level.clone(),
            config,
        })
    }

    /// The hidden states of codes `[B, h, w, D]` under their conditions.
    ///
    /// # Errors
    /// Shapes that do not fit, codes or conditions out of range.
    pub fn forward(&self, codes: &Codes, condition: &Condition, mode: &Mode) -> Result<Hidden> {
        let codes = codes::by_position(codes, &self.level)?;
        let (images, positions, depth) = (codes.shape()[0], self.level.positions(), self.level.depth());
        let width = self.config.width;
        let sums = self.embedding.forward(&codes)?.cumsum(2)?;
        let channels = sums.last_dim();

        let mut sequence = self.prefix(condition)?;
        if positions > 1 {
            let before = sums.slice(1, 0..positions - 1)?.slice(2, depth - 1..depth)?;
            let mut read = self.read_position(&before.reshape(&[images, positions - 1, channels])?)?;
            if self.condition_position.is_some() {
                read = read.add(&self.position.get().slice(1, 0..positions - 1)?)?;
            }
            sequence = Tensor::concat(&[&sequence, &read], 1)?;
        }
        if self.condition_position.is_none() {
            sequence = sequence.add(&self.position.get())?;
        }
        let sequence = mode.dropout(&sequence, self.config.embedding_dropout, "body_input")?;
        let context = self.body.forward(&sequence, &mode.part("body", 0))?;

        let prompt = self.condition.length() - 1;
        let condition = if prompt > 0 { Some(context.slice(1, 0..prompt)?) } else { None };
        let context = context.slice(1, prompt..prompt + positions)?.reshape(&[images * positions, 1, width])?;
        let mut sequence = context;
        if let Some(head_input) = &self.head_input {
            let before = sums.slice(2, 0..depth - 1)?.reshape(&[images * positions, depth - 1, channels])?;
            sequence = Tensor::concat(&[&sequence, &head_input.forward(&before)?], 1)?;
        }
        let sequence = sequence.add(&self.depth_position.get())?;
        let sequence = mode.dropout(&sequence, self.config.embedding_dropout, "head_input")?;
        Ok(Hidden { codes: self.head.forward(&sequence, &mode.part("head", 0))?, condition })
    }

    /// The embedded condition `[B, L, W]`, with its position embedding if that is its own.
    pub(crate) fn prefix(&self, condition: &Condition) -> Result<Tensor> {
        let prefix = self.condition.forward(condition)?;
        match &self.condition_position {
            Some(position) => Ok(prefix.add(&position.get())?),
            None => Ok(prefix),
        }
    }

    /// `sum_d (W e(c_d) + b)` from the sum of the vectors: the bias counts D times.
    fn read_position(&self, sum: &Tensor) -> Result<Tensor> {
        let bias = self.input.bias.as_ref().map(|b| b.get().mul_scalar(self.level.depth() as f32)).transpose()?;
        Ok(sum.linear(&self.input.weight.get(), bias.as_ref())?)
    }

    /// Logits of every code from the hidden states of [`RqTransformer::forward`]: `[B T, K_d]` for each depth.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn logits(&self, hidden: &Hidden) -> Result<Vec<Tensor>> {
        self.classifier.by_depth(&hidden.codes)
    }

    /// Logits `[B, L - 1, V]` of all tokens of a text but the first; `None` where there is but one.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn text_logits(&self, hidden: &Hidden) -> Result<Option<Tensor>> {
        match (&self.text_classifier, &hidden.condition) {
            (Some(classifier), Some(hidden)) => Ok(Some(classifier.logits(hidden, 0)?)),
            _ => Ok(None),
        }
    }

    /// Cross entropy in nats of every code, `[B T, D]`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn losses(&self, hidden: &Hidden, codes: &Codes, targets: &Targets) -> Result<Tensor> {
        self.classifier.losses(&hidden.codes, codes, targets)
    }

    /// Cross entropy in nats of all tokens of the texts but the first of each, averaged over them (rank 0). Images that have
    /// lost their text count with 0. `None` where the condition is not a text of several tokens.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn text_loss(&self, hidden: &Hidden, condition: &Condition) -> Result<Option<Tensor>> {
        let (Some(logits), Given::Text(text)) = (self.text_logits(hidden)?, &condition.given) else { return Ok(None) };
        let (images, length) = (condition.images(), self.condition.length());
        let text = text.reshape(&[images, length])?;
        let next = (1..length).map(|i| text.column(i)).collect::<Result<Vec<_>, _>>()?;
        let present =
            condition.present.as_slice().iter().map(|&present| if present == 0 { 0.0 } else { 1.0 }).collect();
        let present = Tensor::from_vec(present, &[images, 1])?.to_device(logits.device())?;
        Ok(Some(logits.cross_entropy(&Codes::stack(&next)?)?.mul(&present)?.mean_all()?))
    }
}

impl Prior for RqTransformer {
    fn wants(&self) -> TokenRequest {
        codes::token_request(self.config.targets, self.config.codes, self.config.temperature)
    }

    fn can_be_guided(&self) -> bool {
        self.condition.space() != ConditionSpace::None
    }

    fn loss(&self, batch: &TokenBatch, mode: &Mode) -> Result<PriorLoss> {
        let codes = batch.tokens.codes()?;
        let hidden = self.forward(codes, &batch.condition, mode)?;
        let mut loss = codes::prior_loss(&self.losses(&hidden, codes, &batch.targets)?)?;
        if let (true, Some(text)) = (self.config.text_loss > 0.0, self.text_loss(&hidden, &batch.condition)?) {
            loss.terms.push(("text", text.detach()));
            loss.loss = loss.loss.add(&text.mul_scalar(self.config.text_loss)?)?;
        }
        Ok(loss)
    }

    fn likelihood(&self, batch: &TokenBatch) -> Result<Option<Tensor>> {
        let nats = codes::likelihood(batch, &self.level, |codes, condition, _| {
            self.losses(&self.forward(codes, condition, &Mode::Eval)?, codes, &Targets::Hard)
        })?;
        Ok(Some(nats))
    }

    fn sample(&self, request: &SampleRequest, rng: &Rng) -> Result<Tokens> {
        sample_codes(self, request, rng)
    }
}
