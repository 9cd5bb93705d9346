//! The workloads: sizes and components.

use super::Workload;
use crate::job::Call;
use crate::plugins::Plugins;
use crate::stages::Tokenizer;
use rqlab_sdk::contracts::{CodeShape, Mode, Prior, PriorContext, PriorLevel, SampleRequest, Targets, TokenBatch};
use rqlab_sdk::optim::{Adam, AdamSettings};
use rqlab_sdk::params::Params;
use rqlab_sdk::plugin::Kind;
use rqlab_sdk::tensor::ops::sampling::Draw;
use rqlab_sdk::tensor::{Codes, Rng, Tape, Tensor, no_grad};
use rqlab_sdk::{Error, Result};

/// Every workload, in the order in which they run.
pub const NAMES: &[&str] = &[
    "tokenizer_train_small",
    "tokenizer_train_base",
    "prior_train_small",
    "prior_train_base",
    "ar_train_base",
    "rq_sample_b1",
    "rq_sample_b16",
    "rq_sample_b100",
    "ar_sample_b1",
    "ar_sample_b16",
    "ar_sample_b100",
];

const CLASSES: usize = 10;
/// Channels of the latents and length of a codeword.
const LATENT: usize = 64;

/// Makes a workload ready to be called.
///
/// # Errors
/// An unknown name, a plugin that is missing.
pub fn prepare(name: &str, plugins: &Plugins) -> Result<Workload> {
    match name {
        "tokenizer_train_small" => tokenizer(plugins, "(width: 32, multipliers: [1, 2, 2, 2], blocks: 1,", 256),
        "tokenizer_train_base" => tokenizer(plugins, "(width: 64, multipliers: [1, 2, 2], blocks: 2,", 512),
        "prior_train_small" => prior_train(
            &rq_transformer(plugins, "(width: 128, heads: 4, body_layers: 4, head_layers: 2,")?,
            4,
            4,
            256,
            64,
            plugins,
        ),
        "prior_train_base" => prior_train(&rq_transformer(plugins, RQ_BASE)?, 8, 4, 512, 32, plugins),
        "ar_train_base" => prior_train(&ar_base(plugins)?, 16, 1, 512, 8, plugins),
        _ => {
            let (model, batch) = name.rsplit_once("_b").ok_or_else(|| unknown(name))?;
            let batch = batch.parse().map_err(|_| unknown(name))?;
            match model {
                "rq_sample" => sampling(&rq_transformer(plugins, RQ_BASE)?, 8, 4, batch, plugins),
                "ar_sample" => sampling(&ar_base(plugins)?, 16, 1, batch, plugins),
                _ => Err(unknown(name)),
            }
        }
    }
}

const RQ_BASE: &str = "(width: 256, heads: 8, body_layers: 6, head_layers: 2,";

fn unknown(name: &str) -> Error {
    Error::Data(format!("there is no workload `{name}`; there are {}", NAMES.join(", ")))
}

/// A component as a plan would name it.
fn call(plugins: &Plugins, kind: Kind, name: &str, config: String) -> Result<Call> {
    let provided = plugins.find(kind, name).map_err(|complaint| Error::Data(complaint.message))?;
    Ok(Call { name: name.to_owned(), config, plugin: provided.origin.digest.clone() })
}

fn rq_transformer(plugins: &Plugins, sizes: &str) -> Result<Call> {
    call(plugins, Kind::Prior, "rq_transformer", format!("{sizes} condition_position: shared)"))
}

fn ar_base(plugins: &Plugins) -> Result<Call> {
    call(plugins, Kind::Prior, "ar", "(width: 256, heads: 8, layers: 8)".to_owned())
}

