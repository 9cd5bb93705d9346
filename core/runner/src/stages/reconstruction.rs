//! Measures a tokenizer on the test split: distortion, rate, the health of its codebooks; and takes its pictures.

use super::data::chunks;
use super::features::FeatureNet;
use super::means::{LateMean, Mean};
use super::{Context, Tokenizer, load_tokenizer};
use crate::settings::Evaluation;
use crate::store::Done;
use rqlab_sdk::checkpoint::Checkpoint;
use rqlab_sdk::contracts::Split;
use rqlab_sdk::metrics::{self, CodeCounts, DataRange, Ssim};
use rqlab_sdk::tensor::ops::optim::sum_of_squares;
use rqlab_sdk::tensor::{Codes, Tensor, no_grad};
use rqlab_sdk::{Error, Result};
use std::collections::BTreeMap;

const BATCH: usize = 50;

pub(super) fn run(
    cx: &mut Context<'_>,
    tokenizer: &str,
    classifier: Option<&str>,
    evaluation: &Evaluation,
) -> Result<Done> {
    let (dataset, model) = load_tokenizer(cx.plugins, cx.store, tokenizer)?;
    let info = dataset.info();
    if info.test == 0 {
        return Err(Error::Data("the data set has no test images".to_owned()));
    }
    let count = evaluation.images.min(info.test);
    let mut found = Found::new(&model)?;
    let (mut originals, mut reconstructions) = (Vec::new(), Vec::new());
    for range in chunks(count, BATCH) {
        let images = dataset.batch(Split::Test, &range.clone().collect::<Vec<_>>(), None)?.pixels;
        let seen = no_grad(|| found.see(&model, &images))?;
        originals.extend_from_slice(images.as_slice());
        reconstructions.extend_from_slice(seen.as_slice());
        cx.reporter.step(range.end as u64, count as u64, String::new);
    }
    let mut measures = found.measures(&model);
    if let Some(id) = classifier {
        let [height, width, channels] = info.image;
        let net = FeatureNet::load(cx.store, id, channels, info.classes.len())?;
        let shape = [count, height, width, channels];
        let real = net.describe(&Tensor::from_vec(originals, &shape)?)?;
        let ours = net.describe(&Tensor::from_vec(reconstructions, &shape)?)?;
        measures.insert("recon_frechet".to_owned(), ours.frechet(&real)?);
    }
    take_pictures(cx, dataset.as_ref(), &model, evaluation.pictures.min(count))?;
    Ok(Done { measures, ..Done::default() })
}

/// Sums over test images.
struct Found {
    ssim: Ssim,
    pixel: [Mean; 3],
    terms: BTreeMap<&'static str, LateMean>,
    by_depth: Vec<Mean>,
    levels: Vec<(CodeCounts, Vec<f64>, f64)>,
}

impl Found {
    fn new(model: &Tokenizer) -> Result<Self> {
        let levels = model
            .code_shapes()
            .iter()
            .map(|shape| Ok((CodeCounts::new(&shape.codebooks)?, vec![0.0; shape.depth()], 0.0)))
            .collect::<Result<_>>()?;
        let depth = model.code_shapes().iter().map(|shape| shape.depth()).max().unwrap_or(0);
        Ok(Self {
            ssim: Ssim::new(DataRange::SIGNED),
            pixel: Default::default(),
            terms: BTreeMap::new(),
            by_depth: (0..depth).map(|_| Mean::default()).collect(),
            levels,
        })
    }

    /// Measures a batch `[B, H, W, C]`; returns its reconstruction, clamped to [-1, 1].
    fn see(&mut self, model: &Tokenizer, images: &Tensor) -> Result<Tensor> {
        let encoded = model.encode(images)?;
        for ((latents, quantized), (counts, energy, total)) in encoded.iter().zip(&mut self.levels) {
            if let Some(codes) = &quantized.codes {
                counts.push(codes.as_slice())?;
            }
            *total += sum_of_squares(latents);
            for (sum, left) in energy.iter_mut().zip(quantized.residual_energy.as_slice()) {
                *sum += f64::from(*left) * latents.len() as f64;
            }
            for (name, value) in &quantized.terms {
                self.terms.entry(name).or_default().add(value);
            }
        }
        let quantized: Vec<Tensor> = encoded.iter().map(|(_, q)| q.latents.clone()).collect();
        let reconstruction = model.autoencoder.decode(&quantized)?.clamp(-1.0, 1.0)?;
        let (a, b) = (view(images)?, view(&reconstruction)?);
        for mse in metrics::mse(a, b)? {
            self.pixel[0].add(mse);
            self.pixel[1].add(metrics::psnr(mse, DataRange::SIGNED));
        }
        // An image smaller than the window has no SSIM.
        for ssim in self.ssim.per_image(a, b).unwrap_or_default() {
            self.pixel[2].add(ssim);
        }
        if let Some(codes) = all_codes(&encoded) {
            let depth = self.by_depth.len();
            for (d, psnr) in self.by_depth.iter_mut().enumerate().take(depth.saturating_sub(1)) {
                let partial = model.decode(&codes, d + 1)?.clamp(-1.0, 1.0)?;
                for mse in metrics::mse(a, view(&partial)?)? {
                    psnr.add(metrics::psnr(mse, DataRange::SIGNED));
                }
            }
        }
        Ok(reconstruction)
    }

