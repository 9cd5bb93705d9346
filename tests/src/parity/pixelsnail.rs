//! PixelSNAIL.

use super::outputs::backward;
use super::{Case, Outputs, Result};
use rqlab_prior_pixelsnail::{PixelSnail, PixelSnailConfig};
use rqlab_sdk::nn::CodeSteps;
use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::no_grad;
use rqlab_sdk::tensor::ops::sampling::{Draw, multinomial, probabilities};
use serde_json::Value;

/// Attention heads of the published code, which has no setting for them.
pub(super) const HEADS: usize = 8;

/// The model of a configuration with the published keys, whose condition is a map of `above` rows and columns, if there is one.
pub(super) fn build(config: &Value, heads: usize, above: Option<[usize; 2]>, params: &Params) -> Result<PixelSnail> {
    let has = |key: &str| config.get(key).and_then(Value::as_u64).map(|size| size as usize);
    let size = |key: &str| has(key).ok_or_else(|| format!("the configuration has no `{key}`"));
    let shape = super::case::numbers(config, "shape")?;
    let &[height, width] = shape.as_slice() else { return Err("`shape` is not (H, W)".into()) };
    let codes = size("n_class")?;
    let level = |[height, width]: [usize; 2]| {
        let space = TokenSpace::Codes(CodeSpace { sizes: vec![codes], tables: vec![], shared: false });
        LevelInfo { height, width, channels: 1, space, scales: None }
    };
    let levels: Vec<LevelInfo> = above.into_iter().chain([[height as usize, width as usize]]).map(level).collect();
    let model = PixelSnailConfig {
        width: size("channel")?,
        blocks: size("n_block")?,
        residual_blocks: size("n_res_block")?,
        residual_width: Some(size("res_channel")?),
        kernel: size("kernel_size")?,
        attention: config.get("attention").and_then(Value::as_bool).unwrap_or(true),
        heads,
        output_blocks: has("n_out_res_block").unwrap_or(0),
        condition_width: has("cond_res_channel").filter(|&width| width > 0).unwrap_or(1),
        condition_blocks: has("n_cond_res_block").unwrap_or(0),
        condition_kernel: has("cond_res_kernel").unwrap_or(3),
        ..PixelSnailConfig::parse("pixelsnail")?
    };
    let cx = PriorContext {
        level: levels.len() - 1,
        levels,
        condition: ConditionSpace::None,
        null_condition: false,
        params: params.clone(),
        components: Components::none(),
    };
    Ok(PixelSnail::new(model, &cx)?)
}

/// Codes `[B, h, w]` as tokens.
fn tokens(codes: &Codes) -> Result<Codes> {
    Ok(codes.reshape(&[codes.shape(), &[1]].concat())?)
}

