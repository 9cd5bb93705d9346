//! The masked prior of LTH14/mar (Li et al., NeurIPS 2024): `models/mar.py`. Its names are `mar`'s own, but for the null condition,
//! which it keeps apart from the classes. Attention heads are not in its shapes: they are known of the published sizes, and named
//! by a configuration of others.

use super::{Facts, Parts, System};
use crate::import::names::{How, Rule};
use crate::import::published::Published;
use rqlab_sdk::Result;
use rqlab_sdk::contracts::{ConditionSpace, LevelInfo, TokenSpace};

pub(super) const SYSTEM: System = System {
    name: "mar",
    about: "the masked prior with diffusion loss of LTH14/mar",
    configuration: None,
    made_of: &["mar"],
    recognises: |published| published.has("fake_latent") && published.has("diffloss.net.input_proj.weight"),
    prepare: |_| (),
    read,
    rule,
    unused: |_| false,
};

/// Model width and attention heads of the published sizes.
const HEADS: [(usize, usize); 3] = [(768, 12), (1024, 16), (1280, 16)];

fn read(published: &Published) -> Result<Parts> {
    let size = |name: &str, default: usize| match published.setting(name) {
        Some(_) => published.size_of(name),
        None => Ok(default),
    };
    let width = published.side("z_proj.weight", 0)?;
    let decoder = match published.side("decoder_embed.weight", 0)? {
        same if same == width => String::new(),
        other => format!("decoder_width: {other}, "),
    };
    let heads = match HEADS.iter().find(|(known, _)| *known == width) {
        Some((_, heads)) if published.setting("encoder_num_heads").is_none() => *heads,
        _ => published.size_of("encoder_num_heads")?,
    };
    let (decoder_heads, patch) = (size("decoder_num_heads", heads)?, size("patch_size", 1)?);
    let length = published.side("diffusion_pos_embed_learned", 1)?;
    let (side, channels) = (length.isqrt(), published.side("z_proj.weight", 1)?);
    if side * side != length || patch == 0 || !channels.is_multiple_of(patch * patch) {
        let message =
            format!("{length} tokens of {channels} numbers are no square map of {patch} x {patch} vectors each");
        return Err(published.wrong(message));
    }
    let buffer = published.side("encoder_pos_embed_learned", 1)?.saturating_sub(length);
    let fields = [
        format!("preset: mar_diffloss, patch: {patch}"),
        format!("width: {width}, {decoder}heads: {heads}, decoder_heads: {decoder_heads}"),
        format!("encoder_layers: {}", published.count(|i| format!("encoder_blocks.{i}.norm1.weight"))),
        format!("decoder_layers: {}", published.count(|i| format!("decoder_blocks.{i}.norm1.weight"))),
        format!("buffer: {buffer}, dropout: 0.1"),
        format!("head_width: {}", published.side("diffloss.net.input_proj.weight", 0)?),
        format!("head_layers: {}", published.count(|i| format!("diffloss.net.res_blocks.{i}.in_ln.weight"))),
        format!("noise_draws: {}, noise_schedule: cosine", size("diffusion_batch_mul", 4)?),
    ];
    let channels = channels / (patch * patch);
    let space = TokenSpace::Vectors { channels };
    let level = LevelInfo { height: side * patch, width: side * patch, channels, space, scales: None };
    let condition = ConditionSpace::Classes(published.side("class_emb.weight", 0)?);
    Ok(Parts::Prior { prior: format!("mar({})", fields.join(", ")), levels: vec![level], condition, null: true })
}

fn rule(ours: &str, _: &Facts) -> Option<Rule> {
    let name = ours.strip_prefix("prior.")?;
    if name == "class_emb.weight" {
        return Some(Rule { names: vec![name.to_owned(), "fake_latent".to_owned()], how: How::LastRowApart });
    }
    Some(Rule::same(name))
}
