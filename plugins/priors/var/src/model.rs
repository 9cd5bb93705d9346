//! The network, its loss and its likelihood.

use crate::VarConfig;
use crate::block::{Block, Modulation, PlainNorm, deviation, linear};
use rqlab_sdk::config::ConfigError;
use rqlab_sdk::nn::codes::{by_position, likelihood, only_level, prior_loss, token_request};
use rqlab_sdk::nn::transformer::WeightInit;
use rqlab_sdk::nn::{ConditionEmbedding, Linear};
use rqlab_sdk::prelude::*;
use std::ops::Range;

/// Vars that weight decay leaves alone, as published, beside biases.
const UNDECAYED: [&str; 5] = ["pos_start", "pos_1LC", "lvl_embed", "ada_gss", "scale_mul"];

/// A next-scale prior. The first scale reads the condition, each other one what the scales before it stand for.
///
/// Vars, as published: `class_emb.weight`, `pos_start` `[1, p, W]` of the first scale's p positions, `word_embed` from the
/// C channels of latents, `lvl_embed.weight` with a row for each scale, `pos_1LC` `[1, T, W]`, `shared_ada_lin.1` where blocks
/// share it, `blocks.N`, `head_nm.ada_lin.1`, `head` to the logits of all depths; for a condition of L > 1 tokens `pos_cond`
/// `[1, L, W]`.
#[derive(Debug)]
pub struct NextScale {
    wants: TokenRequest,
    pub(crate) level: LevelInfo,
    pub(crate) scales: Scales,
    pub(crate) condition: ConditionEmbedding,
    prefix_position: Option<Var>,
    start: Var,
    word: Linear,
    scale: Var,
    scale_of: Codes,
    position: Var,
    shared: Option<Linear>,
    pub(crate) blocks: Vec<Block>,
    norm: PlainNorm,
    head_modulation: Linear,
    head: Linear,
    width: usize,
}

/// An embedded condition, and what it modulates by.
#[derive(Debug)]
pub(crate) struct Start {
    /// `[B, L, W]` before the first scale, for a condition of several tokens.
    pub(crate) prefix: Option<Tensor>,
    /// `[B, 1, W]`.
    condition: Tensor,
    pub(crate) of_blocks: Vec<Modulation>,
    of_head: [Tensor; 2],
}

impl NextScale {
    /// A model of the codes of one level of several scales.
    ///
    /// # Errors
    /// `heads` that do not divide `width`; [`Error::Unsupported`] for vectors, levels above, or fewer than two scales.
    pub fn new(config: VarConfig, cx: &PriorContext) -> Result<Self> {
        let level = only_level(cx, "var")?.clone();
        let scales = level.scales.clone().filter(|scales| scales.sizes().len() > 1).ok_or_else(|| {
            Error::Unsupported(
                "var predicts the codes of each scale at once from coarser scales, and the tokens of this level are of one \
                 scale, whose codes it would draw without knowing of each other; take a quantizer such as `multi_scale(of: \
                 vq(..), scales: [1, 2, 4])`, or another prior"
                    .to_owned(),
            )
        })?;
        let VarConfig { width, heads, layers, .. } = config;
        if !width.is_multiple_of(heads) {
            return Err(ConfigError::field("heads", format!("{heads} heads do not divide a width of {width}")).into());
        }
        let params = &cx.params;
        let condition = config.condition.of(cx.condition);
        let init = Init::Normal(deviation(width));
        let table = |name: &str, rows: usize| params.parameter(name, &[1, rows, width], init);
        let of_scale = |scale: usize| std::iter::repeat_n(scale as u32, scales.positions(scale).len());
        let count = scales.sizes().len();
        let scale_of = (0..count).flat_map(of_scale).collect();
        let shared = || linear(&params.scope("shared_ada_lin.1"), width, [width, 6 * width], 1.0);
        let null = cx.null_condition;
        Ok(Self {
            wants: token_request(config.targets, config.codes, config.temperature),
            condition: ConditionEmbedding::new(&params.scope("class_emb"), condition, null, width, WeightInit::Gpt)?,
            prefix_position: (condition.length() > 1).then(|| table("pos_cond", condition.length())).transpose()?,
            start: table("pos_start", scales.positions(0).len())?,
            word: linear(&params.scope("word_embed"), width, [level.channels, width], 1.0)?,
            scale: params.parameter("lvl_embed.weight", &[count, width], init)?,
            scale_of: Codes::from_vec(scale_of, &[1, level.positions()])?,
            position: table("pos_1LC", level.positions())?,
            shared: config.shared_modulation.then(shared).transpose()?,
            blocks: (0..layers)
                .map(|n| Block::new(&params.scope("blocks").scope(n), &config, n))
                .collect::<Result<_>>()?,
            norm: PlainNorm::new(width),
            head_modulation: linear(&params.scope("head_nm.ada_lin.1"), width, [width, 2 * width], 0.5)?,
            head: linear(&params.scope("head"), width, [width, level.sizes().iter().sum()], 0.02)?,
            width,
            scales,
            level,
        })
    }

