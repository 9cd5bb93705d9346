//! The network, its loss, and what it says of an image's likelihood.

use crate::block::linear;
use crate::causal::Causal;
use crate::head::Head;
use crate::masked::Masked;
use crate::order::{masked_count, masked_share, steps_of};
use crate::sample::Streams;
use crate::{Attention, Cell, MarConfig, Order, TokensPerStep};
use rqlab_sdk::config::ConfigError;
use rqlab_sdk::nn::codes::{self, CodeEmbedding, Embedding};
use rqlab_sdk::nn::diffusion::{DiffusionHead, HeadLoss, TokenVectors};
use rqlab_sdk::nn::transformer::WeightInit;
use rqlab_sdk::nn::{ConditionEmbedding, Linear, Orders, patchify};
use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::no_grad;
use std::f32::consts::LN_2;
use std::ops::Range;

/// Numbers of known tokens that a bound is estimated from.
const BOUND_DRAWS: usize = 4;

/// The prior. L tokens of an image are its positions, or squares of them.
///
/// Parameters: `class_emb.weight` `[V, W]`, whose last row is the null condition's where it occurs, `z_proj` (or `tok_emb` of
/// codes under cross entropy), those of `Masked` or `Causal`, and `diffloss.net` or `classifier`.
#[derive(Debug)]
pub struct Mar {
    pub(crate) config: MarConfig,
    pub(crate) cell: Cell,
    pub(crate) level: LevelInfo,
    pub(crate) condition: ConditionEmbedding,
    pub(crate) input: Input,
    pub(crate) net: Net,
    pub(crate) head: Head,
    /// Rows and columns of tokens.
    pub(crate) map: [usize; 2],
    /// How many tokens are known after each step of sampling.
    pub(crate) steps: Vec<usize>,
}

/// How the network reads tokens.
#[derive(Debug)]
pub(crate) enum Input {
    /// Codes, as learned vectors.
    Codes(CodeEmbedding),
    /// Vectors, which codes become where they are modelled by diffusion.
    Vectors { projection: Linear, tokens: TokenVectors },
}

#[derive(Debug)]
pub(crate) enum Net {
    Masked(Masked),
    Causal(Causal),
}

impl Mar {
    /// A model of the tokens of one level, under the conditions of `cx` if the configuration agrees.
    ///
    /// # Errors
    /// [`ConfigError`] of a field that does not fit the level or another field; [`Error::Unsupported`] for levels above.
    pub fn new(config: MarConfig, cx: &PriorContext) -> Result<Self> {
        let cell = config.cell()?;
        let level = codes::level_without_above(cx, "mar")?.clone();
        let (params, width, patch) = (&cx.params, config.width, config.patch);
        let condition = config.condition.of(cx.condition);
        let causal = cell.attention == Attention::Causal;
        if patch > 1 && level.code_space().is_some() {
            let message = "squares are of vectors, and the quantizer of this level makes codes; leave it at 1";
            return Err(ConfigError::field("patch", message).into());
        }
        if !level.height.is_multiple_of(patch) || !level.width.is_multiple_of(patch) {
            let message =
                format!("squares of {patch} x {patch} do not tile a map of {} x {}", level.height, level.width);
            return Err(ConfigError::field("patch", message).into());
        }
        let map = [level.height / patch, level.width / patch];
        let length = map[0] * map[1];
        let steps = match (cell.tokens_per_step, config.iterations) {
            (TokensPerStep::One, _) => (1..=length).collect(),
            (TokensPerStep::Many, None) => steps_of(length, (length / 4).max(1)),
            (TokensPerStep::Many, Some(iterations)) if iterations > length => {
                let message = format!("{iterations} steps for {length} tokens: each step predicts one at least");
                return Err(ConfigError::field("iterations", message).into());
            }
            (TokensPerStep::Many, Some(iterations)) => steps_of(length, iterations),
        };
        let head = Head::new(params, &config, cell, &level)?;
        let input = match &head {
            Head::Codes(_) => {
                let scope = params.scope("tok_emb");
                Input::Codes(CodeEmbedding::new(Embedding::Learned, &level, width, WeightInit::Gpt, &scope)?)
            }
            Head::Vectors(_) => {
                let tokens = TokenVectors::new(&level);
                let projection = linear(&params.scope("z_proj"), tokens.channels() * patch * patch, width)?;
                Input::Vectors { projection, tokens }
            }
        };
        let buffer = if condition.length() == 1 { config.buffer } else { condition.length() };
        let net = if causal {
            Net::Causal(Causal::new(params, &config, cell.order, length, condition.length())?)
        } else {
            Net::Masked(Masked::new(params, &config, buffer, length)?)
        };
        let scope = params.scope("class_emb");
        Ok(Self {
            condition: ConditionEmbedding::new(&scope, condition, cx.null_condition, width, WeightInit::Gpt)?,
            config,
            cell,
            level,
            input,
            net,
            head,
            map,
            steps,
        })
    }

    /// Tokens of an image, L.
    pub fn length(&self) -> usize {
        self.map[0] * self.map[1]
    }

