//! Product quantization (Jégou et al., "Product quantization for nearest neighbor search", PAMI 2011): channels in equal
//! parts, a quantizer for each; vector-quantize-pytorch's heads and groups.
//!
//! Shapes: latents `[.., C]`, usually `[B, h, w, C]`; codes `[.., D]`, those of each part one after another.

#[cfg(test)]
mod tests;

use rqlab_sdk::config::ConfigError;
use rqlab_sdk::nn::{Gathered, Held, Losses, SoftCodes, code_tokens, side_by_side};
use rqlab_sdk::prelude::*;

declare_plugin! {
    quantizer "product": ProductConfig => Product::new;
}

config! {
    /// Product quantization: each part of the channels by a quantizer of codes. `product(of: vq(codebook: 1024), parts:
    /// 2)` has 1024² codewords, and the price of 2048.
    pub struct ProductConfig {
        /// The quantizer of each part.
        of: QuantizerCall;
        /// How many parts the channels are cut in: a position has this many times the codes of `of`.
        parts: usize = 2, in 1..=64;
        /// Whether one quantizer serves for all parts.
        shared: bool = false;
        /// How the losses of the parts become one.
        losses: Losses = Losses::Mean;
    }
}

/// A product quantizer.
#[derive(Debug)]
pub struct Product {
    config: ProductConfig,
    held: Held,
    latents: MapShape,
    dry: bool,
}

impl Product {
    /// A quantizer whose inner ones are `of`, or `of.0`, `of.1`, ...
    ///
    /// # Errors
    /// Channels that cannot be cut in as many parts; those of the inner quantizers, of which none may make vectors.
    pub fn new(config: ProductConfig, cx: &QuantizerContext) -> Result<Self> {
        let channels = cx.latents.channels;
        if !channels.is_multiple_of(config.parts) {
            let message = format!("{channels} channels of the latents cannot be cut in {} equal parts", config.parts);
            return Err(ConfigError::field("parts", message).into());
        }
        let latents = MapShape { channels: channels / config.parts, ..cx.latents };
        let held = Held::new(&config.of, config.parts, config.shared, latents, cx)?;
        Ok(Self { config, held, latents: cx.latents, dry: cx.params.is_dry() })
    }

    /// Channels of a part.
    fn width(&self) -> usize {
        self.latents.channels / self.config.parts
    }

    /// A table `[K, c]` of a part's codes as what each adds to the latents `[K, C]`.
    fn padded(&self, part: usize, table: &Tensor) -> Result<Tensor> {
        let size = table.shape()[0];
        let zeros = |parts: usize| Tensor::zeros(&[size, parts * self.width()]).to_device(table.device());
        let (before, after) = (zeros(part)?, zeros(self.config.parts - 1 - part)?);
        Ok(Tensor::concat(&[&before, table, &after], 1)?)
    }

    fn tables(&self, part: usize) -> Result<Vec<Tensor>> {
        let level = self.held.get(part)?.level();
        let tables = level.code_space().map_or(&[][..], |space| &space.tables);
        tables.iter().map(|table| self.padded(part, table)).collect()
    }
}

/// Part `part` of `parts` of latents.
fn part_of(latents: &Tensor, part: usize, parts: usize) -> Result<Tensor> {
    let width = latents.last_dim() / parts;
    Ok(latents.slice(latents.rank().saturating_sub(1), part * width..(part + 1) * width)?)
}

/// Quantizes part by part by `quantize(part, latents)`.
fn run(
    config: &ProductConfig,
    latents: &Tensor,
    mut quantize: impl FnMut(usize, &Tensor) -> Result<Quantized>,
) -> Result<Quantized> {
    let (mut values, mut codes) = (Vec::new(), Vec::new());
    let mut gathered = Gathered::default();
    for part in 0..config.parts {
        let quantized = quantize(part, &part_of(latents, part, config.parts)?)?;
        codes.push(quantized.tokens.codes()?.clone());
        gathered.add(&quantized)?;
        values.push(quantized.latents);
    }
    let value = Tensor::concat(&values.iter().collect::<Vec<_>>(), latents.rank().saturating_sub(1))?;
    let one_each = codes.iter().all(|codes| codes.last_dim() == 1);
    Ok(Quantized {
        tokens: Tokens::Codes(side_by_side(&codes)?),
        loss: gathered.loss(config.losses)?,
        terms: gathered.terms()?,
        bits: None,
        residual_energy: if one_each { energies(latents, &value, config.parts)? } else { Tensor::zeros(&[0]) },
        events: gathered.events(),
        latents: value,
    })
}

