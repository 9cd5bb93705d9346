//! Trains a prior on the codes of a frozen tokenizer.

use super::codes::{Encoded, encode};
use super::data::Order;
use super::means::LateMean;
use super::model::build_prior;
use super::train::{Recipe, Task, train};
use super::{Context, Tokenizer, load_tokenizer};
use crate::job::Call;
use crate::settings::PriorTraining;
use crate::store::Done;
use rqlab_sdk::checkpoint::Checkpoint;
use rqlab_sdk::contracts::{Mode, Prior, Split, Targets, TokenBatch, TokenRequest};
use rqlab_sdk::params::Params;
use rqlab_sdk::tensor::{Codes, Rng, Tensor, no_grad};
use rqlab_sdk::{Error, Result};
use std::collections::BTreeMap;

pub(super) fn run(
    cx: &mut Context<'_>,
    tokenizer: &str,
    codes: &str,
    prior: &Call,
    training: &PriorTraining,
    seed: u64,
) -> Result<Done> {
    let (dataset, model) = load_tokenizer(cx.plugins, cx.store, tokenizer)?;
    let params = Params::new(seed);
    let prior = build_prior(cx.plugins, prior, &model, dataset.info().classes.len(), &params)?;
    let wants = prior.wants();

    let file = cx.store.stage(codes).result();
    let mut kept = Checkpoint::load(&file)?.codes;
    let mut part = |name: &str| {
        kept.remove(name)
            .ok_or_else(|| Error::Checkpoint(format!("{} has no `{name}`; delete its folder", file.display())))
    };
    let mut encoded = Encoded { codes: part("codes")?, labels: part("labels")?, latents: None };
    let count = encoded.labels.len();
    if wants != TokenRequest::default() {
        // Soft targets and drawn codes are made of latents, which are too large to keep on disk for every tokenizer.
        encoded.latents = encode(dataset.as_ref(), &model, Split::Train, count, true, |_| {})?.latents;
    }
    let order = Order::new(seed, count, training.batch);
    let mut task = PriorTask { model, prior, wants, encoded, seed, terms: BTreeMap::new() };
    let trained = train(cx, &params, &Recipe::from(training), |step| Ok(order.at(step)), &mut task)?;
    trained.save(&params, &cx.dir().result())?;
    Ok(Done {
        measures: BTreeMap::from([("prior_parameters".to_owned(), params.count() as f64)]),
        timings: BTreeMap::from([("prior_seconds".to_owned(), trained.seconds)]),
        curves: trained.curves,
        seconds: trained.earlier,
    })
}

struct PriorTask {
    model: Tokenizer,
    prior: Box<dyn Prior>,
    wants: TokenRequest,
    encoded: Encoded,
    seed: u64,
    terms: BTreeMap<&'static str, LateMean>,
}

impl Task for PriorTask {
    type Batch = Vec<usize>;

    fn loss(&mut self, step: u64, rows: Vec<usize>) -> Result<Tensor> {
        let rng = Rng::new(self.seed, "prior", step);
        let batch = no_grad(|| self.tokens(&rows, &rng))?;
        let loss = self.prior.loss(&batch, &Mode::Train(rng))?;
        for (name, value) in &loss.terms {
            self.terms.entry(name).or_default().add(value);
        }
        Ok(loss.loss)
    }

    fn observe(&mut self) -> Result<Vec<(String, f64)>> {
        Ok(self.terms.iter_mut().flat_map(|(name, mean)| mean.take(name)).collect())
    }
}

impl PriorTask {
    /// What the prior is fed: cached codes, or codes and targets made anew from the latents.
    fn tokens(&self, rows: &[usize], rng: &Rng) -> Result<TokenBatch> {
        let mut batch = TokenBatch {
            codes: pick_codes(&self.encoded.codes, rows)?,
            targets: Targets::Hard,
            labels: pick_codes(&self.encoded.labels, rows)?,
            latents: None,
            upper: None,
        };
        let Some(latents) = &self.encoded.latents else { return Ok(batch) };
        let latents = pick_rows(latents, rows)?;
        let quantizer = &self.model.quantizers[0];
        let rng = rng.part("codes", 0);
        if let Some(temperature) = self.wants.stochastic_codes {
            let drawn = quantizer.soft_codes(&latents, temperature, Some(&rng))?;
            batch.codes = drawn.codes;
            if self.wants.soft_targets == Some(temperature) {
                batch.targets = Targets::Soft(drawn.targets);
            }
        }
        if let (Some(temperature), Targets::Hard) = (self.wants.soft_targets, &batch.targets) {
            let nearest = quantizer.soft_codes(&latents, temperature, None)?;
            batch.targets = Targets::Soft(nearest.targets);
        }
        if self.wants.latents {
            batch.latents = Some(latents);
        }
        Ok(batch)
    }
}

/// The images `rows` of codes `[N, ..]`.
pub(super) fn pick_codes(codes: &Codes, rows: &[usize]) -> Result<Codes> {
    let size = codes.len() / codes.shape().first().copied().unwrap_or(1).max(1);
    let data = rows.iter().flat_map(|&row| &codes.as_slice()[row * size..(row + 1) * size]).copied().collect();
    let mut shape = codes.shape().to_vec();
    if let Some(first) = shape.first_mut() {
        *first = rows.len();
    }
    Ok(Codes::from_vec(data, &shape)?)
}

/// The images `rows` of a tensor `[N, ..]`.
pub(super) fn pick_rows(tensor: &Tensor, rows: &[usize]) -> Result<Tensor> {
    let size = tensor.len() / tensor.shape().first().copied().unwrap_or(1).max(1);
    let data = rows.iter().flat_map(|&row| &tensor.as_slice()[row * size..(row + 1) * size]).copied().collect();
    let mut shape = tensor.shape().to_vec();
    if let Some(first) = shape.first_mut() {
        *first = rows.len();
    }
    Ok(Tensor::from_vec(data, &shape)?)
}
