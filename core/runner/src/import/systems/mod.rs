//! The published systems that can be imported: a file each, with the system's names, its shapes, and the components and settings
//! that express it.

mod convolutional;
mod diffusers;
mod llamagen_gpt;
mod llamagen_vq;
mod mar;
mod mar_kl16;
mod maskgit_vqgan;
mod pixelsnail;
mod rqtransformer;
mod rqvae;
mod taming_transformer;
mod taming_vqgan;
mod titok;
mod vqvae2;

use super::names::{Rule, Shapes};
use super::published::Published;
use rqlab_sdk::Result;
use rqlab_sdk::contracts::{ConditionSpace, LevelInfo};

/// A published system.
pub(super) struct System {
    /// Its name on the command line.
    pub(super) name: &'static str,
    /// What it is, and where its code is.
    pub(super) about: &'static str,
    /// The configuration that must lie beside its file, if one must.
    pub(super) configuration: Option<&'static str>,
    /// The components that express it: an autoencoder and a quantizer, or a prior.
    pub(super) made_of: &'static [&'static str],
    /// Whether a file is one of its.
    pub(super) recognises: fn(&Published) -> bool,
    /// Brings names that changed over time to those of today.
    pub(super) prepare: fn(&mut Published),
    /// What a file of it is made of.
    pub(super) read: fn(&Published) -> Result<Parts>,
    /// Where a parameter of ours is found.
    pub(super) rule: fn(&str, &Facts) -> Option<Rule>,
    /// Which of its tensors no model needs: state of training, tables that are computed.
    pub(super) unused: fn(&str) -> bool,
}

/// The components that express a file.
pub(super) enum Parts {
    /// An autoencoder and a quantizer.
    Tokenizer {
        /// Height, width and channels of its images.
        image: [usize; 3],
        autoencoder: String,
        quantizer: String,
    },
    /// A prior under conditions like these, of tokens of the last of these levels; the others are above it. `null` says whether it
    /// knows the null condition.
    Prior { prior: String, levels: Vec<LevelInfo>, condition: ConditionSpace, null: bool },
}

/// What the names depend on.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// Resolutions of a convolutional autoencoder.
    pub(super) levels: usize,
    /// Codes per position.
    pub(super) depth: usize,
    /// Whether they have one codebook.
    pub(super) shared: bool,
}

impl Facts {
    /// From our parameters, and codes per position.
    pub(super) fn of(ours: &Shapes, depth: usize) -> Self {
        let level = |name: &String| {
            let rest = name.strip_prefix("autoencoder.encoder.down.")?;
            rest.split('.').next()?.parse::<usize>().ok()
        };
        let levels = ours.keys().filter_map(level).max().map_or(0, |last| last + 1);
        let books = ours.keys().filter(|name| name.starts_with("quantizer.codebooks.") && name.ends_with(".weight"));
        Self { levels, depth, shared: depth > 1 && books.count() == 1 }
    }
}

/// All of them. A file is asked of in this order: MaskGIT's VQGAN has all names that tell taming's, and more.
pub(super) const ALL: &[System] = &[
    rqvae::SYSTEM,
    rqtransformer::SYSTEM,
    maskgit_vqgan::SYSTEM,
    taming_vqgan::SYSTEM,
    taming_vqgan::FIRST_STAGE,
    taming_transformer::SYSTEM,
    llamagen_vq::SYSTEM,
    llamagen_gpt::SYSTEM,
    vqvae2::SYSTEM,
    pixelsnail::SYSTEM,
    titok::SYSTEM,
    mar::SYSTEM,
    mar_kl16::SYSTEM,
    diffusers::VQ,
    diffusers::KL,
];

/// Where the codes of the quantizer `vq` are found that published files call `quantize.embedding`. Averages, which make codes in
/// training, have no place there.
fn codebook(ours: &str) -> Option<Rule> {
    match ours.strip_prefix("quantizer.")? {
        "embedding.weight" | "codebooks.0.weight" => Some(Rule::same("quantize.embedding.weight")),
        "codebooks.0.embed_ema" | "codebooks.0.cluster_size_ema" => Some(Rule::nowhere()),
        _ => None,
    }
}

