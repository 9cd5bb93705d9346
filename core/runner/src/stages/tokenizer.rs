//! Trains an autoencoder and its quantizers.

use super::data::{Order, training_images};
use super::means::{LateMean, UNREAD};
use super::train::{Recipe, Task, train};
use super::{Context, Tokenizer, open_dataset};
use crate::job::Call;
use crate::settings::{Reconstruction, TokenizerTraining};
use crate::store::Done;
use rqlab_sdk::contracts::{Images, Mode, Quantized};
use rqlab_sdk::metrics::{CodeCounts, perplexity, usage};
use rqlab_sdk::params::Params;
use rqlab_sdk::tensor::{Codes, Rng, Tensor};
use rqlab_sdk::{Error, Result};
use std::collections::BTreeMap;

pub(super) fn run(
    cx: &mut Context<'_>,
    data: &Call,
    (autoencoder, quantizer): (&Call, &Call),
    training: &TokenizerTraining,
    seed: u64,
) -> Result<Done> {
    let dataset = open_dataset(cx.plugins, data, cx.job)?;
    let info = dataset.info();
    if info.train == 0 {
        return Err(Error::Data("the data set has no training images".to_owned()));
    }
    let params = Params::new(seed);
    let model = Tokenizer::build(cx.plugins, autoencoder, quantizer, info.image, params.clone())?;
    let order = Order::new(seed, info.train, training.batch);
    let mut task = TokenizerTask { health: Health::new(&model)?, model, training: training.clone(), seed };
    let trained = train(
        cx,
        &params,
        &Recipe::from(training),
        |step| training_images(dataset.as_ref(), &order, seed, training.augment, step),
        &mut task,
    )?;
    trained.save(&params, &cx.dir().result())?;
    Ok(Done {
        measures: BTreeMap::from([("tokenizer_parameters".to_owned(), params.count() as f64)]),
        timings: BTreeMap::from([("tokenizer_seconds".to_owned(), trained.seconds)]),
        curves: trained.curves,
        seconds: trained.earlier,
    })
}

struct TokenizerTask {
    model: Tokenizer,
    health: Health,
    training: TokenizerTraining,
    seed: u64,
}

impl Task for TokenizerTask {
    type Batch = Images;

    fn loss(&mut self, step: u64, batch: Images) -> Result<Tensor> {
        let rng = Rng::new(self.seed, "tokenizer", step);
        let (quantizers, health) = (&mut self.model.quantizers, &mut self.health);
        let mut auxiliary: Vec<Tensor> = Vec::new();
        let passes = step < self.training.quantize_after;
        let mut bottleneck = |level: usize, latents: &Tensor| {
            if passes {
                return Ok(latents.clone());
            }
            let quantized = quantizers[level].quantize_train(latents, &rng.part("quantizer", level as u64))?;
            health.see(level, latents, &quantized)?;
            auxiliary.push(quantized.loss);
            Ok(quantized.latents)
        };
        let reconstruction = self.model.autoencoder.forward(&batch.pixels, &mut bottleneck, &Mode::Train(rng))?;
        let distortion = match self.training.reconstruction {
            Reconstruction::Mse => reconstruction.mse(&batch.pixels)?,
            Reconstruction::L1 => reconstruction.sub(&batch.pixels)?.abs()?.mean_all()?,
        };
        self.health.distortion.add(&distortion);
        auxiliary.iter().try_fold(distortion, |total, term| Ok(total.add(term)?))
    }

    fn observe(&mut self) -> Result<Vec<(String, f64)>> {
        self.health.take()
    }
}

/// What the codebooks did since the last point of the curves.
struct Health {
    distortion: LateMean,
    levels: Vec<Level>,
}

struct Level {
    prefix: String,
    codebooks: Vec<usize>,
    /// Codes that are not counted yet.
    unread: Vec<Codes>,
    counts: CodeCounts,
    terms: BTreeMap<&'static str, LateMean>,
}

impl Health {
    fn new(model: &Tokenizer) -> Result<Self> {
        let several = model.quantizers.len() > 1;
        let levels = model
            .code_shapes()
            .into_iter()
            .enumerate()
            .map(|(level, shape)| {
                Ok(Level {
                    prefix: if several { format!("level{}_", level + 1) } else { String::new() },
                    counts: CodeCounts::new(&shape.codebooks)?,
                    codebooks: shape.codebooks,
                    unread: Vec::new(),
                    terms: BTreeMap::new(),
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self { distortion: LateMean::default(), levels })
    }

    fn see(&mut self, level: usize, latents: &Tensor, quantized: &Quantized) -> Result<()> {
        let level = &mut self.levels[level];
        if let Some(codes) = &quantized.codes {
            level.unread.push(codes.clone());
            if level.unread.len() >= UNREAD {
                level.count()?;
            }
        }
        // Latents of zeros have no energy to have a share of.
        let energy = latents.detach().square()?.mean_all()?.clamp(f32::MIN_POSITIVE, f32::MAX)?;
        let shares = quantized.residual_energy.div(&energy)?;
        for (name, value) in quantized.terms.iter().chain(&quantized.events).chain([&("residual_energy", shares)]) {
            level.terms.entry(name).or_default().add(value);
        }
        Ok(())
    }

    fn take(&mut self) -> Result<Vec<(String, f64)>> {
        let mut points = self.distortion.take("mse");
        for level in &mut self.levels {
            level.count()?;
            let prefix = &level.prefix;
            for (depth, histogram) in level.counts.histograms().iter().enumerate() {
                // Nothing is counted while latents pass unquantized.
                if histogram.iter().any(|&hits| hits > 0) {
                    points.push((format!("{prefix}usage_{}", depth + 1), usage(histogram)));
                    points.push((format!("{prefix}perplexity_{}", depth + 1), perplexity(histogram)));
                }
            }
            level.counts = CodeCounts::new(&level.codebooks)?;
            for (name, mean) in &mut level.terms {
                points.extend(mean.take(&format!("{prefix}{name}")));
            }
        }
        Ok(points)
    }
}

impl Level {
    fn count(&mut self) -> Result<()> {
        Ok(self.unread.drain(..).try_for_each(|codes| self.counts.push(codes.as_slice()))?)
    }
}
