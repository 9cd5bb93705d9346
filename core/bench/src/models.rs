//! Workloads made ready: models, codebooks, start-up.

use crate::workloads::{CLASSES, Family, LATENT, PriorSizes, SIDE, TokenizerCalls, TokenizerSizes, Workload};
use crate::{Prepared, Task, adversarial, images, networks, operations, sweeps, vector_priors};
use rqlab::job::{Call, Called};
use rqlab::plugins::Plugins;
use rqlab::stages::Tokenizer;
use rqlab_sdk::contracts::{
    CodeSpace, Components, Condition, ConditionSpace, Guidance, LevelInfo, MapShape, Mode, Prior, PriorContext,
    QuantizerContext, SampleRequest, Targets, TokenBatch, TokenSpace, Tokens,
};
use rqlab_sdk::nn::{CodebookInit, DeadCodes, EmaCodebook, EmaRule};
use rqlab_sdk::optim::{Adam, AdamSettings};
use rqlab_sdk::params::Params;
use rqlab_sdk::plugin::Kind;
use rqlab_sdk::tensor::ops::sampling::Draw;
use rqlab_sdk::tensor::{Codes, Rng, Tape, Tensor, no_grad};
use rqlab_sdk::{Error, Result};
use std::cell::Cell;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::rc::Rc;

/// Makes a workload ready to be called. `folders` are those of further plugins, for what starts this program.
///
/// # Errors
/// A plugin that is missing, sizes that do not fit.
pub fn prepare(workload: &Workload, plugins: &Plugins, folders: &[PathBuf]) -> Result<Prepared> {
    match workload {
        Workload::TokenizerStep { tokenizer, batch } => tokenizer_step(&tokenizer.calls(*batch), plugins),
        Workload::TokenizerStepOf(calls) => tokenizer_step(calls, plugins),
        Workload::AdversarialStep { tokenizer, batch } => adversarial::step(tokenizer, *batch, plugins),
        Workload::Features => adversarial::features(),
        Workload::PriorStep { prior, batch } => prior_step(prior, *batch, plugins),
        Workload::Sample { prior, batch, cache } => sample(prior, *batch, *cache, plugins),
        Workload::VectorPriorStep { prior, batch } => vector_priors::step(prior, *batch, plugins),
        Workload::SampleVectors { prior, batch } => vector_priors::sample(prior, *batch, plugins),
        Workload::Encode { vectors, channels, codebook, depth } => {
            encode([*vectors, *channels], *codebook, *depth, plugins)
        }
        Workload::EmaUpdate { vectors, channels, codebook } => ema_update([*vectors, *channels], *codebook),
        Workload::Operation(operation) => operations::prepare(*operation),
        Workload::Network { network, batch, side } => networks::prepare(*network, *batch, *side),
        Workload::Batch { images, folder } => images::prepare(images, folder, plugins),
        Workload::StartUp => start_up(folders),
        Workload::Sweep { trials, apart } => sweeps::prepare(*trials, *apart, folders),
    }
}

/// Numbers from N(0, 1).
pub(crate) fn normal(shape: &[usize], purpose: &str) -> Result<Tensor> {
    Ok(Tensor::from_vec(Rng::new(0, purpose, 0).normal(shape.iter().product()), shape)?)
}

/// Codes below `size`, each as probable as any.
pub(crate) fn codes(shape: &[usize], size: usize, purpose: &str) -> Result<Codes> {
    Ok(Codes::from_vec(Rng::new(0, purpose, 0).below(shape.iter().product(), size as u32), shape)?)
}

/// A component as a plan would name it.
pub(crate) fn component(plugins: &Plugins, kind: Kind, name: &str, config: String) -> Result<Call> {
    let provided = plugins.find(kind, name).map_err(|complaint| Error::Data(complaint.message))?;
    let plugins = [(rqlab::plugins::key(kind, name), provided.origin.digest.clone())].into();
    let (trained, sampled) = (config.clone(), config.clone());
    Ok(Called { name: name.to_owned(), config, trained, sampled, plugins }.into())
}

impl TokenizerSizes {
    pub(crate) fn calls(&self, batch: usize) -> TokenizerCalls {
        let Self { width, multipliers, blocks, codebook, depth } = self;
        let autoencoder = format!(
            "(width: {width}, multipliers: {multipliers:?}, blocks: {blocks}, groups: 8, mid_attention: false, \
             downsample: symmetric, latent: {LATENT})"
        );
        let quantizer = format!(
            "(depth: {depth}, codebook: {codebook}, shared: true, decay: 0.99, dead_codes: keep, initial_count: 1.0, \
             beta: 0.25)"
        );
        TokenizerCalls {
            autoencoder: ["resnet".to_owned(), autoencoder],
            quantizer: ["rq".to_owned(), quantizer],
            side: SIDE,
            batch,
            lr: 1e-4,
            betas: [0.9, 0.99],
        }
    }
}