/// One step on 64 images of 3x32x32: reconstruction error and a quarter of the commitment, Adam.
fn tokenizer(plugins: &Plugins, sizes: &str, codebook: usize) -> Result<Workload> {
    const BATCH: usize = 64;
    let params = Params::new(0);
    let autoencoder = format!("{sizes} groups: 8, mid_attention: false, downsample: symmetric, latent: {LATENT})");
    let quantizer = format!(
        "(depth: 4, codebook: {codebook}, shared: true, decay: 0.99, restart: false, initial_count: 1.0, beta: 0.25)"
    );
    let calls =
        (call(plugins, Kind::Autoencoder, "resnet", autoencoder)?, call(plugins, Kind::Quantizer, "rq", quantizer)?);
    let mut model = Tokenizer::build(plugins, &calls.0, &calls.1, [32, 32, 3], params.clone())?;
    let mut optimizer = Adam::new(params.trained(), AdamSettings { betas: [0.9, 0.99], ..AdamSettings::default() })?;
    let images = Rng::new(0, "images", 0).uniform(BATCH * 32 * 32 * 3).into_iter().map(|u| 2.0 * u - 1.0).collect();
    let images = Tensor::from_vec(images, &[BATCH, 32, 32, 3])?;
    let count = params.count();
    let mut step = 0;
    let call = Box::new(move || {
        let rng = Rng::new(0, "step", step);
        step += 1;
        let tape = Tape::start()?;
        let mut auxiliary = None;
        let mut bottleneck = |level: usize, latents: &Tensor| {
            let quantized = model.quantizers[level].quantize_train(latents, &rng)?;
            auxiliary = Some(quantized.loss);
            Ok(quantized.latents)
        };
        let reconstruction = model.autoencoder.forward(&images, &mut bottleneck, &Mode::Train(rng))?;
        let mut loss = reconstruction.mse(&images)?;
        if let Some(auxiliary) = auxiliary {
            loss = loss.add(&auxiliary)?;
        }
        let mut gradients = tape.backward(&loss)?;
        optimizer.step(&mut gradients, 1e-4, None)?;
        Ok(())
    });
    Ok(Workload { params: count, units: BATCH as f64, unit: "images", call })
}

/// A prior over `side` x `side` x `depth` codes, of a codebook of `size` shared by all depths.
fn prior(call: &Call, side: usize, depth: usize, size: usize, plugins: &Plugins) -> Result<(Box<dyn Prior>, Params)> {
    let codebook = Tensor::from_vec(Rng::new(0, "codebook", 0).normal(size * LATENT), &[size, LATENT])?;
    let params = Params::new(0);
    let level = PriorLevel {
        codes: CodeShape { height: side, width: side, codebooks: vec![size; depth] },
        channels: LATENT,
        codebooks: vec![codebook; depth],
        shared: true,
    };
    let context = PriorContext { level, upper: None, classes: CLASSES, params: params.scope("prior") };
    Ok((plugins.prior(call, &context)?, params))
}

/// One step on random codes with hard targets: AdamW without clipping.
fn prior_train(
    call: &Call,
    side: usize,
    depth: usize,
    size: usize,
    batch: usize,
    plugins: &Plugins,
) -> Result<Workload> {
    let (prior, params) = prior(call, side, depth, size, plugins)?;
    let settings = AdamSettings { betas: [0.9, 0.95], weight_decay: 1e-4, ..AdamSettings::default() };
    let mut optimizer = Adam::new(params.trained(), settings)?;
    let codes = Rng::new(0, "codes", 0).below(batch * side * side * depth, size as u32);
    let tokens = TokenBatch {
        codes: Codes::from_vec(codes, &[batch, side, side, depth])?,
        targets: Targets::Hard,
        labels: Codes::from_vec(Rng::new(0, "labels", 0).below(batch, CLASSES as u32), &[batch])?,
        latents: None,
        upper: None,
    };
    let (count, units) = (params.count(), tokens.codes.len() as f64);
    let mut step = 0;
    let call = Box::new(move || {
        let rng = Rng::new(0, "step", step);
        step += 1;
        let tape = Tape::start()?;
        let loss = prior.loss(&tokens, &Mode::Train(rng))?.loss;
        let mut gradients = tape.backward(&loss)?;
        optimizer.step(&mut gradients, 5e-4, None)?;
        Ok(())
    });
    Ok(Workload { params: count, units, unit: "codes", call })
}

/// Whole code maps, with caches: temperature 1, the 256 most probable of 512 codes.
fn sampling(call: &Call, side: usize, depth: usize, batch: usize, plugins: &Plugins) -> Result<Workload> {
    let (prior, params) = prior(call, side, depth, 512, plugins)?;
    let request = SampleRequest {
        count: batch,
        labels: Codes::from_vec(Rng::new(0, "labels", 0).below(batch, CLASSES as u32), &[batch])?,
        draw: vec![Draw { temperature: 1.0, top_k: Some(256), top_p: None }],
        cache: true,
        upper: None,
    };
    let mut step = 0;
    let call = Box::new(move || {
        step += 1;
        no_grad(|| prior.sample(&request, &Rng::new(0, "samples", step))).map(drop)
    });
    Ok(Workload { params: params.count(), units: batch as f64, unit: "images", call })
}