    /// What a batch of conditions makes of the network.
    pub(crate) fn begun(&self, condition: &Condition) -> Result<Start> {
        let tokens = self.condition.forward(condition)?;
        let prefix = self.prefix_position.as_ref().map(|position| tokens.add(&position.get())).transpose()?;
        let condition = tokens.mean(&[1], true)?;
        let c = condition.silu()?;
        let of_head = self.head_modulation.forward(&c)?;
        let of_head = [of_head.slice(2, 0..self.width)?, of_head.slice(2, self.width..2 * self.width)?];
        let c = match &self.shared {
            Some(map) => map.forward(&c)?,
            None => c,
        };
        let of_blocks = self.blocks.iter().map(|block| block.modulation(&c)).collect::<Result<_>>()?;
        Ok(Start { prefix, condition, of_blocks, of_head })
    }

    /// The inputs `[B, n, W]` of scale `scale`, from what the scales before it stand for, `[B, h, w, C]`; from the condition
    /// for the first.
    pub(crate) fn input(&self, start: &Start, scale: usize, seen: Option<&Tensor>) -> Result<Tensor> {
        let positions = self.scales.positions(scale);
        let input = match seen {
            None => start.condition.add(&self.start.get())?,
            Some(seen) => {
                let images = start.condition.shape()[0];
                self.word.forward(&seen.reshape(&[images, positions.len(), self.level.channels])?)?
            }
        };
        let scales = self.scale.get().embedding(&self.scale_of.slice(1, positions.clone())?)?;
        Ok(input.add(&scales)?.add(&self.position.get().slice(1, positions)?)?)
    }

    /// Inputs of the condition and of scales, one after another, `[B, n, W] -> [B, n, W]`.
    pub(crate) fn hidden(&self, start: &Start, inputs: &[Tensor], mode: &Mode) -> Result<Tensor> {
        let parts: Vec<&Tensor> = start.prefix.iter().chain(inputs).collect();
        let groups = groups(&parts);
        let mut x = Tensor::concat(&parts, 1)?;
        for (n, (block, by)) in self.blocks.iter().zip(&start.of_blocks).enumerate() {
            x = block.forward(&x, by, &groups, &mode.part("block", n))?;
        }
        Ok(x)
    }

    /// Logits `[B, n, K_d]` of every depth from `[B, n, W]`.
    pub(crate) fn classify(&self, start: &Start, hidden: &Tensor) -> Result<Vec<Tensor>> {
        let [scale, shift] = &start.of_head;
        let logits = self.head.forward(&self.norm.modulated(hidden, scale, shift)?)?;
        let mut from = 0;
        let depth = |&size: &usize| {
            from += size;
            if size == logits.last_dim() { Ok(logits.clone()) } else { Ok(logits.slice(2, from - size..from)?) }
        };
        self.level.sizes().iter().map(depth).collect()
    }

