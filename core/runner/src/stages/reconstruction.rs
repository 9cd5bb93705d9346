//! Measures a tokenizer on the test split: distortion, rate, the health of its codebooks; and takes its pictures.

use super::code_norms::largest_code_norm;
use super::features::{Described, FeatureNet};
use super::per_image::PerImage;
use super::subset::{shown, test_images};
use super::training::means::{LateMean, Mean};
use super::{Context, DescribeReference, Stage, Tokenizer, as_json, load_tokenizer};
use crate::id::Id;
use crate::pictures::{class, image};
use crate::settings::{Evaluation, Precision};
use crate::shared::Shared;
use crate::store::{Done, StageDir};
use rqlab_reports::{CodeMap, Example, Index, Reading};
use rqlab_sdk::Result;
use rqlab_sdk::checkpoint::Checkpoint;
use rqlab_sdk::config::Scope;
use rqlab_sdk::contracts::{Dataset, LevelInfo, Quantized, Split, Tokens};
use rqlab_sdk::metrics::{self, CodeCounts, DataRange, Ssim};
use rqlab_sdk::tensor::ops::optim::sum_of_squares;
use rqlab_sdk::tensor::{Codes, Tensor, no_grad};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Measures a tokenizer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MeasureTokenizer {
    /// The tokenizer's job.
    pub tokenizer: Id,
    /// The jobs of the classifier and of its reference; none for data without classes.
    pub features: Option<[Id; 2]>,
    /// What is measured; settings of samples are at their defaults.
    pub evaluation: Shared<Evaluation>,
}

impl MeasureTokenizer {
    /// See [`Stage::name`].
    pub const NAME: &str = "reconstruction";
}

impl Stage for MeasureTokenizer {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn revision(&self) -> u32 {
        5
    }

    fn needs(&self) -> Vec<&str> {
        std::iter::once(&self.tokenizer).chain(self.features.iter().flatten()).map(|id| &**id).collect()
    }

    fn identity(&self) -> Result<Value> {
        Ok(json!(self.evaluation.identity(Scope::Sampling)?))
    }

    fn precision(&self) -> Precision {
        self.evaluation.precision
    }

    fn work(&self) -> f64 {
        self.evaluation.images as f64
    }

    fn run(&self, cx: &mut Context<'_>) -> Result<Done> {
        let (dataset, model) = load_tokenizer(cx.plugins, cx.store, &self.tokenizer)?;
        let info = dataset.info();
        let chosen = test_images(dataset.as_ref(), self.evaluation.images)?;
        let classes = info.classes.len();
        let net = match &self.features {
            Some([classifier, _]) => Some(FeatureNet::load(cx.store, classifier, info.image[2], classes)?),
            None => None,
        };
        let mut found = Found::new(&model)?;
        let mut described = Described::new(classes);
        cx.each_batch(dataset.as_ref(), (Split::Test, &chosen), "", |_, images| {
            let seen = no_grad(|| found.see(&model, &images.pixels))?;
            if let Some(net) = &net {
                described.extend(&net.describe(&seen)?);
            }
            Ok(())
        })?;
        let per_image = std::mem::replace(&mut found.per_image, PerImage::new());
        let mut readings = found.readings(&model);
        if let Some([_, reference]) = &self.features {
            let real = DescribeReference::load(&cx.store.stage(reference))?;
            readings.extend(described.of_reconstructions(&real)?);
        }
        let pictures = shown(dataset.as_ref(), Split::Test, chosen.len(), self.evaluation.pictures)?;
        let mut result = take_pictures(dataset.as_ref(), &model, &pictures)?;
        per_image.keep(&mut result)?;
        result.save(&cx.dir().result())?;
        Ok(Done { readings, ..Done::default() })
    }

