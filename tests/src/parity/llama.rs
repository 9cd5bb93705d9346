//! The autoregressive transformer of LlamaGen.

use super::outputs::{backward, gradient};
use super::{Case, Outputs, Result, drawn};
use rqlab_prior_ar::{Ar, ArConfig, BlockKind, swiglu_width};
use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::no_grad;
use rqlab_sdk::tensor::ops::sampling::Draw;
use serde_json::Value;

/// Our names' beginnings, and the published ones in their place.
const NAMES: [(&str, &str); 5] = [
    ("tok_emb.", "tok_embeddings."),
    ("cond_emb.", "cls_embedding.embedding_table."),
    ("transformer.layers.", "layers."),
    ("transformer.norm.", "norm."),
    ("output.", "output."),
];

fn published(ours: &str) -> String {
    let found = NAMES.iter().find_map(|(from, to)| Some(format!("{to}{}", ours.strip_prefix(from)?)));
    found.unwrap_or_else(|| ours.to_owned())
}

fn model(case: &Case) -> Result<(Ar, Params)> {
    let sizes = vec![case.size("vocab_size")?];
    let (grid, width) = (case.size("grid")?, case.size("dim")?);
    let params = Params::new(0);
    let space = TokenSpace::Codes(CodeSpace { sizes, tables: vec![], shared: false });
    let cx = PriorContext {
        levels: vec![LevelInfo { height: grid, width: grid, channels: 1, space, scales: None }],
        level: 0,
        condition: ConditionSpace::Classes(case.size("num_classes")?),
        null_condition: true,
        params: params.clone(),
        components: Components::none(),
    };
    let config = ArConfig {
        block: BlockKind::Llama,
        width,
        heads: case.size("n_head")?,
        layers: case.size("n_layer")?,
        mlp_multiple: case.size("multiple_of")?,
        rotary_base: case.number("rope_base")? as f32,
        norm_eps: case.number("norm_eps")? as f32,
        ..ArConfig::parse("ar")?
    };
    let model = Ar::new(config, &cx)?;
    case.load(&params, false, |name| format!("w.{}", published(name)))?;
    Ok((model, params))
}

pub(super) fn llama_ar(case: &Case, out: &mut Outputs) -> Result<()> {
    let (model, params) = model(case)?;
    out.tensor("out.rope", &model.rotary().ok_or("no rotations")?.table()?);
    for &width in &case.sizes("hidden_dims")? {
        out.number(format!("out.hidden.{width}"), swiglu_width(width, 256) as f64);
    }
    let (tokens, labels) = (case.codes("in.tokens")?, case.codes("in.labels")?);
    let (images, length, grid) = (labels.len(), tokens.last_dim(), case.size("grid")?);
    let codes = tokens.reshape(&[images, grid, grid, 1])?;
    let drop = case.number("class_dropout_prob")? as f32;
    let kept = case.tensor("rand.drop_u")?.as_slice().iter().map(|&u| u32::from(u >= drop)).collect();
    let condition = Condition { present: Codes::from_vec(kept, &[images])?, ..Condition::classes(labels)? };
    let mut gradients = backward(|| {
        let logits = &model.logits(&codes, &condition)?[0];
        out.tensor("out.logits", &logits.reshape(&[images, length, logits.last_dim()])?);
        let batch = TokenBatch {
            tokens: Tokens::Codes(codes.clone()),
            targets: Targets::Hard,
            condition: condition.clone(),
            above: vec![],
        };
        let loss = model.loss(&batch, &Mode::Eval)?.loss;
        out.tensor("out.loss", &loss);
        Ok(loss)
    })?;
    for (name, var) in params.trained() {
        out.tensor(format!("grad.w.{}", published(&name)), &gradient(&mut gradients, &var.get()));
    }
    for sub in case.config["sample_cases"].as_array().ok_or("no sample_cases")? {
        no_grad(|| sampled(case, &model, sub, out))?;
    }
    Ok(())
}

fn sampled(case: &Case, model: &Ar, sub: &Value, out: &mut Outputs) -> Result<()> {
    let number = |key: &str| sub[key].as_f64().ok_or_else(|| format!("the sub-case has no `{key}`"));
    let name = sub["name"].as_str().ok_or("a sub-case without a name")?;
    let draw = Draw {
        temperature: number("temperature")? as f32,
        top_k: Some(number("top_k")? as usize).filter(|&k| k > 0),
        top_p: Some(number("top_p")? as f32).filter(|&p| p < 1.0),
    };
    // The first token and n + 1 after it are guided; all of them if n is -1.
    let (scale, last) = (number("cfg_scale")? as f32, number("cfg_interval")? + 1.0);
    let scale = |k: usize, length: usize| {
        let to = if last > 0.0 { last as f32 / length as f32 } else { 1.0 };
        let schedule = GuidanceSchedule::Interval { from: 0.0, to };
        Guidance { scale: scale.max(1.0), schedule }.at_progress(k as f32 / length as f32)
    };
    drawn::codes(case, model, name, &draw, scale, out)
}
