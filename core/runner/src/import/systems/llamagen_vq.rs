//! The tokenizer of FoundationVision/LlamaGen (Sun et al. 2024): `tokenizer/tokenizer_image/vq_model.py`. VQGAN under other names:
//! blocks are numbered in the order in which they run, also in the decoder.

use super::convolutional::Convolutional;
use super::{Parts, System, codebook};
use crate::import::names::Rule;
use crate::import::published::Published;
use rqlab_sdk::Result;
use rqlab_weights::Value;

pub(super) const SYSTEM: System = System {
    name: "llamagen_vq",
    about: "the VQ tokenizer of FoundationVision/LlamaGen",
    configuration: None,
    made_of: &["resnet", "vq"],
    recognises: |published| published.has("encoder.conv_blocks.0.res.0.norm1.weight"),
    prepare: |_| (),
    read,
    rule: |ours, facts| {
        let name = ours.strip_prefix("autoencoder.").map(|name| theirs(name, facts.levels));
        name.map(Rule::same).or_else(|| codebook(ours))
    },
    // The queue that counts how many codes were used of late.
    unused: |theirs| theirs == "quantize.codebook_used",
};

fn read(published: &Published) -> Result<Parts> {
    let levels = published.count(|i| format!("encoder.conv_blocks.{i}.res.0.norm1.weight"));
    let net = Convolutional::of_shapes(published, |name| theirs(name, levels), 32)?;
    let codes = published.side("quantize.embedding.weight", 0)?;
    // The file of a training says how it was started.
    let length = match published.checkpoint.value("args/codebook_l2_norm") {
        Some(Value::Bool(false)) => "never",
        _ => "always",
    };
    let quantizer = format!("vq(codebook: {codes}, codebook_update: gradient, normalize: {length}, beta: 0.25)");
    Ok(Parts::Tokenizer { image: net.image, autoencoder: net.call(), quantizer })
}

/// Its name of one of `resnet`'s parameters.
fn theirs(name: &str, levels: usize) -> String {
    let parts: Vec<&str> = name.split('.').collect();
    match parts.as_slice() {
        [side, "mid", "block_1", rest @ ..] => format!("{side}.mid.0.{}", rest.join(".")),
        [side, "mid", "attn_1", rest @ ..] => format!("{side}.mid.1.{}", rest.join(".")),
        [side, "mid", "block_2", rest @ ..] => format!("{side}.mid.2.{}", rest.join(".")),
        [side, way @ ("down" | "up"), level, rest @ ..] => {
            let level: usize = level.parse().unwrap_or(0);
            let place = if *way == "up" { levels.saturating_sub(1 + level) } else { level };
            let rest = rest.iter().map(|part| if *part == "block" { "res" } else { part });
            format!("{side}.conv_blocks.{place}.{}", rest.collect::<Vec<_>>().join("."))
        }
        _ => name.to_owned(),
    }
}
