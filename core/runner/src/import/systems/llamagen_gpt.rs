//! The transformer of FoundationVision/LlamaGen (Sun et al., 2024): `autoregressive/models/gpt.py`, conditioned on classes. Its
//! file says neither how many attention heads it has, nor how large its map is, which its rotary positions leave open.

use super::{Facts, Parts, System};
use crate::import::names::Rule;
use crate::import::published::Published;
use rqlab_sdk::Result;
use rqlab_sdk::contracts::{CodeSpace, ConditionSpace, LevelInfo, TokenSpace};

pub(super) const SYSTEM: System = System {
    name: "llamagen_gpt",
    about: "the transformer of FoundationVision/LlamaGen",
    configuration: None,
    made_of: &["ar"],
    recognises: |published| published.has("tok_embeddings.weight") && published.has(QKV),
    prepare: |_| (),
    read,
    rule,
    unused: |theirs| theirs == "freqs_cis",
};

const QKV: &str = "layers.0.attention.wqkv.weight";
const CLASSES: &str = "cls_embedding.embedding_table.weight";

/// Model widths and attention heads of GPT-B, L, XL, XXL, 3B and 7B.
const PUBLISHED: [(usize, usize); 6] = [(768, 12), (1024, 16), (1280, 20), (1536, 24), (3200, 32), (4096, 32)];

/// What the hidden width of its SwiGLU is a multiple of.
const MULTIPLE: usize = 256;

fn read(published: &Published) -> Result<Parts> {
    if !published.has(CLASSES) {
        let message =
            format!("it has no `{CLASSES}`: only models that are conditioned on classes are known, not on texts");
        return Err(published.wrong(message));
    }
    let (codes, width) = (published.side("tok_embeddings.weight", 0)?, published.side("tok_embeddings.weight", 1)?);
    let heads = match PUBLISHED.iter().find(|(published, _)| *published == width) {
        Some((_, heads)) if published.setting("n_head").is_none() => *heads,
        _ => published.size_of("n_head")?,
    };
    let rows = published.side(QKV, 0)?;
    if rows != 3 * width {
        let message = format!(
            "`{QKV}` has {rows} rows, not {}: keys and values of fewer heads (`n_kv_head`) are not known",
            3 * width
        );
        return Err(published.wrong(message));
    }
    let hidden = published.side("layers.0.feed_forward.w1.weight", 0)?;
    let least = 8 * width / 3;
    if hidden < least {
        let message = format!(
            "the SwiGLU is {hidden} wide, below {least}, 8/3 of the model width: `ffn_dim_multiplier` is not known"
        );
        return Err(published.wrong(message));
    }
    let multiple = if least.next_multiple_of(MULTIPLE) == hidden { MULTIPLE } else { hidden };
    let layers = published.count(|i| format!("layers.{i}.attention.wqkv.weight"));
    // The last row is no class.
    let classes = published.side(CLASSES, 0)?.saturating_sub(1);
    let prior = format!(
        "ar(block: llama, width: {width}, heads: {heads}, layers: {layers}, mlp_multiple: {multiple}, dropout: 0.1, \
         embedding_dropout: 0.1, init: gpt)"
    );
    let space = TokenSpace::Codes(CodeSpace { sizes: vec![codes], tables: vec![], shared: false });
    let level = LevelInfo { height: 1, width: 1, channels: 1, space, scales: None };
    Ok(Parts::Prior { prior, levels: vec![level], condition: ConditionSpace::Classes(classes), null: true })
}

fn rule(ours: &str, _: &Facts) -> Option<Rule> {
    let name = ours.strip_prefix("prior.")?;
    Some(Rule::same(match name.split_once('.')? {
        ("tok_emb", rest) => format!("tok_embeddings.{rest}"),
        ("cond_emb", rest) => format!("cls_embedding.embedding_table.{rest}"),
        ("transformer", rest) => rest.to_owned(),
        ("output", _) => name.to_owned(),
        _ => return None,
    }))
}
