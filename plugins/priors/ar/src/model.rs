//! The network and its likelihood.

use crate::body::Body;
use crate::condition::Start;
use crate::head::Head;
use crate::input::Input;
use crate::order::Reading;
use crate::position::TokenMap;
use crate::{ArConfig, BlockKind, Rotary};
use rqlab_sdk::config::ConfigError;
use rqlab_sdk::nn::codes;
use rqlab_sdk::nn::diffusion::TokenVectors;
use rqlab_sdk::nn::{Orders, sample_codes};
use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::no_grad;
use std::f32::consts::LN_2;

/// The flat autoregressive transformer. It reads the condition, then all tokens but the last in their order, and predicts at
/// each the token that follows; the first at the last token of the condition. Tokens are codes, or the vectors of positions.
///
/// Parameters: `cond_emb.weight` `[V, W]` and, under a condition of several tokens, L, `pos_emb_cond` `[1, L - 1, W]`; of what is
/// read `tok_emb`, `input_mlp` or `z_proj`; those of positions; `transformer`; of what is predicted `classifier`, `output` or
/// `diffloss`.
#[derive(Debug)]
pub struct Ar {
    config: ArConfig,
    pub(crate) level: LevelInfo,
    /// Tokens of a position, D.
    pub(crate) depth: usize,
    pub(crate) condition: Start,
    pub(crate) input: Input,
    pub(crate) reading: Reading,
    pub(crate) body: Body,
    pub(crate) head: Head,
}

impl Ar {
    /// A model of the tokens of one level, under the conditions of `cx` if the configuration agrees.
    ///
    /// # Errors
    /// `heads` that do not divide `width`, choices that its blocks or its loss do not have; cross entropy of vectors;
    /// [`Error::Unsupported`] for levels above.
    pub fn new(config: ArConfig, cx: &PriorContext) -> Result<Self> {
        let level = codes::level_without_above(cx, "ar")?;
        let condition = config.condition.of(cx.condition);
        if config.anneal[0] > config.anneal[1] {
            let message = "annealing ends before it begins; give the earlier share first";
            return Err(ConfigError::field("anneal", message.to_owned()).into());
        }
        let params = &cx.params;
        let (input, head, depth) = match config.loss.process(level, config.noise_schedule, config.noise_steps)? {
            None => {
                let input = Input::of_codes(params, &config, level)?;
                (input, Head::of_codes(params, &config, level)?, level.depth())
            }
            Some(process) => {
                let input = Input::of_vectors(params, &config, level)?;
                (input, Head::of_vectors(params, &config, &TokenVectors::new(level), process)?, 1)
            }
        };
        let map = TokenMap { height: level.height, width: level.width, depth };
        Ok(Self {
            condition: Start::new(&config, condition, cx)?,
            reading: Reading::new(config.order, config.anneal, map),
            body: Body::new(params, &config, map, condition.length())?,
            input,
            head,
            depth,
            level: level.clone(),
            config,
        })
    }

    /// The hidden state `[B, T D, W]` from which each token is predicted, in raster order, read in these orders of all T D.
    ///
    /// # Errors
    /// Shapes that do not fit, codes or conditions out of range.
    pub fn forward(&self, tokens: &Tokens, condition: &Condition, orders: &Orders, mode: &Mode) -> Result<Tensor> {
        let read = self.input.read(tokens, &self.level)?;
        let known = orders.pick(&read, 0..orders.length() - 1)?;
        orders.restore(&self.body.forward(&self.start(condition)?, &known, orders, mode)?)
    }

    /// The embedded condition `[B, L, W]`: what the first token is predicted from.
    pub(crate) fn start(&self, condition: &Condition) -> Result<Tensor> {
        self.condition.forward(condition, |codes| self.input.at(0, codes))
    }