/// Numbers as a list in an experiment: `[1, 2]`.
fn list(numbers: &[usize]) -> String {
    format!("[{}]", numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn parameters_have_the_names_of_the_published_files() {
        let facts = Facts { levels: 5, depth: 2, shared: true };
        for (system, ours, theirs) in [
            ("rqvae", "autoencoder.encoder.conv_in.weight", vec!["encoder.conv_in.weight"]),
            (
                "rqvae",
                "quantizer.codebooks.0.embed_ema",
                vec!["quantizer.codebooks.0.embed_ema", "quantizer.codebooks.1.embed_ema"],
            ),
            (
                "rqtransformer",
                "prior.head_transformer.blocks.3.attn.qkv.bias",
                vec![
                    "head_transformer.blocks.3.attn.query.bias",
                    "head_transformer.blocks.3.attn.key.bias",
                    "head_transformer.blocks.3.attn.value.bias",
                ],
            ),
            ("taming_vqgan", "quantizer.embedding.weight", vec!["quantize.embedding.weight"]),
            (
                "llamagen_vq",
                "autoencoder.encoder.down.4.attn.1.proj_out.weight",
                vec!["encoder.conv_blocks.4.attn.1.proj_out.weight"],
            ),
            (
                "llamagen_vq",
                "autoencoder.decoder.up.4.block.2.conv1.weight",
                vec!["decoder.conv_blocks.0.res.2.conv1.weight"],
            ),
            ("llamagen_vq", "autoencoder.decoder.mid.attn_1.q.bias", vec!["decoder.mid.1.q.bias"]),
            ("maskgit_vqgan", "autoencoder.encoder.mid.block_2.norm1.weight", vec!["encoder.mid.1.norm1.weight"]),
            (
                "maskgit_vqgan",
                "autoencoder.decoder.up.1.upsample.conv.weight",
                vec!["decoder.up.1.upsample_conv.weight"],
            ),
            (
                "diffusers_kl",
                "autoencoder.encoder.down.0.downsample.conv.weight",
                vec!["encoder.down_blocks.0.downsamplers.0.conv.weight"],
            ),
            (
                "diffusers_kl",
                "autoencoder.decoder.up.4.block.0.nin_shortcut.weight",
                vec!["decoder.up_blocks.0.resnets.0.conv_shortcut.weight"],
            ),
            (
                "diffusers_vq",
                "autoencoder.decoder.mid.attn_1.proj_out.bias",
                vec!["decoder.mid_block.attentions.0.to_out.0.bias"],
            ),
            ("llamagen_gpt", "prior.transformer.layers.2.attention.wo.weight", vec!["layers.2.attention.wo.weight"]),
            ("llamagen_gpt", "prior.cond_emb.weight", vec!["cls_embedding.embedding_table.weight"]),
            ("taming_transformer", "prior.pos_emb", vec!["transformer.pos_emb"]),
            ("taming_transformer", "prior.classifier.linear.weight", vec!["transformer.head.weight"]),
            (
                "taming_transformer",
                "prior.transformer.blocks.3.attn.qkv.bias",
                vec![
                    "transformer.blocks.3.attn.query.bias",
                    "transformer.blocks.3.attn.key.bias",
                    "transformer.blocks.3.attn.value.bias",
                ],
            ),
            ("mar", "prior.class_emb.weight", vec!["class_emb.weight", "fake_latent"]),
            ("vqvae2", "quantizer.0.codebooks.0.weight", vec!["quantize_t.embed"]),
            ("vqvae2", "quantizer.1.codebooks.0.cluster_size_ema", vec!["quantize_b.cluster_size"]),
            (
                "titok",
                "autoencoder.encoder.transformer.blocks.1.attn.qkv.weight",
                vec!["encoder.transformer.1.attn.in_proj_weight"],
            ),
        ] {
            let known = ALL.iter().find(|known| known.name == system).unwrap();
            assert_eq!((known.rule)(ours, &facts).unwrap().names, theirs, "{system}: {ours}");
        }
        assert!(ALL.iter().all(|system| (system.rule)("elsewhere.weight", &facts).is_none()));
    }
}
