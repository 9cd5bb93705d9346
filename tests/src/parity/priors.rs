//! The RQ-Transformer.

use super::case::{number, numbers};
use super::outputs::{backward, gradient};
use super::{Case, Outputs, Result};
use rqlab_prior_rq_transformer::{Hidden, RqTransformer, RqTransformerConfig};
use rqlab_sdk::nn::CodeSteps;
use rqlab_sdk::nn::transformer::{fuse_projections, split_projections};
use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::ops::sampling::{Draw, sample};
use serde_json::Value;
use std::collections::BTreeMap;

/// The published model of the configuration's sizes.
pub(super) fn build(
    config: &Value,
    params: &Params,
    codebooks: Vec<Tensor>,
    vocabulary: usize,
    length: usize,
) -> Result<RqTransformer> {
    let size = |path: &str| -> Result<usize> { Ok(number(config, path)? as usize) };
    let &[height, width, depth] = numbers(config, "bs")?.as_slice() else { return Err("`bs` is not (h, w, D)".into()) };
    let sizes: Vec<usize> = numbers(config, "V")?.into_iter().map(|v| v as usize).collect();
    let sizes = if sizes.len() == 1 { vec![sizes[0]; depth as usize] } else { sizes };
    let shared = codebooks.len() <= 1;
    let tables = if shared { codebooks.into_iter().cycle().take(depth as usize).collect() } else { codebooks };
    let level = LevelInfo {
        height: height as usize,
        width: width as usize,
        channels: size("din")?,
        space: TokenSpace::Codes(CodeSpace { sizes, tables, shared }),
        scales: None,
    };
    let model = RqTransformerConfig {
        width: size("d")?,
        heads: size("heads")?,
        body_layers: size("nb")?,
        head_layers: size("nh")?,
        ..RqTransformerConfig::parse("rq_transformer")?
    };
    let cx = PriorContext {
        levels: vec![level],
        level: 0,
        condition: match (vocabulary, length) {
            (0, _) => ConditionSpace::None,
            (_, 1) => ConditionSpace::Classes(vocabulary),
            _ => ConditionSpace::Text { vocabulary, length },
        },
        null_condition: false,
        params: params.clone(),
        components: Components::none(),
    };
    Ok(RqTransformer::new(model, &cx)?)
}

/// The model with the weights `w.{sub}`, whose condition is as long as `cond`.
fn stored(case: &Case, sub: &str, length: usize) -> Result<(RqTransformer, Params)> {
    let mut state = case.state(&format!("w.{sub}"))?;
    let size = *numbers(&case.config, "V")?.first().ok_or("no V")? as usize;
    let mut codebooks = Vec::new();
    while let Some(table) = state.get(&format!("aux.codebooks.{}.weight", codebooks.len())) {
        codebooks.push(table.slice(0, 0..size)?);
    }
    fuse_projections(&mut state)?;
    let vocabulary = state.get("cond_emb.weight").ok_or("no cond_emb.weight")?.shape()[0];
    let params = Params::new(0);
    let model = build(&case.config, &params, codebooks, vocabulary, length)?;
    params.load(&state)?;
    Ok((model, params))
}

/// The condition of a sub-case, from tokens `[B, L]`, and L; those of a model without condition are zeros.
fn condition(case: &Case, sub: &str, images: usize) -> Result<(Condition, usize)> {
    let name = format!("in.{sub}cond");
    let tokens = if case.has(&name) { case.codes(&name)? } else { Codes::from_vec(vec![0; images], &[images, 1])? };
    let length = tokens.last_dim();
    let given = if length == 1 { Given::Classes(tokens.reshape(&[images])?) } else { Given::Text(tokens) };
    Ok((Condition { given, present: Codes::from_vec(vec![1; images], &[images])? }, length))
}

/// Logits `[B, h, w, D, K]`.
fn logits(model: &RqTransformer, hidden: &Hidden, codes: &Codes) -> Result<Tensor> {
    let by_depth = model.logits(hidden)?;
    let together = Tensor::stack(&by_depth.iter().collect::<Vec<_>>(), 1)?;
    let shape: Vec<usize> = codes.shape().iter().copied().chain([together.last_dim()]).collect();
    Ok(together.reshape(&shape)?)
}

