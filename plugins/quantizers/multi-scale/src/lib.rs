//! Multi-scale residual quantization (Tian et al., "Visual autoregressive modeling: scalable image generation via next-scale
//! prediction", NeurIPS 2024, algorithms 1 and 2): coarse maps first, each of what the ones before it leave.
//!
//! Shapes: latents `[B, S, S, C]`; the codes of all scales `[B, 1, T, D]`, T the sum of their areas.

mod maps;
#[cfg(test)]
mod tests;

pub use maps::phi_of;

use maps::{Maps, concat_positions, positions};
use rqlab_sdk::choice;
use rqlab_sdk::config::ConfigError;
use rqlab_sdk::nn::{Conv2d, DepthDropout, Estimator, Gathered, Held, Losses, SoftCodes, code_tokens};
use rqlab_sdk::prelude::*;

declare_plugin! {
    quantizer "multi_scale": MultiScaleConfig => MultiScale::new;
}

choice! {
    /// What the latents and codes of a multi-scale quantizer are trained by.
    pub enum ScaleLosses {
        /// The sums after each scale against the latents, in both directions (VAR).
        Sums = "sums",
        /// The losses of the inner quantizer at each scale, such as the entropy terms of `lfq`: their mean.
        Inner = "inner",
        /// Both.
        Both = "both",
    }
}

config! {
    /// Multi-scale residual quantization (Tian et al. 2024): at each scale, what is left of the latents is averaged to a
    /// map of that size and quantized; the codes are enlarged, smoothed by a convolution, and taken off. The tokens are
    /// those of all scales, coarse to fine, in one row.
    ///
    /// VAR's is `multi_scale(of: vq(codebook: 4096, codebook_update: gradient), scales: [1, 2, 3, 4, 5, 6, 8, 10, 13,
    /// 16])` on latents of 16 x 16 x 32.
    pub struct MultiScaleConfig {
        /// The quantizer of all scales.
        of: QuantizerCall;
        /// Sides of the maps, coarse to fine; the last is the side of the latents.
        scales: Vec<usize>, in 1..=1024;
        /// Share r of the convolution in what a scale adds, `(1 - r) h + r phi(h)`; with 0, there is none. VAR has 0.5.
        phi_ratio: f32 = 0.5, in 0.0..=1.0;
        /// How many convolutions neighbouring scales share. VAR has 4.
        phis: usize = 4, in 1..=64;
        /// What the quantizer is trained by. Inner quantizers with losses of their own need `both` or `inner`.
        losses: ScaleLosses = ScaleLosses::Sums;
        /// Weight of the loss that binds the latents to the sums; that which moves codes and convolutions has weight 1.
        beta: f32 = 0.25, in 0.0..=1000.0;
        /// How gradients pass from the latents to the last sum.
        estimator: Estimator = Estimator::StraightThrough;
        /// Whether each batch of training keeps only its first scales, a number drawn anew. What is dropped adds nothing to
        /// latents and losses, and trains no quantizer. VAR has none; XQ-GAN drops scales of a share of a batch's images.
        quantizer_dropout: bool = false;
        /// The first scale, from 0, that may be the last kept one.
        dropout_cutoff: usize = 0, in 0..=63;
        /// The number of kept scales is rounded up to a multiple of this.
        dropout_multiple_of: usize = 1, in 1..=64;
    }
}

impl MultiScaleConfig {
    fn dropout(&self) -> Option<DepthDropout> {
        let dropout = DepthDropout { cutoff: self.dropout_cutoff, multiple_of: self.dropout_multiple_of };
        self.quantizer_dropout.then_some(dropout)
    }
}

/// A multi-scale quantizer.
#[derive(Debug)]
pub struct MultiScale {
    config: MultiScaleConfig,
    maps: Maps,
    held: Held,
    latents: MapShape,
    dry: bool,
}

impl MultiScale {
    /// A quantizer whose inner one is `of`, with the convolutions `quant_resi.qresi_ls.0`, `quant_resi.qresi_ls.1`, ...
    ///
    /// # Errors
    /// Latents that are not square or not of the last scale; those of the inner quantizer, which may not make vectors; a cutoff of
    /// dropout that no scale has.
    pub fn new(config: MultiScaleConfig, cx: &QuantizerContext) -> Result<Self> {
        let MapShape { height, width, channels } = cx.latents;
        let refuse = |message: String| Err(ConfigError::field("scales", message).into());
        if height != width || config.scales.last() != Some(&height) {
            return refuse(format!("the last scale must be the side of the latents, which are {height} x {width}"));
        }
        if config.scales.windows(2).any(|pair| pair[0] >= pair[1]) {
            return refuse(format!("{:?} do not go from coarse to fine", config.scales));
        }
        config.dropout().map_or(Ok(()), |dropout| dropout.check(config.scales.len(), "scale"))?;
        let own = cx.params.scope("quant_resi").scope("qresi_ls");
        let phis = if config.phi_ratio > 0.0 { config.phis } else { 0 };
        let phis = (0..phis).map(|n| Conv2d::new(&own.scope(n), channels, channels, 3)).collect::<Result<_>>()?;
        let held = Held::new(&config.of, 1, false, cx.latents, cx)?;
        let maps = Maps { sides: config.scales.clone(), phis, ratio: config.phi_ratio };
        Ok(Self { config, maps, held, latents: cx.latents, dry: cx.params.is_dry() })
    }

