//! The network, its likelihood, and sampling.

use crate::{ArConfig, Condition, Position};
use rqlab_sdk::nn::Linear;
use rqlab_sdk::nn::codes::{self, CodeClassifier, CodeEmbedding, Embedding};
use rqlab_sdk::nn::transformer::{BlockConfig, Rollout, Stack};
use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::no_grad;
use rqlab_sdk::tensor::ops::sampling::sample;

/// Picks the codes of all images at (position, depth) from their logits `[B, 1, K]`.
pub type Choose<'a> = dyn FnMut(usize, usize, &Tensor) -> Result<Codes> + 'a;

/// The flat autoregressive transformer. It reads the condition, then all codes but the last, each with the position
/// vector of the code that is to be predicted there.
///
/// Parameters: `cond_emb.weight` `[V, W]`, `tok_emb` (or `input_mlp` where codes enter as codebook vectors), `pos_emb`
/// `[1, T D, W]` (or `pos_emb_hw` `[1, T, 1, W]` and `pos_emb_d` `[1, 1, D, W]`), `transformer`, `classifier`.
#[derive(Debug)]
pub struct Ar {
    config: ArConfig,
    level: PriorLevel,
    unconditional: bool,
    condition: Var,
    places: Places,
    embedding: CodeEmbedding,
    input: Option<Linear>,
    stack: Stack,
    classifier: CodeClassifier,
}

#[derive(Debug)]
enum Places {
    Flat(Var),
    Factored { position: Var, depth: Var },
}

