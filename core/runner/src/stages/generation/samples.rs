//! Samples: drawn, decoded and described a batch at a time, of which only the first are kept.

use super::BATCH;
use crate::stages::features::{Described, FeatureNet};
use crate::stages::model::decode_in_batches;
use crate::stages::training::batches::chunks;
use crate::stages::{Context, Sampler, Tokenizer};
use rqlab_sdk::Result;
use rqlab_sdk::checkpoint::Checkpoint;
use rqlab_sdk::contracts::{Guidance, Tokens, code_rows};
use rqlab_sdk::metrics::CodeCounts;
use rqlab_sdk::tensor::ops::sampling::{Draw, multinomial};
use rqlab_sdk::tensor::{Codes, Rng, Tensor};
use std::collections::BTreeMap;

/// How samples are drawn.
pub(super) struct How<'a> {
    pub(super) classes: usize,
    pub(super) draw: &'a [Draw],
    pub(super) guidance: Guidance,
    /// Images of each class that the report shows.
    pub(super) keep: usize,
}

impl How<'_> {
    /// Labels of the images `range`: classes in turn.
    ///
    /// # Errors
    /// None in practice: labels have a shape.
    pub(super) fn labels(&self, range: std::ops::Range<usize>) -> Result<Codes> {
        let count = range.len();
        Ok(Codes::from_vec(range.map(|n| (n % self.classes.max(1)) as u32).collect(), &[count])?)
    }
}

/// What the classifier sees in the samples; nothing where there is none.
pub(super) struct Drawn {
    pub(super) described: Described,
}

/// Draws `count` images, classes in turn; keeps the first of each class in the stage's result.
///
/// # Errors
/// Those of the plugins, a result that cannot be written.
pub(super) fn draw(
    cx: &mut Context<'_>,
    model: &Tokenizer,
    sampler: &Sampler,
    count: usize,
    how: &How<'_>,
    net: Option<&FeatureNet>,
) -> Result<Drawn> {
    let shown = count.min(how.classes.max(1) * how.keep);
    let mut described = Described::new(how.classes);
    let mut kept: Vec<Tensor> = Vec::new();
    for (i, range) in chunks(count, BATCH).enumerate() {
        let labels = how.labels(range.clone())?;
        let tokens = sampler.sample(&labels, how.draw, how.guidance, true, &Rng::new(0, "samples", i as u64))?;
        decode_in_batches(model, &tokens, BATCH, |first, images| {
            if let Some(net) = net {
                described.extend(&net.describe(images)?);
            }
            let here = shown.saturating_sub(range.start + first).min(images.shape()[0]);
            if here > 0 {
                kept.push(images.slice(0, 0..here)?);
            }
            Ok(())
        })?;
        cx.reporter.step(range.end as u64, count as u64, || "sampling".to_owned());
    }
    if !kept.is_empty() {
        let pictures = Tensor::concat(&kept.iter().collect::<Vec<_>>(), 0)?;
        keep(cx, &pictures, &how.labels(0..shown)?)?;
    }
    Ok(Drawn { described })
}

/// Keeps samples for the report, those of a class together.
fn keep(cx: &Context<'_>, pictures: &Tensor, labels: &Codes) -> Result<()> {
    let mut rows: Vec<usize> = (0..labels.len()).collect();
    rows.sort_by_key(|&row| labels.as_slice()[row]);
    let sorted = Tokens::Vectors(pictures.clone()).rows(&rows)?.vectors()?.clone();
    let tensors = BTreeMap::from([("samples".to_owned(), sorted)]);
    let codes = BTreeMap::from([("labels".to_owned(), code_rows(labels, &rows)?)]);
    Checkpoint { tensors, codes, ..Checkpoint::default() }.save(&cx.dir().result())
}

/// The baseline without a prior: images of codes that are drawn each on its own, as often as test images have them at
/// their level and depth.
///
/// # Errors
/// Those of the plugins.
pub(super) fn shuffled(model: &Tokenizer, counts: &[CodeCounts], count: usize, net: &FeatureNet) -> Result<Described> {
    let infos = model.levels();
    let mut described: Option<Described> = None;
    for (i, range) in chunks(count, BATCH).enumerate() {
        let level = |(level, counts): (usize, &CodeCounts)| -> Result<Tokens> {
            let [_, height, width, _] = infos[level].token_shape(range.len());
            let sites = range.len() * height * width;
            let rng = Rng::new(0, "shuffled codes", i as u64).part("level", level as u64);
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
