//! The network and its loss.

use crate::trunk::Trunk;
use crate::{MaskGitConfig, Masks};
use rqlab_sdk::config::ConfigError;
use rqlab_sdk::nn::codes::only_level;
use rqlab_sdk::nn::{ConditionEmbedding, Linear};
use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::ranks::Step;

/// A masked prior. It reads the condition, of L tokens, and a vector for each of the T positions: the sum of those of its D
/// codes, or that of a mask.
///
/// Parameters: `cond_emb`, `tok_emb.weight` `[K, W]` (`tok_emb.0.weight`, `tok_emb.1.weight`, .. where there are several
/// depths), `mask_emb` `[W]`, `pos_emb` `[1, L + T, W]`, `trunk`, `lm_head` from W to the logits of all depths.
#[derive(Debug)]
pub struct MaskGit {
    pub(crate) config: MaskGitConfig,
    pub(crate) level: LevelInfo,
    pub(crate) condition: ConditionEmbedding,
    tables: Vec<Var>,
    mask: Var,
    positions: Var,
    trunk: Trunk,
    head: Linear,
}

impl MaskGit {
    /// A model of the codes of one level, conditioned on the class if there are classes and the configuration agrees.
    ///
    /// # Errors
    /// `heads` that do not divide `width`, more `iterations` than positions, an odd number of `layers` of a U-ViT;
    /// [`Error::Unsupported`] for vectors or levels above.
    pub fn new(config: MaskGitConfig, cx: &PriorContext) -> Result<Self> {
        let level = only_level(cx, "maskgit")?;
        let (params, width, init) = (&cx.params, config.width, config.init);
        let (positions, sizes) = (level.positions(), level.sizes());
        if config.iterations > positions {
            let message = format!(
                "{} steps to fill in {positions} positions: a step fills in one at least; take {positions} or fewer",
                config.iterations
            );
            return Err(ConfigError::field("iterations", message).into());
        }
        let condition = config.condition.of(cx.condition);
        let condition = ConditionEmbedding::new(&params.scope("cond_emb"), condition, cx.null_condition, width, init)?;
        let table = |(d, &size): (usize, &usize)| {
            let scope = params.scope("tok_emb");
            let scope = if sizes.len() == 1 { scope } else { scope.scope(d) };
            scope.parameter("weight", &[size, width], init.embedding())
        };
        let length = condition.length() + positions;
        Ok(Self {
            tables: sizes.iter().enumerate().map(table).collect::<Result<_>>()?,
            mask: params.parameter("mask_emb", &[width], init.embedding())?,
            positions: params.parameter("pos_emb", &[1, length, width], Init::Normal(0.02))?,
            trunk: Trunk::new(&params.scope("trunk"), &config)?,
            head: init.linear(&params.scope("lm_head"), width, sizes.iter().sum())?,
            condition,
            level: level.clone(),
            config,
        })
    }

    /// Logits `[B T, K_d]` of every depth at every position, from codes `[B, h, w, D]` of which the masked ones are not seen.
    ///
    /// # Errors
    /// Shapes that do not fit, codes or conditions out of range.
    pub fn logits(&self, codes: &Codes, masks: &Masks, condition: &Condition, mode: &Mode) -> Result<Vec<Tensor>> {
        let codes = rqlab_sdk::nn::codes::by_position(codes, &self.level)?;
        let (images, positions) = (codes.shape()[0], self.level.positions());
        let columns = self.tables.iter().enumerate().map(|(d, table)| Ok(table.get().embedding(&codes.column(d)?)?));
        let vectors = columns.reduce(|sum: Result<Tensor>, next| Ok(sum?.add(&next?)?));
        let vectors = vectors.ok_or_else(|| Error::Unsupported("codes of no depth".to_owned()))??;
        let visible = masks.masked.mul_scalar(-1.0)?.add_scalar(1.0)?;
        let masked = masks.masked.mul(&self.mask.get())?;
        let vectors = vectors.mul(&visible)?.add(&masked)?;
        let sequence =
            Tensor::concat(&[&self.condition.forward(condition)?, &vectors], 1)?.add(&self.positions.get())?;
        let hidden = self.trunk.forward(&sequence, mode)?;
        let prefix = self.condition.length();
        let hidden = hidden.slice(1, prefix..prefix + positions)?;
        let logits = self.head.forward(&hidden.reshape(&[images * positions, self.config.width])?)?;
        let mut from = 0;
        let depth = |&size: &usize| {
            from += size;
            if size == logits.last_dim() { Ok(logits.clone()) } else { Ok(logits.slice(1, from - size..from)?) }
        };
        self.level.sizes().iter().map(depth).collect()
    }

