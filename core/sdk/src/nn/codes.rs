//! What transformers over codes have in common: codes in, distributions over codes out.

use super::transformer::{LAYER_NORM_EPS, WeightInit};
use super::{LayerNorm, Linear};
use crate::contracts::{Condition, LevelInfo, PriorContext, PriorLoss, Targets, TokenBatch, TokenRequest, Tokens};
use crate::params::Params;
use crate::tensor::ops::packed::PackedLinear;
use crate::tensor::{Codes, Tensor, Var, no_grad};
use crate::{Error, Result};

crate::choice! {
    /// What stands for a code at the input.
    pub enum Embedding {
        /// The tokenizer's codebook vector, frozen.
        Codebook = "codebook",
        /// A vector that is learned with the prior.
        Learned = "learned",
    }
}

crate::choice! {
    /// What is predicted.
    pub enum TargetKind {
        /// The codes.
        Hard = "hard",
        /// Distributions over the codebook, by distance (Lee et al. 2022, section 3.2.3).
        Soft = "soft",
    }
}

crate::choice! {
    /// Which codes are fed in while training.
    pub enum CodeKind {
        /// The nearest.
        Nearest = "nearest",
        /// Drawn by distance (Lee et al. 2022, section 3.2.3).
        Stochastic = "stochastic",
    }
}

/// What a prior with these choices wants to be fed.
pub fn token_request(targets: TargetKind, codes: CodeKind, temperature: f32) -> TokenRequest {
    TokenRequest {
        soft_targets: (targets == TargetKind::Soft).then_some(temperature),
        stochastic_codes: (codes == CodeKind::Stochastic).then_some(temperature),
        ..TokenRequest::default()
    }
}

/// The level that a prior of one level's codes models.
///
/// # Errors
/// [`Error::Unsupported`] if its tokens are vectors, or if there are levels above it, which such a prior cannot read.
pub fn only_level<'a>(cx: &'a PriorContext, prior: &str) -> Result<&'a LevelInfo> {
    let level = level_without_above(cx, prior)?;
    level.codes()?;
    Ok(level)
}

/// The level that a prior of one level models, be its tokens codes or vectors.
///
/// # Errors
/// [`Error::Unsupported`] if there are levels above it, which such a prior cannot read.
pub fn level_without_above<'a>(cx: &'a PriorContext, prior: &str) -> Result<&'a LevelInfo> {
    if !cx.above().is_empty() {
        let message = format!(
            "{prior} is not conditioned on the levels above, and level {} has {} above it; take a prior that is, or a \
             tokenizer of one level",
            cx.level + 1,
            cx.above().len()
        );
        return Err(Error::Unsupported(message));
    }
    cx.own()
}

/// The codes `[B, h, w, D]` of a batch as `[B, T, D]`.
///
/// # Errors
/// [`Error::Unsupported`] for codes of another shape than the level has.
pub fn by_position(codes: &Codes, level: &LevelInfo) -> Result<Codes> {
    let wanted = level.token_shape(codes.shape().first().copied().unwrap_or(0));
    if codes.shape() != wanted {
        let [_, height, width, depth] = wanted;
        let message = format!("expected codes [B, {height}, {width}, {depth}], found {:?}", codes.shape());
        return Err(Error::Unsupported(message));
    }
    Ok(codes.reshape(&[wanted[0], level.positions(), wanted[3]])?)
}

/// A vector for every code of every depth.
#[derive(Debug, Clone)]
pub struct CodeEmbedding {
    /// One table for all depths, or one per depth.
    tables: Vec<Table>,
    depth: usize,
    width: usize,
}

#[derive(Debug, Clone)]
enum Table {
    Frozen(Tensor),
    Learned(Var),
}

impl Table {
    fn rows(&self, codes: &Codes) -> Result<Tensor> {
        Ok(match self {
            Self::Frozen(table) => table.embedding(codes)?,
            Self::Learned(table) => table.get().embedding(codes)?,
        })
    }
}

impl CodeEmbedding {
    /// The codebooks of `level`, frozen, or learned tables `[K, width]` under `params`: `weight` if the
    /// depths share a codebook, `0.weight`, `1.weight`, ... if they do not.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if tokens of `level` are vectors, a name that is taken.
    pub fn new(kind: Embedding, level: &LevelInfo, width: usize, init: WeightInit, params: &Params) -> Result<Self> {
        let space = level.codes()?;
        let sizes = &space.sizes;
        let one = space.shared || sizes.len() == 1;
        let distinct = if one { 1 } else { sizes.len() };
        let (tables, width) = match kind {
            Embedding::Codebook => {
                let tables = space.tables.iter().take(distinct).map(|t| Table::Frozen(t.detach())).collect();
                (tables, level.channels)
            }
            Embedding::Learned => {
                let table = |depth: usize| {
                    let scope = if one { params.clone() } else { params.scope(depth) };
                    Ok(Table::Learned(scope.parameter("weight", &[sizes[depth], width], init.embedding())?))
                };
                ((0..distinct).map(table).collect::<Result<_>>()?, width)
            }
        };
        Ok(Self { tables, depth: sizes.len(), width })
    }