pub(super) fn forward(case: &Case, out: &mut Outputs) -> Result<()> {
    let heads = case.size("n_head")?;
    for config in case.config["sub_cases"].as_array().ok_or("no sub-cases")? {
        let sub = config["name"].as_str().ok_or("a sub-case without a name")?;
        if !case.has(&format!("in.{sub}codes")) {
            continue; // of a stored case that is a part of the full one
        }
        let codes = tokens(&case.codes(&format!("in.{sub}codes"))?)?;
        let condition = format!("in.{sub}cond");
        let condition = if case.has(&condition) { Some(tokens(&case.codes(&condition)?)?) } else { None };
        let params = Params::new(0);
        let model =
            build(config, heads, condition.as_ref().map(|codes| [codes.shape()[1], codes.shape()[2]]), &params)?;
        params.load(&case.state(&format!("w.{sub}"))?)?;
        let above: Vec<Tokens> = condition.into_iter().map(Tokens::Codes).collect();
        let images = codes.shape()[0];
        let none = Condition::none(images)?;
        let logits = |codes: &Codes| model.logits(codes, &none, &above, &Mode::Eval);
        let base = logits(&codes)?;
        out.map(format!("out.{sub}logits"), &base)?;
        let mut gradients = backward(|| {
            let tokens = Tokens::Codes(codes.clone());
            let batch = TokenBatch { tokens, targets: Targets::Hard, condition: none.clone(), above: above.clone() };
            let loss = model.loss(&batch, &Mode::Eval)?.loss;
            out.tensor(format!("out.{sub}loss"), &loss);
            Ok(loss)
        })?;
        out.parameter_gradients(&params, &mut gradients, |name| format!("grad.{sub}w.{name}"));

        let &[_, height, width, _] = codes.shape() else { return Err("codes are not [B, h, w]".into()) };
        let size = base.last_dim();
        for (i, flip) in case.config["flips"].as_array().ok_or("no flips")?.iter().enumerate() {
            let &[row, column] = super::case::numbers(flip, "")?.as_slice() else {
                return Err("a flip is not (row, column)".into());
            };
            let mut data = codes.as_slice().to_vec();
            let at = row as usize * width + column as usize;
            data[at] = (data[at] + 1) % size as u32;
            let after = logits(&Codes::from_vec(data, codes.shape())?)?;
            let rows = base.as_slice().chunks(size).zip(after.as_slice().chunks(size)).take(height * width);
            let moved = |(a, b): (&[f32], &[f32])| a.iter().zip(b).any(|(a, b)| (a - b).abs() > 1e-6);
            let places = rows.map(moved).enumerate().filter(|(_, moved)| *moved);
            let changed: Vec<f64> = places.flat_map(|(at, _)| [at / width, at % width].map(|x| x as f64)).collect();
            out.array(format!("out.{sub}changed.{i}"), &[changed.len() / 2, 2], changed);
        }
    }
    Ok(())
}

/// A map drawn code by code under the maps `above`, with the cache and without.
fn generate(case: &Case, name: &str, above: &[Codes], out: &mut Outputs) -> Result<Codes> {
    let config = &case.config[name];
    let params = Params::new(0);
    let model = build(config, HEADS, above.last().map(|codes| [codes.shape()[1], codes.shape()[2]]), &params)?;
    params.load(&case.state(&format!("w.{name}."))?)?;
    let uniforms = case.tensor(&format!("rand.{name}.u"))?;
    let [images, height, width] = uniforms.dims("uniforms")?;
    let temperature = super::case::number(config, "temperature")? as f32;
    let draw = Draw { temperature, ..Draw::default() };
    let (none, above) = (Condition::none(images)?, above.iter().cloned().map(Tokens::Codes).collect::<Vec<_>>());
    let run = |cache: bool| -> Result<(Codes, Tensor)> {
        let mut state = model.begin(&none, &above, cache)?;
        let (mut drawn, mut probs): (Vec<Codes>, Vec<Tensor>) = (Vec::new(), Vec::new());
        for n in 0..height * width {
            let logits = model.next(&mut state, drawn.last())?;
            let row = probabilities(&logits.reshape(&[images, logits.last_dim()])?, &draw)?;
            let numbers: Vec<f32> = (0..images).map(|b| uniforms.as_slice()[b * height * width + n]).collect();
            drawn.push(multinomial(&row, &numbers)?.reshape(&[images])?);
            probs.push(row);
        }
        let probs = Tensor::stack(&probs.iter().collect::<Vec<_>>(), 1)?;
        let probs = probs.reshape(&[images, height, width, probs.last_dim()])?;
        Ok((Codes::stack(&drawn)?.reshape(&[images, height, width, 1])?, probs))
    };
    let (codes, probs) = no_grad(|| run(true))?;
    if no_grad(|| run(false))?.0 != codes {
        return Err(format!("{name}: the codes differ with and without cache").into());
    }
    out.codes(format!("out.{name}.codes"), &codes.reshape(&[images, height, width])?);
    out.tensor(format!("out.{name}.probs"), &probs);
    out.map(format!("out.{name}.logits"), &model.logits(&codes, &none, &above, &Mode::Eval)?)?;
    Ok(codes)
}

pub(super) fn sample(case: &Case, out: &mut Outputs) -> Result<()> {
    let top = generate(case, "top", &[], out)?;
    let conditioned = case.size("bottom/n_cond_res_block")? > 0;
    let above = if conditioned { vec![top] } else { vec![] };
    generate(case, "bottom", &above, out)?;
    Ok(())
}
