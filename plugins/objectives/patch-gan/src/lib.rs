//! A critic that learns to tell patches of images from patches of reconstructions (Isola et al., CVPR 2017), against which a
//! tokenizer is trained: VQGAN (Esser et al., CVPR 2021) and most tokenizers since.

pub mod discriminator;
pub mod dual;
pub mod losses;
pub mod regularisers;
#[cfg(test)]
mod tests;

use discriminator::{Blurred, Discriminator, Norm, Statistics};
use dual::Dual;
use losses::GanLoss;
use regularisers::{Lecam, LecamOrder, r1};
use rqlab_sdk::choice;
use rqlab_sdk::prelude::*;

declare_plugin! {
    objective "patch_gan": PatchGanConfig => PatchGan::new;
}

choice! {
    /// Which network it is.
    pub enum Network {
        /// Strided convolutions 4x4: VQGAN, RQ-VAE, LlamaGen.
        Patch = "patch",
        /// Convolutions 3x3 and blurs: MaskBit, TiTok.
        BlurPatch = "blur_patch",
    }
}

config! {
    /// An adversarial loss on patches, with a discriminator of its own, which steps after the tokenizer.
    ///
    /// Published: VQGAN `weight: 0.8` from step 30000 or 250001 on, `n_layers: 3`; RQ-VAE `weight: 0.75, critic_weight: 0.75`;
    /// LlamaGen `weight: 0.5, adaptive: false, critic_weight: 0.5` from 20000 on; MaskBit and TiTok `discriminator: blur_patch,
    /// width: 128, unit_range: true`, `n_layers: 4` and 3, `weight: 0.02` and 0.1, `adaptive: false, lecam: 0.001` from 20000 and
    /// 200000 on.
    pub struct PatchGanConfig {
        /// Which network.
        discriminator: Network = Network::Patch;
        /// Convolutions that halve the map, or stages of `blur_patch`. Images must be large enough: 3 after the halvings of
        /// `patch`, one pixel after those of `blur_patch`.
        n_layers: usize = 3, in 1..=8;
        /// Channels of the first map.
        width: usize = 64, in 1..=4096;
        /// What normalises the maps of `patch`. In a step, a batch norm's running statistics move three times: by the
        /// tokenizer's pass, by reconstructions, by images; logits are always by the statistics of their own pass.
        norm: Norm = Norm::Batch;
        /// Groups of a group norm.
        groups: usize = 32, in 1..=1024;
        /// Numbers of the binomial row that `blur_patch` blurs with.
        blur: usize = 4, in 3..=5;
        /// Rows and columns of logits that `blur_patch` pools its map to: 16 in TiTok and MaskBit, whose own map has that size.
        pool: Option<usize> = Some(16), in 1..=256;
        /// Whether the discriminator sees images in [0, 1], as MaskBit's and TiTok's; it is given [-1, 1] either way.
        unit_range: bool = false;
        /// The losses of the two players.
        loss: GanLoss = GanLoss::Hinge;
        /// Whether the logits of an image are averaged before they are judged (SEED-Voken's Open-MAGVIT2).
        image_mean: bool = false;
        /// The step from which it counts and learns.
        start: u64 = 0;
        /// What it counts beside other objectives; times the ratio of gradients if `adaptive`.
        weight: f32 = 0.8, in 0.0..=1e6;
        /// Whether the weight is multiplied by the ratio of the other objectives' gradients to this one's at the decoder's last
        /// layer (Esser et al. 2021, equation 7).
        adaptive: bool = true;
        /// The largest ratio.
        limit: f32 = 1e4, in 0.0..=1e9;
        /// What the critic's own loss is multiplied by. With Adam it matters for clipping and beside penalties.
        critic_weight: f32 = 1.0, in 0.0..=1e6;
        /// Weight of LeCam's pull of the logits to their averages (0.001 in MaskBit and TiTok, 0.05 in Open-MAGVIT2).
        lecam: f32 = 0.0, in 0.0..=1e6;
        /// What LeCam compares, and when its averages move.
        lecam_order: LecamOrder = LecamOrder::After;
        /// Share of LeCam's averages that a step keeps.
        lecam_decay: f32 = 0.999, in 0.0..=1.0;
        /// Weight of the penalty R1: `r1 / 2` times the squared gradient at the images as they are seen (BSQ-ViT's file says 10,
        /// but its code moves no weight by it).
        r1: f32 = 0.0, in 0.0..=1e6;
        /// Steps from one penalty to the next; it counts as much more (Karras et al. 2020, "lazy regularization").
        r1_every: u64 = 16, in 1..=100_000;
        /// Peak learning rate of the critic; that of the tokenizer if none.
        lr: Option<f32> = None, in 0.0..=1.0;
        /// Decay rates of the two moments of its optimizer; those of the tokenizer if none (VQGAN and RQ-VAE: (0.5, 0.9) for
        /// both).
        betas: Option<[f32; 2]> = None, in 0.0..1.0;
    }
}

