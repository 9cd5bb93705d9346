//! Residual quantization by any quantizer: what one leaves, the next one quantizes again, as in vector-quantize-pytorch's
//! `ResidualFSQ`, `ResidualLFQ` and `ResidualSimVQ`. `rq` is the same with codebooks of its own, as RQ-VAE has them.
//!
//! Shapes: latents `[.., C]`, usually `[B, h, w, C]`; the vectors that are quantized `[.., c]`; codes `[.., D]`, those of
//! each inner quantizer one after another.

#[cfg(test)]
mod tests;

use rqlab_sdk::nn::{
    DepthDropout, Estimator, Gathered, Held, Losses, Projection, SoftCodes, code_tokens, side_by_side,
};
use rqlab_sdk::prelude::*;

declare_plugin! {
    quantizer "residual": ResidualConfig => Residual::new;
}

config! {
    /// Residual quantization by any quantizer of codes: depth d quantizes what those before it leave, divided by `s^d`,
    /// where s is what the inner quantizer asks for: 1/L for each channel of L levels of `fsq`, 1/2 for the signs of
    /// `lfq`, 1 for codebooks.
    ///
    /// `residual(of: fsq(levels: [8, 5, 5]), depth: 4, code_dim: 3)` is vector-quantize-pytorch's `ResidualFSQ`.
    pub struct ResidualConfig {
        /// The quantizer of each depth.
        of: QuantizerCall;
        /// How often there is quantized: a position has this many times the codes of `of`.
        depth: usize = 4, in 1..=64;
        /// Whether one quantizer serves for all depths.
        shared: bool = false;
        /// Channels of what is quantized, reached and left by a linear map; if not given, those of the latents, and no map.
        code_dim: Option<usize> = None, in 1..=65536;
        /// Vectors x become `c tanh(x / c)` first; if not given, they stay. What bounded quantizers such as `fsq` cut off
        /// of larger ones is lost at every depth (vector-quantize-pytorch's `soft_clamp_input_value`).
        soft_clamp: Option<f32> = None, in 1e-3..=1e3;
        /// How gradients pass from the vectors to the sum; if not given, each depth passes them in the way of its
        /// quantizer, and they add up (vector-quantize-pytorch).
        estimator: Option<Estimator> = None;
        /// How the losses of the depths become one.
        losses: Losses = Losses::Mean;
        /// Whether each batch of training keeps only its first depths, a number drawn anew (SoundStream,
        /// vector-quantize-pytorch's `quantize_dropout`). What is dropped adds nothing to latents and losses, and trains no
        /// quantizer.
        quantizer_dropout: bool = false;
        /// The first depth, from 0, that may be the last kept one.
        dropout_cutoff: usize = 0, in 0..=63;
        /// The number of kept depths is rounded up to a multiple of this; EnCodec has 4.
        dropout_multiple_of: usize = 1, in 1..=64;
    }
}

impl ResidualConfig {
    fn dropout(&self) -> Option<DepthDropout> {
        let dropout = DepthDropout { cutoff: self.dropout_cutoff, multiple_of: self.dropout_multiple_of };
        self.quantizer_dropout.then_some(dropout)
    }
}

/// A residual quantizer of any quantizer.
#[derive(Debug)]
pub struct Residual {
    rounds: Rounds,
    held: Held,
    latents: MapShape,
    dry: bool,
}

/// What is done with vectors from depth to depth, whoever quantizes them.
#[derive(Debug)]
struct Rounds {
    config: ResidualConfig,
    projection: Projection,
    /// What each depth's vectors are divided by, `[c]`; none where that is 1.
    scales: Vec<Option<Tensor>>,
    /// Codes per position of each depth.
    codes: usize,
}

