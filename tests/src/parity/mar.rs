//! MAR, masked and causal.

use super::case::number;
use super::diffusion::tame;
use super::outputs::{backward, gradient};
use super::{Case, Outputs, Result};
use rqlab_prior_mar::{CausalCondition, Draws, Mar, MarConfig, Order, Preset, masked_count, steps_of};
use rqlab_sdk::nn::Orders;
use rqlab_sdk::nn::diffusion::{DiffusionHead, HeadNoise, NoiseSchedule};
use rqlab_sdk::optim::{Adam, AdamSettings, Schedule, WeightAverage};
use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::Gradients;
use rqlab_sdk::tensor::ops::sampling::Draw;
use serde_json::Value;
use std::collections::BTreeMap;

/// The level of square maps of vectors.
fn level(side: usize, channels: usize) -> LevelInfo {
    LevelInfo { height: side, width: side, channels, space: TokenSpace::Vectors { channels }, scales: None }
}

fn context(params: &Params, level: LevelInfo, classes: usize) -> PriorContext {
    PriorContext {
        levels: vec![level],
        level: 0,
        condition: ConditionSpace::Classes(classes),
        null_condition: true,
        params: params.clone(),
        components: Components::none(),
    }
}

/// The published MAR of a case's sizes, with its weights.
fn masked(case: &Case, sampling: Option<(usize, usize)>) -> Result<(Mar, Params)> {
    let size = |key: &str| case.size(key);
    let (iterations, steps) = sampling.unwrap_or((1, 2));
    let config = MarConfig {
        patch: size("patch_size")?,
        width: size("encoder_embed_dim")?,
        heads: size("encoder_num_heads")?,
        decoder_width: Some(size("decoder_embed_dim")?),
        decoder_heads: Some(size("decoder_num_heads")?),
        encoder_layers: size("encoder_depth")?,
        decoder_layers: size("decoder_depth")?,
        buffer: size("buffer_size")?,
        head_width: size("diffloss_w")?,
        head_layers: size("diffloss_d")?,
        noise_draws: size("diffusion_batch_mul")?,
        noise_schedule: NoiseSchedule::Cosine,
        iterations: Some(iterations),
        sampling_steps: steps,
        ..MarConfig::parse("mar")?
    };
    let level = level(size("seq_len")?.isqrt() * size("patch_size")?, size("vae_embed_dim")?);
    let params = Params::new(0);
    let model = Mar::new(config, &context(&params, level, size("class_num")?))?;
    load(case, &params, &[])?;
    Ok((model, params))
}

/// Sets all parameters from the stored ones, whose null condition is a tensor of its own, and whose other names `renamed` has.
fn load(case: &Case, params: &Params, renamed: &[[&str; 2]]) -> Result<()> {
    let mut state = case.state("w.")?;
    for [ours, stored] in renamed {
        let names: Vec<String> = state.keys().filter(|name| name.starts_with(stored)).cloned().collect();
        for name in names {
            if let Some(value) = state.remove(&name) {
                state.insert(name.replacen(stored, ours, 1), value);
            }
        }
    }
    let null = state.remove("fake_latent").ok_or("no fake_latent")?;
    let classes = state.get("class_emb.weight").ok_or("no class_emb.weight")?;
    let both = Tensor::concat(&[classes, &null], 0)?;
    state.insert("class_emb.weight".to_owned(), both);
    Ok(params.load(&state)?)
}

/// Values of all parameters under the published names: rows of the null condition apart.
fn published(values: BTreeMap<String, Tensor>, renamed: &[[&str; 2]]) -> Result<BTreeMap<String, Tensor>> {
    let mut out = BTreeMap::new();
    for (name, value) in values {
        if name == "class_emb.weight" {
            let rows = value.shape()[0];
            out.insert("fake_latent".to_owned(), value.slice(0, rows - 1..rows)?);
            out.insert(name, value.slice(0, 0..rows - 1)?);
            continue;
        }
        let other = renamed.iter().find(|[ours, _]| name.starts_with(ours));
        out.insert(other.map_or(name.clone(), |[ours, stored]| name.replacen(ours, stored, 1)), value);
    }
    Ok(out)
}

fn gradients_of(params: &Params, found: &mut Gradients, renamed: &[[&str; 2]]) -> Result<BTreeMap<String, Tensor>> {
    let by_name = params.trained().into_iter().map(|(name, var)| (name, gradient(found, &var.get()))).collect();
    published(by_name, renamed)
}

