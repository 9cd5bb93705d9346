//! The autoencoders of huggingface/diffusers: VQGAN's under other names. Attention was called `query`, `key`, `value` and
//! `proj_attn` in older files; its maps are matrices, or 1x1 convolutions.

use super::convolutional::Convolutional;
use super::{Facts, Parts, System, codebook};
use crate::import::names::Rule;
use crate::import::published::Published;
use rqlab_sdk::Result;

pub(super) const VQ: System = System {
    name: "diffusers_vq",
    about: "VQModel of huggingface/diffusers",
    configuration: Some("config.json"),
    made_of: &["resnet", "vq"],
    recognises: |published| published.text("_class_name") == Some("VQModel"),
    prepare,
    read: read_vq,
    rule,
    unused: |_| false,
};

pub(super) const KL: System = System {
    name: "diffusers_kl",
    about: "AutoencoderKL of huggingface/diffusers",
    configuration: Some("config.json"),
    made_of: &["resnet", "kl"],
    recognises: |published| published.text("_class_name") == Some("AutoencoderKL"),
    prepare,
    read: read_kl,
    rule,
    unused: |_| false,
};

/// Gives attention the names that it has today.
fn prepare(published: &mut Published) {
    let names = [(".query.", ".to_q."), (".key.", ".to_k."), (".value.", ".to_v."), (".proj_attn.", ".to_out.0.")];
    published.rename(|name| names.iter().fold(name.to_owned(), |name, (old, new)| name.replace(old, new)));
}

fn read_vq(published: &Published) -> Result<Parts> {
    if published.text("norm_type").is_some_and(|kind| kind != "group") {
        return Err(published.unsupported("norm_type", "only group norm is known"));
    }
    let net = network(published)?;
    let codes = published.size_of("num_vq_embeddings")?;
    let quantizer = format!("vq(codebook: {codes}, codebook_update: gradient, beta: 0.25)");
    Ok(Parts::Tokenizer { image: net.image, autoencoder: net.call(), quantizer })
}

fn read_kl(published: &Published) -> Result<Parts> {
    if published.flag("use_quant_conv", true) != published.flag("use_post_quant_conv", true) {
        return Err(published.unsupported("use_post_quant_conv", "both 1x1 convolutions are there, or neither"));
    }
    // `scaling_factor` and `shift_factor` are for the diffusion model: encoder and decoder do not know them.
    let mut net = network(published)?;
    net.further.push("double_z: true".to_owned());
    Ok(Parts::Tokenizer { image: net.image, autoencoder: net.call(), quantizer: "kl(weight: 1e-6)".to_owned() })
}

/// The sizes of encoder and decoder.
fn network(published: &Published) -> Result<Convolutional> {
    for (blocks, known) in [("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")] {
        let attends = known.replace("DownEncoder", "AttnDownEncoder").replace("UpDecoder", "AttnUpDecoder");
        let listed = published.setting(blocks).and_then(|list| list.as_array()).into_iter().flatten();
        if listed.filter_map(|kind| kind.as_str()).any(|kind| kind != known && kind != attends) {
            return Err(published.unsupported(blocks, &format!("only {known} and {attends} are known")));
        }
    }
    let levels = published.count(|i| format!("encoder.down_blocks.{i}.resnets.0.norm1.weight"));
    let mut net =
        Convolutional::of_shapes(published, |name| theirs(name, levels), published.size_of("norm_num_groups")?)?;
    if published.size.is_none() {
        let side = published.size_of("sample_size")?;
        net.image = [side, side, net.image[2]];
    }
    Ok(net)
}

fn rule(ours: &str, facts: &Facts) -> Option<Rule> {
    let name = ours.strip_prefix("autoencoder.").map(|name| theirs(name, facts.levels));
    name.map(Rule::same).or_else(|| codebook(ours))
}

/// Its name of one of `resnet`'s parameters.
fn theirs(name: &str, levels: usize) -> String {
    let parts: Vec<&str> = name.split('.').collect();
    match parts.as_slice() {
        [side, "mid", "block_1", rest @ ..] => format!("{side}.mid_block.resnets.0.{}", block(rest)),
        [side, "mid", "attn_1", rest @ ..] => format!("{side}.mid_block.attentions.0.{}", attention(rest)),
        [side, "mid", "block_2", rest @ ..] => format!("{side}.mid_block.resnets.1.{}", block(rest)),
        [side, way @ ("down" | "up"), level, part, rest @ ..] => {
            let level: usize = level.parse().unwrap_or(0);
            let place = if *way == "up" { levels.saturating_sub(1 + level) } else { level };
            let rest = match (*part, rest) {
                ("block", [j, rest @ ..]) => format!("resnets.{j}.{}", block(rest)),
                ("attn", [j, rest @ ..]) => format!("attentions.{j}.{}", attention(rest)),
                (resample, rest) => format!("{resample}rs.0.{}", rest.join(".")),
            };
            format!("{side}.{way}_blocks.{place}.{rest}")
        }
        [side, "norm_out", rest @ ..] => format!("{side}.conv_norm_out.{}", rest.join(".")),
        _ => name.to_owned(),
    }
}

fn block(rest: &[&str]) -> String {
    rest.join(".").replace("nin_shortcut", "conv_shortcut")
}

fn attention(rest: &[&str]) -> String {
    let names =
        [("norm.", "group_norm."), ("q.", "to_q."), ("k.", "to_k."), ("v.", "to_v."), ("proj_out.", "to_out.0.")];
    let rest = rest.join(".");
    let found = names.iter().find_map(|(ours, theirs)| Some(format!("{theirs}{}", rest.strip_prefix(ours)?)));
    found.unwrap_or(rest)
}