/// Mean squares of what is left after each part, `[D]`: the parts that are not coded yet are left whole.
fn energies(latents: &Tensor, value: &Tensor, parts: usize) -> Result<Tensor> {
    let (latents, value) = (latents.detach(), value.detach());
    let mean = |x: &Tensor| -> Result<Tensor> { Ok(x.square()?.mean_all()?.mul_scalar(1.0 / parts as f32)?) };
    let mut left = latents.square()?.mean_all()?;
    let mut energies = Vec::with_capacity(parts);
    for part in 0..parts {
        let own = part_of(&latents, part, parts)?;
        left = left.sub(&mean(&own)?)?.add(&mean(&own.sub(&part_of(&value, part, parts)?)?)?)?;
        energies.push(left.clone());
    }
    Ok(Tensor::stack(&energies.iter().collect::<Vec<_>>(), 0)?)
}

impl Quantizer for Product {
    fn level(&self) -> LevelInfo {
        let MapShape { height, width, channels } = self.latents;
        let inner: Vec<usize> = self.held.get(0).map_or_else(|_| vec![], |held| held.level().sizes().to_vec());
        let parts = if self.dry { 0 } else { self.config.parts };
        let tables = (0..parts).flat_map(|part| self.tables(part).unwrap_or_default()).collect();
        // Even a shared codebook's codes add to other channels in each part.
        let space = CodeSpace { sizes: inner.repeat(self.config.parts), tables, shared: false };
        LevelInfo { height, width, channels, space: TokenSpace::Codes(space), scales: None }
    }

    fn residual_scale(&self) -> Vec<f32> {
        let of_part = |part| self.held.get(part).map_or_else(|_| vec![], Quantizer::residual_scale);
        let scale: Vec<f32> = (0..self.config.parts).flat_map(of_part).collect();
        if scale.len() == self.latents.channels { scale } else { Vec::new() }
    }

    fn activations(&self) -> usize {
        self.held.get(0).map_or(0, Quantizer::activations) * self.config.parts
    }

    fn quantize(&self, latents: &Tensor) -> Result<Quantized> {
        run(&self.config, latents, |part, latents| self.held.get(part)?.quantize(latents))
    }

    fn quantize_train(&mut self, latents: &Tensor, rng: &Rng) -> Result<Quantized> {
        let held = &mut self.held;
        run(&self.config, latents, |part, latents| {
            held.get_mut(part)?.quantize_train(latents, &rng.part("part", part as u64))
        })
    }

    fn tokens(&self, latents: &Tensor, request: &TokenRequest, rng: &Rng) -> Result<(Tokens, Targets)> {
        let nearest = || Ok(self.quantize(latents)?.tokens.codes()?.clone());
        code_tokens(request, rng, nearest, |temperature, draw| {
            let stochastic_codes = draw.map(|_| temperature);
            let soft = TokenRequest { soft_targets: Some(temperature), stochastic_codes, ..TokenRequest::default() };
            let (mut codes, mut targets) = (Vec::new(), Vec::new());
            for part in 0..self.config.parts {
                let rng = draw.unwrap_or(rng).part("part", part as u64);
                let own = part_of(latents, part, self.config.parts)?;
                let (tokens, of_part) = self.held.get(part)?.tokens(&own, &soft, &rng)?;
                codes.push(tokens.codes()?.clone());
                match of_part {
                    Targets::Soft(soft) => targets.extend(soft),
                    Targets::Hard => {
                        return Err(Error::Unsupported("the inner quantizer has no soft targets".to_owned()));
                    }
                }
            }
            Ok(SoftCodes { codes: side_by_side(&codes)?, targets })
        })
    }

    fn embed(&self, tokens: &Tokens, depth: Option<usize>) -> Result<Tensor> {
        let (codes, own) = (tokens.codes()?, self.held.depth());
        let all = own * self.config.parts;
        let wanted = depth.unwrap_or(all);
        if !(1..=all).contains(&wanted) {
            return Err(Error::Unsupported(format!("latents of depth {wanted} of {all}; ask for depth 1 or more")));
        }
        let mut values: Vec<Tensor> = Vec::with_capacity(self.config.parts);
        for part in 0..self.config.parts {
            let first = wanted.saturating_sub(part * own).min(own);
            values.push(match values.last() {
                Some(last) if first == 0 => Tensor::zeros(last.shape()).to_device(last.device())?,
                _ => {
                    let own_codes = Tokens::Codes(self.held.codes_of(part, own, codes)?);
                    self.held.get(part)?.embed(&own_codes, Some(first))?
                }
            });
        }
        let values: Vec<&Tensor> = values.iter().collect();
        Ok(Tensor::concat(&values, values[0].rank().saturating_sub(1))?)
    }
}
