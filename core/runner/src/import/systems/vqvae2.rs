//! VQ-VAE-2 (Razavi et al., NeurIPS 2019) of rosinality/vq-vae-2-pytorch: `vqvae.py`. The codewords are the columns of its
//! codebooks; the coarser level is `t`, top, the finer `b`, bottom.

use super::{Parts, System, list};
use crate::import::names::{How, Rule};
use crate::import::published::Published;
use rqlab_sdk::Result;

pub(super) const SYSTEM: System = System {
    name: "vqvae2",
    about: "VQ-VAE-2 of rosinality/vq-vae-2-pytorch",
    configuration: None,
    made_of: &["vqvae2", "vq"],
    recognises: |published| published.has("quantize_t.embed") && published.has("enc_b.blocks.0.weight"),
    prepare: |_| (),
    read,
    rule: |ours, _| rule(ours),
    unused: |_| false,
};

/// Sides of images where the user does not say: what the published model is for.
const PUBLISHED_SIDE: usize = 256;

/// Side of the kernels that halve.
const HALVING: usize = 4;

fn read(published: &Published) -> Result<Parts> {
    let halvings = |encoder: &str| {
        let halves = |i: &usize| {
            published.side(&format!("{encoder}.blocks.{}.weight", 2 * i), 3).is_ok_and(|side| side == HALVING)
        };
        (0..8).take_while(halves).count()
    };
    let factors = [1 << halvings("enc_b"), 1 << halvings("enc_t")];
    // The convolution behind those that halve, and the residual blocks behind that.
    let first = 2 * halvings("enc_b");
    let width = published.side(&format!("enc_b.blocks.{first}.weight"), 0)?;
    let blocks = published.count(|i| format!("enc_b.blocks.{}.conv.1.weight", first + 1 + i));
    let residual = format!("enc_b.blocks.{}.conv.1.weight", first + 1);
    let residual_width = if blocks > 0 { published.side(&residual, 0)? } else { 32 };
    let code_channels = published.side("quantize_conv_t.weight", 0)?;
    let [height, wide] = published.size.unwrap_or([PUBLISHED_SIDE; 2]);
    let autoencoder = format!(
        "vqvae2(factors: {}, width: {width}, blocks: {blocks}, residual_width: {residual_width}, code_channels: {code_channels})",
        list(&factors)
    );
    let codes = published.side("quantize_t.embed", 1)?;
    let quantizer = format!("vq(codebook: {codes}, decay: 0.99, dead_codes: keep, initial_count: 0.0)");
    Ok(Parts::Tokenizer { image: [height, wide, published.side("enc_b.blocks.0.weight", 1)?], autoencoder, quantizer })
}

fn rule(ours: &str) -> Option<Rule> {
    if let Some(name) = ours.strip_prefix("autoencoder.") {
        return Some(Rule::same(name));
    }
    let (level, name) = ours.strip_prefix("quantizer.")?.split_once(".codebooks.0.")?;
    let level = if level == "0" { "t" } else { "b" };
    let (name, how) = match name {
        "weight" => ("embed", How::Transposed),
        "embed_ema" => ("embed_avg", How::Transposed),
        _ => ("cluster_size", How::Same),
    };
    Some(Rule { names: vec![format!("quantize_{level}.{name}")], how })
}
