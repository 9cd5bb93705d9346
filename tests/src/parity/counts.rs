//! Parameter counts of the published configurations, from models that hold no numbers.

use super::case::{number, numbers};
use super::{Case, Outputs, Result, autoencoder, mar, pixelsnail as snail, priors};
use rqlab_autoencoder_resnet::{Resnet, ResnetConfig};
use rqlab_autoencoder_vqvae2::{Vqvae2, Vqvae2Config};
use rqlab_objective_patch_gan::{PatchGan, PatchGanConfig};
use rqlab_quantizer_rq::{Rq, RqConfig};
use rqlab_quantizer_vq::{Vq, VqConfig};
use rqlab_sdk::prelude::*;
use serde_json::{Value, json};

/// The sizes of an RQ-VAE that differs from the published one: channel multipliers, residual blocks per level, channels of
/// the codes, channels of the latents, and side of the code map, which gives that of the image.
const SIZES: [&str; 5] = ["mult", "nrb", "emb", "z", "hw"];

pub(super) fn parameter_counts(case: &Case, out: &mut Outputs) -> Result<()> {
    for (name, entry) in case.json["counts"].as_object().ok_or("no counts")? {
        let config = &entry["config"];
        // Names are the case's own; what a configuration is of, its counted parts say.
        let counts = |part: &str| entry["params"].get(part).is_some();
        let counted = if counts("codebook_with_padding_row") {
            rqvae(config)
        } else if counts("body") && counts("head") {
            rqtransformer(config)
        } else if config.get("encoder_attn_resolutions").is_some() {
            kl_vae(config)
        } else if counts("buffers") {
            vqvae2(config)
        } else if counts("diffloss") {
            mar::counts(config)
        } else if config.get("ndf").is_some() {
            patch_discriminator(config)
        } else if config.get("n_res_block").is_some() && config.get("n_class").is_some() {
            pixelsnail(config)
        } else {
            out.not_yet(format!("counts.{name}."), name);
            continue;
        };
        for (part, count) in counted.map_err(|error| format!("`{name}`: {error}"))? {
            out.number(format!("counts.{name}.params.{part}"), count as f64);
        }
    }
    Ok(())
}

/// The sizes as the published configuration `ddconfig` has them, and the channels of the codes. A case that states none of
/// [`SIZES`] is of the published network; one that states some must state all. The width of the first level is the
/// published one unless the case says another.
fn network(config: &Value) -> Result<(Value, usize)> {
    let published = json!({ "mult": [1, 1, 2, 2, 4, 4], "nrb": 2, "emb": 256, "z": 256, "hw": 8 });
    let sizes = if SIZES.iter().any(|key| config.get(*key).is_some()) { config } else { &published };
    let size = |key: &str| -> Result<usize> { Ok(number(sizes, key)? as usize) };
    let multipliers = numbers(sizes, "mult")?;
    let network = json!({
        "ch": if config.get("ch").is_some() { number(config, "ch")? } else { 128.0 },
        "ch_mult": multipliers,
        "num_res_blocks": size("nrb")?,
        "attn_resolutions": numbers(config, "attn")?,
        "resolution": size("hw")? << multipliers.len().saturating_sub(1),
        "z_channels": size("z")?,
    });
    Ok((network, size("emb")?))
}

/// The autoencoder and its shared codebook, which the reference counts as a parameter with its padding row.
fn rqvae(config: &Value) -> Result<Vec<(&'static str, usize)>> {
    let size = number(config, "K")? as usize;
    let (network, code_channels) = network(config)?;
    let side = number(&network, "resolution")? as usize;
    let params = Params::dry();
    let image = MapShape { height: side, width: side, channels: 3 };
    let model = autoencoder::published(&network, code_channels, None)?;
    let resnet =
        Resnet::new(model, &AutoencoderContext { image, params: params.clone(), components: Components::none() })?;
    let trained = params.count();

    let codebook = Params::dry();
    let cx = QuantizerContext { latents: resnet.levels()[0], params: codebook.clone(), components: Components::none() };
    Rq::new(RqConfig { codebook: size, ..RqConfig::parse("rq")? }, &cx)?;
    let numbers = |ending: &str| -> usize {
        let entries = codebook.entries().into_iter().filter(|(name, _)| name.ends_with(ending));
        entries.map(|(_, entry)| entry.shape.iter().product::<usize>()).sum()
    };
    let padded = numbers("weight") + resnet.levels()[0].channels;
    Ok(vec![
        ("total", trained + padded),
        ("encoder", params.scope("encoder").count()),
        ("decoder", params.scope("decoder").count()),
        ("quant_conv", params.scope("quant_conv").count()),
        ("post_quant_conv", params.scope("post_quant_conv").count()),
        ("codebook_with_padding_row", padded),
        ("trainable", trained),
        ("ema_buffers", numbers("_ema")),
    ])
}