    /// The latents that codes stand for, after each scale: codes `[B, 1, T, D]` of the first scales to as many maps
    /// `[B, S, S, C]`.
    ///
    /// # Errors
    /// Codes of another number of scales.
    pub fn sums(&self, tokens: &Tokens, scales: usize, depth: Option<usize>) -> Result<Vec<Tensor>> {
        let held = self.held.get(0)?;
        self.maps.sums(tokens.codes()?, scales, |codes| held.embed(&Tokens::Codes(codes), depth))
    }

    /// What a next-scale prior sees, by tables of what each code stands for: no quantizer need be there.
    fn scales(&self) -> Result<Scales> {
        let sizes = self.maps.sides.iter().map(|&side| [side; 2]).collect();
        let (held, level) = (self.held.get(0)?, self.held.get(0)?.level());
        let tables = level.code_space().map_or_else(Vec::new, |space| space.tables.clone());
        if self.dry || tables.is_empty() {
            return Ok(Scales::planned(sizes));
        }
        // Tables are of what codes add, and may lack what all of them have in common.
        let first = Codes::from_vec(vec![0; tables.len()], &[1, 1, 1, tables.len()])?;
        let common = held.embed(&Tokens::Codes(first.clone()), None)?.sub(&summed(&tables, &first)?)?.detach();
        let maps = self.maps.frozen()?;
        Ok(Scales::new(sizes, move |tokens, scales| {
            maps.before(tokens.codes()?, scales, |codes| Ok(summed(&tables, &codes)?.add(&common)?))
        }))
    }

    /// Goes from scale to scale: `choose(scale, map)` gives the codes of what is left, averaged to a map. The codes of
    /// all, and the sums after each scale.
    fn assign(
        &self,
        latents: &Tensor,
        mut choose: impl FnMut(&dyn Quantizer, usize, &Tensor) -> Result<Codes>,
    ) -> Result<(Codes, Vec<Tensor>)> {
        let held = self.held.get(0)?;
        assign(&self.maps, latents, |scale, map| {
            let codes = choose(held, scale, map)?;
            Ok((held.embed(&Tokens::Codes(codes.clone()), None)?, codes))
        })
    }

    /// The value, losses and gradients of the sums after each scale, of which the first `kept` count.
    fn assemble(
        &self,
        latents: &Tensor,
        codes: Codes,
        sums: &[Tensor],
        kept: usize,
        gathered: Gathered,
    ) -> Result<Quantized> {
        let zero = Tensor::scalar(0.0);
        let (mut commitment, mut codebook) = (zero.clone(), zero);
        let plain = latents.detach();
        // Dropped scales tell what they would leave, too.
        let energy = sums.last().map_or_else(|| plain.square()?.mean_all(), |all| plain.mse(&all.detach()))?;
        let (energy, sums) = (energy.reshape(&[1])?, &sums[..kept]);
        for sum in sums {
            commitment = commitment.add(&latents.mse(&sum.detach())?)?;
            codebook = codebook.add(&sum.mse(&plain)?)?;
        }
        let share = 1.0 / sums.len().max(1) as f32;
        let (commitment, codebook) = (commitment.mul_scalar(share)?, codebook.mul_scalar(share)?);
        let of_sums = commitment.mul_scalar(self.config.beta)?.add(&codebook)?;
        let mut terms = vec![("scale_commitment", commitment.detach()), ("scale_codebook", codebook.detach())];
        let loss = match self.config.losses {
            ScaleLosses::Sums => of_sums,
            ScaleLosses::Inner => gathered.loss(Losses::Mean)?,
            ScaleLosses::Both => of_sums.add(&gathered.loss(Losses::Mean)?)?,
        };
        terms.extend(gathered.terms()?);
        let value = sums.last().cloned().unwrap_or_else(|| plain.clone()).detach();
        Ok(Quantized {
            latents: self.config.estimator.pass(latents, &value)?,
            residual_energy: if codes.last_dim() == 1 { energy } else { Tensor::zeros(&[0]) },
            tokens: Tokens::Codes(codes),
            loss,
            terms,
            bits: None,
            events: gathered.events(),
        })
    }
}

/// The rows of codes `[.., D]` in D tables `[K_d, C]`, summed: `[.., C]`.
fn summed(tables: &[Tensor], codes: &Codes) -> Result<Tensor> {
    let row = |(depth, table): (usize, &Tensor)| -> Result<Tensor> { Ok(table.embedding(&codes.column(depth)?)?) };
    let rows = tables.iter().enumerate().map(row).collect::<Result<Vec<_>>>()?;
    Ok(Tensor::stack(&rows.iter().collect::<Vec<_>>(), 0)?.sum(&[0], false)?)
}