    fn measures(mut self, model: &Tokenizer) -> BTreeMap<String, f64> {
        let mut out = BTreeMap::new();
        let [mse, psnr, ssim] = self.pixel.each_mut().map(Mean::take);
        let full = psnr;
        for (name, value) in [("mse", mse), ("psnr", psnr), ("ssim", ssim)] {
            if let Some(value) = value {
                out.insert(name.to_owned(), value);
            }
        }
        for (name, mean) in &mut self.terms {
            out.extend(mean.take(name));
        }
        let depths = self.by_depth.len();
        for (d, mean) in self.by_depth.iter_mut().enumerate() {
            let value = if d + 1 == depths { full } else { mean.take() };
            if let Some(value) = value {
                out.insert(format!("psnr_at_{}", d + 1), value);
            }
        }
        let shapes = model.code_shapes();
        let several = shapes.len() > 1;
        let (mut nominal, mut coded) = (0.0, 0.0);
        for (level, ((counts, energy, total), shape)) in self.levels.iter().zip(&shapes).enumerate() {
            let prefix = if several { format!("level{}_", level + 1) } else { String::new() };
            nominal += shape.nominal_bits();
            coded += metrics::entropy_coded_bits(shape.positions(), counts);
            for (d, histogram) in counts.histograms().iter().enumerate() {
                let n = d + 1;
                let dead = histogram.iter().filter(|&&hits| hits == 0).count();
                out.insert(format!("{prefix}usage_{n}"), metrics::usage(histogram));
                out.insert(format!("{prefix}perplexity_{n}"), metrics::perplexity(histogram));
                out.insert(format!("{prefix}entropy_{n}"), metrics::entropy_bits(histogram));
                out.insert(format!("{prefix}unused_codes_{n}"), dead as f64);
                out.insert(format!("{prefix}residual_energy_{n}"), energy[d] / total.max(f64::MIN_POSITIVE));
            }
            if model.quantizers[level].shares_codebook() {
                let histograms = counts.histograms();
                for a in 0..histograms.len() {
                    for b in a + 1..histograms.len() {
                        if let Ok(overlap) = metrics::overlap(&histograms[a], &histograms[b]) {
                            out.insert(format!("{prefix}code_overlap_{}_{}", a + 1, b + 1), overlap);
                        }
                    }
                }
                if let Ok(pooled) = counts.pooled() {
                    out.insert(format!("{prefix}usage"), metrics::usage(&pooled));
                }
            } else {
                // Of all the codes there are, over all codebooks: what a shared codebook's usage compares with.
                let (used, all) = counts.histograms().iter().fold((0, 0), |(used, all), histogram| {
                    (used + histogram.iter().filter(|&&hits| hits > 0).count(), all + histogram.len())
                });
                if all > 0 {
                    out.insert(format!("{prefix}usage"), used as f64 / all as f64);
                }
            }
        }
        if nominal > 0.0 {
            out.insert("bits_per_image".to_owned(), nominal);
            out.insert("entropy_bits_per_image".to_owned(), coded);
        }
        out
    }
}

/// A batch of images as the measures see it.
fn view(images: &Tensor) -> Result<metrics::Images<'_>> {
    Ok(metrics::Images::new(images.as_slice(), images.dims::<4>("images")?)?)
}

fn all_codes(levels: &[(Tensor, rqlab_sdk::contracts::Quantized)]) -> Option<Vec<Codes>> {
    levels.iter().map(|(_, quantized)| quantized.codes.clone()).collect()
}

/// Keeps the first test images, their reconstructions from 1 to all depths, and their codes.
fn take_pictures(
    cx: &Context<'_>,
    dataset: &dyn rqlab_sdk::contracts::Dataset,
    model: &Tokenizer,
    count: usize,
) -> Result<()> {
    let batch = dataset.batch(Split::Test, &(0..count).collect::<Vec<_>>(), None)?;
    let mut pictures = BTreeMap::from([("originals".to_owned(), batch.pixels.clone())]);
    let mut codes = BTreeMap::from([("labels".to_owned(), batch.labels.clone())]);
    no_grad(|| -> Result<()> {
        let encoded = model.encode(&batch.pixels)?;
        match all_codes(&encoded) {
            Some(levels) => {
                let depth = model.code_shapes().iter().map(|shape| shape.depth()).max().unwrap_or(0);
                for d in 1..=depth {
                    pictures.insert(format!("reconstructions_{d}"), model.decode(&levels, d)?.clamp(-1.0, 1.0)?);
                }
                codes.extend(levels.into_iter().take(1).map(|level| ("codes".to_owned(), level)));
            }
            None => {
                let latents: Vec<Tensor> = encoded.iter().map(|(_, q)| q.latents.clone()).collect();
                pictures.insert("reconstructions_1".to_owned(), model.autoencoder.decode(&latents)?.clamp(-1.0, 1.0)?);
            }
        }
        Ok(())
    })?;
    Checkpoint { tensors: pictures, codes, ..Checkpoint::default() }.save(&cx.dir().result())
}