/// The autoencoder with its quantizer, and its parameters.
pub(crate) fn tokenizer(calls: &TokenizerCalls, plugins: &Plugins) -> Result<(Tokenizer, Params)> {
    let TokenizerCalls { autoencoder, quantizer, side, .. } = calls.clone();
    let call = |kind, [name, fields]: [String; 2]| component(plugins, kind, &name, fields);
    let autoencoder = call(Kind::Autoencoder, autoencoder)?;
    let quantizer = call(Kind::Quantizer, quantizer)?;
    let params = Params::new(0);
    let model = Tokenizer::build(plugins, &autoencoder, &[quantizer], [side, side, 3], params.clone())?;
    Ok((model, params))
}

/// Random pictures of `side` x `side` pixels in [-1, 1).
pub(crate) fn pictures(batch: usize, side: usize) -> Result<Tensor> {
    let shape = [batch, side, side, 3];
    let pixels = Rng::new(0, "images", 0).uniform(shape.iter().product()).into_iter().map(|u| 2.0 * u - 1.0);
    Ok(Tensor::from_vec(pixels.collect(), &shape)?)
}

fn tokenizer_step(calls: &TokenizerCalls, plugins: &Plugins) -> Result<Prepared> {
    let (mut model, params) = tokenizer(calls, plugins)?;
    let (lr, betas) = (calls.lr, calls.betas);
    let mut optimizer = Adam::new(params.trained(), AdamSettings { betas, ..AdamSettings::default() })?;
    let images = pictures(calls.batch, calls.side)?;
    let mut step = 0;
    Ok(Prepared::new(Some(params.count()), move || {
        let rng = Rng::new(0, "step", step);
        step += 1;
        let tape = Tape::start()?;
        let mut auxiliary = Vec::new();
        let mut bottleneck = |level: usize, latents: &Tensor| {
            let quantized = model.quantizers[level].quantize_train(latents, &rng)?;
            auxiliary.push(quantized.loss);
            Ok(quantized.latents)
        };
        let reconstruction = model.autoencoder.forward(&images, &mut bottleneck, &Mode::Train(rng))?;
        let mut loss = reconstruction.mse(&images)?;
        for auxiliary in &auxiliary {
            loss = loss.add(auxiliary)?;
        }
        let mut gradients = tape.backward(&loss)?;
        optimizer.step(&mut gradients, lr, None)?;
        Ok(())
    }))
}

/// What priors that are guided lose of their conditions in training, and the scale of their guidance.
const CONDITION_DROPOUT: f32 = 0.1;
const GUIDANCE: f32 = 2.0;

impl PriorSizes {
    /// Whether it is trained with some conditions dropped, and sampled with guidance.
    fn guided(&self) -> bool {
        matches!(self.family, Family::Llama { .. })
    }
}

/// A prior with fresh parameters, over the codes of a random codebook.
fn prior(sizes: &PriorSizes, plugins: &Plugins) -> Result<(Box<dyn Prior>, Params)> {
    let PriorSizes { family, side, depth, codebook: size, width, heads } = sizes;
    let (name, config) = match family {
        Family::RqTransformer { body, head } => (
            "rq_transformer",
            format!(
                "(width: {width}, heads: {heads}, body_layers: {body}, head_layers: {head}, condition_position: shared)"
            ),
        ),
        Family::Ar { layers } => ("ar", format!("(width: {width}, heads: {heads}, layers: {layers})")),
        Family::MaskGit { layers } => (
            "maskgit",
            format!(
                "(width: {width}, heads: {heads}, layers: {layers}, trunk: pre_norm, masking: cosine, visible_weight: 0.0, \
                 iterations: 12, schedule: cosine)"
            ),
        ),
        Family::PixelSnail { blocks, residual_blocks } => (
            "pixelsnail",
            format!(
                "(width: {width}, heads: {heads}, blocks: {blocks}, residual_blocks: {residual_blocks}, condition: none)"
            ),
        ),
        Family::Llama { layers } => {
            ("ar", format!("(block: llama, width: {width}, heads: {heads}, layers: {layers}, mlp_multiple: 256)"))
        }
    };
    let codebook = normal(&[*size, LATENT], "codebook")?;
    let params = Params::new(0);
    let space = CodeSpace { sizes: vec![*size; *depth], tables: vec![codebook; *depth], shared: true };
    let level =
        LevelInfo { height: *side, width: *side, channels: LATENT, space: TokenSpace::Codes(space), scales: None };
    let context = PriorContext {
        levels: vec![level],
        level: 0,
        condition: ConditionSpace::Classes(CLASSES),
        null_condition: sizes.guided(),
        params: params.scope("prior"),
        components: Components::none(),
    };
    Ok((plugins.prior(&component(plugins, Kind::Prior, name, config)?, &context)?, params))
}

