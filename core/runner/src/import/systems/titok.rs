//! TiTok of bytedance/1d-tokenizer (Yu et al., NeurIPS 2024): `modeling/titok.py`, in its form that decodes pixels.

use super::{Parts, System, codebook};
use crate::import::names::Rule;
use crate::import::published::Published;
use rqlab_sdk::Result;

pub(super) const SYSTEM: System = System {
    name: "titok",
    about: "TiTok of bytedance/1d-tokenizer, where it decodes pixels",
    configuration: Some("config.json or config.yaml"),
    made_of: &["vit", "vq"],
    recognises: |published| {
        published.has("latent_tokens") && published.has("encoder.latent_token_positional_embedding")
    },
    prepare: |_| (),
    read,
    rule: |ours, _| rule(ours),
    unused: |_| false,
};

/// Attention heads of the published sizes.
const HEADS: [(&str, usize); 4] = [("tiny", 2), ("small", 8), ("base", 12), ("large", 16)];

const MODEL: &str = "model/vq_model";

fn read(published: &Published) -> Result<Parts> {
    let model = |name: &str| format!("{MODEL}/{name}");
    for name in ["finetune_decoder", "is_legacy"] {
        if published.flag(&model(name), false) {
            let why =
                "codes are decoded by another tokenizer's decoder then; only the form that decodes pixels is known";
            return Err(published.unsupported(&model(name), why));
        }
    }
    if published.text(&model("quantize_mode")).is_some_and(|mode| mode != "vq") {
        return Err(published.unsupported(&model("quantize_mode"), "only `vq` is known"));
    }
    let sizes = ["vit_enc_model_size", "vit_dec_model_size"].map(|name| published.text(&model(name)));
    let patches = [published.size_of(&model("vit_enc_patch_size"))?, published.size_of(&model("vit_dec_patch_size"))?];
    if sizes[0] != sizes[1] || patches[0] != patches[1] {
        return Err(published.unsupported(&model("vit_dec_model_size"), "encoder and decoder are of one size"));
    }
    let heads = sizes[0].and_then(|size| HEADS.iter().find(|(name, _)| *name == size)).map(|(_, heads)| *heads);
    let heads = heads.ok_or_else(|| published.unsupported(&model("vit_enc_model_size"), "this size is not known"))?;
    let side = published.size_of("dataset/preprocessing/crop_size")?;
    let [height, wide] = published.size.unwrap_or([side; 2]);
    let layers = published.count(|i| format!("encoder.transformer.{i}.ln_1.weight"));
    let autoencoder = format!(
        "vit(patch: {}, width: {}, layers: {layers}, heads: {heads}, latent_tokens: {}, code_channels: {}, init: published, unit_range: \
         true)",
        patches[0],
        published.side("latent_tokens", 1)?,
        published.side("latent_tokens", 0)?,
        published.side("quantize.embedding.weight", 1)?,
    );
    let length = if published.flag(&model("use_l2_norm"), false) { "always" } else { "never" };
    let quantizer = format!(
        "vq(codebook: {}, codebook_update: gradient, normalize: {length}, beta: {})",
        published.side("quantize.embedding.weight", 0)?,
        published.number(&model("commitment_cost")).unwrap_or(0.25),
    );
    let image = [height, wide, published.side("encoder.patch_embed.weight", 1)?];
    Ok(Parts::Tokenizer { image, autoencoder, quantizer })
}

fn rule(ours: &str) -> Option<Rule> {
    const NAMES: [(&str, &str); 8] = [
        (".transformer.blocks.", ".transformer."),
        (".ln1.", ".ln_1."),
        (".ln2.", ".ln_2."),
        (".attn.qkv.weight", ".attn.in_proj_weight"),
        (".attn.qkv.bias", ".attn.in_proj_bias"),
        (".attn.proj.", ".attn.out_proj."),
        (".mlp.0.", ".mlp.c_fc."),
        (".mlp.2.", ".mlp.c_proj."),
    ];
    let Some(name) = ours.strip_prefix("autoencoder.") else { return codebook(ours) };
    Some(Rule::same(NAMES.iter().fold(name.to_owned(), |name, (ours, theirs)| name.replace(ours, theirs))))
}
