//! Trains an autoencoder and its quantizers.

use super::data::{Order, training_images};
use super::train::{Mean, Recipe, Task, train};
use super::{Context, Tokenizer, open_dataset};
use crate::job::Call;
use crate::settings::{Reconstruction, TokenizerTraining};
use crate::store::Done;
use rqlab_sdk::contracts::{Images, Mode, Quantized};
use rqlab_sdk::metrics::{CodeCounts, perplexity, usage};
use rqlab_sdk::params::Params;
use rqlab_sdk::tensor::{Rng, Tensor};
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
        self.health.distortion.add(f64::from(distortion.item()?));
        auxiliary.iter().try_fold(distortion, |total, term| Ok(total.add(term)?))
    }

    fn observe(&mut self) -> Vec<(String, f64)> {
        self.health.take()
    }
}

/// What the codebooks did since the last point of the curves.
struct Health {
    distortion: Mean,
    levels: Vec<Level>,
}

struct Level {
    prefix: String,
    codebooks: Vec<usize>,
    counts: CodeCounts,
    terms: BTreeMap<String, Mean>,
    events: BTreeMap<String, Mean>,
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
                    terms: BTreeMap::new(),
                    events: BTreeMap::new(),
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self { distortion: Mean::default(), levels })
    }

    fn see(&mut self, level: usize, latents: &Tensor, quantized: &Quantized) -> Result<()> {
        let level = &mut self.levels[level];
        if let Some(codes) = &quantized.codes {
            level.counts.push(codes.as_slice())?;
        }
        let energy = rqlab_sdk::tensor::ops::optim::sum_of_squares(latents) / latents.len().max(1) as f64;
        for (depth, left) in quantized.residual_energy.iter().enumerate() {
            let share = f64::from(*left) / energy.max(f64::MIN_POSITIVE);
            level.terms.entry(format!("residual_energy_{}", depth + 1)).or_default().add(share);
        }
        for (name, value) in &quantized.terms {
            level.terms.entry((*name).to_owned()).or_default().add(f64::from(*value));
        }
        for (name, value) in &quantized.events {
            level.events.entry((*name).to_owned()).or_default().add(f64::from(*value));
        }
        Ok(())
    }

    fn take(&mut self) -> Vec<(String, f64)> {
        let mut points: Vec<(String, f64)> =
            self.distortion.take().map(|mse| ("mse".to_owned(), mse)).into_iter().collect();
        for level in &mut self.levels {
            let prefix = &level.prefix;
            for (depth, histogram) in level.counts.histograms().iter().enumerate() {
                // Nothing is counted while latents pass unquantized.
                if histogram.iter().any(|&hits| hits > 0) {
                    points.push((format!("{prefix}usage_{}", depth + 1), usage(histogram)));
                    points.push((format!("{prefix}perplexity_{}", depth + 1), perplexity(histogram)));
                }
            }
            if let Ok(fresh) = CodeCounts::new(&level.codebooks) {
                level.counts = fresh;
            }
            for (name, mean) in level.terms.iter_mut().chain(&mut level.events) {
                points.extend(mean.take().map(|value| (format!("{prefix}{name}"), value)));
            }
        }
        points
    }
}