    /// Embedding width, E.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The vectors of codes `[.., D] -> [.., D, E]`.
    ///
    /// # Errors
    /// Codes out of range, another depth.
    pub fn forward(&self, codes: &Codes) -> Result<Tensor> {
        if let [table] = self.tables.as_slice() {
            return table.rows(codes);
        }
        let columns = (0..self.depth).map(|d| self.at(d, &codes.column(d)?)).collect::<Result<Vec<_>>>()?;
        Ok(Tensor::stack(&columns.iter().collect::<Vec<_>>(), codes.shape().len() - 1)?)
    }

    /// The vectors of codes of one depth, `[..] -> [.., E]`.
    ///
    /// # Errors
    /// Codes out of range, no such depth.
    pub fn at(&self, depth: usize, codes: &Codes) -> Result<Tensor> {
        let index = if self.tables.len() == 1 { 0 } else { depth };
        let missing = || Error::Unsupported(format!("there is no codebook of depth {} to embed with", depth + 1));
        self.tables.get(index).ok_or_else(missing)?.rows(codes)
    }
}

/// Distributions over codes: a layer norm and a linear map. Parameters: `layer_norm`, and `linear` for all depths where
/// their codebooks have one size, `linear.0`, `linear.1`, ... where they have not.
#[derive(Debug, Clone)]
pub struct CodeClassifier {
    norm: LayerNorm,
    linears: Vec<Linear>,
    depth: usize,
}

impl CodeClassifier {
    /// From model width `width` to logits over codebooks of `sizes`, one per depth.
    ///
    /// # Errors
    /// A name that is taken.
    pub fn new(params: &Params, width: usize, sizes: &[usize], init: WeightInit) -> Result<Self> {
        Self::of(params, width, sizes, |params, size| init.linear(params, width, size))
    }

    /// The same without biases, as minGPT of VQGAN has it (Esser et al., CVPR 2021).
    ///
    /// # Errors
    /// A name that is taken.
    pub fn without_bias(params: &Params, width: usize, sizes: &[usize], init: WeightInit) -> Result<Self> {
        let linear = |params: &Params, size| Linear::with_init(params, width, size, init.weight(width), None);
        Self::of(params, width, sizes, linear)
    }

    fn of(
        params: &Params,
        width: usize,
        sizes: &[usize],
        linear: impl Fn(&Params, usize) -> Result<Linear>,
    ) -> Result<Self> {
        let norm = LayerNorm::new(&params.scope("layer_norm"), width, LAYER_NORM_EPS)?;
        let scope = params.scope("linear");
        let linears = match sizes {
            [first, rest @ ..] if rest.iter().all(|size| size == first) => vec![linear(&scope, *first)?],
            _ => {
                let linear = |(depth, &size)| linear(&scope.scope(depth), size);
                sizes.iter().enumerate().map(linear).collect::<Result<_>>()?
            }
        };
        Ok(Self { norm, linears, depth: sizes.len() })
    }

    /// Logits `[.., K]` of `depth` from hidden states `[.., W]`.
    ///
    /// # Errors
    /// Shapes that do not fit, no such depth.
    pub fn logits(&self, hidden: &Tensor, depth: usize) -> Result<Tensor> {
        self.linear(depth)?.forward(&self.norm.forward(hidden)?)
    }

    /// The classifier as it is now, for sampling `images` at a time.
    ///
    /// # Errors
    /// Those of [`PackedLinear::new`].
    pub fn packed(&self, images: usize) -> Result<PackedClassifier> {
        let linears = self.linears.iter().map(|linear| linear.packed(images)).collect::<Result<_>>()?;
        Ok(PackedClassifier { norm: self.norm.clone(), linears })
    }

    fn linear(&self, depth: usize) -> Result<&Linear> {
        of_depth(&self.linears, depth)
    }

