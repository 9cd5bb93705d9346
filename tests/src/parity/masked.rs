//! Masked priors, and the scales of guidance.

use super::outputs::{backward, gradient};
use super::{Case, Outputs, Result};
use rqlab_prior_maskgit::{Confidence, MaskGit, MaskGitConfig, Masks, Noise, Order, Proposals, Schedule, TrunkKind};
use rqlab_sdk::nn::transformer::{fuse_projections, split_projections};
use rqlab_sdk::prelude::*;
use serde_json::Value;
use std::collections::BTreeMap;

/// Published names, and what takes their place.
const NAMES: [(&str, &str); 12] = [
    ("model.embeddings.LayerNorm.", "trunk.norm."),
    ("model.encoder.layer.", "trunk.blocks."),
    (".attention.self.", ".attn."),
    (".attention.output.dense.", ".attn.proj."),
    (".attention.output.LayerNorm.", ".ln1."),
    (".intermediate.dense.", ".mlp.0."),
    (".output.dense.", ".mlp.2."),
    (".output.LayerNorm.", ".ln2."),
    ("model.lm_head.", "lm_head."),
    ("model.embeddings.position_embeddings.weight", "pos_emb"),
    (".fc1.", ".0."),
    (".fc2.", ".2."),
];

fn ours(published: &str) -> String {
    NAMES.iter().fold(published.to_owned(), |name, (from, to)| name.replace(from, to))
}

fn published(ours: &str) -> String {
    NAMES[..10].iter().rev().fold(ours.to_owned(), |name, (from, to)| name.replace(to, from))
}

/// A U-ViT's blocks in one row, and the names of their parts.
fn ours_of_uvit(published: &str, half: usize) -> String {
    let numbered = |name: &str, first: usize| -> Option<String> {
        let (index, part) = published.strip_prefix(name)?.split_once('.')?;
        Some(format!("trunk.blocks.{}.{part}", first + index.parse::<usize>().ok()?))
    };
    let name = numbered("in_blocks.", 0)
        .or_else(|| numbered("out_blocks.", half + 1))
        .or_else(|| Some(format!("trunk.blocks.{half}.{}", published.strip_prefix("mid_block.")?)))
        .or_else(|| Some(format!("trunk.norm.{}", published.strip_prefix("norm.")?)))
        .unwrap_or_else(|| published.to_owned());
    ours(&name.replace(".norm1.", ".ln1.").replace(".norm2.", ".ln2.").replace("pos_embed", "pos_emb"))
}

/// The rows of the published table of all ids: codes, the mask, classes and no class.
fn split_table(table: &Tensor, codes: usize, state: &mut BTreeMap<String, Tensor>) -> Result<()> {
    let [rows, width] = table.dims("table")?;
    state.insert("tok_emb.weight".to_owned(), table.slice(0, 0..codes)?);
    state.insert("mask_emb".to_owned(), table.slice(0, codes..codes + 1)?.reshape(&[width])?);
    state.insert("cond_emb.weight".to_owned(), table.slice(0, codes + 1..rows)?);
    Ok(())
}

fn config(case: &Case, trunk: TrunkKind, layers: &str) -> Result<MaskGitConfig> {
    Ok(MaskGitConfig {
        width: case.size("hidden_size")?,
        heads: case.size("num_attention_heads")?,
        layers: case.size(layers)?,
        mlp_width: Some(case.size("intermediate_size")?),
        trunk,
        label_smoothing: case.number("label_smoothing")? as f32,
        visible_weight: case.number("loss_weight_unmasked_token")? as f32,
        iterations: 1,
        order: Order::Confidence,
        proposals: Proposals::Gumbel,
        confidence: Confidence::Logit,
        ..MaskGitConfig::parse("maskgit")?
    })
}

