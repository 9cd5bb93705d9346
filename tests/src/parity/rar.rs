//! The autoregressive transformer over permuted orders of RAR.

use super::case::{number, numbers};
use super::outputs::{backward, gradient};
use super::{Case, Outputs, Result, drawn};
use rqlab_prior_ar::{Ar, ArConfig, BlockKind, Order, random_share};
use rqlab_sdk::nn::Orders;
use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::ops::sampling::Draw;
use rqlab_sdk::tensor::{Gradients, no_grad};
use serde_json::Value;

/// The published table of codes, an unused row for masks, classes and no class.
const EMBEDDINGS: &str = "embeddings.weight";

struct Model {
    ar: Ar,
    params: Params,
    /// Codes, and classes with no class.
    rows: [usize; 2],
}

fn published(ours: &str) -> String {
    match (ours.strip_prefix("transformer."), ours.strip_prefix("output.")) {
        (Some(rest), _) => rest.to_owned(),
        (_, Some(rest)) => format!("lm_head.{rest}"),
        _ => ours.to_owned(),
    }
}

impl Model {
    fn new(case: &Case) -> Result<Self> {
        let (codes, classes) = (case.size("codebook_size")?, case.size("condition_num_classes")?);
        let params = Params::new(0);
        let space = TokenSpace::Codes(CodeSpace { sizes: vec![codes], tables: vec![], shared: false });
        let cx = PriorContext {
            // Positions count tokens: where they lie in a map makes no difference.
            levels: vec![LevelInfo { height: 1, width: case.size("image_seq_len")?, channels: 1, space, scales: None }],
            level: 0,
            condition: ConditionSpace::Classes(classes),
            null_condition: true,
            params: params.clone(),
            components: Components::none(),
        };
        let config = ArConfig {
            block: BlockKind::Rar,
            order: Order::Annealed,
            width: case.size("hidden_size")?,
            heads: case.size("num_attention_heads")?,
            layers: case.size("num_hidden_layers")?,
            mlp_width: Some(case.size("intermediate_size")?),
            ..ArConfig::parse("ar")?
        };
        let ar = Ar::new(config, &cx)?;
        let embeddings = case.tensor(&format!("w.{EMBEDDINGS}"))?;
        for (name, entry) in params.entries() {
            let value = match name.as_str() {
                "tok_emb.weight" => embeddings.slice(0, 0..codes)?,
                "cond_emb.weight" => embeddings.slice(0, codes + 1..codes + 2 + classes)?,
                name => case.tensor(&format!("w.{}", published(name)))?,
            };
            if value.shape() != entry.shape {
                return Err(format!("`{name}` is {:?}, and {:?} in the case", entry.shape, value.shape()).into());
            }
            entry.var.set(&value)?;
        }
        Ok(Self { ar, params, rows: [codes, classes + 1] })
    }

    /// The gradients of all parameters, under the published names.
    fn gradients(&self, found: &mut Gradients) -> Result<Vec<(String, Tensor)>> {
        let mut all = Vec::new();
        let mut embeddings = [None, None];
        for (name, var) in self.params.trained() {
            let value = gradient(found, &var.get());
            match name.as_str() {
                "tok_emb.weight" => embeddings[0] = Some(value),
                "cond_emb.weight" => embeddings[1] = Some(value),
                name => all.push((published(name), value)),
            }
        }
        if let [Some(codes), Some(classes)] = embeddings {
            let unused = Tensor::zeros(&[1, codes.last_dim()]);
            all.push((EMBEDDINGS.to_owned(), Tensor::concat(&[&codes, &unused, &classes], 0)?));
        }
        Ok(all)
    }

    /// Logits `[B, L, K]` in the order of prediction.
    fn logits(&self, codes: &Codes, condition: &Condition, orders: &Orders) -> Result<Tensor> {
        let logits = self.ar.logits_in(codes, condition, orders)?.remove(0);
        let shape = [orders.images(), orders.length(), logits.last_dim()];
        Ok(orders.pick(&logits.reshape(&shape)?, 0..orders.length())?)
    }
}