    /// Logits `[.., K_d]` of every depth from hidden states `[.., D, W]`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn by_depth(&self, hidden: &Tensor) -> Result<Vec<Tensor>> {
        let hidden = self.norm.forward(hidden)?;
        (0..self.depth).map(|d| self.linear(d)?.forward(&at_depth(&hidden, d)?)).collect()
    }

    /// Cross entropy in nats of every code: hidden states `[.., D, W]`, codes and targets of as many positions, in their
    /// order -> `[N, D]`, N positions in all.
    ///
    /// # Errors
    /// Shapes that do not fit, codes out of range.
    pub fn losses(&self, hidden: &Tensor, codes: &Codes, targets: &Targets) -> Result<Tensor> {
        let positions = codes.len() / self.depth.max(1);
        let codes = codes.reshape(&[positions, self.depth])?;
        let hidden = self.norm.forward(&hidden.reshape(&[positions, self.depth, hidden.last_dim()])?)?;
        let losses = match targets {
            Targets::Hard => {
                if let [linear] = self.linears.as_slice() {
                    return Ok(linear.forward(&hidden)?.cross_entropy(&codes)?);
                }
                let loss = |d| -> Result<Tensor> {
                    let logits = self.linear(d)?.forward(&at_depth(&hidden, d)?)?;
                    Ok(logits.cross_entropy(&codes.column(d)?)?)
                };
                (0..self.depth).map(loss).collect::<Result<Vec<_>>>()?
            }
            Targets::Soft(targets) => {
                if targets.len() != self.depth {
                    let message = format!("soft targets for {} depths, codes of {}", targets.len(), self.depth);
                    return Err(Error::Unsupported(message));
                }
                let loss = |(d, target): (usize, &Tensor)| -> Result<Tensor> {
                    let logits = self.linear(d)?.forward(&at_depth(&hidden, d)?)?;
                    Ok(logits.soft_cross_entropy(&target.reshape(&[positions, target.last_dim()])?)?)
                };
                targets.iter().enumerate().map(loss).collect::<Result<Vec<_>>>()?
            }
        };
        Ok(Tensor::stack(&losses.iter().collect::<Vec<_>>(), 1)?)
    }
}

/// A [`CodeClassifier`] laid out for sampling.
#[derive(Debug, Clone)]
pub struct PackedClassifier {
    norm: LayerNorm,
    linears: Vec<PackedLinear>,
}

impl PackedClassifier {
    /// Logits `[.., K]` of `depth` from hidden states `[.., W]`.
    ///
    /// # Errors
    /// Shapes that do not fit, no such depth.
    pub fn logits(&self, hidden: &Tensor, depth: usize) -> Result<Tensor> {
        Ok(of_depth(&self.linears, depth)?.forward(&self.norm.forward(hidden)?)?)
    }
}

/// The map of `depth`, where one may serve all depths.
fn of_depth<T>(linears: &[T], depth: usize) -> Result<&T> {
    let index = if linears.len() == 1 { 0 } else { depth };
    linears.get(index).ok_or_else(|| Error::Unsupported(format!("there is no depth {}", depth + 1)))
}

/// `[.., D, W] -> [.., W]` at depth `d`.
fn at_depth(x: &Tensor, d: usize) -> Result<Tensor> {
    let axis = x.rank().saturating_sub(2);
    let mut shape = x.shape().to_vec();
    shape.remove(axis);
    Ok(x.slice(axis, d..d + 1)?.reshape(&shape)?)
}

/// The loss of a batch from the cross entropies `[N, D]` of its codes: their mean, and each depth's as the term `loss`.
///
/// # Errors
/// Another rank, no codes at all.
pub fn prior_loss(losses: &Tensor) -> Result<PriorLoss> {
    let by_depth = losses.detach().mean(&[0], false)?;
    Ok(PriorLoss { loss: losses.mean_all()?, terms: vec![("loss", by_depth)] })
}

/// Logits are kept for at most this many codes of a codebook at a time where no gradient is asked for: 32 MiB.
const LOGITS: usize = 1 << 23;

/// Negative log-likelihood in nats by image and depth, `[B, D]`: `losses` gives the cross entropies `[N, D]` of the codes of
/// some images under their conditions and the tokens above. Images are handed to it in groups, so that the logits of few are
/// in memory at a time.
///
/// # Errors
/// Whatever `losses` returns; tokens and conditions that do not fit, tokens that are vectors.
pub fn likelihood(
    batch: &TokenBatch,
    level: &LevelInfo,
    losses: impl Fn(&Codes, &Condition, &[Tokens]) -> Result<Tensor>,
) -> Result<Tensor> {
    let depth = level.depth();
    let positions = level.positions();
    let images = batch.tokens.images();
    let logits = positions * level.sizes().iter().sum::<usize>();
    let group = (LOGITS / logits.max(1)).max(1);
    let mut nats = Vec::with_capacity(images * depth);
    for from in (0..images).step_by(group) {
        let rows: Vec<usize> = (from..(from + group).min(images)).collect();
        let tokens = batch.tokens.rows(&rows)?;
        let above = batch.above.iter().map(|level| level.rows(&rows)).collect::<Result<Vec<_>>>()?;
        let losses = no_grad(|| losses(tokens.codes()?, &batch.condition.rows(&rows)?, &above))?;
        for image in losses.as_slice().chunks_exact((positions * depth).max(1)) {
            nats.extend(
                (0..depth).map(|d| image.iter().skip(d).step_by(depth).map(|&x| f64::from(x)).sum::<f64>() as f32),
            );
        }
    }
    Ok(Tensor::from_vec(nats, &[images, depth])?)
}