fn prior_step(sizes: &PriorSizes, batch: usize, plugins: &Plugins) -> Result<Prepared> {
    let (prior, params) = prior(sizes, plugins)?;
    let (lr, betas, weight_decay) = match sizes.family {
        Family::PixelSnail { .. } => (3e-4, [0.9, 0.999], 0.0),
        Family::RqTransformer { .. } | Family::Ar { .. } | Family::Llama { .. } | Family::MaskGit { .. } => {
            (5e-4, [0.9, 0.95], 1e-4)
        }
    };
    let mut optimizer = Adam::new(params.trained(), AdamSettings { betas, weight_decay, ..AdamSettings::default() })?;
    let mut tokens = TokenBatch {
        tokens: Tokens::Codes(codes(&[batch, sizes.side, sizes.side, sizes.depth], sizes.codebook, "codes")?),
        targets: Targets::Hard,
        condition: Condition::classes(codes(&[batch], CLASSES, "labels")?)?,
        above: vec![],
    };
    let mut step = 0;
    let dropout = if sizes.guided() { CONDITION_DROPOUT } else { 0.0 };
    Ok(Prepared::new(Some(params.count()), move || {
        let rng = Rng::new(0, "step", step);
        step += 1;
        let kept = rng.part("condition", 0).uniform(batch).into_iter().map(|u| u32::from(u >= dropout));
        tokens.condition.present = Codes::from_vec(kept.collect(), &[batch])?;
        let tape = Tape::start()?;
        let loss = prior.loss(&tokens, &Mode::Train(rng))?.loss;
        let mut gradients = tape.backward(&loss)?;
        optimizer.step(&mut gradients, lr, None)?;
        Ok(())
    }))
}

fn sample(sizes: &PriorSizes, batch: usize, cache: bool, plugins: &Plugins) -> Result<Prepared> {
    let (prior, params) = prior(sizes, plugins)?;
    let from_all = matches!(sizes.family, Family::MaskGit { .. } | Family::PixelSnail { .. });
    let top_k = (!from_all).then_some(sizes.codebook / 2);
    let request = SampleRequest {
        draw: vec![Draw { temperature: 1.0, top_k, top_p: None }],
        cache,
        guidance: Guidance { scale: if sizes.guided() { GUIDANCE } else { 1.0 }, ..Guidance::default() },
        ..SampleRequest::new(Condition::classes(codes(&[batch], CLASSES, "labels")?)?)
    };
    let mut step = 0;
    Ok(Prepared::new(Some(params.count()), move || {
        step += 1;
        no_grad(|| prior.sample(&request, &Rng::new(0, "samples", step))).map(drop)
    }))
}

/// As the stage that encodes a data set does it: the quantizer's own evaluation.
fn encode([vectors, channels]: [usize; 2], size: usize, depth: usize, plugins: &Plugins) -> Result<Prepared> {
    let config = format!("(depth: {depth}, codebook: {size}, shared: true)");
    let component = component(plugins, Kind::Quantizer, "rq", config)?;
    let params = Params::new(0);
    let latents = MapShape { height: vectors, width: 1, channels };
    let quantizer = plugins
        .quantizer(&component, &QuantizerContext { latents, params: params.clone(), components: Components::none() })?;
    let codebook = normal(&[size, channels], "codebook")?.mul_scalar(0.5)?;
    for (_, entry) in params.entries().into_iter().filter(|(name, _)| name.ends_with("weight")) {
        entry.var.set(&codebook)?;
    }
    let x = normal(&[1, vectors, 1, channels], "vectors")?;
    Ok(Prepared::new(None, move || no_grad(|| quantizer.quantize(&x)).map(drop)))
}

fn ema_update([vectors, channels]: [usize; 2], size: usize) -> Result<Prepared> {
    let rule = EmaRule { initial_count: 1.0, dead_codes: DeadCodes::Keep, ..EmaRule::default() };
    let book = EmaCodebook::new(&Params::new(0), size, channels, CodebookInit::Normal, rule)?;
    let (x, codes) = (normal(&[vectors, channels], "vectors")?, codes(&[vectors], size, "codes")?);
    Ok(Prepared::new(None, move || {
        book.accumulate(&x, &codes)?;
        book.rewrite()
    }))
}

fn start_up(folders: &[PathBuf]) -> Result<Prepared> {
    let program = std::env::current_exe().map_err(Error::file("rqlab-bench"))?;
    let task = serde_json::to_string(&Task::Load).map_err(|e| Error::Data(e.to_string()))?;
    let folders = folders.to_vec();
    let most = Rc::new(Cell::new(0.0));
    let seen = most.clone();
    Ok(Prepared {
        children: Some(most),
        ..Prepared::new(None, move || {
            let mut command = Command::new(&program);
            for folder in &folders {
                command.arg("--plugins").arg(folder);
            }
            let output = command
                .args(["--device", "cpu", "--task", &task])
                .stdin(Stdio::null())
                .output()
                .map_err(Error::file(&program))?;
            let memory: f64 = serde_json::from_slice(&output.stdout)
                .map_err(|_| Error::Data(format!("loading all plugins ended with {}", output.status)))?;
            seen.set(memory.max(seen.get()));
            Ok(())
        })
    })
}
