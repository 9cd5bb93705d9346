//! Encodes training images once, so that a prior's training never runs the encoder.

use super::subset::subset;
use super::token_file::{TokenFile, Writer};
use super::{Context, Stage, as_json, load_tokenizer};
use crate::id::Id;
use crate::settings::{Augmentation, Precision};
use crate::store::{Done, StageDir};
use rqlab_sdk::Result;
use rqlab_sdk::checkpoint::Checkpoint;
use rqlab_sdk::contracts::{Dataset, Images, LevelInfo, Split, TokenRequest, TokenSpace, Tokens};
use rqlab_sdk::tensor::{Rng, Tensor, no_grad};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Images encoded at once.
const BATCH: usize = 64;
/// The name of the scales in the result.
const SCALE: &str = "scale";

/// Encodes training images, for priors: a file of tokens per level, or of latents where a prior wants tokens that are made
/// anew at each step. On disk they take 4 bytes per number; in memory there is a batch of them at a time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EncodeTokens {
    /// The tokenizer's job.
    pub tokenizer: Id,
    /// How many training images are encoded, of all classes.
    pub images: usize,
    /// What is encoded of each image.
    pub variants: Variants,
    /// Whether latents are kept, instead of tokens.
    pub latents: bool,
    /// That of the tokenizer's training.
    pub precision: Precision,
}

/// What is encoded of each image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Variants {
    /// The first of the fixed variants that the data set lists; of one, the image as it is.
    Listed(usize),
    /// Random variants.
    Drawn(usize),
}

/// Random variants of each image, of data sets that list none.
const DRAWN: usize = 4;

impl Variants {
    /// What a prior's training asks to be kept, of a data set that lists so many variants. Where tokens are made on the way,
    /// images are encoded once as they are: for the scale of vectors, and the labels.
    pub fn of(asked: Augmentation, listed: Option<usize>) -> Self {
        match (asked, listed) {
            (Augmentation::None | Augmentation::OnTheWay, _) | (_, Some(1)) => Self::Listed(1),
            (Augmentation::Variants, Some(listed)) => Self::Listed(listed),
            (Augmentation::Variants, None) => Self::Drawn(DRAWN),
            (Augmentation::Draws(count), _) => Self::Drawn(count.max(1)),
        }
    }

    /// How many there are of each image.
    pub fn count(self) -> usize {
        match self {
            Self::Listed(count) | Self::Drawn(count) => count,
        }
    }

    /// Variant `variant` of training images.
    fn images(self, dataset: &dyn Dataset, indices: &[usize], variant: usize, batch: usize) -> Result<Images> {
        match self {
            Self::Listed(_) => dataset.variant(Split::Train, indices, variant),
            Self::Drawn(_) => {
                let rng = Rng::new(0, "variant of images", batch as u64).part("variant", variant as u64);
                dataset.batch(Split::Train, indices, Some(&rng))
            }
        }
    }
}

impl EncodeTokens {
    /// See [`Stage::name`].
    pub const NAME: &str = "tokens";

    /// The name of a level's file.
    fn file(level: usize) -> String {
        format!("level{}.tokens", level + 1)
    }

    /// What vectors of a level are multiplied with to have unit variance; 1 for codes.
    ///
    /// # Errors
    /// A result that is missing or damaged.
    pub(super) fn scale(dir: &StageDir, level: usize) -> Result<f32> {
        let kept = dir.load_result()?;
        Ok(kept.tensors.get(SCALE).and_then(|scales| scales.as_slice().get(level).copied()).unwrap_or(1.0))
    }

    /// Opens the file of a level, which `info` describes.
    ///
    /// # Errors
    /// A file that is missing or damaged.
    pub(super) fn open(dir: &StageDir, level: usize, info: &LevelInfo) -> Result<TokenFile> {
        TokenFile::open_level(&dir.sound(&Self::file(level))?, info)
    }
}

impl Stage for EncodeTokens {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn revision(&self) -> u32 {
        3
    }

    fn needs(&self) -> Vec<&str> {
        vec![&self.tokenizer]
    }

