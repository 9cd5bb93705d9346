//! Encodes training images once, so that a prior's training never runs the encoder.

use super::data::chunks;
use super::{Context, Tokenizer, load_tokenizer};
use crate::store::Done;
use rqlab_sdk::checkpoint::Checkpoint;
use rqlab_sdk::contracts::{Dataset, Split};
use rqlab_sdk::tensor::{Codes, Tensor};
use rqlab_sdk::{Error, Result};
use std::collections::BTreeMap;

/// Images encoded at once.
const BATCH: usize = 64;

pub(super) fn run(cx: &mut Context<'_>, tokenizer: &str, images: Option<usize>) -> Result<Done> {
    let (dataset, model) = load_tokenizer(cx.plugins, cx.store, tokenizer)?;
    let count = images.unwrap_or(usize::MAX).min(dataset.info().train);
    let reporter = &mut *cx.reporter;
    let encoded = encode(dataset.as_ref(), &model, Split::Train, count, false, |done| {
        reporter.step(done as u64, count as u64, String::new);
    })?;
    let codes = BTreeMap::from([("codes".to_owned(), encoded.codes), ("labels".to_owned(), encoded.labels)]);
    Checkpoint { codes, ..Checkpoint::default() }.save(&cx.dir().result())?;
    Ok(Done::default())
}

/// Images of a split as codes.
pub(super) struct Encoded {
    /// `[N, h, w, D]`.
    pub(super) codes: Codes,
    /// `[N]`.
    pub(super) labels: Codes,
    /// The latents before quantization `[N, h, w, C]`, if asked for.
    pub(super) latents: Option<Tensor>,
}

/// Encodes the first `count` images of a split with a tokenizer of one level.
pub(super) fn encode(
    dataset: &dyn Dataset,
    model: &Tokenizer,
    split: Split,
    count: usize,
    keep_latents: bool,
    mut progress: impl FnMut(usize),
) -> Result<Encoded> {
    let shape = model.prior_level()?.codes;
    let (mut codes, mut labels, mut latents) = (Vec::new(), Vec::new(), Vec::new());
    let mut latent_shape = Vec::new();
    for range in chunks(count, BATCH) {
        let batch = dataset.batch(split, &range.clone().collect::<Vec<_>>(), None)?;
        let levels = model.encode(&batch.pixels)?;
        let Some((before, quantized)) = levels.first() else { continue };
        let found = quantized
            .codes
            .as_ref()
            .ok_or_else(|| Error::Unsupported("this quantizer makes no codes for a prior to model".to_owned()))?;
        codes.extend_from_slice(found.as_slice());
        labels.extend_from_slice(batch.labels.as_slice());
        if keep_latents {
            latents.extend_from_slice(before.as_slice());
            latent_shape = before.shape()[1..].to_vec();
        }
        progress(range.end);
    }
    latent_shape.insert(0, count);
    Ok(Encoded {
        codes: Codes::from_vec(codes, &[count, shape.height, shape.width, shape.depth()])?,
        labels: Codes::from_vec(labels, &[count])?,
        latents: if keep_latents { Some(Tensor::from_vec(latents, &latent_shape)?) } else { None },
    })
}
