//! Samples: drawn, decoded and described a batch at a time, of which only the first of each class are kept.

use super::how::{Asked, How};
use crate::stages::attributes::{AttributeNet, Seen};
use crate::stages::features::{Described, FeatureNet};
use crate::stages::model::decode_in_batches;
use crate::stages::subset::BATCH;
use crate::stages::token_file::{TokenFile, Writer};
use crate::stages::training::batches::chunks;
use crate::stages::training_images::small;
use crate::stages::{Context, Sampler, Tokenizer};
use crate::store::StageDir;
use rqlab_sdk::Result;
use rqlab_sdk::checkpoint::Checkpoint;
use rqlab_sdk::contracts::{LevelInfo, Tokens};
use rqlab_sdk::metrics::CodeCounts;
use rqlab_sdk::tensor::ops::sampling::multinomial;
use rqlab_sdk::tensor::{Codes, Rng, Tensor, no_grad};
use serde_json::json;
use std::path::PathBuf;

/// The name of the captions of pictures that are kept, as a list in JSON.
pub(super) const CAPTIONS: &str = "captions";

/// Pictures that are kept of one draw at most: where there are many classes, fewer of each.
const KEPT: usize = 512;

/// The networks that look at samples, where there are some.
#[derive(Clone, Copy)]
pub(super) struct Nets<'a> {
    pub(super) classes: Option<&'a FeatureNet>,
    pub(super) attributes: Option<&'a AttributeNet>,
}

/// Images that were drawn with one seed.
pub(super) struct Drawn {
    /// How many.
    pub(super) count: usize,
    /// As the classifier sees them; empty without one.
    pub(super) described: Described,
    /// What their captions name, as the classifier of attributes sees it; nothing without one.
    pub(super) seen: Seen,
    /// As small pictures, row by row.
    pub(super) small: Vec<f32>,
    /// The first of each class.
    pub(super) shown: Shown,
    /// The files of their tokens, by level.
    tokens: Vec<PathBuf>,
}

impl Drawn {
    /// The images of some rows, decoded again.
    ///
    /// # Errors
    /// Those of the plugins, files that cannot be read.
    pub(super) fn decode(&self, model: &Tokenizer, rows: &[usize]) -> Result<Tensor> {
        let levels = self.tokens.iter().zip(model.levels());
        let tokens = levels.map(|(path, info)| TokenFile::open_level(path, &info)?.rows(rows));
        let tokens = tokens.collect::<Result<Vec<_>>>()?;
        no_grad(|| Ok(model.decode(&tokens, None)?.clamp(-1.0, 1.0)?))
    }
}

/// The name of the file that keeps a level's tokens of a draw, both counted from 0.
fn file(draw: usize, level: usize) -> String {
    format!("draw{}_level{}.tokens", draw + 1, level + 1)
}

/// The tokens of every level that a finished stage of generation drew, of draw `draw`, counted from 0.
///
/// # Errors
/// Files that are missing or damaged.
pub(in crate::stages) fn tokens(dir: &StageDir, draw: usize, model: &Tokenizer) -> Result<Vec<TokenFile>> {
    let level = |(level, info): (usize, LevelInfo)| TokenFile::open_level(&dir.sound(&file(draw, level))?, &info);
    model.levels().into_iter().enumerate().map(level).collect()
}