/// The Gaussian autoencoder, whose decoder has no attention on its way up; the size of the images counts no parameters, but
/// says which levels have attention.
fn kl_vae(config: &Value) -> Result<Vec<(&'static str, usize)>> {
    let channels = number(config, "embed_dim")? as usize;
    let network = json!({
        "ch": number(config, "ch")?,
        "ch_mult": numbers(config, "ch_mult")?,
        "num_res_blocks": number(config, "num_res_blocks")?,
        "attn_resolutions": numbers(config, "encoder_attn_resolutions")?,
        "decoder_attn_resolutions": [],
        "resolution": config.get("resolution").and_then(Value::as_f64).unwrap_or(256.0),
        "z_channels": channels,
    });
    let side = number(&network, "resolution")? as usize;
    let params = Params::dry();
    let image = MapShape { height: side, width: side, channels: 3 };
    let model = ResnetConfig { double_z: true, ..autoencoder::published(&network, channels, None)? };
    Resnet::new(model, &AutoencoderContext { image, params: params.clone(), components: Components::none() })?;
    let part = |name: &str| params.scope(name).count();
    Ok(vec![("total", params.count()), ("encoder", part("encoder")), ("decoder", part("decoder"))])
}

/// VQ-VAE-2, as published but for what the case says; the reference's codebooks are buffers, with their averages.
fn vqvae2(config: &Value) -> Result<Vec<(&'static str, usize)>> {
    let size = |key: &str, published: usize| config.get(key).and_then(Value::as_u64).map_or(published, |n| n as usize);
    let model = Vqvae2Config {
        width: size("channel", 128),
        blocks: size("n_res_block", 2),
        residual_width: size("n_res_channel", 32),
        code_channels: size("embed_dim", 64),
        ..Vqvae2Config::parse("vqvae2")?
    };
    let params = Params::dry();
    let image = MapShape { height: 256, width: 256, channels: size("in_channel", 3) };
    let cx = AutoencoderContext { image, params: params.clone(), components: Components::none() };
    let levels = Vqvae2::new(model, &cx)?.levels();
    let codebooks = Params::dry();
    for (level, latents) in levels.into_iter().enumerate() {
        let cx = QuantizerContext { latents, params: codebooks.scope(level), components: Components::none() };
        Vq::new(VqConfig { codebook: size("n_embed", 512), ..VqConfig::parse("vq")? }, &cx)?;
    }
    Ok(vec![("total", params.count()), ("buffers", codebooks.count() + codebooks.buffers())])
}

/// The patch discriminator with batch norm, which counts the same for images of any size.
fn patch_discriminator(config: &Value) -> Result<Vec<(&'static str, usize)>> {
    let channels = config.get("in_channels").and_then(Value::as_u64).map_or(3, |n| n as usize);
    let params = Params::dry();
    let image = MapShape { height: 256, width: 256, channels };
    let model = PatchGanConfig {
        n_layers: number(config, "n_layers")? as usize,
        width: number(config, "ndf")? as usize,
        ..PatchGanConfig::parse("patch_gan")?
    };
    PatchGan::new(model, &ObjectiveContext::new(image, params.clone()))?;
    Ok(vec![("total", params.count())])
}

/// PixelSNAIL; a conditioned one reads a map of half the side.
fn pixelsnail(config: &Value) -> Result<Vec<(&'static str, usize)>> {
    let shape = numbers(config, "shape")?;
    let conditioned = config.get("n_cond_res_block").and_then(Value::as_u64).is_some_and(|blocks| blocks > 0);
    let &[height, width] = shape.as_slice() else { return Err("`shape` is not (H, W)".into()) };
    let above = conditioned.then(|| [height, width].map(|side| side as usize / 2));
    let params = Params::dry();
    snail::build(config, snail::HEADS, above, &params)?;
    Ok(vec![("total", params.count())])
}