pub(super) fn rar(case: &Case, out: &mut Outputs) -> Result<()> {
    let model = Model::new(case)?;
    let (tokens, labels, order) = (case.codes("in.tokens")?, case.codes("in.labels")?, case.codes("rand.order")?);
    let (images, length) = (labels.len(), tokens.last_dim());
    let orders = Orders::new(order.as_slice().to_vec(), length)?;
    let drop = case.number("cond_drop_prob")? as f32;
    let kept: Vec<u32> = case.tensor("rand.drop_u")?.as_slice().iter().map(|&u| u32::from(u >= drop)).collect();
    let [codes, classes] = model.rows;
    let id = |(&label, &kept): (&u32, &u32)| {
        let row = if kept == 0 { classes - 1 } else { label as usize };
        (codes + 1 + row) as f64
    };
    out.array("out.condition_ids", &[images], labels.as_slice().iter().zip(&kept).map(id).collect());
    let condition = Condition { present: Codes::from_vec(kept, &[images])?, ..Condition::classes(labels)? };

    let read = orders.positions(0..length)?;
    let rows = tokens.as_slice().chunks(length).zip(read.as_slice().chunks(length));
    let in_order: Vec<u32> =
        rows.flat_map(|(tokens, order)| order.iter().map(|&position| tokens[position as usize])).collect();
    let in_order = Codes::from_vec(in_order, &[images, length])?;
    out.codes("out.labels", &in_order);

    let map = tokens.reshape(&[images, 1, length, 1])?;
    let mut gradients = backward(|| {
        let logits = model.logits(&map, &condition, &orders)?;
        out.tensor("out.logits", &logits);
        let predicted = logits.argmax_last()?;
        let right = predicted.as_slice().iter().zip(in_order.as_slice()).filter(|(a, b)| a == b).count();
        out.number("out.correct_tokens", right as f64 / in_order.len() as f64);
        let loss = logits.cross_entropy(&in_order)?.mean_all()?;
        out.tensor("out.loss", &loss);
        Ok(loss)
    })?;
    for (name, value) in model.gradients(&mut gradients)? {
        out.tensor(format!("grad.w.{name}"), &value);
    }
    out.tensor("out.raster_logits", &model.logits(&map, &condition, &Orders::raster(images, length))?);

    for sub in list(case, "sample_cases")? {
        no_grad(|| sampled(case, &model.ar, sub, out))?;
    }
    for (i, sub) in list(case, "schedules")?.iter().enumerate() {
        let (guidance, steps) = (guidance(sub)?, number(sub, "length")? as usize);
        let scales = (0..steps).map(|k| f64::from(guidance.at_progress(k as f32 / steps as f32)));
        out.numbers(format!("out.schedule.{i}"), scales);
    }
    let annealed = [case.number("randomness_anneal_start")?, case.number("randomness_anneal_end")?];
    let shares = numbers(&case.config, "ratio_steps")?.into_iter().map(|step| random_share(step, annealed));
    out.numbers("out.random_ratio", shares);
    Ok(())
}

fn list<'a>(case: &'a Case, key: &str) -> Result<&'a Vec<Value>> {
    case.config[key].as_array().ok_or_else(|| format!("the configuration has no list `{key}`").into())
}

/// A scale of 0 means no guidance.
fn guidance(sub: &Value) -> Result<Guidance> {
    let scale = number(sub, "guidance_scale")? as f32;
    let schedule = GuidanceSchedule::PowerCosine { power: number(sub, "guidance_scale_pow")? as f32 };
    Ok(Guidance { scale: if scale == 0.0 { 1.0 } else { scale }, schedule })
}

fn sampled(case: &Case, model: &Ar, sub: &Value, out: &mut Outputs) -> Result<()> {
    let name = sub["name"].as_str().ok_or("a sub-case without a name")?;
    let guidance = guidance(sub)?;
    let draw = Draw { temperature: number(sub, "randomize_temperature")? as f32, ..Draw::default() };
    drawn::codes(case, model, name, &draw, |k, length| guidance.at_progress(k as f32 / length as f32), out)
}