/// Classes, of which those are dropped whose number lies below the share.
fn dropped(case: &Case, labels: &str, numbers: &str) -> Result<Condition> {
    let (share, numbers) = (case.number("label_drop_prob")?, case.array(numbers)?);
    let present = numbers.data.iter().map(|&u| u32::from(u >= share)).collect();
    let given = Given::Classes(case.codes(labels)?);
    Ok(Condition { given, present: Codes::from_vec(present, &[numbers.data.len()])? })
}

/// Stored orders, of which the first `masked` are masked: what is known first, then the masked, each in raster order.
fn orders_of(stored: &Codes, masked: usize) -> Result<Orders> {
    let length = stored.last_dim();
    let reversed = stored.as_slice().chunks(length).flat_map(|image| image.iter().rev().copied()).collect();
    Ok(Orders::new(reversed, length)?.sorted_within(&[length - masked, length]))
}

/// The rows of masked tokens among those of all tokens, `repeat` blocks of `[B, L]`.
fn rows_of(orders: &Orders, masked: usize, repeat: usize) -> Result<Vec<usize>> {
    let (images, length) = (orders.images(), orders.length());
    let places = orders.positions(length - masked..length)?;
    let row = |block: usize, i: usize| (block * images + i / masked.max(1)) * length + places.as_slice()[i] as usize;
    Ok((0..repeat)
        .flat_map(|block| (0..places.len()).map(move |i| (block, i)))
        .map(|(block, i)| row(block, i))
        .collect())
}

/// The loss of a batch with the stored steps and noise of the masked tokens.
fn loss(
    case: &Case,
    model: &Mar,
    batch: &TokenBatch,
    (orders, masked): (&Orders, usize),
    stored: &str,
) -> Result<Tensor> {
    let (all, noise) = (case.indices(&format!("{stored}t"))?, case.tensor(&format!("{stored}noise"))?);
    let rows = rows_of(orders, masked, case.size("diffusion_batch_mul")?)?;
    let t: Vec<usize> = rows.iter().map(|&row| all[row]).collect();
    let noise = noise.embedding(&Codes::from_vec(rows.iter().map(|&row| row as u32).collect(), &[rows.len()])?)?;
    let length = orders.length();
    let loss = model
        .loss_of(batch, orders, length - masked..length, &Mode::Eval, |head, x, z| head.loss_at(x, z, &t, &noise))?;
    Ok(loss.loss)
}

pub(super) fn forward(case: &Case, out: &mut Outputs) -> Result<()> {
    let (model, params) = masked(case, None)?;
    let masked = case.size("num_masked")?;
    let orders = orders_of(&case.codes("in.order")?, masked)?;
    let (images, length) = (orders.images(), orders.length());
    let tokens = Tokens::Vectors(case.map("in.latent")?);
    let condition = dropped(case, "in.labels", "rand.label_u")?;
    out.tensor("out.tokens", &model.vectors(&tokens)?);
    let flags = (0..length).map(|i| if i < length - masked { 0.0 } else { 1.0 }).collect::<Vec<f32>>().repeat(images);
    let flags = orders.restore(&Tensor::from_vec(flags, &[images, length, 1])?)?;
    out.tensor("out.mask", &flags.reshape(&[images, length])?);

    let net = model.masked().ok_or("the model is not masked")?;
    let known = orders.pick(&model.read(&tokens)?, 0..length - masked)?;
    let encoded = net.encode(&known, &model.embed_condition(&condition)?, &orders, &Mode::Eval)?;
    out.tensor("out.encoder", &encoded);
    out.tensor("out.decoder", &orders.restore(&net.decode(&encoded, 0..length, &orders, &Mode::Eval)?)?);
    let batch = TokenBatch { tokens, targets: Targets::Hard, condition, above: vec![] };
    let mut found = backward(|| {
        let loss = loss(case, &model, &batch, (&orders, masked), "rand.")?;
        out.tensor("out.loss", &loss);
        Ok(loss)
    })?;
    for (name, value) in gradients_of(&params, &mut found, &[])? {
        out.tensor(format!("grad.w.{name}"), &value);
    }
    Ok(())
}