fn model(case: &Case, config: MaskGitConfig, state: &BTreeMap<String, Tensor>) -> Result<(MaskGit, Params)> {
    let space =
        TokenSpace::Codes(CodeSpace { sizes: vec![case.size("codebook_size")?], tables: vec![], shared: false });
    let params = Params::new(0);
    let cx = PriorContext {
        levels: vec![LevelInfo { height: 1, width: case.size("image_seq_len")?, channels: 1, space, scales: None }],
        level: 0,
        condition: ConditionSpace::Classes(case.size("condition_num_classes")?),
        null_condition: true,
        params: params.clone(),
        components: Components::none(),
    };
    let model = MaskGit::new(config, &cx)?;
    params.load(state)?;
    Ok((model, params))
}

fn bert_state(case: &Case) -> Result<BTreeMap<String, Tensor>> {
    let stored = case.state("w.")?;
    let mut state: BTreeMap<String, Tensor> = stored.iter().map(|(name, value)| (ours(name), value.clone())).collect();
    fuse_projections(&mut state)?;
    let find = |name: &str| stored.get(name).ok_or_else(|| format!("the case has no `w.{name}`"));
    split_table(find("model.embeddings.word_embeddings.weight")?, case.size("codebook_size")?, &mut state)?;
    // The one row of token types that is in use is added at every position.
    let positions = find("model.embeddings.position_embeddings.weight")?;
    let types = find("model.embeddings.token_type_embeddings.weight")?.slice(0, 0..1)?;
    let [rows, width] = positions.dims("positions")?;
    state.insert("pos_emb".to_owned(), positions.add(&types)?.reshape(&[1, rows, width])?);
    Ok(state)
}

fn maps(codes: &Codes) -> Result<Codes> {
    let [images, length] = *codes.shape() else { return Err("tokens are not [B, L]".into()) };
    Ok(codes.reshape(&[images, 1, length, 1])?)
}

/// Ids with that of the mask where a position is masked.
fn ids(codes: &[u32], masked: &[bool], mask: usize) -> Vec<f64> {
    codes.iter().zip(masked).map(|(&code, &masked)| if masked { mask as f64 } else { f64::from(code) }).collect()
}

pub(super) fn maskgit(case: &Case, out: &mut Outputs) -> Result<()> {
    let (length, size) = (case.size("image_seq_len")?, case.size("codebook_size")?);
    for &positions in &case.sizes("schedule_lengths")? {
        for &steps in &case.sizes("schedule_steps")? {
            let mut masked = positions;
            let counts = (0..steps).map(|step| {
                masked = Schedule::Arccos.masked_after(step, steps, positions, masked);
                masked as f64
            });
            out.numbers(format!("out.mask_len.{positions}.{steps}"), counts.collect::<Vec<_>>());
        }
    }

    let state = bert_state(case)?;
    let (bert, params) = model(case, config(case, TrunkKind::Bert, "num_hidden_layers")?, &state)?;
    let (codes, labels) = (maps(&case.codes("in.tokens")?)?, case.codes("in.labels")?);
    let images = labels.len();
    let shape = [images, length, size];
    let ratios = case.tensor("rand.ratio_u")?.to_vec();
    let masks = Masks::drawn(Schedule::Arccos, &ratios, case.tensor("rand.perm_u")?.as_slice(), length)?;
    let flags: Vec<bool> = masks.masked.as_slice().iter().map(|&x| x == 1.0).collect();
    out.array("out.masked", &shape[..2], ids(codes.as_slice(), &flags, size));
    out.array("out.masks", &shape[..2], flags.iter().map(|&x| f64::from(u8::from(x))).collect());
    let drop = case.number("cond_drop_prob")? as f32;
    let kept = case.tensor("rand.drop_u")?.as_slice().iter().map(|&u| u32::from(u >= drop)).collect();
    let all = Condition::classes(labels)?;
    let some = Condition { present: Codes::from_vec(kept, &[images])?, ..all.clone() };
    out.tensor("out.logits", &bert.logits(&codes, &masks, &some, &Mode::Eval)?[0].reshape(&shape)?);
    let mut gradients = backward(|| {
        let loss = bert.masked_loss(&codes, &masks, &some, &Mode::Eval)?;
        out.tensor("out.loss", &loss.loss);
        let accuracy = loss.terms.iter().find(|(name, _)| *name == "accuracy").ok_or("no accuracy")?;
        out.tensor("out.correct_tokens", &accuracy.1);
        Ok(loss.loss)
    })?;
    let found = params.trained().into_iter().map(|(name, var)| (name, gradient(&mut gradients, &var.get())));
    let mut found: BTreeMap<String, Tensor> = found.collect();
    split_projections(&mut found)?;
    let part = |name: &str| found.get(name).ok_or_else(|| format!("no gradient of `{name}`"));
    let mask = part("mask_emb")?.reshape(&[1, case.size("hidden_size")?])?;
    let table = Tensor::concat(&[part("tok_emb.weight")?, &mask, part("cond_emb.weight")?], 0)?;
    out.tensor("grad.w.model.embeddings.word_embeddings.weight", &table);
    // The row of types in use is added at every position.
    let used = part("pos_emb")?.sum(&[0, 1], false)?.reshape(&[1, case.size("hidden_size")?])?;
    let types = Tensor::concat(&[&used, &Tensor::zeros(used.shape())], 0)?;
    out.tensor("grad.w.model.embeddings.token_type_embeddings.weight", &types);
    for (name, value) in &found {
        let shape = if name == "pos_emb" { &value.shape()[1..] } else { value.shape() };
        out.tensor(format!("grad.w.{}", published(name)), &value.reshape(shape)?);
    }

    let layers = case.size("uvit_layers")?;
    let stored = case.state("w.uvit.")?;
    let mut state: BTreeMap<String, Tensor> =
        stored.iter().map(|(name, value)| (ours_of_uvit(name, layers / 2), value.clone())).collect();
    split_table(stored.get("embeddings.weight").ok_or("no `w.uvit.embeddings.weight`")?, size, &mut state)?;
    let (uvit, _) = model(case, config(case, TrunkKind::UVit, "uvit_layers")?, &state)?;
    out.tensor("out.uvit.logits", &uvit.logits(&codes, &masks, &all, &Mode::Eval)?[0].reshape(&shape)?);

    for sub in case.config["sample_cases"].as_array().ok_or("no sample_cases")? {
        sampled(case, sub, out)?;
    }
    Ok(())
}