    /// The diffusion, if it has one.
    pub fn diffusion(&self) -> Option<&DiffusionHead> {
        match &self.head {
            Head::Codes(_) => None,
            Head::Vectors(head) => Some(head),
        }
    }

    /// The diffusion, to be changed.
    pub fn diffusion_mut(&mut self) -> Option<&mut DiffusionHead> {
        match &mut self.head {
            Head::Codes(_) => None,
            Head::Vectors(head) => Some(head),
        }
    }

    /// The masked network, if it is one.
    pub fn masked(&self) -> Option<&Masked> {
        match &self.net {
            Net::Masked(net) => Some(net),
            Net::Causal(_) => None,
        }
    }

    /// Tokens of images as vectors `[B, L, C]`, in raster order.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for tokens of another shape than the level has, and under cross entropy.
    pub fn vectors(&self, tokens: &Tokens) -> Result<Tensor> {
        let Input::Vectors { tokens: of_level, .. } = &self.input else {
            return Err(Error::Unsupported("this prior models codes".to_owned()));
        };
        let squares = patchify(&of_level.of(tokens)?, self.config.patch)?;
        Ok(squares.reshape(&[tokens.images(), self.length(), squares.last_dim()])?)
    }

    /// Tokens as the network reads them, `[B, L, W]`, in raster order.
    ///
    /// # Errors
    /// As for [`Mar::vectors`].
    pub fn read(&self, tokens: &Tokens) -> Result<Tensor> {
        match &self.input {
            Input::Codes(embedding) => {
                let codes = codes::by_position(tokens.codes()?, &self.level)?;
                embedding.at(0, &codes.column(0)?)
            }
            Input::Vectors { projection, .. } => projection.forward(&self.vectors(tokens)?),
        }
    }

    /// The embedded condition, `[B, 1, W]` or as long as it is.
    ///
    /// # Errors
    /// Those of [`ConditionEmbedding::forward`].
    pub fn embed_condition(&self, condition: &Condition) -> Result<Tensor> {
        self.condition.forward(condition)
    }

    /// What tokens `wanted` are predicted from, `[B, n, W]` in the order of prediction, given those before `wanted`; a causal
    /// network gives all, each given those before itself. `read` are all tokens as the network reads them, in raster order.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn conditions(
        &self,
        read: &Tensor,
        condition: &Condition,
        orders: &Orders,
        wanted: Range<usize>,
        mode: &Mode,
    ) -> Result<Tensor> {
        let mut condition = self.embed_condition(condition)?;
        if wanted.start == 0 {
            // Where nothing is known, what reads tokens has a gradient of zeros, as published: its optimizer goes on.
            condition = condition.add(&read.mean(&[1], true)?.mul_scalar(0.0)?)?;
        }
        match &self.net {
            Net::Causal(net) => {
                let known = orders.pick(read, 0..self.length() - 1)?;
                Ok(net.forward(&known, &condition, orders, mode)?.slice(1, wanted)?)
            }
            Net::Masked(net) => {
                let encoded = net.encode(&orders.pick(read, 0..wanted.start)?, &condition, orders, mode)?;
                net.decode(&encoded, wanted, orders, mode)
            }
        }
    }

    pub(crate) fn orders(&self, images: usize, rng: &Rng) -> Orders {
        match self.cell.order {
            Order::Raster => Orders::raster(images, self.length()),
            Order::Random => Orders::random(images, self.length(), rng),
        }
    }

    /// Cross entropies in nats of the codes of tokens `range`, `[B n, 1]`.
    fn code_losses(&self, z: &Tensor, codes: &Codes, orders: &Orders, range: Range<usize>) -> Result<Tensor> {
        let Head::Codes(classifier) = &self.head else {
            return Err(Error::Unsupported("this prior models vectors".to_owned()));
        };
        let places = orders.positions(range)?;
        let (length, each) = (self.length(), places.last_dim());
        let picked = places.as_slice().iter().enumerate();
        let picked = picked.map(|(i, &place)| codes.as_slice()[i / each.max(1) * length + place as usize]).collect();
        let hidden = z.reshape(&[places.len(), 1, z.last_dim()])?;
        classifier.losses(&hidden, &Codes::from_vec(picked, &[places.len(), 1])?, &Targets::Hard)
    }

    /// The loss of images in given orders, of which the tokens `masked` are predicted; `of_vectors` is that of vectors
    /// `[N, C]` given `[N, W]`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn loss_of(
        &self,
        batch: &TokenBatch,
        orders: &Orders,
        masked: Range<usize>,
        mode: &Mode,
        of_vectors: impl FnOnce(&DiffusionHead, &Tensor, &Tensor) -> Result<HeadLoss>,
    ) -> Result<PriorLoss> {
        let z = self.conditions(&self.read(&batch.tokens)?, &batch.condition, orders, masked.clone(), mode)?;
        match &self.head {
            Head::Codes(_) => codes::prior_loss(&self.code_losses(&z, batch.tokens.codes()?, orders, masked)?),
            Head::Vectors(head) => {
                let vectors = orders.pick(&self.vectors(&batch.tokens)?, masked)?;
                let rows = |x: &Tensor| x.reshape(&[x.len() / x.last_dim(), x.last_dim()]);
                of_vectors(head, &rows(&vectors)?, &rows(&z)?)?.mean()
            }
        }
    }
}