impl Ar {
    /// A model of the codes of `cx.level`, conditioned on the class if there are classes and the configuration agrees.
    ///
    /// # Errors
    /// `heads` that do not divide `width`; [`Error::Unsupported`] without codes or with an upper level.
    pub fn new(config: ArConfig, cx: &PriorContext) -> Result<Self> {
        if cx.upper.is_some() {
            let message = "ar models one level of codes and cannot be conditioned on an upper one";
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
        let embedding = CodeEmbedding::new(config.embedding, &cx.level, width, init, &params.scope("tok_emb"))?;
        let frozen = config.embedding == Embedding::Codebook;
        let input = frozen.then(|| init.linear(&params.scope("input_mlp"), embedding.width(), width)).transpose()?;
        let place = |name: &str, shape: &[usize]| params.parameter(name, shape, Init::Normal(0.02));
        let places = match config.position {
            Position::Flat => Places::Flat(place("pos_emb", &[1, positions * depth, width])?),
            Position::Factored => Places::Factored {
                position: place("pos_emb_hw", &[1, positions, 1, width])?,
                depth: place("pos_emb_d", &[1, 1, depth, width])?,
            },
        };
        let classes = if config.condition == Condition::None { 0 } else { cx.classes };
        Ok(Self {
            unconditional: classes == 0,
            condition: params.scope("cond_emb").parameter("weight", &[classes.max(1), width], init.embedding())?,
            places,
            input,
            stack: Stack::new(&params.scope("transformer"), config.layers, &block)?,
            classifier: CodeClassifier::new(&params.scope("classifier"), width, sizes, init)?,
            embedding,
            level: cx.level.clone(),
            config,
        })
    }

    /// The hidden state `[B, T D, W]` from which each code of `[B, h, w, D]` is predicted, under labels `[B]`.
    ///
    /// # Errors
    /// Shapes that do not fit, codes or labels out of range.
    pub fn forward(&self, codes: &Codes, labels: &Codes, mode: &Mode) -> Result<Tensor> {
        let shape = &self.level.codes;
        let (positions, depth) = (shape.positions(), shape.depth());
        let images = codes.shape().first().copied().unwrap_or(0);
        if codes.shape() != [images, shape.height, shape.width, depth] {
            let wanted = [shape.height, shape.width, depth];
            let message = format!("codes {:?} where [images, {wanted:?}] were expected", codes.shape());
            return Err(Error::Unsupported(message));
        }
        let length = positions * depth;
        let vectors = self.embedding.forward(&codes.reshape(&[images, positions, depth])?)?;
        let vectors = vectors.reshape(&[images, length, self.embedding.width()])?;
        let start = self.start(labels, images)?;
        let sequence = if length > 1 {
            Tensor::concat(&[&start, &self.read(&vectors.slice(1, 0..length - 1)?)?], 1)?
        } else {
            start
        };
        let sequence = sequence.add(&self.places()?)?;
        let sequence = mode.dropout(&sequence, self.config.embedding_dropout, "input")?;
        self.stack.forward(&sequence, mode)
    }

    /// The embedded condition `[B, 1, W]`.
    fn start(&self, labels: &Codes, images: usize) -> Result<Tensor> {
        let condition = codes::condition(labels, images, 1, self.unconditional)?;
        Ok(self.condition.get().embedding(&condition)?)
    }

    /// Vectors of codes `[.., E] -> [.., W]`.
    fn read(&self, vectors: &Tensor) -> Result<Tensor> {
        match &self.input {
            Some(input) => input.forward(vectors),
            None => Ok(vectors.clone()),
        }
    }

    /// The position vectors of the sequence, `[1, T D, W]`.
    fn places(&self) -> Result<Tensor> {
        let width = self.config.width;
        match &self.places {
            Places::Flat(table) => Ok(table.get()),
            Places::Factored { position, depth } => {
                let sum = position.get().add(&depth.get())?;
                Ok(sum.reshape(&[1, sum.len() / width, width])?)
            }
        }
    }

    /// Logits of every code, `[B T, K_d]` for each depth.
    ///
    /// # Errors
    /// Shapes that do not fit, codes or labels out of range.
    pub fn logits(&self, codes: &Codes, labels: &Codes) -> Result<Vec<Tensor>> {
        let depth = self.level.codes.depth();
        let hidden = self.forward(codes, labels, &Mode::Eval)?;
        self.classifier.by_depth(&hidden.reshape(&[codes.len() / depth, depth, self.config.width])?)
    }

    fn losses(&self, codes: &Codes, labels: &Codes, targets: &Targets, mode: &Mode) -> Result<Tensor> {
        self.classifier.losses(&self.forward(codes, labels, mode)?, codes, targets)
    }

    /// Codes `[images, h, w, D]`, each picked by `choose` from its logits given those before. Without cache, the whole
    /// sequence so far is run for each code.
    ///
    /// # Errors
    /// Shapes that do not fit, labels out of range, whatever `choose` returns.
    pub fn generate(&self, images: usize, labels: &Codes, cache: bool, choose: &mut Choose<'_>) -> Result<Codes> {
        let shape = &self.level.codes;
        let (depth, length) = (shape.depth(), shape.positions() * shape.depth());
        let wanted = [images, shape.height, shape.width, depth];
        if images == 0 {
            return Ok(Codes::from_vec(Vec::new(), &wanted)?);
        }
        let places = self.places()?;
        let classifier = self.classifier.packed(images)?;
        let mut rollout = Rollout::new(&self.stack, images, length, cache)?;
        let mut input = self.start(labels, images)?;
        let mut drawn = Vec::with_capacity(length);
        for s in 0..length {
            let (t, d) = (s / depth, s % depth);
            rollout.push(input.add(&places.slice(1, s..s + 1)?)?);
            let codes = choose(t, d, &classifier.logits(&rollout.output()?, d)?)?.reshape(&[images, 1])?;
            // Where a GPU drew them they stay there, and nothing waits for it.
            drawn.push(codes.reshape(&[images])?);
            input = self.read(&self.embedding.at(d, &codes)?)?;
        }
        Ok(Codes::stack(&drawn)?.reshape(&wanted)?)
    }
}

impl Prior for Ar {
    fn wants(&self) -> TokenRequest {
        codes::token_request(self.config.targets, self.config.codes, self.config.temperature)
    }

    fn loss(&self, batch: &TokenBatch, mode: &Mode) -> Result<PriorLoss> {
        codes::prior_loss(&self.losses(&batch.codes, &batch.labels, &batch.targets, mode)?)
    }

    fn likelihood(&self, batch: &TokenBatch) -> Result<Option<Tensor>> {
        let nats = codes::likelihood(batch, &self.level, |codes, labels| {
            self.losses(codes, labels, &Targets::Hard, &Mode::Eval)
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