    fn identity(&self) -> Result<Value> {
        Ok(json!({ "images": self.images, "variants": self.variants, "latents": self.latents }))
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    fn work(&self) -> f64 {
        self.images as f64 * self.variants.count() as f64
    }

    fn run(&self, cx: &mut Context<'_>) -> Result<Done> {
        let (dataset, model) = load_tokenizer(cx.plugins, cx.store, &self.tokenizer)?;
        let chosen = subset(dataset.info().train, self.images);
        let dir = cx.dir();
        let levels = model.levels();
        let mut files =
            (0..levels.len()).map(|level| Writer::new(&dir.file(&Self::file(level)))).collect::<Result<Vec<_>>>()?;
        let mut scales = vec![Variance::default(); levels.len()];
        // One variant of all images after the other.
        let (mut seen, all) = (0, chosen.len() * self.variants.count());
        for variant in 0..self.variants.count() {
            for (i, indices) in chosen.chunks(BATCH).enumerate() {
                let images = self.variants.images(dataset.as_ref(), indices, variant, i)?.pixels;
                for (level, (latents, quantized)) in no_grad(|| model.encode(&images))?.into_iter().enumerate() {
                    if matches!(levels[level].space, TokenSpace::Vectors { .. }) {
                        let vectors = match self.latents {
                            false => quantized.tokens.clone(),
                            true => {
                                let request = TokenRequest { posterior_draws: true, ..TokenRequest::default() };
                                let rng = Rng::new(0, "scale", seen as u64);
                                no_grad(|| model.quantizers[level].tokens(&latents, &request, &rng))?.0
                            }
                        };
                        scales[level].push(vectors.vectors()?.as_slice());
                    }
                    let kept = if self.latents { Tokens::Vectors(latents) } else { quantized.tokens };
                    files[level].push(&kept)?;
                }
                seen += indices.len();
                cx.reporter.step(seen as u64, all as u64, String::new);
            }
        }
        let labels = dataset.labels(Split::Train, &chosen)?;
        files.into_iter().try_for_each(Writer::finish)?;
        let scales = scales.iter().map(|scale| scale.to_unit_variance() as f32).collect();
        let tensors = BTreeMap::from([(SCALE.to_owned(), Tensor::from_vec(scales, &[levels.len()])?)]);
        let codes = BTreeMap::from([("labels".to_owned(), labels)]);
        Checkpoint { tensors, codes, ..Checkpoint::default() }.save(&dir.result())?;
        Ok(Done::default())
    }

    fn describe(&self) -> Result<Value> {
        as_json(self)
    }
}

/// The variance of numbers that come in parts (sums in f64 about the first number).
#[derive(Debug, Clone, Default)]
struct Variance {
    origin: Option<f64>,
    count: f64,
    sum: f64,
    squares: f64,
}

impl Variance {
    fn push(&mut self, numbers: &[f32]) {
        for &x in numbers {
            let x = f64::from(x) - *self.origin.get_or_insert(f64::from(x));
            self.count += 1.0;
            self.sum += x;
            self.squares += x * x;
        }
    }

    /// The factor that makes it 1; 1 where there is none.
    fn to_unit_variance(&self) -> f64 {
        let variance = (self.squares - self.sum * self.sum / self.count.max(1.0)) / self.count.max(1.0);
        if variance > 0.0 { 1.0 / variance.sqrt() } else { 1.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_follows_the_augmentation() {
        let of = Variants::of;
        assert_eq!(of(Augmentation::Variants, Some(1)), Variants::Listed(1));
        assert_eq!(of(Augmentation::Variants, Some(10)), Variants::Listed(10));
        assert_eq!(of(Augmentation::Variants, None), Variants::Drawn(4));
        assert_eq!(of(Augmentation::Draws(3), Some(10)), Variants::Drawn(3));
        assert_eq!(of(Augmentation::None, Some(2)), Variants::Listed(1));
        assert_eq!(of(Augmentation::OnTheWay, None), Variants::Listed(1));
    }

    #[test]
    fn the_scale_makes_the_variance_one() {
        let mut variance = Variance::default();
        variance.push(&[100.0, 104.0]);
        variance.push(&[96.0, 100.0]);
        // Deviations 0, 4, -4, 0: variance 8.
        assert!((variance.to_unit_variance() - 1.0 / 8_f64.sqrt()).abs() < 1e-12);
        assert_eq!(Variance::default().to_unit_variance(), 1.0);
    }
}