pub(super) fn mask_schedule(case: &Case, out: &mut Outputs) -> Result<()> {
    let guidance = Guidance { scale: case.number("cfg")? as f32, schedule: GuidanceSchedule::Linear };
    for entry in case.config["cases"].as_array().ok_or("no cases")? {
        let (length, steps) = (number(entry, "seq_len")? as usize, number(entry, "num_iter")? as usize);
        let known = steps_of(length, steps);
        let counts = known.iter().enumerate().map(|(k, &to)| (to - if k == 0 { 0 } else { known[k - 1] }) as f64);
        out.numbers(format!("out.{length}.{steps}.count"), counts);
        let scale = |&to: &usize| f64::from(guidance.at_progress(to.min(length - 1) as f32 / length as f32));
        out.numbers(format!("out.{length}.{steps}.cfg"), known.iter().map(scale));
    }
    let stored = case.codes("in.small.order")?;
    let (images, length) = (stored.shape()[0], case.size("small/seq_len")?);
    let known = steps_of(length, case.size("small/num_iter")?);
    let (mut mask, mut reveal) = (Vec::new(), Vec::new());
    for (k, &to) in known.iter().enumerate() {
        let from = if k == 0 { 0 } else { known[k - 1] };
        for image in 0..images {
            let mut order = stored.as_slice()[image * length..(image + 1) * length].to_vec();
            order.reverse();
            let place = |position: usize| order.iter().position(|&p| p as usize == position).unwrap_or(length);
            mask.extend((0..length).map(|position| f64::from(u8::from(place(position) >= from))));
            reveal.extend((0..length).map(|position| f64::from(u8::from((from..to).contains(&place(position))))));
        }
    }
    out.array("out.small.mask", &[known.len(), images, length], mask);
    out.array("out.small.reveal", &[known.len(), images, length], reveal);
    Ok(())
}

/// The stored noise of each step: `[n, C]` at first, and `[S, n or 2n, C]` after the steps.
struct Stored(Vec<HeadNoise>);

impl Draws for Stored {
    fn noise(&mut self, _: &DiffusionHead, step: usize, vectors: usize) -> rqlab_sdk::Result<HeadNoise> {
        let noise = &self.0[step];
        let steps = noise.steps.slice(1, 0..vectors)?;
        Ok(HeadNoise { start: noise.start.clone(), steps })
    }

    fn uniforms(&mut self, _: usize, _: usize) -> Vec<f32> {
        Vec::new()
    }
}

/// How a published sampler is asked.
fn request(labels: Codes, config: &Value, schedule: &Value) -> Result<SampleRequest> {
    let scale = number(config, "cfg")? as f32;
    let schedule = match schedule.as_str() {
        Some("linear") => GuidanceSchedule::Linear,
        _ => GuidanceSchedule::Constant,
    };
    let temperature = number(config, "temperature")? as f32;
    Ok(SampleRequest {
        draw: vec![Draw { temperature, top_k: None, top_p: None }],
        guidance: Guidance { scale, schedule },
        ..SampleRequest::new(Condition::classes(labels)?)
    })
}

pub(super) fn sample_tokens(case: &Case, out: &mut Outputs) -> Result<()> {
    let iterations = case.size("num_iter")?;
    let steps = match &case.config["num_sampling_steps"] {
        Value::String(steps) => steps.parse()?,
        other => other.as_u64().ok_or("no num_sampling_steps")? as usize,
    };
    let (mut model, _) = masked(case, Some((iterations, steps)))?;
    tame(model.diffusion_mut().ok_or("the model has no diffusion")?)?;
    let stored = case.codes("in.order")?;
    let length = stored.last_dim();
    let known = steps_of(length, iterations);
    let reversed = stored.as_slice().chunks(length).flat_map(|image| image.iter().rev().copied()).collect();
    let orders = Orders::new(reversed, length)?.sorted_within(&known);
    let noise = |i: usize| -> Result<HeadNoise> {
        let of = |part: &str| case.tensor(&format!("rand.iter.{i}.{part}"));
        Ok(HeadNoise { start: of("init")?, steps: of("steps")? })
    };
    let mut draws = Stored((0..iterations).map(noise).collect::<Result<_>>()?);
    let request = request(case.codes("in.labels")?, &case.config, &case.config["cfg_schedule"])?;
    let tokens = model.generate(&request, &orders, &mut draws)?;
    out.map("out.latent", tokens.vectors()?)?;
    let all = orders.pick(&model.vectors(&tokens)?, 0..length)?;
    for (i, &to) in known.iter().enumerate() {
        let rest = Tensor::zeros(&[orders.images(), length - to, all.last_dim()]);
        let so_far = Tensor::concat(&[&all.slice(1, 0..to)?, &rest], 1)?;
        out.tensor(format!("out.tokens.{i}"), &orders.restore(&so_far)?);
    }
    Ok(())
}

/// Names of the causal model that differ: ours and the published ones.
const CAUSAL: [[&str; 2]; 1] = [["z_proj.", "x_embedder."]];

