//! The network and its likelihood.

use crate::PixelSnailConfig;
use crate::block::{BACKGROUND, PixelBlock};
use crate::condition::Conditions;
use crate::layers::{Channels, GatedBlock, Sight, WeightNorm};
use crate::stem::{self, Stem};
use rqlab_sdk::config::ConfigError;
use rqlab_sdk::nn::codes::{likelihood, prior_loss};
use rqlab_sdk::nn::sample_codes;
use rqlab_sdk::prelude::*;

/// PixelSNAIL over maps of one code per position. Parameters, under the published names: `horizontal`, `vertical`, `blocks`,
/// `out.0`, `out.1`, .. (gated blocks, an activation, which has none, and the classifier), `cond_resnet` of a level above, and
/// `cond_emb` of the class, which the published model has not.
#[derive(Debug)]
pub struct PixelSnail {
    pub(crate) level: LevelInfo,
    pub(crate) stem: Stem,
    /// `[1, H, W, 2]`: (i - H/2) / H and (j - W/2) / W.
    pub(crate) background: Tensor,
    pub(crate) blocks: Vec<PixelBlock>,
    pub(crate) output_blocks: Vec<GatedBlock>,
    pub(crate) classifier: WeightNorm,
    pub(crate) conditions: Conditions,
}

impl PixelSnail {
    /// A model of the codes of one level, conditioned on the levels above and, if there are conditions and the configuration
    /// agrees, on these.
    ///
    /// # Errors
    /// An even kernel, `heads` that do not divide half of the width; [`Error::Unsupported`] for vectors, several codes per
    /// position, or a map above that is no whole part of this one.
    pub fn new(config: PixelSnailConfig, cx: &PriorContext) -> Result<Self> {
        let level = cx.own()?;
        let &[size] = level.codes()?.sizes.as_slice() else {
            let message = format!(
                "pixelsnail models one code per position, and the quantizer of this level makes {}; take a quantizer of one, \
                 such as vq, or rq_transformer or ar",
                level.depth()
            );
            return Err(Error::Unsupported(message));
        };
        let PixelSnailConfig { width, kernel, heads, output_blocks, dropout, .. } = config;
        if kernel.is_multiple_of(2) {
            let message = format!("a kernel of {kernel} has no middle; take {} or {}", kernel - 1, kernel + 1);
            return Err(ConfigError::field("kernel", message).into());
        }
        if config.attention && !width.is_multiple_of(2 * heads) {
            let message =
                format!("{heads} heads do not divide half of a width of {width}; take a multiple of {}", 2 * heads);
            return Err(ConfigError::field("width", message).into());
        }
        let (params, map) = (&cx.params, [level.height, level.width]);
        let conditions = Conditions::new(&config, cx)?;
        let condition = conditions.channels(&config);
        let block = |i: usize| PixelBlock::new(&params.scope("blocks").scope(i), &config, condition);
        let out = params.scope("out");
        let output_block = |i: usize| {
            let hidden = config.residual_width.unwrap_or(width);
            let channels = Channels { width, hidden, auxiliary: 0, condition: 0 };
            GatedBlock::new(&out.scope(i), channels, Sight::Point, dropout)
        };
        let at = |i: usize| {
            let along = |i: usize, size: usize| (i as f32 - size as f32 / 2.0) / size as f32;
            [along(i / map[1], map[0]), along(i % map[1], map[1])]
        };
        let background = (0..map[0] * map[1]).flat_map(at).collect();
        Ok(Self {
            stem: Stem::new(params, size, width, kernel, map)?,
            background: Tensor::from_vec(background, &[1, map[0], map[1], BACKGROUND])?,
            blocks: (0..config.blocks).map(block).collect::<Result<_>>()?,
            output_blocks: (0..output_blocks).map(output_block).collect::<Result<_>>()?,
            classifier: WeightNorm::new(&out.scope(output_blocks + 1).scope("conv"), &[size, width, 1, 1], true)?,
            conditions,
            level: level.clone(),
        })
    }

    /// Logits `[B, h, w, K]` of every code of `[B, h, w, 1]`, given those before it.
    ///
    /// # Errors
    /// Shapes that do not fit, codes or conditions out of range.
    pub fn logits(&self, codes: &Codes, condition: &Condition, above: &[Tokens], mode: &Mode) -> Result<Tensor> {
        let images = codes.shape().first().copied().unwrap_or(0);
        let wanted = self.level.token_shape(images);
        if codes.shape() != wanted {
            return Err(Error::Unsupported(format!("expected codes {wanted:?}, found {:?}", codes.shape())));
        }
        let [_, height, width, _] = wanted;
        let condition = self.conditions.forward(condition, above, &mode.part("condition", 0))?;
        let rows = stem::rows(codes, self.level.sizes(), &self.stem.taps)?;
        let biases = self.stem.biases()?;
        let biases = biases.reshape(&[1, height, width, biases.last_dim()])?;
        let mut x = self.stem.table()?.embedding_sum(&rows)?.add(&biases)?;
        let background = self.background.broadcast_to(&[images, height, width, BACKGROUND])?;
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(&x, &background, condition.as_ref(), &mode.part("block", i))?;
        }
        for (i, block) in self.output_blocks.iter().enumerate() {
            x = block.forward(&x, None, None, &mode.part("output", i))?;
        }
        self.classifier.linear(&x.elu()?)
    }

    /// Cross entropy in nats of every code, `[N, 1]`.
    fn losses(&self, codes: &Codes, condition: &Condition, above: &[Tokens], mode: &Mode) -> Result<Tensor> {
        let logits = self.logits(codes, condition, above, mode)?;
        let positions = codes.len();
        let logits = logits.reshape(&[positions, logits.last_dim()])?;
        Ok(logits.cross_entropy(&codes.reshape(&[positions])?)?.reshape(&[positions, 1])?)
    }
}

impl Prior for PixelSnail {
    fn can_be_guided(&self) -> bool {
        self.conditions.class.is_some()
    }

    fn loss(&self, batch: &TokenBatch, mode: &Mode) -> Result<PriorLoss> {
        prior_loss(&self.losses(batch.tokens.codes()?, &batch.condition, &batch.above, mode)?)
    }

    fn likelihood(&self, batch: &TokenBatch) -> Result<Option<Tensor>> {
        let nats = likelihood(batch, &self.level, |codes, condition, above| {
            self.losses(codes, condition, above, &Mode::Eval)
        })?;
        Ok(Some(nats))
    }

    fn sample(&self, request: &SampleRequest, rng: &Rng) -> Result<Tokens> {
        sample_codes(self, request, rng)
    }
}