impl Prior for Mar {
    fn wants(&self) -> TokenRequest {
        TokenRequest { posterior_draws: self.level.code_space().is_none(), ..TokenRequest::default() }
    }

    fn can_be_guided(&self) -> bool {
        self.condition.space() != ConditionSpace::None
    }

    fn draws_codes(&self) -> bool {
        self.diffusion().is_none()
    }

    /// As published: biases, norms and the head do not decay.
    fn decays(&self, name: &str, shape: &[usize]) -> bool {
        shape.len() > 1 && !name.contains("diffloss.")
    }

    fn loss(&self, batch: &TokenBatch, mode: &Mode) -> Result<PriorLoss> {
        let rng = match mode {
            Mode::Train(rng) => *rng,
            // Evaluated twice, a loss is the same.
            Mode::Eval => Rng::new(0, "mar", 0),
        };
        let (images, length) = (batch.tokens.images(), self.length());
        let masked = match &self.net {
            Net::Causal(_) => length,
            Net::Masked(_) => {
                let drawn = || masked_share(f64::from(self.config.least_masked), &rng.part("masked", 0));
                masked_count(self.config.masked.map_or_else(drawn, f64::from), length)
            }
        };
        let orders = self.orders(images, &rng.part("orders", 0));
        self.loss_of(batch, &orders, length - masked..length, mode, |head, x, z| head.loss(x, z, &rng.part("noise", 0)))
    }

    /// Of codes in raster order with causal attention, the one way of a single pass; other orders have a bound.
    fn likelihood(&self, batch: &TokenBatch) -> Result<Option<Tensor>> {
        let exact = self.cell.order == Order::Raster && self.cell.attention == Attention::Causal;
        if !exact || self.diffusion().is_some() {
            return Ok(None);
        }
        let nats = codes::likelihood(batch, &self.level, |codes, condition, _| {
            let (tokens, orders) = (Tokens::Codes(codes.clone()), Orders::raster(codes.shape()[0], self.length()));
            let z = self.conditions(&self.read(&tokens)?, condition, &orders, 0..self.length(), &Mode::Eval)?;
            self.code_losses(&z, codes, &orders, 0..self.length())
        })?;
        Ok(Some(nats))
    }

    /// In one order for each image, or, of a masked model, for a few numbers of known tokens, each masked token as if it were
    /// the next (Hoogeboom et al., "Autoregressive diffusion models", ICLR 2022): a bound for samples of one token per step.
    fn bound(&self, batch: &TokenBatch, rng: &Rng) -> Result<Option<Bound>> {
        if self.diffusion().is_some_and(|head| !head.has_bound()) {
            return Ok(None);
        }
        let (images, length) = (batch.tokens.images(), self.length());
        no_grad(|| {
            let read = self.read(&batch.tokens)?;
            let draws = if matches!(self.net, Net::Causal(_)) { 1 } else { BOUND_DRAWS };
            let mut sum: Option<Tensor> = None;
            for draw in 0..draws {
                let rng = rng.part("draw", draw as u64);
                let orders = self.orders(images, &rng.part("orders", 0));
                let share = (draw as f64 + f64::from(rng.part("known", 0).uniform(1)[0])) / draws as f64;
                let known = ((share * length as f64) as usize).min(length - 1);
                let wanted = match (&self.net, self.cell.order) {
                    (Net::Causal(_), _) => 0..length,
                    (Net::Masked(_), Order::Random) => known..length,
                    (Net::Masked(_), Order::Raster) => known..known + 1,
                };
                let z = self.conditions(&read, &batch.condition, &orders, wanted.clone(), &Mode::Eval)?;
                let nats = match &self.head {
                    Head::Codes(_) => self.code_losses(&z, batch.tokens.codes()?, &orders, wanted.clone())?,
                    Head::Vectors(head) => {
                        let x = orders.pick(&self.vectors(&batch.tokens)?, wanted.clone())?;
                        let rows = |x: &Tensor| x.reshape(&[x.len() / x.last_dim(), x.last_dim()]);
                        let Some(bits) = head.bound(&rows(&x)?, &rows(&z)?, &rng.part("steps", 0))? else {
                            return Ok(None);
                        };
                        bits.mul_scalar(LN_2)?
                    }
                };
                let mean = nats.reshape(&[images, wanted.len()])?.mean(&[1], true)?;
                let nats = mean.mul_scalar(length as f32 / draws as f32)?;
                sum = Some(match sum {
                    Some(sum) => sum.add(&nats)?,
                    None => nats,
                });
            }
            Ok(sum.map(match &self.head {
                Head::Codes(_) => Bound::Codes,
                Head::Vectors(_) => Bound::Vectors,
            }))
        })
    }

    fn sample(&self, request: &SampleRequest, rng: &Rng) -> Result<Tokens> {
        let orders = self.orders(request.images(), &rng.part("orders", 0)).sorted_within(&self.steps);
        self.generate(request, &orders, &mut Streams(rng))
    }
}