impl Residual {
    /// A quantizer whose inner ones are `of`, or `of.0`, `of.1`, .., with the maps `project_in` and `project_out` if
    /// `code_dim` is given.
    ///
    /// # Errors
    /// Those of the inner quantizers, of which none may make vectors; a cutoff of dropout that no depth has.
    pub fn new(config: ResidualConfig, cx: &QuantizerContext) -> Result<Self> {
        config.dropout().map_or(Ok(()), |dropout| dropout.check(config.depth, "depth"))?;
        let projection = Projection::new(&cx.params, cx.latents.channels, config.code_dim)?;
        let latents = MapShape { channels: projection.code_dim(), ..cx.latents };
        let held = Held::new(&config.of, config.depth, config.shared, latents, cx)?;
        let by = held.get(0)?.residual_scale();
        let scale = |depth: usize| -> Result<Option<Tensor>> {
            let scale = by.iter().map(|by| by.powi(depth as i32)).collect();
            let scaled = depth > 0 && !by.is_empty();
            Ok(scaled.then(|| Tensor::from_vec(scale, &[by.len()])).transpose()?)
        };
        let scales = (0..config.depth).map(scale).collect::<Result<_>>()?;
        let rounds = Rounds { config, projection, scales, codes: held.depth() };
        Ok(Self { rounds, held, latents: cx.latents, dry: cx.params.is_dry() })
    }

    /// Whether the codes of all depths are the same vectors.
    fn has_one_codebook(&self) -> bool {
        self.held.is_shared() && self.rounds.codes == 1 && self.rounds.scales.iter().all(Option::is_none)
    }

    /// What each code of each depth adds to the latents `[K_d, C]`; nothing if the inner quantizer has no tables.
    fn tables(&self) -> Result<Vec<Tensor>> {
        let mut tables = Vec::new();
        for depth in 0..self.rounds.config.depth {
            let level = self.held.get(depth)?.level();
            for table in level.code_space().map_or(&[][..], |space| &space.tables) {
                tables.push(self.rounds.outwards(depth, table)?);
            }
        }
        let tables = self.rounds.projection.tables(&tables)?;
        // The first has the bias of the map back, which is none of the codebook's.
        let one = self.has_one_codebook() && tables.len() > 1;
        Ok(if one { vec![tables[1].clone(); tables.len()] } else { tables })
    }
}

impl Rounds {
    fn vectors(&self, latents: &Tensor) -> Result<Tensor> {
        let vectors = self.projection.project_in(latents)?;
        Ok(match self.config.soft_clamp {
            Some(bound) => vectors.mul_scalar(1.0 / bound)?.tanh()?.mul_scalar(bound)?,
            None => vectors,
        })
    }

    /// Vectors of `depth` as its quantizer sees them.
    fn inwards(&self, depth: usize, vectors: &Tensor) -> Result<Tensor> {
        Ok(match &self.scales[depth] {
            Some(scale) => vectors.div(&scale.to_device(vectors.device())?)?,
            None => vectors.clone(),
        })
    }

    /// What the quantizer of `depth` made of them, in their size.
    fn outwards(&self, depth: usize, vectors: &Tensor) -> Result<Tensor> {
        Ok(match &self.scales[depth] {
            Some(scale) => vectors.mul(&scale.to_device(vectors.device())?)?,
            None => vectors.clone(),
        })
    }

    /// Quantizes depth by depth by `quantize(depth, vectors)`, of which the first `kept` depths count.
    fn run(
        &self,
        latents: &Tensor,
        kept: usize,
        mut quantize: impl FnMut(usize, &Tensor) -> Result<Quantized>,
    ) -> Result<Quantized> {
        let vectors = self.vectors(latents)?;
        // The residual keeps its gradient to the latents; what is taken from it has none.
        let mut left = vectors.clone();
        let (mut sum, mut codes, mut energies) = (None, Vec::new(), Vec::new());
        let mut gathered = Gathered::default();
        for depth in 0..self.config.depth {
            let quantized = quantize(depth, &self.inwards(depth, &left)?)?;
            let added = self.outwards(depth, &quantized.latents)?;
            left = left.sub(&added.detach())?;
            energies.push(left.detach().square()?.mean_all()?);
            codes.push(quantized.tokens.codes()?.clone());
            if depth < kept {
                sum = Some(plus(sum, &added)?);
                gathered.add(&quantized)?;
            }
        }
        let sum = sum.unwrap_or_else(|| vectors.clone());
        let passed = match self.config.estimator {
            Some(estimator) => estimator.pass(&vectors, &sum.detach())?,
            None => sum,
        };
        Ok(Quantized {
            latents: self.projection.project_out(&passed)?,
            tokens: Tokens::Codes(side_by_side(&codes)?),
            loss: gathered.loss(self.config.losses)?,
            terms: gathered.terms()?,
            bits: None,
            residual_energy: match self.codes {
                1 => Tensor::stack(&energies.iter().collect::<Vec<_>>(), 0)?,
                _ => Tensor::zeros(&[0]),
            },
            events: gathered.events(),
        })
    }
}