    /// Logits `[B, T, K_d]` of every depth of codes `[B, 1, T, D]`.
    ///
    /// # Errors
    /// Shapes that do not fit, codes or conditions out of range.
    pub fn logits(&self, codes: &Codes, condition: &Condition, mode: &Mode) -> Result<Vec<Tensor>> {
        by_position(codes, &self.level)?;
        let start = self.begun(condition)?;
        let seen = self.scales.before(&Tokens::Codes(codes.clone()), 1..self.scales.sizes().len())?;
        let seen = std::iter::once(None).chain(seen.iter().map(Some)).enumerate();
        let inputs = seen.map(|(scale, seen)| self.input(&start, scale, seen)).collect::<Result<Vec<_>>>()?;
        let hidden = self.hidden(&start, &inputs, mode)?;
        let prefix = hidden.shape()[1] - self.level.positions();
        let hidden = if prefix == 0 { hidden } else { hidden.slice(1, prefix..hidden.shape()[1])? };
        self.classify(&start, &hidden)
    }

    /// Cross entropies in nats `[B T, D]`.
    fn losses(&self, codes: &Codes, condition: &Condition, targets: &Targets, mode: &Mode) -> Result<Tensor> {
        let of_depth = |(d, logits): (usize, Tensor)| -> Result<Tensor> {
            let rows = logits.len() / logits.last_dim();
            let logits = logits.reshape(&[rows, logits.last_dim()])?;
            let Targets::Soft(targets) = targets else {
                return Ok(logits.cross_entropy(&codes.column(d)?.reshape(&[rows])?)?);
            };
            let missing = || Error::Unsupported(format!("there are no soft targets of depth {}", d + 1));
            Ok(logits.soft_cross_entropy(&targets.get(d).ok_or_else(missing)?.reshape(logits.shape())?)?)
        };
        let logits = self.logits(codes, condition, mode)?.into_iter().enumerate();
        let losses = logits.map(of_depth).collect::<Result<Vec<_>>>()?;
        Ok(Tensor::stack(&losses.iter().collect::<Vec<_>>(), 1)?)
    }
}

/// Where each of the parts `[B, n, W]` of a sequence lies.
fn groups(parts: &[&Tensor]) -> Vec<Range<usize>> {
    let mut end = 0;
    let group = |part: &&Tensor| {
        end += part.shape()[1];
        end - part.shape()[1]..end
    };
    parts.iter().map(group).collect()
}

impl Prior for NextScale {
    fn wants(&self) -> TokenRequest {
        self.wants
    }

    fn can_be_guided(&self) -> bool {
        self.condition.space() != ConditionSpace::None
    }

    /// As published: biases, positions, scales' embeddings, temperatures and tables of modulation do not decay.
    fn decays(&self, name: &str, shape: &[usize]) -> bool {
        shape.len() > 1 && !UNDECAYED.iter().any(|part| name.contains(part))
    }

    fn loss(&self, batch: &TokenBatch, mode: &Mode) -> Result<PriorLoss> {
        prior_loss(&self.losses(batch.tokens.codes()?, &batch.condition, &batch.targets, mode)?)
    }

    fn likelihood(&self, batch: &TokenBatch) -> Result<Option<Tensor>> {
        let nats = |codes: &Codes, condition: &Condition, _: &[Tokens]| {
            self.losses(codes, condition, &Targets::Hard, &Mode::Eval)
        };
        Ok(Some(likelihood(batch, &self.level, nats)?))
    }

    fn sample(&self, request: &SampleRequest, rng: &Rng) -> Result<Tokens> {
        self.generate(request, |scale, depth, codes| {
            rng.part("scale", scale as u64).part("depth", depth as u64).uniform(codes)
        })
    }
}