/// The objective. Parameters: those of the [`Discriminator`]; buffers: its running statistics, and LeCam's averages.
#[derive(Debug)]
pub struct PatchGan {
    config: PatchGanConfig,
    discriminator: Discriminator,
    lecam: Option<Lecam>,
}

impl PatchGan {
    /// A critic of images of the context's shape.
    ///
    /// # Errors
    /// A discriminator that is larger than its image; groups that do not divide its channels.
    pub fn new(config: PatchGanConfig, cx: &ObjectiveContext) -> Result<Self> {
        let (params, n_layers, width, groups) = (&cx.params, config.n_layers, config.width, config.groups);
        let discriminator = match config.discriminator {
            Network::Patch => Discriminator::patch(params, cx.image, n_layers, width, (config.norm, groups))?,
            Network::BlurPatch => {
                let blurred = Blurred { groups, kernel: config.blur, pool: config.pool };
                Discriminator::blur_patch(params, cx.image, n_layers, width, blurred)?
            }
        };
        let lecam = (config.lecam > 0.0).then(|| Lecam::new(params, config.lecam_order, config.lecam_decay));
        Ok(Self { discriminator, lecam: lecam.transpose()?, config })
    }

    /// Images as the discriminator sees them.
    fn seen(&self, images: &Tensor) -> Result<Tensor> {
        Ok(if self.config.unit_range { images.add_scalar(1.0)?.mul_scalar(0.5)? } else { images.clone() })
    }

    /// The logits of images, or their means if these are judged, in a pass that moves running statistics.
    fn logits(&self, images: &Tensor) -> Result<Tensor> {
        let logits = self.discriminator.forward(&Dual::plain(&self.seen(images)?), Statistics::Move)?.value;
        if self.config.image_mean { Ok(logits.mean(&[1, 2, 3], false)?) } else { Ok(logits) }
    }
}

impl Objective for PatchGan {
    fn loss(&mut self, reconstruction: &Reconstruction<'_>) -> Result<Loss> {
        let loss = self.config.loss.generator(&self.logits(reconstruction.output)?)?;
        Ok(Loss { terms: vec![("generator_loss", loss.detach())], loss })
    }

    fn weight(&self, step: u64) -> Weight {
        let PatchGanConfig { start, weight, adaptive, limit, .. } = self.config;
        match adaptive {
            _ if step < start || weight == 0.0 => Weight::Fixed(0.0),
            true => Weight::Adaptive { scale: weight, limit },
            false => Weight::Fixed(weight),
        }
    }

    fn critic(&mut self, reconstruction: &Reconstruction<'_>) -> Result<Option<Loss>> {
        let Reconstruction { images, output, step, .. } = *reconstruction;
        let config = &self.config;
        if step < config.start {
            return Ok(None);
        }
        // Reconstructions first, as in RQ-VAE: running statistics remember the images best.
        let (fake, real) = (self.logits(output)?, self.logits(images)?);
        let own = config.loss.critic(&real, &fake)?;
        let mean = |logits: &Tensor| logits.detach().mean_all();
        let mut terms =
            vec![("critic_loss", own.detach()), ("real_logits", mean(&real)?), ("fake_logits", mean(&fake)?)];
        let mut loss = own.mul_scalar(config.critic_weight)?;
        if let Some(lecam) = &self.lecam {
            let term = lecam.term(&real, &fake)?;
            terms.push(("lecam", term.detach()));
            loss = loss.add(&term.mul_scalar(config.lecam)?)?;
        }
        if config.r1 > 0.0 && (step - config.start).is_multiple_of(config.r1_every) {
            let penalty = r1(&self.seen(images)?, |seen| self.discriminator.forward(seen, Statistics::Keep))?;
            terms.push(("r1", penalty.detach()));
            loss = loss.add(&penalty.mul_scalar(0.5 * config.r1 * config.r1_every as f32)?)?;
        }
        Ok(Some(Loss { loss, terms }))
    }

    fn critic_training(&self) -> CriticTraining {
        CriticTraining { lr: self.config.lr, betas: self.config.betas }
    }
}