    fn report(&self, dir: &StageDir, classes: &[String], out: &mut rqlab_reports::Trial) -> Result<()> {
        let kept = dir.load_result()?;
        PerImage::report(&kept, out);
        let Some(originals) = kept.tensors.get("originals") else { return Ok(()) };
        let depths: Vec<&Tensor> = (1..).map_while(|d| kept.tensors.get(&format!("reconstructions_{d}"))).collect();
        let maps: Vec<_> = (1..).map_while(|level| kept.codes.get(&format!("codes_{level}"))).collect();
        let of = |name: &str, n: usize| kept.codes.get(name).and_then(|numbers| numbers.as_slice().get(n).copied());
        for n in 0..originals.shape()[0] {
            let image_number = format!("test {}", of("indices", n).unwrap_or(n as u32));
            let class = of("labels", n).map(|label| class(classes, label)).filter(|class| !class.is_empty());
            out.examples.push(Example {
                label: [Some(image_number), class].into_iter().flatten().collect::<Vec<_>>().join(", "),
                original: image(originals, n)?,
                reconstructions: depths.iter().map(|images| image(images, n)).collect::<Result<_>>()?,
                codes: maps.iter().map(|codes| code_map(codes, n)).collect(),
            });
        }
        Ok(())
    }

    fn describe(&self) -> Result<Value> {
        as_json(self)
    }
}

/// The codes of image `n`.
fn code_map(codes: &Codes, n: usize) -> CodeMap {
    let [_, height, width, depth] = codes.shape() else { return CodeMap::default() };
    let size = height * width * depth;
    let codes = codes.as_slice()[n * size..(n + 1) * size].to_vec();
    CodeMap { height: *height, width: *width, depth: *depth, codes }
}

/// Sums over test images.
struct Found {
    ssim: Ssim,
    pixel: [Mean; 4],
    per_image: PerImage,
    by_depth: Vec<Mean>,
    levels: Vec<FoundLevel>,
}

/// Sums over the tokens of one level.
struct FoundLevel {
    info: LevelInfo,
    counts: Option<CodeCounts>,
    /// Energy that is left after each depth, and that of the latents.
    residual: Vec<f64>,
    energy: f64,
    bits: LateMean,
    terms: BTreeMap<&'static str, LateMean>,
}

impl FoundLevel {
    fn new(info: LevelInfo) -> Result<Self> {
        let counts = info.code_space().map(|codes| CodeCounts::new(&codes.sizes)).transpose()?;
        let residual = vec![0.0; info.depth()];
        Ok(Self { info, counts, residual, energy: 0.0, bits: LateMean::default(), terms: BTreeMap::new() })
    }

    fn see(&mut self, latents: &Tensor, quantized: &Quantized) -> Result<()> {
        if let (Some(counts), Tokens::Codes(codes)) = (&mut self.counts, &quantized.tokens) {
            counts.push(codes.as_slice())?;
        }
        self.energy += sum_of_squares(latents);
        for (sum, left) in self.residual.iter_mut().zip(quantized.residual_energy.as_slice()) {
            *sum += f64::from(*left) * latents.len() as f64;
        }
        if let Some(bits) = &quantized.bits {
            self.bits.add(bits);
        }
        for (name, value) in &quantized.terms {
            self.terms.entry(name).or_default().add(value);
        }
        Ok(())
    }

