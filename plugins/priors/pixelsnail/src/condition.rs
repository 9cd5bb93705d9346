//! What conditions the gated blocks: the class, and the levels above.

use crate::PixelSnailConfig;
use crate::layers::{Channels, GatedBlock, Sight, WeightNorm};
use crate::stem::{self, Tap};
use rqlab_sdk::config::ConfigError;
use rqlab_sdk::nn::ConditionEmbedding;
use rqlab_sdk::nn::transformer::WeightInit;
use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::ops::conv::Conv2d;

/// A map of conditions, and how many times larger the prior's own map is.
#[derive(Debug, Clone)]
pub(crate) struct Conditioning {
    /// `[B, h, w, C]`; `[B, 1, 1, C]` where all positions have the same.
    map: Tensor,
    factor: usize,
}

impl Conditioning {
    /// What a gated block adds to its gates: the map through `weight`, enlarged. A map of single positions is enlarged behind
    /// the weight as well as before it, and cheaper.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub(crate) fn gates(&self, weight: &WeightNorm) -> Result<Tensor> {
        let gates = weight.linear(&self.map)?;
        Ok(if self.factor > 1 { gates.upsample_nearest(self.factor)? } else { gates })
    }
}

impl Conditioning {
    /// Channels of the map.
    pub(crate) fn channels(&self) -> usize {
        self.map.last_dim()
    }

    /// The rows `[B, C]` at a position of the prior's own map.
    ///
    /// # Errors
    /// A position that is not there.
    pub(crate) fn at(&self, i: usize, j: usize) -> Result<Tensor> {
        let [images, height, width, channels] = self.map.dims("conditioning")?;
        let (i, j) = if height * width == 1 { (0, 0) } else { (i / self.factor, j / self.factor) };
        Ok(self.map.slice(1, i..i + 1)?.slice(2, j..j + 1)?.reshape(&[images, channels])?)
    }
}

/// The embeddings of all conditions. Parameters: `cond_emb` of the class, and `cond_resnet` of the level above (of several levels
/// `cond_resnet.0`, `cond_resnet.1`, .., whose maps are added).
#[derive(Debug)]
pub(crate) struct Conditions {
    pub(crate) class: Option<ConditionEmbedding>,
    stacks: Vec<Stack>,
    /// How many times larger the prior's own map is than that of the level just above.
    factor: usize,
}

impl Conditions {
    /// Under the conditions of `cx`, for a prior of its level.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a level above whose map is no whole part of this one.
    pub(crate) fn new(config: &PixelSnailConfig, cx: &PriorContext) -> Result<Self> {
        let space = config.condition.of(cx.condition);
        let embedding = || {
            let init = WeightInit::Published;
            ConditionEmbedding::new(
                &cx.params.scope("cond_emb"),
                space,
                cx.null_condition,
                config.condition_width,
                init,
            )
        };
        let class = (space != ConditionSpace::None).then(embedding).transpose()?;
        let above = cx.above();
        let factor = above.last().map_or(Ok(1), |nearest| factor(nearest, cx.own()?))?;
        let stack = |(i, level): (usize, &LevelInfo)| {
            let scope = cx.params.scope("cond_resnet");
            let scope = if above.len() > 1 { scope.scope(i) } else { scope };
            let nearest = above.last().unwrap_or(level);
            Stack::new(&scope, config, level, self::factor(level, nearest)?)
        };
        Ok(Self { class, stacks: above.iter().enumerate().map(stack).collect::<Result<_>>()?, factor })
    }

    /// Channels of what conditions the blocks; 0 if nothing does.
    pub(crate) fn channels(&self, config: &PixelSnailConfig) -> usize {
        if self.class.is_none() && self.stacks.is_empty() { 0 } else { config.condition_width }
    }