pub(super) fn rq_transformer_forward(case: &Case, out: &mut Outputs) -> Result<()> {
    for sub in case.sub_cases("in.", "codes") {
        let codes = case.codes(&format!("in.{sub}codes"))?;
        let (cond, length) = condition(case, &sub, codes.shape()[0])?;
        let (model, params) = stored(case, &sub, length)?;
        let soft = case.tensor(&format!("in.{sub}soft"))?;
        let depth = codes.last_dim();
        let target = |d: usize| -> Result<Tensor> {
            let shape = soft.shape();
            Ok(soft.slice(3, d..d + 1)?.reshape(&[shape[0], shape[1], shape[2], shape[4]])?)
        };
        let targets = Targets::Soft((0..depth).map(target).collect::<Result<_>>()?);
        let mut gradients = backward(|| {
            let hidden = model.forward(&codes, &cond, &Mode::Eval)?;
            out.tensor(format!("out.{sub}logits"), &logits(&model, &hidden, &codes)?);
            let hard = model.losses(&hidden, &codes, &Targets::Hard)?.mean_all()?;
            out.tensor(format!("out.{sub}loss_hard"), &hard);
            let losses = model.losses(&hidden, &codes, &targets)?;
            out.tensor(format!("out.{sub}loss_soft_per_depth"), &losses.mean(&[0], false)?);
            let loss = losses.mean_all()?;
            out.tensor(format!("out.{sub}loss_soft"), &loss);
            let Some(next) = model.text_logits(&hidden)? else { return Ok(loss) };
            // Every condition token but the first is predicted from those before it, with weight 0.1.
            out.tensor(format!("out.{sub}cond_logits"), &next);
            let cond_loss = model.text_loss(&hidden, &cond)?.ok_or("no loss of the text")?;
            out.tensor(format!("out.{sub}cond_loss"), &cond_loss);
            Ok(loss.add(&cond_loss.mul_scalar(0.1)?)?)
        })?;
        let by_name = params.trained().into_iter().map(|(name, var)| (name, gradient(&mut gradients, &var.get())));
        let mut by_name: BTreeMap<String, Tensor> = by_name.collect();
        split_projections(&mut by_name)?;
        for (name, value) in by_name {
            out.tensor(format!("grad.{sub}w.{name}"), &value);
        }
    }
    Ok(())
}

pub(super) fn rq_transformer_causality(case: &Case, out: &mut Outputs) -> Result<()> {
    let codes = case.codes("in.codes")?;
    let (cond, length) = condition(case, "", codes.shape()[0])?;
    let (model, _) = stored(case, "", length)?;
    let run = |codes: &Codes| logits(&model, &model.forward(codes, &cond, &Mode::Eval)?, codes);
    let before = run(&codes)?;
    out.tensor("out.logits", &before);
    let (threshold, size) = (case.number("threshold")? as f32, case.size("V")? as u32);
    let &[_, height, width, depth] = codes.shape() else { return Err("codes are not [B, h, w, D]".into()) };
    for (i, flip) in case.config["flips"].as_array().ok_or("no flips")?.iter().enumerate() {
        let &[h, w, d] = numbers(flip, "")?.as_slice() else { return Err("a flip is not (h, w, d)".into()) };
        let mut data = codes.as_slice().to_vec();
        let at = (h as usize * width + w as usize) * depth + d as usize;
        data[at] = (data[at] + 1) % size;
        let after = run(&Codes::from_vec(data, codes.shape())?)?;
        let rows = before.as_slice().chunks(size as usize).zip(after.as_slice().chunks(size as usize));
        let mut changed = Vec::new();
        for (row, (a, b)) in rows.take(height * width * depth).enumerate() {
            if a.iter().zip(b).any(|(a, b)| (a - b).abs() > threshold) {
                let place = [row / (width * depth), row / depth % width, row % depth];
                changed.extend(place.map(|x| x as f64));
            }
        }
        out.array(format!("out.changed.{i}"), &[changed.len() / 3, 3], changed);
    }
    Ok(())
}

pub(super) fn rq_transformer_cached_sampling(case: &Case, out: &mut Outputs) -> Result<()> {
    for sub in case.config["sub_cases"].as_array().ok_or("no sub-cases")? {
        let name = sub["name"].as_str().unwrap_or_default();
        let uniforms = case.tensor(&format!("rand.{name}u"))?;
        let &[images, _, _, depth] = uniforms.shape() else { return Err("uniforms are not [B, h, w, D]".into()) };
        let positions = uniforms.len() / (images * depth);
        let (cond, length) = condition(case, name, images)?;
        let (model, _) = stored(case, "", length)?;
        let draw_at = |d: usize| -> Draw {
            // One value for all depths, one a depth, or null for none.
            let at = |key: &str| match &sub[key] {
                Value::Array(list) => list.get(d).and_then(Value::as_f64),
                one => one.as_f64(),
            };
            Draw {
                temperature: at("temperature").unwrap_or(1.0) as f32,
                top_k: at("top_k").map(|k| k as usize),
                top_p: at("top_p").map(|p| p as f32),
            }
        };
        let generate = |cache: bool| -> Result<Codes> {
            let mut state = model.begin(&cond, &[], cache)?;
            let mut drawn: Vec<Codes> = Vec::new();
            for n in 0..positions * depth {
                let logits = model.next(&mut state, drawn.last())?;
                let of_image = |image: usize| uniforms.as_slice()[image * positions * depth + n];
                let numbers: Vec<f32> = (0..images).map(of_image).collect();
                drawn.push(sample(&logits, &draw_at(n % depth), &numbers)?.reshape(&[images])?);
            }
            Ok(Codes::stack(&drawn)?.reshape(uniforms.shape())?)
        };
        let codes = generate(true)?;
        if generate(false)? != codes {
            return Err(format!("{name} the codes differ with and without cache").into());
        }
        out.codes(format!("out.{name}codes"), &codes);
        out.tensor(format!("out.{name}logits"), &logits(&model, &model.forward(&codes, &cond, &Mode::Eval)?, &codes)?);
    }
    Ok(())
}