/// One image after another is filled in, as a sub-case says.
fn sampled(case: &Case, sub: &Value, out: &mut Outputs) -> Result<()> {
    let number = |key: &str| sub[key].as_f64().ok_or_else(|| format!("the sub-case has no `{key}`"));
    let name = sub["name"].as_str().ok_or("a sub-case without a name")?;
    let iterations = number("num_sample_steps")? as usize;
    let config = MaskGitConfig {
        iterations,
        noise: number("randomize_temperature")? as f32,
        annealed_logits: sub["softmax_temperature_annealing"].as_bool() == Some(true),
        ..config(case, TrunkKind::Bert, "num_hidden_layers")?
    };
    let (model, _) = model(case, config, &bert_state(case)?)?;
    let labels = case.codes(&format!("in.{name}labels"))?;
    let (images, length, size) = (labels.len(), case.size("image_seq_len")?, case.size("codebook_size")?);
    let kind = sub["guidance_decay"].as_str().unwrap_or_default();
    let guidance = titok(kind, number("guidance_scale")? as f32, number("guidance_scale_pow")? as f32)?;
    let request = SampleRequest { guidance, ..SampleRequest::new(Condition::classes(labels)?) };
    let plain = SampleRequest { guidance: Guidance::default(), ..request.clone() };
    let (tokens, confidence) =
        (case.tensor(&format!("rand.{name}token_u"))?, case.tensor(&format!("rand.{name}conf_u"))?);
    let of_step =
        |x: &Tensor, step: usize| x.as_slice()[step * x.len() / iterations..][..x.len() / iterations].to_vec();

    let mut canvas = model.canvas(images, &Rng::new(0, "canvas", 0));
    let first = if sub["softmax_temperature_annealing"].as_bool() == Some(true) {
        // The case has them before they are divided.
        0.5 + 0.8 * (1.0 - 1.0 / iterations as f32)
    } else {
        1.0
    };
    let logits = model.guided_logits(&canvas, &plain, 0)?[0].mul_scalar(first)?;
    out.tensor(format!("out.{name}first_logits"), &logits.reshape(&[images, length, size])?);
    let mut entering = Vec::new();
    for step in 0..iterations {
        entering.extend(ids(&canvas.codes(), &canvas.masked(), size));
        let noise = Noise { proposals: vec![of_step(&tokens, step)], confidence: of_step(&confidence, step) };
        model.step(&mut canvas, &request, step, &noise)?;
    }
    out.array(format!("out.{name}ids_entering"), &[iterations, images, length], entering);
    out.array(format!("out.{name}ids"), &[images, length], ids(&canvas.codes(), &canvas.masked(), size));
    Ok(())
}