    /// # Errors
    /// Tokens or conditions that do not fit.
    pub(crate) fn forward(&self, condition: &Condition, above: &[Tokens], mode: &Mode) -> Result<Option<Conditioning>> {
        if above.len() != self.stacks.len() {
            let message = format!("the tokens of {} levels above, and {} are read", above.len(), self.stacks.len());
            return Err(Error::Unsupported(message));
        }
        let mut map: Option<Tensor> = None;
        let mut add = |part: Tensor| -> Result<()> {
            map = Some(match &map {
                Some(sum) => sum.add(&part)?,
                None => part,
            });
            Ok(())
        };
        for (i, (stack, tokens)) in self.stacks.iter().zip(above).enumerate() {
            add(stack.forward(tokens, &mode.part("level", i))?)?;
        }
        if let Some(class) = &self.class {
            let vectors = class.forward(condition)?;
            let [images, _, width] = vectors.dims("condition")?;
            add(vectors.sum(&[1], false)?.reshape(&[images, 1, 1, width])?)?;
        }
        let factor = if self.stacks.is_empty() { 1 } else { self.factor };
        Ok(map.map(|map| Conditioning { map, factor }))
    }
}

/// How many times larger the map of `fine` is than that of `coarse`.
fn factor(coarse: &LevelInfo, fine: &LevelInfo) -> Result<usize> {
    let factor = fine.height / coarse.height.max(1);
    if factor > 0 && [coarse.height * factor, coarse.width * factor] == [fine.height, fine.width] {
        return Ok(factor);
    }
    let message = format!(
        "pixelsnail enlarges the map above by a whole factor, and {}x{} is no such part of {}x{}; take levels whose sides \
         divide, or another prior for this level",
        coarse.height, coarse.width, fine.height, fine.width
    );
    Err(Error::Unsupported(message))
}

/// The tokens of a level above as a map of conditions: a convolution, of codes as vectors of one 1 or of the vectors, and gated
/// blocks. Parameters: `blocks.0`, `blocks.1`, ..
#[derive(Debug)]
struct Stack {
    level: LevelInfo,
    first: WeightNorm,
    kernel: usize,
    blocks: Vec<GatedBlock>,
    factor: usize,
}

impl Stack {
    fn new(params: &Params, config: &PixelSnailConfig, level: &LevelInfo, factor: usize) -> Result<Self> {
        let PixelSnailConfig { condition_width: width, condition_kernel: kernel, dropout, .. } = *config;
        if kernel.is_multiple_of(2) {
            let message = format!("a kernel of {kernel} has no middle; take {} or {}", kernel - 1, kernel + 1);
            return Err(ConfigError::field("condition_kernel", message).into());
        }
        let inputs = level.vector_channels().unwrap_or_else(|_| level.sizes().iter().sum());
        let scope = params.scope("blocks");
        let block = |i: usize| {
            let channels = Channels { width, hidden: width, auxiliary: 0, condition: 0 };
            GatedBlock::new(&scope.scope(i), channels, Sight::Around(kernel), dropout)
        };
        Ok(Self {
            level: level.clone(),
            first: WeightNorm::new(&scope.scope("0.conv"), &[width, inputs, kernel, kernel], true)?,
            kernel,
            blocks: (1..=config.condition_blocks).map(block).collect::<Result<_>>()?,
            factor,
        })
    }

    fn forward(&self, tokens: &Tokens, mode: &Mode) -> Result<Tensor> {
        let wanted = self.level.token_shape(tokens.images());
        if tokens.shape() != wanted {
            let message = format!("tokens above of shape {:?}, expected {wanted:?}", tokens.shape());
            return Err(Error::Unsupported(message));
        }
        let mut map = match tokens {
            Tokens::Vectors(vectors) => self.first.conv(vectors, Conv2d::same(self.kernel))?,
            Tokens::Codes(codes) => {
                let half = (self.kernel / 2) as isize;
                let taps: Vec<Tap> = (-half..=half).flat_map(|i| (-half..=half).map(move |j| [i, j])).collect();
                let rows = stem::rows(codes, self.level.sizes(), &taps)?;
                let map = stem::table(&[self.first.weight()?])?.embedding_sum(&rows)?;
                match self.first.bias() {
                    Some(bias) => map.add(&bias)?,
                    None => map,
                }
            }
        };
        for (i, block) in self.blocks.iter().enumerate() {
            map = block.forward(&map, None, None, &mode.part("block", i))?;
        }
        Ok(if self.factor > 1 { map.upsample_nearest(self.factor)? } else { map })
    }
}