    /// The rotations of llama blocks; none of others.
    pub fn rotary(&self) -> Option<&Rotary> {
        match &self.body {
            Body::Llama { model, .. } => Some(&model.rotary),
            Body::Gpt { .. } | Body::Rar(_) => None,
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
        let tokens = Tokens::Codes(codes.clone());
        let hidden = self.forward(&tokens, condition, orders, &Mode::Eval)?;
        self.head.by_depth(&hidden.reshape(&[codes.len() / self.depth, self.depth, self.config.width])?)
    }

    /// Cross entropies in nats of codes, `[N, D]`.
    fn code_losses(&self, tokens: &Tokens, condition: &Condition, targets: &Targets, mode: &Mode) -> Result<Tensor> {
        let orders = self.reading.orders(condition.images(), mode)?;
        self.head.losses(&self.forward(tokens, condition, &orders, mode)?, tokens.codes()?, targets)
    }

    /// What `of_rows` says of the vectors of a batch, `[N, C]`, given what each is predicted from, `[N, W]`.
    fn of_vectors<T>(
        &self,
        batch: &TokenBatch,
        mode: &Mode,
        of_rows: impl FnOnce(&Tensor, &Tensor) -> Result<T>,
    ) -> Result<T> {
        let Input::Vectors { tokens, .. } = &self.input else {
            return Err(Error::Unsupported("this prior predicts codes".to_owned()));
        };
        let vectors = tokens.of(&batch.tokens)?;
        let orders = self.reading.orders(batch.condition.images(), mode)?;
        let hidden = self.forward(&batch.tokens, &batch.condition, &orders, mode)?;
        of_rows(
            &vectors.reshape(&[vectors.len() / tokens.channels(), tokens.channels()])?,
            &self.head.conditions(&hidden)?,
        )
    }
}

impl Prior for Ar {
    fn wants(&self) -> TokenRequest {
        if self.head.diffusion().is_some() {
            return TokenRequest { posterior_draws: self.level.code_space().is_none(), ..TokenRequest::default() };
        }
        codes::token_request(self.config.targets, self.config.codes, self.config.temperature)
    }

    fn can_be_guided(&self) -> bool {
        self.condition.space() != ConditionSpace::None
    }

    fn draws_codes(&self) -> bool {
        self.head.diffusion().is_none()
    }

    /// As published: of LlamaGen's matrices alone, of RAR's but for embeddings, and of none of MAR's diffusion.
    fn decays(&self, name: &str, shape: &[usize]) -> bool {
        let in_blocks = match self.config.block {
            BlockKind::Gpt => true,
            BlockKind::Llama => shape.len() == 2,
            BlockKind::Rar => shape.len() == 2 && !name.contains("_emb"),
        };
        in_blocks && !name.contains("diffloss.")
    }

    fn begin_step(&mut self, step: u64, steps: u64) {
        self.reading.begin_step(step, steps);
    }

    fn loss(&self, batch: &TokenBatch, mode: &Mode) -> Result<PriorLoss> {
        let Some(head) = self.head.diffusion() else {
            return codes::prior_loss(&self.code_losses(&batch.tokens, &batch.condition, &batch.targets, mode)?);
        };
        let rng = match mode {
            Mode::Train(rng) => *rng,
            // Evaluated twice, a loss is the same.
            Mode::Eval => Rng::new(0, "ar", 0),
        };
        self.of_vectors(batch, mode, |vectors, z| head.loss(vectors, z, &rng.part("noise", 0))?.mean())
    }

    /// Of codes; vectors have a bound.
    fn likelihood(&self, batch: &TokenBatch) -> Result<Option<Tensor>> {
        if self.head.diffusion().is_some() {
            return Ok(None);
        }
        let nats = codes::likelihood(batch, &self.level, |codes, condition, _| {
            self.code_losses(&Tokens::Codes(codes.clone()), condition, &Targets::Hard, &Mode::Eval)
        })?;
        Ok(Some(nats))
    }

    /// Of vectors under a diffusion, in the order of evaluation.
    fn bound(&self, batch: &TokenBatch, rng: &Rng) -> Result<Option<Bound>> {
        let Some(head) = self.head.diffusion() else { return Ok(None) };
        no_grad(|| {
            let bits = self.of_vectors(batch, &Mode::Eval, |vectors, z| head.bound(vectors, z, rng))?;
            let of_images = |bits: Tensor| -> Result<Tensor> {
                let by_position = bits.reshape(&[batch.tokens.images(), self.level.positions()])?;
                Ok(by_position.sum(&[1], true)?.mul_scalar(LN_2)?)
            };
            Ok(bits.map(of_images).transpose()?.map(Bound::Vectors))
        })
    }

    fn sample(&self, request: &SampleRequest, rng: &Rng) -> Result<Tokens> {
        match (&self.input, self.head.diffusion()) {
            (Input::Vectors { tokens, map }, Some(head)) => self.draw_vectors(request, (tokens, map), head, rng),
            _ => sample_codes(self, request, rng),
        }
    }
}