pub(super) fn ar_diffusion(case: &Case, out: &mut Outputs) -> Result<()> {
    let size = |key: &str| case.size(key);
    let stored = case.codes("rand.order")?;
    let length = stored.last_dim();
    let build = |order: Order| -> Result<(Mar, Params)> {
        let config = MarConfig {
            preset: Preset::ArDiffLoss,
            order: Some(order),
            causal_condition: CausalCondition::Modulation,
            patch: size("patch_size")?,
            width: size("width")?,
            heads: size("heads")?,
            // One stack, which is as deep as both.
            encoder_layers: size("layers")?,
            decoder_layers: 0,
            head_width: size("diffloss_w")?,
            head_layers: size("diffloss_d")?,
            noise_draws: size("diffusion_batch_mul")?,
            noise_schedule: NoiseSchedule::Cosine,
            sampling_steps: size("num_sampling_steps")?,
            ..MarConfig::parse("mar")?
        };
        let params = Params::new(0);
        let level = level(size("side")?, size("token_channels")?);
        let model = Mar::new(config, &context(&params, level, size("num_classes")?))?;
        load(case, &params, &CAUSAL)?;
        Ok((model, params))
    };
    let orders_in = |order: Order, images: usize| -> Result<Orders> {
        Ok(match order {
            Order::Raster => Orders::raster(images, length),
            Order::Random => Orders::new(stored.as_slice().to_vec(), length)?,
        })
    };
    let tokens = Tokens::Vectors(case.map("in.latent")?);
    let condition = dropped(case, "in.labels", "rand.label_u")?;
    for (order, name) in [(Order::Raster, "raster"), (Order::Random, "random")] {
        let (model, params) = build(order)?;
        let orders = orders_in(order, tokens.images())?;
        let batch =
            TokenBatch { tokens: tokens.clone(), targets: Targets::Hard, condition: condition.clone(), above: vec![] };
        let z = model.conditions(&model.read(&tokens)?, &condition, &orders, 0..length, &Mode::Eval)?;
        out.tensor(format!("out.{name}.z"), &z);
        let mut found = backward(|| {
            let (t, noise) = (case.indices("rand.t")?, case.tensor("rand.noise")?);
            let loss =
                model.loss_of(&batch, &orders, 0..length, &Mode::Eval, |head, x, z| head.loss_at(x, z, &t, &noise))?;
            out.tensor(format!("out.{name}.loss"), &loss.loss);
            Ok(loss.loss)
        })?;
        for (weight, value) in gradients_of(&params, &mut found, &CAUSAL)? {
            out.tensor(format!("grad.{name}.w.{weight}"), &value);
        }
    }
    for sub in case.config["sample_cases"].as_array().ok_or("no sample_cases")? {
        let name = sub["name"].as_str().unwrap_or_default();
        let order = if sub["order"] == "raster" { Order::Raster } else { Order::Random };
        let (mut model, _) = build(order)?;
        tame(model.diffusion_mut().ok_or("the model has no diffusion")?)?;
        let labels = case.codes(&format!("in.{name}labels"))?;
        let orders = orders_in(order, labels.len())?;
        let stored = |part: &str| case.tensor(&format!("rand.{name}{part}"));
        let (start, steps) = (stored("init")?, stored("steps")?);
        let at = |x: &Tensor, i: usize| -> Result<Tensor> { Ok(x.slice(0, i..i + 1)?.reshape(&x.shape()[1..])?) };
        let noise = |i: usize| -> Result<HeadNoise> { Ok(HeadNoise { start: at(&start, i)?, steps: at(&steps, i)? }) };
        let mut request = request(labels, sub, &sub["cfg_schedule"])?;
        let mut generate = |cache: bool| -> Result<Tensor> {
            request.cache = cache;
            let mut draws = Stored((0..length).map(noise).collect::<Result<_>>()?);
            Ok(model.generate(&request, &orders, &mut draws)?.vectors()?.clone())
        };
        let (latent, anew) = (generate(true)?, generate(false)?);
        let worst = latent.as_slice().iter().zip(anew.as_slice()).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
        // A chain multiplies what rounding leaves: no more is asked of the two than of the result.
        let limit = case.wanted_within(&format!("out.{name}latent")).unwrap_or_default().max(1e-3);
        if f64::from(worst) > limit {
            return Err(format!("{name} vectors differ by {worst} with and without cache").into());
        }
        out.map(format!("out.{name}latent"), &latent)?;
        // What each token was predicted from, of all at once: with the condition, then without if there was guidance.
        let mut halves = vec![request.condition.clone()];
        if request.guidance.scale != 1.0 {
            halves.push(request.condition.null()?);
        }
        let read = model.read(&Tokens::Vectors(latent))?;
        let z = halves.iter().map(|condition| model.conditions(&read, condition, &orders, 0..length, &Mode::Eval));
        let z = z.collect::<rqlab_sdk::Result<Vec<_>>>()?;
        out.tensor(format!("out.{name}z"), &Tensor::concat(&z.iter().collect::<Vec<_>>(), 0)?);
    }
    Ok(())
}

