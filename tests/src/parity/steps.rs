//! Whole steps of training from the same weights and batch as PyTorch's: losses of three steps, and the norms of the
//! first step's gradients. `tests/peers/export.py` writes the cases.

use super::{Case, Outputs, Result};
use rqlab_autoencoder_resnet::{Resnet, ResnetConfig};
use rqlab_prior_ar::{Ar, ArConfig};
use rqlab_prior_rq_transformer::{ConditionPosition, RqTransformer, RqTransformerConfig};
use rqlab_quantizer_rq::{Rq, RqConfig};
use rqlab_sdk::nn::{DeadCodes, Downsampling};
use rqlab_sdk::optim::{Adam, AdamSettings};
use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::Tape;
use rqlab_sdk::tensor::ops::optim::sum_of_squares;

/// Trains all parameters for as many steps as there are losses.
fn train(
    case: &Case,
    out: &mut Outputs,
    params: &Params,
    (settings, lr): (AdamSettings, f64),
    mut loss: impl FnMut(&mut Outputs) -> Result<Tensor>,
) -> Result<()> {
    let first_beta = settings.betas[0];
    let mut optimizer = Adam::new(params.trained(), settings)?;
    let steps = case.wanted_shape("out.losses").and_then(|shape| shape.first().copied()).ok_or("no losses")?;
    let mut losses = Vec::new();
    for step in 0..steps {
        let tape = Tape::start()?;
        let loss = loss(out)?;
        losses.push(f64::from(loss.item()?));
        optimizer.step(&mut tape.backward(&loss)?, lr, None)?;
        if step == 0 {
            // The first moments started at zero: they are (1 - beta1) times the gradients. By name, as stored.
            let state = optimizer.state();
            let moments = state.iter().filter(|(name, _)| name.starts_with("adam.m."));
            let norms = moments.map(|(_, m)| sum_of_squares(m).sqrt() / (1.0 - first_beta));
            out.numbers("out.gradient_norms", norms);
        }
    }
    out.numbers("out.losses", losses);
    Ok(())
}

pub(super) fn tokenizer_step(case: &Case, out: &mut Outputs) -> Result<()> {
    let params = Params::new(0);
    let config = ResnetConfig {
        width: case.size("base")?,
        multipliers: case.sizes("mults")?,
        blocks: case.size("blocks")?,
        groups: 8,
        mid_attention: false,
        downsample: Downsampling::Symmetric,
        latent: case.size("latent")?,
        ..ResnetConfig::parse("resnet")?
    };
    let image = MapShape { height: 32, width: 32, channels: 3 };
    let resnet = Resnet::new(
        config,
        &AutoencoderContext { image, params: params.scope("autoencoder"), components: Components::none() },
    )?;
    let config = RqConfig {
        depth: case.size("depth")?,
        codebook: case.size("codes")?,
        decay: 0.99,
        dead_codes: DeadCodes::Keep,
        initial_count: Some(1.0),
        beta: 0.25,
        ..RqConfig::parse("rq")?
    };
    let latents = resnet.levels()[0];
    let mut rq = Rq::new(
        config,
        &QuantizerContext { latents, params: params.scope("quantizer"), components: Components::none() },
    )?;
    case.load(&params, false, |name| format!("w.{name}"))?;

    let images = case.map("in.images")?;
    let settings = AdamSettings { betas: [0.9, 0.99], ..AdamSettings::default() };
    train(case, out, &params, (settings, 1e-4), |out| {
        let mut seen = None;
        let mut bottleneck = |_: usize, latents: &Tensor| {
            let quantized = rq.quantize_train(latents, &Rng::new(0, "step", 0))?;
            Ok(seen.insert(quantized).latents.clone())
        };
        let reconstruction = resnet.forward(&images, &mut bottleneck, &Mode::Eval)?;
        let quantized = seen.ok_or("the bottleneck was not called")?;
        let codes = quantized.tokens.codes()?;
        if out.get("out.codes").is_none() {
            let [images, side, _, depth] = *codes.shape() else { return Err("codes are not [B, h, w, D]".into()) };
            out.codes("out.codes", &codes.reshape(&[images, side * side, depth])?);
        }
        Ok(reconstruction.mse(&images)?.add(&quantized.loss)?)
    })?;
    out.tensor("out.codebook", &rq.level().codes()?.tables[0]);
    Ok(())
}

/// Steps of a prior over `side` x `side` x `depth` codes.
fn prior_step(
    case: &Case,
    out: &mut Outputs,
    [side, depth, size]: [usize; 3],
    build: impl FnOnce(&PriorContext) -> Result<Box<dyn Prior>>,
) -> Result<()> {
    let tables = if case.has("in.codebook") { vec![case.tensor("in.codebook")?; depth] } else { Vec::new() };
    let level = LevelInfo {
        height: side,
        width: side,
        channels: tables.first().map_or(0, Tensor::last_dim),
        space: TokenSpace::Codes(CodeSpace { sizes: vec![size; depth], tables, shared: true }),
        scales: None,
    };
    let params = Params::new(0);
    // As many classes as the condition has rows.
    let classes = case.array("w.cond_emb.weight")?.shape[0];
    let prior = build(&PriorContext {
        levels: vec![level],
        level: 0,
        condition: ConditionSpace::Classes(classes),
        null_condition: false,
        params: params.clone(),
        components: Components::none(),
    })?;
    case.load(&params, false, |name| format!("w.{name}"))?;

    let codes = case.codes("in.codes")?;
    let batch = TokenBatch {
        tokens: Tokens::Codes(codes.reshape(&[codes.shape()[0], side, side, depth])?),
        targets: Targets::Hard,
        condition: Condition::classes(case.codes("in.labels")?)?,
        above: vec![],
    };
    let settings = AdamSettings { betas: [0.9, 0.95], weight_decay: 1e-4, ..AdamSettings::default() };
    train(case, out, &params, (settings, 5e-4), |_| Ok(prior.loss(&batch, &Mode::Eval)?.loss))
}

pub(super) fn rq_transformer_step(case: &Case, out: &mut Outputs) -> Result<()> {
    let config = RqTransformerConfig {
        width: case.size("width")?,
        heads: case.size("heads")?,
        body_layers: case.size("body")?,
        head_layers: case.size("head")?,
        condition_position: ConditionPosition::Shared,
        ..RqTransformerConfig::parse("rq_transformer")?
    };
    let sizes = [case.size("positions")?.isqrt(), case.size("depth")?, case.size("codes")?];
    prior_step(case, out, sizes, |cx| Ok(Box::new(RqTransformer::new(config, cx)?)))
}

pub(super) fn ar_step(case: &Case, out: &mut Outputs) -> Result<()> {
    let config = ArConfig {
        width: case.size("width")?,
        heads: case.size("heads")?,
        layers: case.size("layers")?,
        ..ArConfig::parse("ar")?
    };
    let sizes = [case.size("length")?.isqrt(), 1, case.size("codes")?];
    prior_step(case, out, sizes, |cx| Ok(Box::new(Ar::new(config, cx)?)))
}