fn rqtransformer(config: &Value) -> Result<Vec<(&'static str, usize)>> {
    let params = Params::dry();
    let (vocabulary, length) = (number(config, "vc")? as usize, number(config, "bc")? as usize);
    priors::build(config, &params, Vec::new(), vocabulary, length)?;
    let part = |name: &str| params.scope(name).count();
    Ok(vec![
        ("total", params.count()),
        ("body", part("body_transformer")),
        ("head", part("head_transformer")),
        ("classifier", part("classifier")),
        ("input_mlp", part("input_mlp")),
        ("head_mlp", part("head_mlp")),
        ("cond_emb", part("cond_emb")),
        ("cond_classifier", part("cond_classifier")),
    ])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    /// Weights and biases of a convolution.
    fn conv(inputs: usize, outputs: usize, side: usize) -> usize {
        inputs * outputs * side * side + outputs
    }

    /// Two group norms and 3x3 convolutions, and a shortcut where the channels change.
    fn block(inputs: usize, outputs: usize) -> usize {
        let shortcut = if inputs == outputs { 0 } else { conv(inputs, outputs, 1) };
        2 * inputs + conv(inputs, outputs, 3) + 2 * outputs + conv(outputs, outputs, 3) + shortcut
    }

    /// A group norm, and queries, keys, values and the projection.
    fn attention(channels: usize) -> usize {
        2 * channels + 4 * conv(channels, channels, 1)
    }

    /// Encoder and decoder, added up layer by layer as the published code makes them.
    fn by_hand(ch: usize, mult: &[usize], blocks: usize, z: usize, side: usize, attn: usize) -> (usize, usize) {
        let last = mult.len() - 1;
        let attends = |level: usize| side << (last - level) == attn;
        let middle = |channels: usize| 2 * block(channels, channels) + attention(channels);
        let (mut encoder, mut channels) = (conv(3, ch, 3), ch);
        for (level, m) in mult.iter().enumerate() {
            for _ in 0..blocks {
                encoder += block(channels, ch * m) + if attends(level) { attention(ch * m) } else { 0 };
                channels = ch * m;
            }
            encoder += if level < last { conv(channels, channels, 3) } else { 0 };
        }
        encoder += middle(channels) + 2 * channels + conv(channels, z, 3);
        let mut decoder = conv(z, channels, 3) + middle(channels);
        for (level, m) in mult.iter().enumerate().rev() {
            for _ in 0..=blocks {
                decoder += block(channels, ch * m) + if attends(level) { attention(ch * m) } else { 0 };
                channels = ch * m;
            }
            decoder += if level > 0 { conv(channels, channels, 3) } else { 0 };
        }
        (encoder, decoder + 2 * channels + conv(channels, 3, 3))
    }

    #[test]
    fn an_rqvae_of_other_sizes_is_counted() {
        let base = json!({ "K": 512, "attn": 16, "ch": 64, "mult": [1, 2, 3], "nrb": 1, "emb": 48, "z": 96, "hw": 16 });
        let (encoder, decoder) = by_hand(64, &[1, 2, 3], 1, 96, 16, 16);
        let codebook = 513 * 48;
        let convs = [conv(96, 48, 1), conv(48, 96, 1)];
        let trained = encoder + decoder + convs[0] + convs[1];
        let expected = [
            ("total", trained + codebook),
            ("encoder", encoder),
            ("decoder", decoder),
            ("quant_conv", convs[0]),
            ("post_quant_conv", convs[1]),
            ("codebook_with_padding_row", codebook),
            ("trainable", trained),
            ("ema_buffers", 512 + 512 * 48),
        ];
        assert_eq!(rqvae(&base).unwrap(), expected);

        let mut published_width = base.clone();
        published_width.as_object_mut().unwrap().remove("ch");
        let counted = rqvae(&published_width).unwrap();
        assert_eq!(counted[1].1, by_hand(128, &[1, 2, 3], 1, 96, 16, 16).0);

        for key in ["K", "attn"].iter().chain(&SIZES) {
            let mut without = base.clone();
            without.as_object_mut().unwrap().remove(*key);
            let error = rqvae(&without).unwrap_err().to_string();
            assert_eq!(error, format!("the configuration has no `{key}`"));
        }
    }

    #[test]
    fn the_published_network_is_that_of_a_case_without_sizes() {
        let counted = rqvae(&json!({ "K": 16384, "attn": 8 })).unwrap();
        let (encoder, decoder) = by_hand(128, &[1, 1, 2, 2, 4, 4], 2, 256, 8, 8);
        assert_eq!((counted[1].1, counted[2].1), (encoder, decoder));
    }
}
