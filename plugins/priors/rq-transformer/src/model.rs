//! The network, and its likelihood.

use crate::{Condition, ConditionPosition, RqTransformerConfig};
use rqlab_sdk::nn::Linear;
use rqlab_sdk::nn::codes::{self, CodeClassifier, CodeEmbedding};
use rqlab_sdk::nn::transformer::{BlockConfig, Stack};
use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::no_grad;
use rqlab_sdk::tensor::ops::sampling::sample;

/// The RQ-Transformer. Parameters have the published names, except that `attn.query`, `attn.key` and `attn.value` are
/// one `attn.qkv` (see [`rqlab_sdk::nn::transformer::fuse_projections`]).
///
/// T positions in raster order, D depths; e(c) is the vector of a code. The body reads the condition, then for each
/// position but the last `sum_d (W e(c_d) + b) + pos_emb_hw`, so that its output for position t knows all codes before t.
/// The head reads that output, then `V sum_{j<d} e(c_j) + c` for d = 1, .., D - 1, each with `pos_emb_d`.
#[derive(Debug)]
pub struct RqTransformer {
    pub(crate) config: RqTransformerConfig,
    pub(crate) level: PriorLevel,
    /// Condition tokens an image, L.
    pub(crate) condition_length: usize,
    pub(crate) unconditional: bool,
    /// `cond_emb.weight` `[V, W]`; one row, the start token, without condition.
    condition: Var,
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
    /// `cond_classifier`, where the condition is a text.
    condition_classifier: Option<CodeClassifier>,
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
    /// A model of the codes of `cx.level`, conditioned on the class if there are classes and the configuration agrees.
    ///
    /// # Errors
    /// `heads` that do not divide `width`; [`Error::Unsupported`] without codes or with an upper level.
    pub fn new(config: RqTransformerConfig, cx: &PriorContext) -> Result<Self> {
        let classes = if config.condition == Condition::None { 0 } else { cx.classes };
        Self::with_condition(config, cx, classes, 1)
    }

    /// A model conditioned on `length` tokens from a vocabulary of `vocabulary`; 0 for no condition.
    ///
    /// # Errors
    /// As for [`RqTransformer::new`].
    pub fn with_condition(
        config: RqTransformerConfig,
        cx: &PriorContext,
        vocabulary: usize,
        length: usize,
    ) -> Result<Self> {
        if cx.upper.is_some() {
            let message = "rq_transformer models one level of codes and cannot be conditioned on an upper one";
            return Err(Error::Unsupported(message.to_owned()));
        }
        let (params, sizes, width, init) = (&cx.params, &cx.level.codes.codebooks, config.width, config.init);
        let (positions, depth) = (cx.level.codes.positions(), sizes.len());
        let block = BlockConfig {
            width,
            heads: config.heads,
            causal: true,
            dropout: config.dropout,
            attention_dropout: config.attention_dropout,
            init,
        };
        let learned = params.scope("tok_emb");
        let embedding = CodeEmbedding::new(config.embedding, &cx.level, width, init, &learned)?;
        let linear = |name: &str| init.linear(&params.scope(name), embedding.width(), width);
        let place = |name: &str, rows: usize| params.parameter(name, &[1, rows, width], Init::Normal(0.02));
        let classifier = |name: &str, sizes: &[usize]| CodeClassifier::new(&params.scope(name), width, sizes, init);
        let separate = config.condition_position == ConditionPosition::Separate;
        let rows = vocabulary.max(1);
        Ok(Self {
            condition_length: length,
            unconditional: vocabulary == 0,
            condition: params.scope("cond_emb").parameter("weight", &[rows, width], init.embedding())?,
            condition_position: separate.then(|| place("pos_emb_cond", length)).transpose()?,
            position: place("pos_emb_hw", if separate { positions } else { length + positions - 1 })?,
            depth_position: place("pos_emb_d", depth)?,
            input: linear("input_mlp")?,
            head_input: (depth > 1).then(|| linear("head_mlp")).transpose()?,
            body: Stack::new(&params.scope("body_transformer"), config.body_layers, &block)?,
            head: Stack::new(&params.scope("head_transformer"), config.head_layers, &block)?,
            classifier: classifier("classifier", sizes)?,
            condition_classifier: (length > 1).then(|| classifier("cond_classifier", &[rows])).transpose()?,
            embedding,
            level: cx.level.clone(),
            config,
        })
    }

