//! The transformer of CompVis/taming-transformers (Esser et al., CVPR 2021): `taming/modules/transformer/mingpt.py`, in the file of
//! `taming/models/cond_transformer.py`, which also holds its VQGAN.

use super::{Facts, Parts, System};
use crate::import::names::{How, Rule};
use crate::import::published::Published;
use rqlab_sdk::Result;
use rqlab_sdk::contracts::{CodeSpace, ConditionSpace, LevelInfo, TokenSpace};

pub(super) const SYSTEM: System = System {
    name: "taming_transformer",
    about: "the transformer of CompVis/taming-transformers, beside the VQGAN in its file",
    configuration: Some("project.yaml"),
    // Every file of it holds a first stage, which is what is taken unless one asks for this.
    made_of: &["ar"],
    recognises: |published| published.has("transformer.pos_emb"),
    prepare: |_| (),
    read,
    rule,
    unused: |theirs| !theirs.starts_with("transformer.") || theirs.ends_with(".attn.mask"),
};

fn read(published: &Published) -> Result<Parts> {
    let model = |name: &str| format!("model/params/{name}");
    let gpt = |name: &str| model(&format!("transformer_config/params/{name}"));
    if published.number(&gpt("n_unmasked")).is_some_and(|n| n != 0.0) {
        return Err(published.unsupported(&gpt("n_unmasked"), "positions that see each other are not known"));
    }
    let codes = published.size_of(&model("first_stage_config/params/n_embed"))?;
    if published.size_of(&gpt("vocab_size"))? != codes {
        return Err(published.unsupported(&gpt("vocab_size"), "it must be the first stage's number of codes"));
    }
    let condition = condition(published)?;
    let permuter = model("permuter_config/target");
    if published.text(&permuter).is_some_and(|target| !target.ends_with(".Identity")) {
        return Err(
            published.unsupported(&permuter, "its positions count codes in the order of the permuter, ours on the map")
        );
    }
    let (width, rows) = (published.size_of(&gpt("n_embd"))?, published.size_of(&gpt("block_size"))?);
    let share = |name: &str| published.number(&gpt(name)).unwrap_or(0.0);
    let fields = [
        format!(
            "width: {width}, heads: {}, layers: {}",
            published.size_of(&gpt("n_head"))?,
            published.size_of(&gpt("n_layer"))?
        ),
        format!("position_rows: {rows}, condition_rows: codes, classifier_bias: false, init: gpt"),
        format!("dropout: {}, attention_dropout: {}", share("resid_pdrop"), share("attn_pdrop")),
        format!("embedding_dropout: {}", share("embd_pdrop")),
        format!("condition: {}", if condition == ConditionSpace::None { "none" } else { "class" }),
    ];
    let space = TokenSpace::Codes(CodeSpace { sizes: vec![codes], tables: vec![], shared: false });
    // The map's sides are in none of its shapes.
    let level = LevelInfo { height: 1, width: 1, channels: 1, space, scales: None };
    Ok(Parts::Prior { prior: format!("ar({})", fields.join(", ")), levels: vec![level], condition, null: false })
}

/// A class, or nothing, which is told by a fixed code.
fn condition(published: &Published) -> Result<ConditionSpace> {
    let params = |name: &str| format!("model/params/{name}");
    let (stage, classes) = (params("cond_stage_config"), params("cond_stage_config/params/n_classes"));
    let unconditional =
        published.text(&stage) == Some("__is_unconditional__") || published.flag(&params("unconditional"), false);
    if unconditional {
        let start = params("sos_token");
        return match published.number(&start) {
            Some(token) if token != 0.0 => {
                Err(published.unsupported(&start, "only code 0 starts an unconditional sequence"))
            }
            _ => Ok(ConditionSpace::None),
        };
    }
    if published.text(&format!("{stage}/target")).is_some_and(|target| target.ends_with(".Labelator")) {
        return Ok(ConditionSpace::Classes(published.size_of(&classes)?));
    }
    let why = "only classes (`taming.modules.util.Labelator`) are known, and no condition at all";
    Err(published.unsupported(&format!("{stage}/target"), why))
}

fn rule(ours: &str, _: &Facts) -> Option<Rule> {
    let name = ours.strip_prefix("prior.")?;
    if let Some((before, after)) = name.strip_prefix("transformer.").and_then(|name| name.split_once("attn.qkv.")) {
        let names = ["query", "key", "value"].map(|part| format!("transformer.{before}attn.{part}.{after}")).to_vec();
        return Some(Rule { names, how: How::Stacked });
    }
    Some(Rule::same(match name.split_once('.') {
        Some(("transformer", _)) => name.to_owned(),
        Some(("tok_emb", _)) => format!("transformer.{name}"),
        None if name == "pos_emb" => format!("transformer.{name}"),
        Some(("classifier", rest)) => match rest.split_once('.')? {
            ("layer_norm", rest) => format!("transformer.ln_f.{rest}"),
            (_, rest) => format!("transformer.head.{rest}"),
        },
        _ => return None,
    }))
}
