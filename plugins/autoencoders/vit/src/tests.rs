#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;

const IMAGE: MapShape = MapShape { height: 4, width: 8, channels: 3 };

fn build(call: &str, image: MapShape, params: &Params) -> Result<Vit> {
    let cx = AutoencoderContext { image, params: params.clone(), components: Components::none() };
    Vit::new(VitConfig::parse(call)?, &cx)
}

#[test]
fn patches_and_latent_tokens_keep_the_contract() {
    for extra in [
        "",
        ", latent_tokens: 3",
        ", latent_tokens: 2, double_z: true, unit_range: true",
        ", dropout: 0.5",
        ", latent_tokens: 3, positions: sinusoidal",
    ] {
        let call = format!("vit(patch: 2, width: 8, layers: 1, heads: 2, code_channels: 3{extra})");
        let config = VitConfig::parse(&call).unwrap();
        rqlab_sdk::testing::autoencoder(IMAGE, |cx| Vit::new(config.clone(), cx));
    }
}

/// As large as random ones, and the more alike the nearer two patches lie; the class token's stays random.
#[test]
fn sinusoidal_positions_of_neighbours_are_alike() {
    let table = |extra: &str| {
        let params = Params::new(1);
        let call = format!("vit(patch: 2, width: 64, layers: 1, heads: 2{extra})");
        build(&call, MapShape { height: 8, width: 16, channels: 3 }, &params).unwrap();
        params.state()["encoder.positional_embedding"].to_vec()
    };
    let waves = table(", positions: sinusoidal");
    let row = |row: usize, column: usize| &waves[(row * 8 + column) * 64..][..64];
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    assert!((0..32).all(|patch| (dot(row(0, patch), row(0, patch)) - 1.0).abs() < 1e-5));
    let [near, far] = [dot(row(1, 2), row(1, 3)), dot(row(1, 2), row(3, 6))];
    assert!(far < near && near < 1.0, "{far} {near}");
    let [random, with_class] = [table(", latent_tokens: 3"), table(", latent_tokens: 3, positions: sinusoidal")];
    assert_eq!((random.len(), &with_class[..64], &with_class[64..]), (33 * 64, &random[..64], &waves[..]));
}

#[test]
fn levels_are_maps_of_patches_or_sequences_of_tokens() {
    let image = MapShape { height: 256, width: 256, channels: 3 };
    for (call, encoded, decoded) in [
        ("vit(patch: 16)", [16, 16, 16], 16),
        ("vit(patch: 16, latent_tokens: 32, code_channels: 12)", [1, 32, 12], 12),
        ("vit(patch: 16, latent_tokens: 32, double_z: true)", [1, 32, 32], 16),
    ] {
        let model = build(call, image, &Params::dry()).unwrap();
        let [height, width, channels] = encoded;
        assert_eq!(model.levels(), [MapShape { height, width, channels }], "{call}");
        assert_eq!(model.decoder_levels(), [MapShape { height, width, channels: decoded }], "{call}");
    }
}

/// Names and shapes of TiTok's checkpoints, but for the layers of the transformers.
#[test]
fn parameters_have_the_published_names() {
    let params = Params::dry();
    let call = "vit(patch: 16, width: 1024, layers: 24, heads: 16, latent_tokens: 32, code_channels: 12)";
    build(call, MapShape { height: 256, width: 256, channels: 3 }, &params).unwrap();
    let shape = |name: &str| params.entries().into_iter().find(|(n, _)| n == name).map(|(_, e)| e.shape);
    for (name, wanted) in [
        ("latent_tokens", &[32, 1024][..]),
        ("encoder.class_embedding", &[1, 1024]),
        ("encoder.positional_embedding", &[257, 1024]),
        ("encoder.latent_token_positional_embedding", &[32, 1024]),
        ("encoder.patch_embed.weight", &[1024, 3, 16, 16]),
        ("encoder.ln_pre.bias", &[1024]),
        ("encoder.transformer.blocks.23.attn.qkv.weight", &[3072, 1024]),
        ("encoder.conv_out.weight", &[12, 1024, 1, 1]),
        ("decoder.decoder_embed.weight", &[1024, 12]),
        ("decoder.mask_token", &[1, 1, 1024]),
        ("decoder.transformer.blocks.0.mlp.0.weight", &[4096, 1024]),
        ("decoder.ffn.0.weight", &[768, 1024, 1, 1]),
        ("decoder.conv_out.weight", &[3, 3, 3, 3]),
    ] {
        assert_eq!(shape(name).as_deref(), Some(wanted), "{name}");
    }
}

#[test]
fn what_cannot_be_is_refused_with_the_field() {
    for (call, field) in [("vit(patch: 3)", "patch"), ("vit(patch: 2, heads: 3)", "heads")] {
        let text = build(call, IMAGE, &Params::dry()).err().unwrap().to_string();
        assert!(text.starts_with(&format!("`{field}`")), "{call}: {text}");
    }
}