    fn readings(&mut self, at: &[Index]) -> Vec<Reading> {
        let mut out: Vec<Reading> = self.terms.iter_mut().flat_map(|(name, mean)| mean.take(name, at)).collect();
        let Some(counts) = &self.counts else { return out };
        let histograms = counts.histograms();
        let index = |depths: &[usize]| -> Vec<Index> {
            at.iter().cloned().chain(depths.iter().map(|depth| Index::Depth(depth + 1))).collect()
        };
        for (d, histogram) in histograms.iter().enumerate() {
            let unused = histogram.iter().filter(|&&hits| hits == 0).count();
            out.extend(
                [
                    ("usage", metrics::usage(histogram)),
                    ("perplexity", metrics::perplexity(histogram)),
                    ("entropy", metrics::entropy_bits(histogram)),
                    ("unused_codes", unused as f64),
                    ("residual_energy", self.residual[d] / self.energy.max(f64::MIN_POSITIVE)),
                ]
                .map(|(measure, value)| Reading::new(measure, index(&[d]), value)),
            );
        }
        let tables = self.info.code_space().map_or(&[][..], |codes| &codes.tables);
        let shared = self.info.code_space().is_some_and(|codes| codes.shared);
        if shared {
            for a in 0..histograms.len() {
                for b in a + 1..histograms.len() {
                    if let Ok(overlap) = metrics::overlap(&histograms[a], &histograms[b]) {
                        out.push(Reading::new("code_overlap", index(&[a, b]), overlap));
                    }
                }
            }
            if let Ok(pooled) = counts.pooled() {
                let norm = tables.first().and_then(|table| largest_code_norm(table, &pooled));
                out.extend(norm.map(|norm| Reading::new("largest_code_norm", index(&[]), norm)));
                out.push(Reading::new("usage", index(&[]), metrics::usage(&pooled)));
            }
        } else {
            for (d, (table, histogram)) in tables.iter().zip(histograms).enumerate() {
                let norm = largest_code_norm(table, histogram);
                out.extend(norm.map(|norm| Reading::new("largest_code_norm", index(&[d]), norm)));
            }
            // Of all the codes there are, over all codebooks: what a shared codebook's usage compares with.
            let (used, all) = histograms.iter().fold((0, 0), |(used, all), histogram| {
                (used + histogram.iter().filter(|&&hits| hits > 0).count(), all + histogram.len())
            });
            if all > 0 {
                out.push(Reading::new("usage", index(&[]), used as f64 / all as f64));
            }
        }
        out
    }
}

impl Found {
    fn new(model: &Tokenizer) -> Result<Self> {
        Ok(Self {
            ssim: Ssim::new(DataRange::SIGNED),
            pixel: Default::default(),
            per_image: PerImage::new(),
            by_depth: (0..model.depth()).map(|_| Mean::default()).collect(),
            levels: model.levels().into_iter().map(FoundLevel::new).collect::<Result<_>>()?,
        })
    }

    /// Measures a batch `[B, H, W, C]`; returns its reconstruction, clamped to [-1, 1].
    fn see(&mut self, model: &Tokenizer, images: &Tensor) -> Result<Tensor> {
        self.per_image.see(images);
        let encoded = model.encode(images)?;
        for ((latents, quantized), level) in encoded.iter().zip(&mut self.levels) {
            level.see(latents, quantized)?;
        }
        let quantized: Vec<Tensor> = encoded.iter().map(|(_, q)| q.latents.clone()).collect();
        let reconstruction = model.autoencoder.decode(&quantized)?.clamp(-1.0, 1.0)?;
        let (a, b) = (view(images)?, view(&reconstruction)?);
        for mse in metrics::mse(a, b)? {
            let psnr = metrics::psnr(mse, DataRange::SIGNED);
            self.pixel[0].add(mse);
            self.pixel[1].add(psnr);
            self.per_image.add("mse", mse);
            self.per_image.add("psnr", psnr);
        }
        let size = images.len() / images.shape().first().copied().unwrap_or(1).max(1);
        for (x, y) in images.as_slice().chunks(size.max(1)).zip(reconstruction.as_slice().chunks(size.max(1))) {
            let distance: f64 = x.iter().zip(y).map(|(x, y)| f64::from((x - y).abs())).sum();
            let l1 = distance / size.max(1) as f64;
            self.pixel[3].add(l1);
            self.per_image.add("l1", l1);
        }
        // An image smaller than the window has no SSIM.
        for ssim in self.ssim.per_image(a, b).unwrap_or_default() {
            self.pixel[2].add(ssim);
            self.per_image.add("ssim", ssim);
        }
        let tokens = all_tokens(&encoded);
        let depth = self.by_depth.len();
        for (d, psnr) in self.by_depth.iter_mut().enumerate().take(depth.saturating_sub(1)) {
            let partial = model.decode(&tokens, Some(d + 1))?.clamp(-1.0, 1.0)?;
            for mse in metrics::mse(a, view(&partial)?)? {
                psnr.add(metrics::psnr(mse, DataRange::SIGNED));
            }
        }
        Ok(reconstruction)
    }