    /// The hidden states of codes `[B, h, w, D]` under labels `[B]` or condition tokens `[B, L]`.
    ///
    /// # Errors
    /// Shapes that do not fit, codes or labels out of range.
    pub fn forward(&self, codes: &Codes, labels: &Codes, mode: &Mode) -> Result<Hidden> {
        let shape = &self.level.codes;
        let (positions, depth, width) = (shape.positions(), shape.depth(), self.config.width);
        let images = codes.shape().first().copied().unwrap_or(0);
        if codes.shape() != [images, shape.height, shape.width, depth] {
            let wanted = [shape.height, shape.width, depth];
            let message = format!("codes {:?} where [images, {wanted:?}] were expected", codes.shape());
            return Err(Error::Unsupported(message));
        }
        let vectors = self.embedding.forward(&codes.reshape(&[images, positions, depth])?)?;
        let sums = vectors.cumsum(2)?;
        let numbers = sums.last_dim();

        let prefix = self.prefix(labels, images)?;
        let mut sequence = prefix;
        if positions > 1 {
            let before = sums.slice(1, 0..positions - 1)?.slice(2, depth - 1..depth)?;
            let mut read = self.read_position(&before.reshape(&[images, positions - 1, numbers])?)?;
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

        let prompt = self.condition_length - 1;
        let condition = if prompt > 0 { Some(context.slice(1, 0..prompt)?) } else { None };
        let context = context.slice(1, prompt..prompt + positions)?.reshape(&[images * positions, 1, width])?;
        let mut sequence = context;
        if let Some(head_input) = &self.head_input {
            let before = sums.slice(2, 0..depth - 1)?.reshape(&[images * positions, depth - 1, numbers])?;
            sequence = Tensor::concat(&[&sequence, &head_input.forward(&before)?], 1)?;
        }
        let sequence = sequence.add(&self.depth_position.get())?;
        let sequence = mode.dropout(&sequence, self.config.embedding_dropout, "head_input")?;
        Ok(Hidden { codes: self.head.forward(&sequence, &mode.part("head", 0))?, condition })
    }

    /// The embedded condition `[B, L, W]`, in its place if that is its own.
    pub(crate) fn prefix(&self, labels: &Codes, images: usize) -> Result<Tensor> {
        let condition = codes::condition(labels, images, self.condition_length, self.unconditional)?;
        let prefix = self.condition.get().embedding(&condition)?;
        match &self.condition_position {
            Some(position) => Ok(prefix.add(&position.get())?),
            None => Ok(prefix),
        }
    }

    /// `sum_d (W e(c_d) + b)` from the sum of the vectors: the bias counts D times.
    fn read_position(&self, sum: &Tensor) -> Result<Tensor> {
        let bias = self.input.bias.as_ref().map(|b| b.get().mul_scalar(self.level.codes.depth() as f32)).transpose()?;
        Ok(sum.linear(&self.input.weight.get(), bias.as_ref())?)
    }

    /// Logits of every code from the hidden states of [`RqTransformer::forward`]: `[B T, K_d]` for each depth.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn logits(&self, hidden: &Hidden) -> Result<Vec<Tensor>> {
        self.classifier.by_depth(&hidden.codes)
    }

    /// Logits `[B, L - 1, V]` of all condition tokens but the first; `None` where there is but one.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn condition_logits(&self, hidden: &Hidden) -> Result<Option<Tensor>> {
        match (&self.condition_classifier, &hidden.condition) {
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
}

impl Prior for RqTransformer {
    fn wants(&self) -> TokenRequest {
        codes::token_request(self.config.targets, self.config.codes, self.config.temperature)
    }

    fn loss(&self, batch: &TokenBatch, mode: &Mode) -> Result<PriorLoss> {
        let hidden = self.forward(&batch.codes, &batch.labels, mode)?;
        codes::prior_loss(&self.losses(&hidden, &batch.codes, &batch.targets)?)
    }

    fn likelihood(&self, batch: &TokenBatch) -> Result<Option<Tensor>> {
        let nats = codes::likelihood(batch, &self.level, |codes, labels| {
            self.losses(&self.forward(codes, labels, &Mode::Eval)?, codes, &Targets::Hard)
        })?;
        Ok(Some(nats))
    }

    fn sample(&self, request: &SampleRequest, rng: &Rng) -> Result<Codes> {
        let depth = self.level.codes.depth();
        no_grad(|| {
            self.generate(request.count, &request.labels, request.cache, &mut |t, d, logits| {
                let uniforms = rng.part("code", (t * depth + d) as u64).uniform(request.count);
                Ok(sample(logits, &request.draw_at(d), &uniforms)?)
            })
        })
    }
}
