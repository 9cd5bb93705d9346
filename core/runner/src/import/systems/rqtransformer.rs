//! RQ-Transformer of kakaobrain/rq-vae-transformer (Lee et al., CVPR 2022): `rqvae/models/rqtransformer`. It reads the codebooks
//! of its RQ-VAE, which are not in its file.

use super::{Facts, Parts, System};
use crate::import::names::{How, Rule};
use crate::import::published::Published;
use rqlab_sdk::Result;
use rqlab_sdk::contracts::{CodeSpace, ConditionSpace, LevelInfo, TokenSpace};

pub(super) const SYSTEM: System = System {
    name: "rqtransformer",
    about: "RQ-Transformer of kakaobrain/rq-vae-transformer",
    configuration: Some("config.yaml"),
    made_of: &["rq_transformer"],
    recognises: |published| published.has("pos_emb_hw") && published.has("head_transformer.blocks.0.ln1.weight"),
    prepare: |_| (),
    read,
    rule,
    unused: |_| false,
};

/// Settings that have one value in every published model, which the component has, too.
const FIXED: [(&str, bool); 5] = [
    ("input_emb_vqvae", true),
    ("head_emb_vqvae", true),
    ("cumsum_depth_ctx", true),
    ("scaled_head_emb_vqvae", false),
    ("use_padding_emb", false),
];

fn read(published: &Published) -> Result<Parts> {
    let arch = |name: &str| format!("arch/{name}");
    for (name, value) in FIXED {
        if published.flag(&arch(name), value) != value {
            return Err(published.unsupported(&arch(name), "the component has this as the published models have it"));
        }
    }
    let block_size = published.sizes_of(&arch("block_size"))?;
    let &[height, width, depth] = block_size.as_slice() else {
        return Err(published.unsupported(&arch("block_size"), "height, width and depth are wanted"));
    };
    let vocabulary =
        ["arch/vocab_size", "dataset/vocab_size"].into_iter().find(|path| published.setting(path).is_some());
    let vocabulary = match vocabulary {
        Some(path) => published.sizes_of(path)?,
        None => vec![published.side("classifier.linear.weight", 0)?],
    };
    let sizes = if let [one] = vocabulary[..] { vec![one; depth] } else { vocabulary };
    // One codebook for all depths has one table of rows to classify into; several have one each, unless they are shared, too.
    let shared = published.flag(&arch("shared_tok_emb"), false);
    let heads = published.size_of(&arch("body/block/n_head"))?;
    if published.size_of(&arch("head/block/n_head"))? != heads {
        return Err(published.unsupported(&arch("head/block/n_head"), "body and head have as many attention heads"));
    }
    for part in ["body", "head"] {
        let gelu = arch(&format!("{part}/block/gelu"));
        if published.text(&gelu).is_some_and(|version| version != "v1") {
            return Err(published.unsupported(&gelu, "only the exact GELU, `v1`, is known"));
        }
    }
    let length = published.side("pos_emb_cond", 1)?;
    let condition = match published.side("cond_emb.weight", 0)? {
        1 => ConditionSpace::None,
        classes if length == 1 => ConditionSpace::Classes(classes),
        vocabulary => ConditionSpace::Text { vocabulary, length },
    };
    let fields = [
        format!("width: {}, heads: {heads}", published.size_of(&arch("embed_dim"))?),
        format!("body_layers: {}", published.size_of(&arch("body/n_layer"))?),
        format!("head_layers: {}", published.size_of(&arch("head/n_layer"))?),
        format!("condition: {}", if matches!(condition, ConditionSpace::None) { "none" } else { "class" }),
    ];
    let channels = published.size_of(&arch("input_embed_dim"))?;
    let space = TokenSpace::Codes(CodeSpace { sizes, tables: vec![], shared });
    let level = LevelInfo { height, width, channels, space, scales: None };
    Ok(Parts::Prior {
        prior: format!("rq_transformer({})", fields.join(", ")),
        levels: vec![level],
        condition,
        null: false,
    })
}

fn rule(ours: &str, _: &Facts) -> Option<Rule> {
    let name = ours.strip_prefix("prior.")?;
    match name.split_once("attn.qkv.") {
        Some((before, after)) => {
            let names = ["query", "key", "value"].map(|part| format!("{before}attn.{part}.{after}")).to_vec();
            Some(Rule { names, how: How::Stacked })
        }
        None => Some(Rule::same(name)),
    }
}