impl Quantizer for Residual {
    fn level(&self) -> LevelInfo {
        let MapShape { height, width, channels } = self.latents;
        let inner: Vec<usize> = self.held.get(0).map_or_else(|_| vec![], |held| held.level().sizes().to_vec());
        let sizes = inner.repeat(self.rounds.config.depth);
        let tables = if self.dry { vec![] } else { self.tables().unwrap_or_default() };
        let space = TokenSpace::Codes(CodeSpace { sizes, tables, shared: self.has_one_codebook() });
        LevelInfo { height, width, channels, space, scales: None }
    }

    fn activations(&self) -> usize {
        self.held.get(0).map_or(0, Quantizer::activations) * self.rounds.config.depth
    }

    fn quantize(&self, latents: &Tensor) -> Result<Quantized> {
        let depth = self.rounds.config.depth;
        self.rounds.run(latents, depth, |depth, vectors| self.held.get(depth)?.quantize(vectors))
    }

    fn quantize_train(&mut self, latents: &Tensor, rng: &Rng) -> Result<Quantized> {
        let (rounds, held) = (&self.rounds, &mut self.held);
        let config = &rounds.config;
        let kept = config.dropout().map_or(config.depth, |dropout| dropout.kept(config.depth, &rng.part("dropout", 0)));
        rounds.run(latents, kept, |depth, vectors| {
            if depth < kept {
                held.get_mut(depth)?.quantize_train(vectors, &rng.part("depth", depth as u64))
            } else {
                held.get(depth)?.quantize(vectors)
            }
        })
    }

    fn tokens(&self, latents: &Tensor, request: &TokenRequest, rng: &Rng) -> Result<(Tokens, Targets)> {
        let nearest = || Ok(self.quantize(latents)?.tokens.codes()?.clone());
        code_tokens(request, rng, nearest, |temperature, draw| {
            let stochastic_codes = draw.map(|_| temperature);
            let soft = TokenRequest { soft_targets: Some(temperature), stochastic_codes, ..TokenRequest::default() };
            let mut left = self.rounds.vectors(latents)?.detach();
            let (mut codes, mut targets) = (Vec::new(), Vec::new());
            for depth in 0..self.rounds.config.depth {
                let (held, rng) = (self.held.get(depth)?, draw.unwrap_or(rng).part("depth", depth as u64));
                let (tokens, of_depth) = held.tokens(&self.rounds.inwards(depth, &left)?, &soft, &rng)?;
                left = left.sub(&self.rounds.outwards(depth, &held.embed(&tokens, None)?.detach())?)?;
                codes.push(tokens.codes()?.clone());
                match of_depth {
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
        let (codes, own, rounds) = (tokens.codes()?, self.rounds.codes, &self.rounds);
        let all = own * rounds.config.depth;
        let wanted = depth.unwrap_or(all);
        if !(1..=all).contains(&wanted) {
            return Err(Error::Unsupported(format!("latents of depth {wanted} of {all}; ask for depth 1 or more")));
        }
        let mut sum = None;
        for round in 0..wanted.div_ceil(own) {
            let first = (wanted - round * own).min(own);
            let own_codes = Tokens::Codes(self.held.codes_of(round, own, codes)?);
            sum = Some(plus(sum, &rounds.outwards(round, &self.held.get(round)?.embed(&own_codes, Some(first))?)?)?);
        }
        let nothing = || Error::Unsupported("codes of no depth".to_owned());
        rounds.projection.project_out(&sum.ok_or_else(nothing)?)
    }
}

/// `sum + term`, or `term` if there is no sum yet.
fn plus(sum: Option<Tensor>, term: &Tensor) -> Result<Tensor> {
    Ok(match sum {
        None => term.clone(),
        Some(sum) => sum.add(term)?,
    })
}