/// 1d-tokenizer's guidance: `c + s (c - u)`, constant or growing with the share of steps that are done, or, with the cosine,
/// `u + s (c - u)`.
fn titok(schedule: &str, scale: f32, power: f32) -> Result<Guidance> {
    Ok(match schedule {
        "constant" => Guidance { scale: 1.0 + scale, schedule: GuidanceSchedule::Constant },
        "linear" => Guidance { scale: 1.0 + scale, schedule: GuidanceSchedule::Linear },
        "power-cosine" => Guidance { scale, schedule: GuidanceSchedule::PowerCosine { power } },
        other => return Err(format!("there is no schedule `{other}`").into()),
    })
}

pub(super) fn guidance(case: &Case, out: &mut Outputs) -> Result<()> {
    for sub in case.config["sub_cases"].as_array().ok_or("no sub_cases")? {
        let number = |key: &str| sub[key].as_f64().ok_or_else(|| format!("the sub-case has no `{key}`"));
        let text = |key: &str| sub[key].as_str().ok_or_else(|| format!("the sub-case has no `{key}`"));
        let (name, kind, schedule) = (text("name")?, text("kind")?, text("schedule")?);
        let (steps, scale) = (number("steps")? as usize, number("scale")? as f32);
        let power = sub["power"].as_f64().unwrap_or(1.0) as f32;
        let constant = |scale| Guidance { scale, schedule: GuidanceSchedule::Constant };
        let linear = |scale| Guidance { scale, schedule: GuidanceSchedule::Linear };
        let guidance = match (kind, schedule) {
            ("titok", schedule) => titok(schedule, scale, power)?,
            ("rar", _) => titok("power-cosine", scale, power)?,
            ("llamagen", "interval") => {
                // The first token and n + 1 after it are guided.
                let last = number("interval")? + 1.0;
                let to = if last > 0.0 { last as f32 / (steps - 1) as f32 } else { 1.0 };
                Guidance { scale, schedule: GuidanceSchedule::Interval { from: 0.0, to } }
            }
            ("var", _) => linear(1.0 + scale),
            ("mar" | "detok", "linear") => linear(scale),
            ("llamagen" | "mar" | "detok", "constant") => constant(scale),
            _ => return Err(format!("there is no guidance of kind `{kind}` and schedule `{schedule}`").into()),
        };
        let mut left = sub["seq_len"].as_f64().unwrap_or(0.0) as usize;
        let length = left;
        let (c, u) = (case.tensor(&format!("in.{name}c"))?, case.tensor(&format!("in.{name}u"))?);
        let (mut weights, mut mixed) = (Vec::new(), Vec::new());
        for k in 0..steps {
            let weight = match kind {
                "titok" | "rar" | "detok" => guidance.at_progress(k as f32 / steps as f32),
                "mar" => {
                    left = Schedule::Cosine.masked_after(k, steps, length, left);
                    guidance.at_progress((length - left) as f32 / length as f32)
                }
                _ => guidance.at(k, steps),
            };
            let pair = Tensor::concat(&[&c.slice(0, k..k + 1)?, &u.slice(0, k..k + 1)?], 0)?;
            let pair = pair.reshape(&[1, 2, c.last_dim()])?;
            mixed.extend(Guidance::mix(&pair, weight)?.to_vec().into_iter().map(f64::from));
            weights.push(f64::from(weight));
        }
        out.numbers(format!("out.{name}weight"), weights);
        out.array(format!("out.{name}mixed"), c.shape(), mixed);
    }
    Ok(())
}