    /// The loss of codes under given masks: the weighted mean of cross entropies with smoothed labels, over positions and
    /// depths. Terms: `loss`, each depth's, and `accuracy`, the share of masked codes whose logit is the largest.
    ///
    /// # Errors
    /// As for [`MaskGit::logits`].
    pub fn masked_loss(&self, codes: &Codes, masks: &Masks, condition: &Condition, mode: &Mode) -> Result<PriorLoss> {
        let positions = masks.masked.len();
        let masked = masks.masked.reshape(&[positions])?;
        let visible_weight = self.config.visible_weight;
        let weights = masked.mul_scalar(1.0 - visible_weight)?.add_scalar(visible_weight)?;
        // Over all ranks of a training step, whose images have masks of other sizes.
        let sum = Step::current().mean(&weights.sum_all()?)?;
        let weights = weights.div(&sum.add_scalar(1e-8)?)?;
        let codes_by_depth = codes.reshape(&[positions, self.level.depth()])?;
        let (mut losses, mut right) = (Vec::new(), Vec::new());
        for (d, logits) in self.logits(codes, masks, condition, mode)?.iter().enumerate() {
            let targets = codes_by_depth.column(d)?;
            losses.push(smoothed(logits, &targets, self.config.label_smoothing)?.mul(&weights)?.sum_all()?);
            right.push(self.accuracy(&logits.detach(), &targets, &masks.masked)?);
        }
        let mean = |values: &[Tensor]| -> Result<Tensor> {
            Ok(Tensor::stack(&values.iter().collect::<Vec<_>>(), 0)?.mean_all()?)
        };
        let by_depth =
            Tensor::stack(&losses.iter().map(Tensor::detach).collect::<Vec<_>>().iter().collect::<Vec<_>>(), 0)?;
        Ok(PriorLoss { loss: mean(&losses)?, terms: vec![("loss", by_depth), ("accuracy", mean(&right)?)] })
    }

    /// Of each image the share of masked positions `[B, T, 1]` whose target has the largest logit; their mean.
    fn accuracy(&self, logits: &Tensor, targets: &Codes, masked: &Tensor) -> Result<Tensor> {
        let shape = &masked.shape()[..2];
        // The target's logit is the largest where it is not below the maximum.
        let behind = logits.max_last()?.sub(&logits.gather_last(targets)?)?;
        let right = behind.mul_scalar(-1e30)?.exp()?.reshape(shape)?;
        let masked = masked.reshape(shape)?;
        Ok(right.mul(&masked)?.sum(&[1], false)?.div(&masked.sum(&[1], false)?)?.mean_all()?)
    }
}

/// Cross entropy against `(1 - e) onehot + e / K` of every row of logits `[N, K]`: `[N]`, in nats.
fn smoothed(logits: &Tensor, targets: &Codes, smoothing: f32) -> Result<Tensor> {
    let plain = logits.cross_entropy(targets)?;
    if smoothing == 0.0 {
        return Ok(plain);
    }
    // Both parts have the same normaliser: they differ by the target's logit less the mean of all.
    let ahead = logits.gather_last(targets)?.sub(&logits.mean(&[1], false)?)?;
    Ok(plain.add(&ahead.mul_scalar(smoothing)?)?)
}

impl Prior for MaskGit {
    fn can_be_guided(&self) -> bool {
        self.condition.space() != ConditionSpace::None
    }

    /// Masks are drawn from the stream of the step; in evaluation they are the same each time.
    fn loss(&self, batch: &TokenBatch, mode: &Mode) -> Result<PriorLoss> {
        let rng = match mode {
            Mode::Train(rng) => rng.part("mask", 0),
            Mode::Eval => Rng::new(0, "maskgit evaluation", 0),
        };
        let codes = batch.tokens.codes()?;
        let masks = Masks::random(self.config.masking, batch.tokens.images(), self.level.positions(), &rng)?;
        self.masked_loss(codes, &masks, &batch.condition, mode)
    }

    /// There is none: positions that are filled in together are drawn apart.
    fn likelihood(&self, _: &TokenBatch) -> Result<Option<Tensor>> {
        Ok(None)
    }

    fn sample(&self, request: &SampleRequest, rng: &Rng) -> Result<Tokens> {
        self.fill_in(request, rng)
    }
}