/// Goes from scale to scale: `quantize(scale, map)` gives what is left, averaged to a map, in codewords and codes.
fn assign(
    maps: &Maps,
    latents: &Tensor,
    mut quantize: impl FnMut(usize, &Tensor) -> Result<(Tensor, Codes)>,
) -> Result<(Codes, Vec<Tensor>)> {
    let mut left = latents.detach();
    let (mut codes, mut sums) = (Vec::new(), Vec::<Tensor>::new());
    for scale in 0..maps.sides.len() {
        let (words, of_scale) = quantize(scale, &maps.averaged(&left, scale)?)?;
        let added = maps.enlarged(&words, scale)?;
        left = left.sub(&added.detach())?;
        sums.push(match sums.last() {
            Some(sum) => sum.add(&added)?,
            None => added,
        });
        codes.push(of_scale);
    }
    Ok((concat_positions(&codes)?, sums))
}

impl Quantizer for MultiScale {
    fn level(&self) -> LevelInfo {
        let space = self.held.get(0).map(|held| held.level().space);
        let nothing = || TokenSpace::Codes(CodeSpace { sizes: vec![], tables: vec![], shared: false });
        LevelInfo {
            height: 1,
            width: self.maps.sides.iter().map(|side| side * side).sum(),
            channels: self.latents.channels,
            space: space.unwrap_or_else(|_| nothing()),
            scales: self.scales().ok(),
        }
    }

    fn activations(&self) -> usize {
        // The last scale is the whole map, which is what the held quantizer knows of.
        let by_position =
            self.held.get(0).map_or(0, Quantizer::activations) / (self.latents.height * self.latents.width).max(1);
        by_position * self.maps.sides.iter().map(|side| side * side).sum::<usize>()
    }

    fn quantize(&self, latents: &Tensor) -> Result<Quantized> {
        let mut gathered = Gathered::default();
        let (codes, sums) = self.assign(latents, |held, _, map| {
            let quantized = held.quantize(map)?;
            gathered.add(&quantized)?;
            Ok(quantized.tokens.codes()?.clone())
        })?;
        self.assemble(latents, codes, &sums, sums.len(), gathered)
    }

    fn quantize_train(&mut self, latents: &Tensor, rng: &Rng) -> Result<Quantized> {
        let mut gathered = Gathered::default();
        let (maps, held, scales) = (&self.maps, &mut self.held, self.config.scales.len());
        let dropout = self.config.dropout();
        let kept = dropout.map_or(scales, |dropout| dropout.kept(scales, &rng.part("dropout", 0)));
        let (codes, sums) = assign(maps, latents, |scale, map| {
            let quantized = if scale < kept {
                let quantized = held.get_mut(0)?.quantize_train(map, &rng.part("scale", scale as u64))?;
                gathered.add(&quantized)?;
                quantized
            } else {
                held.get(0)?.quantize(map)?
            };
            let codes = quantized.tokens.codes()?.clone();
            Ok((held.get(0)?.embed(&quantized.tokens, None)?, codes))
        })?;
        self.assemble(latents, codes, &sums, kept, gathered)
    }

    fn tokens(&self, latents: &Tensor, request: &TokenRequest, rng: &Rng) -> Result<(Tokens, Targets)> {
        let nearest = || Ok(self.quantize(latents)?.tokens.codes()?.clone());
        code_tokens(request, rng, nearest, |temperature, draw| {
            let stochastic_codes = draw.map(|_| temperature);
            let soft = TokenRequest { soft_targets: Some(temperature), stochastic_codes, ..TokenRequest::default() };
            let mut of_scales: Vec<Vec<Tensor>> = Vec::new();
            let (codes, _) = self.assign(latents, |held, scale, map| {
                let rng = draw.unwrap_or(rng).part("scale", scale as u64);
                let (tokens, targets) = held.tokens(map, &soft, &rng)?;
                match targets {
                    Targets::Soft(soft) => of_scales.push(soft),
                    Targets::Hard => {
                        return Err(Error::Unsupported("the inner quantizer has no soft targets".to_owned()));
                    }
                }
                Ok(tokens.codes()?.clone())
            })?;
            let in_a_row = |depth: usize| -> Result<Tensor> {
                let rows = of_scales.iter().map(|soft| positions(&soft[depth])).collect::<Result<Vec<_>>>()?;
                Ok(Tensor::concat(&rows.iter().collect::<Vec<_>>(), 2)?)
            };
            let targets = (0..codes.last_dim()).map(in_a_row).collect::<Result<_>>()?;
            Ok(SoftCodes { codes, targets })
        })
    }

    fn embed(&self, tokens: &Tokens, depth: Option<usize>) -> Result<Tensor> {
        let sums = self.sums(tokens, self.maps.sides.len(), depth)?;
        sums.into_iter().last().ok_or_else(|| Error::Unsupported("there is no scale".to_owned()))
    }
}