/// The factor of the published KL autoencoder's latents.
const LATENT_SCALE: f32 = 0.2325;

/// A draw from the posterior whose mean and log-variance are the halves of `moments` `[B, h, w, 2C]`, scaled.
fn latent(moments: &Tensor, noise: &Tensor) -> Result<Tensor> {
    let channels = noise.last_dim();
    let deviation = moments.slice(3, channels..2 * channels)?.clamp(-30.0, 20.0)?.mul_scalar(0.5)?.exp()?;
    Ok(moments.slice(3, 0..channels)?.add(&deviation.mul(noise)?)?.mul_scalar(LATENT_SCALE)?)
}

pub(super) fn steps(case: &Case, out: &mut Outputs) -> Result<()> {
    let (model, params) = masked(case, None)?;
    let steps = case.size("steps")?;
    let settings =
        AdamSettings { betas: [0.9, 0.95], weight_decay: case.number("weight_decay")?, ..AdamSettings::default() };
    let mut optimizer = Adam::new(params.trained(), settings)?.without_decay(|name, shape| !model.decays(name, shape));
    let mut average = WeightAverage::new(params.trained(), case.number("ema_rate")? as f32)?;
    let (lr, warmup) = (case.number("lr")?, (case.number("warmup_epochs")? * steps as f64) as u64);
    let schedule = match case.config["lr_schedule"].as_str() {
        Some("cosine") => Schedule::cosine(lr, warmup, (case.size("epochs")? * steps) as u64, case.number("min_lr")?),
        _ => Schedule::constant(lr, warmup),
    };
    let first = (case.number("epoch")? * steps as f64) as u64;
    for s in 0..steps {
        let latent = latent(&case.map(&format!("in.{s}.moments"))?, &case.map(&format!("rand.{s}.posterior_noise"))?)?;
        out.map(format!("out.{s}.latent"), &latent)?;
        let condition = dropped(case, &format!("in.{s}.labels"), &format!("rand.{s}.label_u"))?;
        let stored = case.codes(&format!("rand.{s}.order"))?;
        let share = case.array(&format!("rand.{s}.mask_rate"))?.data[0];
        let masked = masked_count(share, stored.last_dim());
        let orders = orders_of(&stored, masked)?;
        let batch = TokenBatch { tokens: Tokens::Vectors(latent), targets: Targets::Hard, condition, above: vec![] };
        let mut found = backward(|| {
            let loss = loss(case, &model, &batch, (&orders, masked), &format!("rand.{s}."))?;
            out.tensor(format!("out.{s}.loss"), &loss);
            Ok(loss)
        })?;
        let lr = schedule.lr(first + s as u64);
        let norm = optimizer.step(&mut found, lr, Some(case.number("grad_clip")? as f32))?.read()?;
        average.update()?;
        out.number(format!("out.{s}.lr"), lr);
        out.number(format!("out.{s}.grad_norm"), norm);
        for (prefix, state) in [("", params.state()), ("ema.", average.with(|| params.state()))] {
            for (name, value) in published(state, &[])? {
                out.tensor(format!("out.{s}.{prefix}{name}"), &value);
            }
        }
    }
    Ok(())
}

/// Parameters of a published size.
pub(super) fn counts(config: &Value) -> Result<Vec<(&'static str, usize)>> {
    let (width, layers, heads) = match config["size"].as_str() {
        Some("base") => (768, 12, 12),
        Some("large") => (1024, 16, 16),
        Some("huge") => (1280, 20, 16),
        other => return Err(format!("no MAR of size {other:?} was published").into()),
    };
    let config = MarConfig {
        width,
        heads,
        encoder_layers: layers,
        decoder_layers: layers,
        buffer: 64,
        head_width: number(config, "diffloss_w")? as usize,
        head_layers: number(config, "diffloss_d")? as usize,
        ..MarConfig::parse("mar")?
    };
    let params = Params::dry();
    Mar::new(config, &context(&params, level(16, 16), 1000))?;
    let part = |name: &str| params.scope(name).count();
    Ok(vec![
        ("total", params.count()),
        ("diffloss", part("diffloss")),
        ("encoder_blocks", part("encoder_blocks")),
        ("decoder_blocks", part("decoder_blocks")),
        ("without_diffloss", params.count() - part("diffloss")),
    ])
}