/// Draws images with a seed, which is the number `draw` of all, and describes them: as the classifier sees them, if there is
/// one, and as small pictures. Their tokens are kept, so that more can be asked of the same images later.
///
/// # Errors
/// Those of the plugins, tokens that cannot be written.
pub(super) fn draw(
    cx: &mut Context<'_>,
    model: &Tokenizer,
    sampler: &Sampler,
    (how, asked): (&How<'_>, &Asked),
    (draw, seed): (usize, u64),
    nets: Nets<'_>,
) -> Result<Drawn> {
    let count = asked.labels.len();
    let (described, shown) = (Described::new(how.classes()), Shown::new(how));
    let tokens = (0..model.levels().len()).map(|level| cx.dir().file(&file(draw, level))).collect();
    let mut drawn = Drawn { count, described, seen: Seen::default(), small: Vec::new(), shown, tokens };
    let mut files = drawn.tokens.iter().map(|path| Writer::new(path)).collect::<Result<Vec<_>>>()?;
    for (i, range) in chunks(count, BATCH).enumerate() {
        let condition = asked.rows(range.clone())?;
        let tokens = sampler.sample(&condition, &how.draw, how.guidance, true, &Rng::new(seed, "samples", i as u64))?;
        files.iter_mut().zip(&tokens).try_for_each(|(file, tokens)| file.push(tokens))?;
        decode_in_batches(model, &tokens, BATCH, |first, images| {
            if let Some(net) = nets.classes {
                drawn.described.extend(&net.describe(images)?);
            }
            if let Some(net) = nets.attributes {
                drawn.seen.extend(net.see(images)?);
            }
            drawn.small.extend_from_slice(small(images)?.as_slice());
            drawn.shown.see(images, asked, range.start + first)
        })?;
        cx.reporter.step(range.end as u64, count as u64, || "sampling".to_owned());
    }
    files.into_iter().try_for_each(Writer::finish)?;
    Ok(drawn)
}

/// Samples as the classifier sees them, of which nothing is kept.
///
/// # Errors
/// Those of the plugins.
pub(super) fn describe(
    model: &Tokenizer,
    sampler: &Sampler,
    (how, asked): (&How<'_>, &Asked),
    net: &FeatureNet,
    rng: impl Fn(u64) -> Rng,
) -> Result<Described> {
    let mut described = Described::new(how.classes());
    for (i, range) in chunks(asked.labels.len(), BATCH).enumerate() {
        let tokens = sampler.sample(&asked.rows(range)?, &how.draw, how.guidance, true, &rng(i as u64))?;
        decode_in_batches(model, &tokens, BATCH, |_, images| {
            described.extend(&net.describe(images)?);
            Ok(())
        })?;
    }
    Ok(described)
}

/// The first samples of each class, for the report.
pub(super) struct Shown {
    /// How many more of each class are wanted, and in all.
    wanted: Vec<usize>,
    room: usize,
    images: Vec<Tensor>,
    labels: Vec<u32>,
    captions: Vec<String>,
}

impl Shown {
    fn new(how: &How<'_>) -> Self {
        let classes = how.classes().max(1);
        let each = how.keep.min((KEPT / classes).max(1));
        let (images, labels, captions) = (Vec::new(), Vec::new(), Vec::new());
        Self { wanted: vec![each; classes], room: KEPT, images, labels, captions }
    }

    /// Takes what is wanted of the images `[B, H, W, C]`, the first of which was drawn as number `first` of what was asked for.
    fn see(&mut self, images: &Tensor, asked: &Asked, first: usize) -> Result<()> {
        for (row, &label) in asked.labels[first..].iter().enumerate().take(images.shape()[0]) {
            let Some(wanted) = self.wanted.get_mut(label as usize).filter(|wanted| **wanted > 0) else { continue };
            if self.room > 0 {
                *wanted -= 1;
                self.room -= 1;
                self.images.push(images.slice(0, row..row + 1)?);
                self.labels.push(label);
                self.captions.extend(asked.captions.get(first + row).cloned());
            }
        }
        Ok(())
    }

    /// Puts them into a result, those of a class together.
    ///
    /// # Errors
    /// None in practice: the lists have shapes.
    pub(super) fn keep(&self, result: &mut Checkpoint) -> Result<()> {
        let mut rows: Vec<usize> = (0..self.labels.len()).collect();
        rows.sort_by_key(|&row| self.labels[row]);
        let images: Vec<&Tensor> = rows.iter().map(|&row| &self.images[row]).collect();
        let captions: Vec<&String> = rows.iter().filter_map(|&row| self.captions.get(row)).collect();
        if !captions.is_empty() {
            result.metadata.insert(CAPTIONS.to_owned(), json!(captions).to_string());
        }
        let labels = rows.iter().map(|&row| self.labels[row]).collect();
        result.tensors.insert("samples".to_owned(), Tensor::concat(&images, 0)?);
        result.codes.insert("labels".to_owned(), Codes::from_vec(labels, &[rows.len()])?);
        Ok(())
    }
}

/// The baseline without a prior: images of codes that are drawn each on its own, as often as test images have them at
/// their level and depth.
///
/// # Errors
/// Those of the plugins.
pub(super) fn shuffled(
    model: &Tokenizer,
    counts: &[CodeCounts],
    count: usize,
    seed: u64,
    net: &FeatureNet,
) -> Result<Described> {
    let infos = model.levels();
    let mut described: Option<Described> = None;
    for (i, range) in chunks(count, BATCH).enumerate() {
        let level = |(level, counts): (usize, &CodeCounts)| -> Result<Tokens> {
            let [_, height, width, _] = infos[level].token_shape(range.len());
            let sites = range.len() * height * width;
            let rng = Rng::new(seed, "shuffled codes", i as u64).part("level", level as u64);
            let depth = |(d, histogram): (usize, &Vec<u64>)| -> Result<Codes> {
                let total = histogram.iter().sum::<u64>().max(1) as f64;
                let shares = histogram.iter().map(|&hits| (hits as f64 / total) as f32).collect();
                let shares =
                    Tensor::from_vec(shares, &[1, histogram.len()])?.broadcast_to(&[sites, histogram.len()])?;
                Ok(multinomial(&shares, &rng.part("depth", d as u64).uniform(sites))?)
            };
            let columns = counts.histograms().iter().enumerate().map(depth).collect::<Result<Vec<_>>>()?;
            Ok(Tokens::Codes(Codes::stack(&columns)?.reshape(&infos[level].token_shape(range.len()))?))
        };
        let tokens = counts.iter().enumerate().map(level).collect::<Result<Vec<_>>>()?;
        decode_in_batches(model, &tokens, BATCH, |_, images| {
            let seen = net.describe(images)?;
            match &mut described {
                Some(described) => described.extend(&seen),
                None => described = Some(seen),
            }
            Ok(())
        })?;
    }
    Ok(described.unwrap_or_else(|| Described::new(0)))
}
