//! Losses, draws and schedules.

use super::case::number;
use super::outputs::{backward, gradient};
use super::{Case, Outputs, Result};
use rqlab_sdk::optim::{PublishedWarmup, Schedule};
use rqlab_sdk::tensor::Tensor;
use rqlab_sdk::tensor::ops::sampling::{Draw, probabilities, top_k_logits, top_p_probs};
use serde_json::Value;

pub(super) fn soft_target_ce(case: &Case, out: &mut Outputs) -> Result<()> {
    for sub in case.sub_cases("in.", "logits") {
        let logits = case.tensor(&format!("in.{sub}logits"))?.leaf();
        let targets = case.tensor(&format!("in.{sub}targets"))?;
        let mut gradients = backward(|| {
            let each = logits.soft_cross_entropy(&targets)?;
            let mean = each.mean_all()?;
            out.tensor(format!("out.{sub}none"), &each);
            out.tensor(format!("out.{sub}sum"), &each.sum_all()?);
            out.tensor(format!("out.{sub}mean"), &mean);
            Ok(mean)
        })?;
        out.tensor(format!("grad.{sub}in.logits"), &gradient(&mut gradients, &logits));
    }
    Ok(())
}

pub(super) fn topk_topp(case: &Case, out: &mut Outputs) -> Result<()> {
    let logits = case.tensor("in.logits")?;
    for k in case.sizes("ks")? {
        let kept = top_k_logits(&logits, k)?;
        let mask = kept.as_slice().iter().map(|x| f64::from(u8::from(x.is_finite()))).collect();
        out.array(format!("out.topk.{k}.keep"), logits.shape(), mask);
        out.tensor(format!("out.topk.{k}.probs"), &kept.softmax()?);
    }
    for p in case.config["ps"].as_array().ok_or("no ps")? {
        let value = p.as_f64().ok_or("a p is not a number")? as f32;
        out.tensor(format!("out.topp.{p}.probs"), &top_p_probs(&logits.softmax()?, value)?);
    }
    let example: Tensor = case.tensor("in.example.probs")?;
    out.tensor("out.example.probs", &top_p_probs(&example, case.number("example/p")? as f32)?);
    let draw = Draw {
        temperature: case.number("combined/temperature")? as f32,
        top_k: Some(case.size("combined/top_k")?),
        top_p: Some(case.number("combined/top_p")? as f32),
    };
    out.tensor("out.combined.probs", &probabilities(&logits, &draw)?);
    Ok(())
}

pub(super) fn lr_schedule(case: &Case, out: &mut Outputs) -> Result<()> {
    for sub in case.config["sub_cases"].as_array().ok_or("no sub-cases")? {
        let at = |path: &str| number(sub, path);
        let steps = |path: &str| -> Result<u64> { Ok((at(path)? * at("steps_per_epoch")?) as u64) };
        let warmup = PublishedWarmup {
            multiplier: at("warmup/multiplier")?,
            steps: steps("warmup/epoch")?,
            buffer: steps("warmup/buffer_epoch")?,
            from_zero: sub.pointer("/warmup/start_from_zero").and_then(Value::as_bool).unwrap_or(true),
        };
        let total = steps("max_epoch")?;
        let schedule = Schedule::published(at("init_lr")?, at("warmup/min_lr")?, warmup, total);
        let name = sub["name"].as_str().unwrap_or_default();
        out.numbers(format!("out.{name}lr"), (0..total).map(|step| schedule.lr(step)));
    }
    Ok(())
}