    fn readings(mut self, model: &Tokenizer) -> Vec<Reading> {
        let [mse, psnr, ssim, l1] = self.pixel.each_mut().map(Mean::take);
        let pixel = [("mse", mse), ("l1", l1), ("psnr", psnr), ("ssim", ssim)];
        let mut out: Vec<Reading> =
            pixel.into_iter().filter_map(|(measure, value)| Some(Reading::new(measure, [], value?))).collect();
        let depths = self.by_depth.len();
        for (d, mean) in self.by_depth.iter_mut().enumerate() {
            let value = if d + 1 == depths { psnr } else { mean.take() };
            out.extend(value.map(|value| Reading::new("psnr_at", [Index::Depth(d + 1)], value)));
        }
        for (level, found) in self.levels.iter_mut().enumerate() {
            out.extend(found.readings(&model.index(level)));
        }
        out.extend(self.rates());
        out
    }

    /// The rates of whole images. A sum over levels exists where all of them have it: nominal bits are those of codes, and a
    /// bottleneck of vectors has its KL divergence.
    fn rates(&mut self) -> Vec<Reading> {
        let nominal: Option<f64> = self.levels.iter().map(|level| level.info.nominal_bits()).sum();
        let coded: Option<f64> = self
            .levels
            .iter()
            .map(|level| Some(metrics::entropy_coded_bits(level.info.positions(), level.counts.as_ref()?)))
            .sum();
        let kl: Option<f64> = self
            .levels
            .iter_mut()
            .map(|level| level.bits.take("kl_bits_per_image", &[]).first().map(|reading| reading.value))
            .sum();
        [("bits_per_image", nominal), ("entropy_bits_per_image", coded), ("kl_bits_per_image", kl)]
            .into_iter()
            .filter_map(|(measure, bits)| Some(Reading::new(measure, [], bits?)))
            .collect()
    }
}

/// A batch of images as the measures see it.
fn view(images: &Tensor) -> Result<metrics::Images<'_>> {
    Ok(metrics::Images::new(images.as_slice(), images.dims::<4>("images")?)?)
}

fn all_tokens(levels: &[(Tensor, Quantized)]) -> Vec<Tokens> {
    levels.iter().map(|(_, quantized)| quantized.tokens.clone()).collect()
}

/// Test images, their reconstructions (from 1 to all depths, where tokens are codes), and their codes.
fn take_pictures(dataset: &dyn Dataset, model: &Tokenizer, indices: &[usize]) -> Result<Checkpoint> {
    let batch = dataset.batch(Split::Test, indices, None)?;
    let places = Codes::from_vec(indices.iter().map(|&index| index as u32).collect(), &[indices.len()])?;
    let mut pictures = BTreeMap::from([("originals".to_owned(), batch.pixels.clone())]);
    let mut codes = BTreeMap::from([("labels".to_owned(), batch.labels.clone()), ("indices".to_owned(), places)]);
    no_grad(|| -> Result<()> {
        let tokens = all_tokens(&model.encode(&batch.pixels)?);
        for d in 1..=model.depth().max(1) {
            let images = model.decode(&tokens, (model.depth() > 0).then_some(d))?.clamp(-1.0, 1.0)?;
            pictures.insert(format!("reconstructions_{d}"), images);
        }
        let maps = tokens.iter().filter_map(|tokens| tokens.codes().ok());
        codes.extend(maps.enumerate().map(|(level, map)| (format!("codes_{}", level + 1), map.clone())));
        Ok(())
    })?;
    Ok(Checkpoint { tensors: pictures, codes, ..Checkpoint::default() })
}
