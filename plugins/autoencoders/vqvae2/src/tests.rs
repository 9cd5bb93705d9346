#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;

const IMAGE: MapShape = MapShape { height: 16, width: 8, channels: 3 };

fn build(call: &str, image: MapShape, params: &Params) -> Result<Vqvae2> {
    let cx = AutoencoderContext { image, params: params.clone(), components: Components::none() };
    Vqvae2::new(Vqvae2Config::parse(call)?, &cx)
}

#[test]
fn any_number_of_levels_keeps_the_contract() {
    for factors in ["[4, 2]", "[2]", "[2, 2, 2]", "[2, 4]", "[4, 2], double_z: true"] {
        let call = format!("vqvae2(factors: {factors}, width: 24, blocks: 1, residual_width: 16, code_channels: 6)");
        let config = Vqvae2Config::parse(&call).unwrap();
        rqlab_sdk::testing::autoencoder(IMAGE, |cx| Vqvae2::new(config.clone(), cx));
    }
}

#[test]
fn the_published_autoencoder_has_its_published_parameters() {
    let params = Params::dry();
    let model = build("vqvae2(width: 128)", MapShape { height: 256, width: 256, channels: 3 }, &params).unwrap();
    assert_eq!(params.count(), 1_388_867);
    let side = |side| MapShape { height: side, width: side, channels: 64 };
    assert_eq!(model.levels(), [side(32), side(64)]);
    let shape = |name: &str| params.entries().into_iter().find(|(n, _)| n == name).map(|(_, e)| e.shape);
    for (name, wanted) in [
        ("enc_b.blocks.2.weight", &[128, 64, 4, 4][..]),
        ("enc_b.blocks.6.conv.3.weight", &[128, 32, 1, 1]),
        ("enc_t.blocks.2.bias", &[128]),
        ("quantize_conv_t.weight", &[64, 128, 1, 1]),
        ("dec_t.blocks.4.weight", &[128, 64, 4, 4]),
        ("quantize_conv_b.weight", &[64, 192, 1, 1]),
        ("upsample_t.weight", &[64, 64, 4, 4]),
        ("dec.blocks.0.weight", &[128, 128, 3, 3]),
        ("dec.blocks.6.weight", &[64, 3, 4, 4]),
    ] {
        assert_eq!(shape(name).as_deref(), Some(wanted), "{name}");
    }
}

#[test]
fn every_level_has_a_mean_and_a_log_variance_for_each_channel_that_is_decoded() {
    let model = build("vqvae2(factors: [4, 2], code_channels: 6, double_z: true)", IMAGE, &Params::dry()).unwrap();
    let levels = |channels| [MapShape { height: 2, width: 1, channels }, MapShape { height: 4, width: 2, channels }];
    assert_eq!((model.levels(), model.decoder_levels()), (levels(12).to_vec(), levels(6).to_vec()));
}

/// A finer level is encoded knowing the quantized coarser one.
#[test]
fn what_becomes_of_a_coarse_level_moves_the_finer_ones() {
    let model = build("vqvae2(factors: [2, 2, 2], width: 4, code_channels: 2)", IMAGE, &Params::new(1)).unwrap();
    let images = Tensor::from_vec(Rng::new(1, "images", 0).normal(16 * 8 * 3), &[1, 16, 8, 3]).unwrap();
    let latents = |kept: usize| {
        let mut seen = Vec::new();
        let mut bottleneck = |level: usize, latents: &Tensor| {
            seen.push(latents.to_vec());
            Ok(if level < kept { latents.clone() } else { latents.mul_scalar(2.0)? })
        };
        model.encode(&images, &mut bottleneck, &Mode::Eval).unwrap();
        seen
    };
    let (all, two, none) = (latents(3), latents(1), latents(0));
    assert_eq!((all.len(), &all[0], &all[1]), (3, &two[0], &two[1]));
    assert_ne!(all[2], two[2]);
    assert_ne!(all[1], none[1]);
}

#[test]
fn what_cannot_be_is_refused_with_the_field() {
    for (call, field, part) in [
        ("vqvae2(factors: [])", "factors", "at least one"),
        ("vqvae2(factors: [4, 3])", "factors", "3 is none"),
        (
            "vqvae2(factors: [4, 4])",
            "factors",
            "16 times smaller than the images, so their sides must be multiples of that; they are 16 x 8",
        ),
        ("vqvae2(width: 7)", "width", "7 must be even"),
    ] {
        let text = build(call, IMAGE, &Params::dry()).err().unwrap().to_string();
        assert!(text.starts_with(&format!("`{field}`")) && text.contains(part), "{call}: {text}");
    }
}
