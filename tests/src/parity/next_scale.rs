//! The next-scale prior of VAR.

use super::outputs::{backward, gradient};
use super::{Case, Outputs, Result};
use rqlab_prior_var::{NextScale, VarConfig};
use rqlab_quantizer_multi_scale::MultiScale;
use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::no_grad;
use rqlab_sdk::tensor::ops::sampling::Draw;
use serde_json::Value;

/// Each of the case's models over the codes of its quantizer.
pub(super) fn prior(case: &Case, quantizer: &MultiScale, tokens: &Tokens, out: &mut Outputs) -> Result<()> {
    let models = case.config["models"].as_array().ok_or("no models")?;
    for (n, sub) in models.iter().enumerate() {
        let name = sub["name"].as_str().ok_or("a model without a name")?;
        let (model, params) = model(case, sub, name, quantizer.level())?;
        trained(case, sub, name, (&model, &params), tokens, out)?;
        no_grad(|| sampled(case, sub, name, &model, quantizer, out))?;
        if n == 0 {
            no_grad(|| mask(case, (&model, &params), tokens, out))?;
        }
    }
    Ok(())
}

fn model(case: &Case, sub: &Value, name: &str, level: LevelInfo) -> Result<(NextScale, Params)> {
    let flag = |key: &str| sub[key].as_bool().ok_or_else(|| format!("a model without `{key}`"));
    let params = Params::new(0);
    let cx = PriorContext {
        levels: vec![level],
        level: 0,
        condition: ConditionSpace::Classes(case.size("num_classes")?),
        null_condition: true,
        params: params.clone(),
        components: Components::none(),
    };
    let config = VarConfig {
        width: case.size("embed_dim")?,
        heads: case.size("num_heads")?,
        layers: case.size("depth")?,
        mlp_ratio: case.number("mlp_ratio")? as f32,
        normalize_attention: flag("attn_l2_norm")?,
        shared_modulation: flag("shared_aln")?,
        ..VarConfig::parse("var")?
    };
    let model = NextScale::new(config, &cx)?;
    case.load(&params, false, |ours| format!("w.{name}{ours}"))?;
    Ok((model, params))
}

/// The condition of training, of which some are dropped.
fn condition(case: &Case) -> Result<Condition> {
    let drop = case.number("cond_drop_rate")? as f32;
    let kept: Vec<u32> = case.tensor("rand.drop_u")?.as_slice().iter().map(|&u| u32::from(u >= drop)).collect();
    let present = Codes::from_vec(kept.clone(), &[kept.len()])?;
    Ok(Condition { present, ..Condition::classes(case.codes("in.labels")?)? })
}

fn trained(
    case: &Case,
    sub: &Value,
    name: &str,
    (model, params): (&NextScale, &Params),
    tokens: &Tokens,
    out: &mut Outputs,
) -> Result<()> {
    let condition = condition(case)?;
    let mut gradients = backward(|| {
        out.tensor(format!("out.{name}logits"), &model.logits(tokens.codes()?, &condition, &Mode::Eval)?[0]);
        let batch = TokenBatch { tokens: tokens.clone(), targets: Targets::Hard, condition, above: vec![] };
        let loss = model.loss(&batch, &Mode::Eval)?.loss;
        out.tensor(format!("out.{name}loss"), &loss);
        Ok(loss)
    })?;
    let selected: Vec<&str> =
        sub["selected_grads"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (ours, var) in params.trained().into_iter().filter(|(ours, _)| selected.contains(&ours.as_str())) {
        out.tensor(format!("grad.{name}w.{ours}"), &gradient(&mut gradients, &var.get()));
    }
    Ok(())
}

/// The published scale of scale k of n is `1 + s k / (n - 1)` in the convention of [`Guidance`].
fn sampled(
    case: &Case,
    sub: &Value,
    name: &str,
    model: &NextScale,
    quantizer: &MultiScale,
    out: &mut Outputs,
) -> Result<()> {
    let number = |key: &str| sub[key].as_f64().ok_or_else(|| format!("a model without `{key}`"));
    let draw = Draw {
        temperature: 1.0,
        top_k: Some(number("top_k")? as usize).filter(|&k| k > 0),
        top_p: Some(number("top_p")? as f32).filter(|&p| p > 0.0),
    };
    let labels = case.codes(&format!("in.{name}labels"))?;
    let uniforms = case.tensor(&format!("rand.{name}u"))?;
    let level = quantizer.level();
    let scales = level.scales.as_ref().ok_or("the level has no scales")?;
    let generate = |cache: bool| {
        let guidance = Guidance { scale: 1.0 + number("cfg")? as f32, schedule: GuidanceSchedule::Linear };
        let condition = Condition::classes(labels.clone())?;
        let request = SampleRequest { draw: vec![draw], guidance, cache, ..SampleRequest::new(condition) };
        Ok::<_, super::Error>(model.generate(&request, |scale, _, _| {
            let images = uniforms.as_slice().chunks(level.positions());
            images.flat_map(|image| &image[scales.positions(scale)]).copied().collect()
        })?)
    };
    let tokens = generate(true)?;
    if generate(false)?.codes()? != tokens.codes()? {
        return Err(format!("{name} the codes differ with and without cache").into());
    }
    out.codes(format!("out.{name}sampled"), &tokens.codes()?.reshape(&[labels.len(), level.positions()])?);
    out.map(format!("out.{name}sampled_f_hat"), &quantizer.embed(&tokens, None)?)
}

/// Which positions see which: those whose logits change with the position embedding of another.
fn mask(case: &Case, (model, params): (&NextScale, &Params), tokens: &Tokens, out: &mut Outputs) -> Result<()> {
    let condition = condition(case)?;
    let logits = || Ok::<_, super::Error>(model.logits(tokens.codes()?, &condition, &Mode::Eval)?[0].slice(0, 0..1)?);
    // Sharp attention hides what a position sees behind what it sees most of: all heads look evenly here.
    for (_, scale) in params.trained().into_iter().filter(|(name, _)| name.ends_with("scale_mul_1H11")) {
        scale.set(&Tensor::zeros(scale.get().shape()))?;
    }
    let position = params.trained().into_iter().find(|(name, _)| name == "pos_1LC").ok_or("no positions")?.1;
    let table = position.get().detach();
    let [_, length, width] = table.dims("pos_1LC")?;
    let before = logits()?;
    let mut seen = vec![0.0; length * length];
    for place in 0..length {
        let mut moved = table.to_vec();
        // Norms do not see what is added to all channels.
        moved[place * width] += 1.0;
        position.set(&Tensor::from_vec(moved, table.shape())?)?;
        let after = logits()?;
        let codes = before.last_dim();
        let pairs = before.as_slice().chunks(codes).zip(after.as_slice().chunks(codes));
        pairs.enumerate().filter(|(_, (a, b))| a != b).for_each(|(i, _)| seen[i * length + place] = 1.0);
    }
    position.set(&table)?;
    out.array("out.mask", &[length, length], seen);
    Ok(())
}
