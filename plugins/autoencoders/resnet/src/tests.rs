#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use crate::{Resnet, ResnetConfig};
use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::Tape;

const PUBLISHED: &str = "resnet(width: 128, multipliers: [1, 1, 2, 2, 4, 4], blocks: 2, attention: [8], latent: 256)";
const SMALL: &str =
    "resnet(width: 32, multipliers: [1, 2, 2, 2], groups: 8, mid_attention: false, downsample: symmetric)";
const TINY: &str = "resnet(width: 4, multipliers: [1, 2], groups: 2, latent: 5, code_channels: 3, attention: [6])";

fn build(call: &str, image: [usize; 3], params: &Params) -> Result<Resnet> {
    let [height, width, channels] = image;
    let image = MapShape { height, width, channels };
    let cx = AutoencoderContext { image, params: params.clone(), components: Components::none() };
    Resnet::new(ResnetConfig::parse(call)?, &cx)
}

fn images(shape: &[usize]) -> Tensor {
    let len = shape.iter().product();
    Tensor::from_vec(Rng::new(1, "images", 0).uniform(len).into_iter().map(|x| 2.0 * x - 1.0).collect(), shape).unwrap()
}

fn complaint(call: &str, image: [usize; 3]) -> String {
    match build(call, image, &Params::dry()) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    }
}

/// The counts of the published checkpoints.
#[test]
fn the_published_autoencoder_has_its_published_parameters() {
    for call in [PUBLISHED, &PUBLISHED.replace("[8]", "[16]")] {
        let params = Params::dry();
        let model = build(call, [256, 256, 3], &params).unwrap();
        assert_eq!(params.scope("encoder").count(), 41_101_312);
        assert_eq!(params.scope("decoder").count(), 58_974_595);
        assert_eq!(params.scope("quant_conv").count(), 65_792);
        assert_eq!(params.scope("post_quant_conv").count(), 65_792);
        assert_eq!(params.count(), 100_207_491);
        assert_eq!(model.levels(), [MapShape { height: 8, width: 8, channels: 256 }]);
    }
}

#[test]
fn small_autoencoders_without_attention_have_known_counts() {
    let base = SMALL.replace("32", "64").replace("[1, 2, 2, 2]", "[1, 2, 2], blocks: 2");
    for (call, wanted) in [(SMALL, 1_292_323), (&base, 5_129_347)] {
        let params = Params::dry();
        build(call, [32, 32, 3], &params).unwrap();
        assert_eq!(params.count(), wanted);
    }
}

#[test]
fn parameters_have_the_published_names() {
    let params = Params::dry();
    build(PUBLISHED, [256, 256, 3], &params).unwrap();
    let shape = |name: &str| params.entries().into_iter().find(|(n, _)| n == name).map(|(_, e)| e.shape);
    for (name, wanted) in [
        ("encoder.conv_in.weight", &[128, 3, 3, 3][..]),
        ("encoder.down.2.block.0.nin_shortcut.weight", &[256, 128, 1, 1]),
        ("encoder.down.4.downsample.conv.bias", &[512]),
        ("encoder.down.5.attn.1.proj_out.weight", &[512, 512, 1, 1]),
        ("encoder.mid.attn_1.q.weight", &[512, 512, 1, 1]),
        ("encoder.norm_out.weight", &[512]),
        ("encoder.conv_out.weight", &[256, 512, 3, 3]),
        ("quant_conv.weight", &[256, 256, 1, 1]),
        ("post_quant_conv.bias", &[256]),
        ("decoder.conv_in.weight", &[512, 256, 3, 3]),
        ("decoder.mid.block_2.conv2.weight", &[512, 512, 3, 3]),
        ("decoder.up.5.attn.2.norm.bias", &[512]),
        ("decoder.up.1.upsample.conv.weight", &[128, 128, 3, 3]),
        ("decoder.up.0.block.2.norm1.weight", &[128]),
        ("decoder.conv_out.weight", &[3, 128, 3, 3]),
    ] {
        assert_eq!(shape(name).as_deref(), Some(wanted), "{name}");
    }
    for absent in
        ["encoder.down.5.downsample.conv.weight", "decoder.up.0.upsample.conv.weight", "encoder.down.0.attn.0"]
    {
        assert!(!params.entries().iter().any(|(name, _)| name.starts_with(absent)), "{absent}");
    }
}

/// The counts of the published KL-16 (MAR), whose decoder has no attention on its way up.
#[test]
fn the_published_kl_autoencoder_has_its_published_parameters() {
    let params = Params::dry();
    let call = "resnet(width: 128, multipliers: [1, 1, 2, 2, 4], blocks: 2, attention: [16], decoder_attention: [], \
                latent: 16, double_z: true)";
    let model = build(call, [256, 256, 3], &params).unwrap();
    assert_eq!(params.scope("encoder").count(), 28_265_760);
    assert_eq!(params.scope("decoder").count(), 38_188_931);
    assert_eq!(params.count(), 66_456_019);
    assert_eq!(model.levels(), [MapShape { height: 16, width: 16, channels: 32 }]);
    assert_eq!(model.decoder_levels(), [MapShape { height: 16, width: 16, channels: 16 }]);
}

/// The names of the published parameters, but for numbers of levels.
#[test]
fn maskgit_has_no_bias_inside_and_its_shortcut_behind() {
    let params = Params::new(0);
    let call = "resnet(family: maskgit, width: 4, multipliers: [2, 1], groups: 2, latent: 3, decoder_blocks: 1, mid_blocks: 1, \
                mid_attention: false, quant_conv: false, downsample: average, unit_range: true)";
    build(call, [4, 4, 3], &params).unwrap();
    let mut names: Vec<String> = params.entries().into_iter().map(|(name, _)| name).collect();
    names.retain(|name| name.starts_with("encoder") && !name.contains("norm"));
    assert_eq!(
        names,
        [
            "encoder.conv_in.weight",
            "encoder.conv_out.bias",
            "encoder.conv_out.weight",
            "encoder.down.0.block.0.conv1.weight",
            "encoder.down.0.block.0.conv2.weight",
            "encoder.down.0.block.0.nin_shortcut.weight",
            "encoder.down.1.block.0.conv1.weight",
            "encoder.down.1.block.0.conv2.weight",
            "encoder.down.1.block.0.nin_shortcut.weight",
            "encoder.mid.block_1.conv1.weight",
            "encoder.mid.block_1.conv2.weight",
        ]
    );
    let shape = |name: &str| params.entries().into_iter().find(|(n, _)| n == name).map(|(_, e)| e.shape);
    assert_eq!(shape("encoder.down.0.block.0.nin_shortcut.weight"), Some(vec![8, 8, 1, 1]));
    assert_eq!(shape("encoder.conv_out.weight"), Some(vec![3, 4, 1, 1]));
}

/// Images need be neither square nor grey nor large.
#[test]
fn images_come_back_in_their_size_and_train_every_parameter() {
    for (call, image, code) in [
        (TINY.to_owned(), [12, 6, 3], [6, 3, 3]),
        (TINY.replace(")", ", code_map: (2, 3))"), [12, 6, 1], [2, 3, 9]),
        (TINY.replace(")", ", downsample: average, mid_attention: false)"), [12, 6, 2], [6, 3, 3]),
        (TINY.replace(")", ", downsample: symmetric, resolution: 6, dropout: 0.1)"), [4, 10, 3], [2, 5, 3]),
    ] {
        let params = Params::new(0);
        let model = build(&call, image, &params).unwrap();
        assert_eq!(model.levels(), [MapShape { height: code[0], width: code[1], channels: code[2] }]);
        let x = images(&[2, image[0], image[1], image[2]]);
        let tape = Tape::start().unwrap();
        let mut seen = Vec::new();
        let mode = Mode::Train(Rng::new(0, "dropout", 0));
        let y = model
            .forward(
                &x,
                &mut |level, latents| {
                    seen = [&[level], latents.shape()].concat();
                    Ok(latents.clone())
                },
                &mode,
            )
            .unwrap();
        assert_eq!(seen, [0, 2, code[0], code[1], code[2]]);
        assert_eq!(y.shape(), x.shape());
        let mut gradients = tape.backward(&y.mse(&x).unwrap()).unwrap();
        for (name, var) in params.trained() {
            let gradient = gradients.take(&var.get()).map(|g| g.to_vec()).unwrap_or_default();
            // The bias of k adds one number to all scores of a query, which softmax does not see.
            let learns = gradient.iter().any(|&g| g != 0.0) || name.ends_with(".k.bias");
            assert!(learns, "no gradient reaches {name}");
        }
    }
}

#[test]
fn decoding_what_was_encoded_is_the_forward_pass() {
    let call = TINY.replace(")", ", code_map: (2, 3), dropout: 0.5)");
    let model = build(&call, [12, 6, 3], &Params::new(0)).unwrap();
    let x = images(&[3, 12, 6, 3]);
    let mut kept = Vec::new();
    model
        .encode(
            &x,
            &mut |_, latents| {
                kept.push(latents.clone());
                Ok(latents.clone())
            },
            &Mode::Eval,
        )
        .unwrap();
    let whole = model.forward(&x, &mut |_, latents| Ok(latents.clone()), &Mode::Eval).unwrap();
    assert_eq!(model.decode(&kept).unwrap().to_vec(), whole.to_vec());
    assert!(model.decode(&[]).is_err());
}

/// Folding puts the cell's latents side by side, channel fastest, and decoding takes them apart again.
#[test]
fn folding_keeps_every_latent() {
    let (flat, folded) = (Params::new(0), Params::new(0));
    let model = build(TINY, [12, 6, 3], &flat).unwrap();
    let twin = build(&TINY.replace(")", ", code_map: (3, 1))"), [12, 6, 3], &folded).unwrap();
    let x = images(&[1, 12, 6, 3]);
    let latents = |model: &Resnet| model.latents(&x, &Mode::Eval).unwrap();
    let (a, b) = (latents(&model), latents(&twin));
    assert_eq!(b.shape(), [1, 3, 1, 18]);
    for (i, j, p, q, c) in [(0, 0, 0, 0, 0), (1, 0, 0, 2, 1), (2, 0, 1, 1, 2)] {
        let plain = a.as_slice()[((2 * i + p) * 3 + 3 * j + q) * 3 + c];
        assert_eq!(plain, b.as_slice()[(i + j) * 18 + (p * 3 + q) * 3 + c]);
    }
    assert_eq!(model.decode(&[a]).unwrap().to_vec(), twin.decode(&[b]).unwrap().to_vec());
}

#[test]
fn what_cannot_be_is_refused_with_the_field() {
    let image = [32, 32, 3];
    for (call, image, field, part) in [
        ("resnet(code_map: (3, 4))", image, "code_map", "3 x 4 does not divide the latent map of 8 x 8"),
        ("resnet(code_map: (16, 16))", image, "code_map", "latent map of 8 x 8"),
        ("resnet(code_map: (0, 4))", image, "code_map", "0 x 4"),
        ("resnet(multipliers: [1, 2, 2, 2])", [36, 32, 3], "multipliers", "multiples of 8; they are 36 x 32"),
        ("resnet(multipliers: [])", image, "multipliers", "at least one"),
        ("resnet(width: 48)", image, "groups", "32 groups do not divide the 48 channels"),
        ("resnet(attention: [12])", image, "attention", "resolution 12; the levels have [32, 16, 8]"),
        ("resnet(attention: [16], resolution: 24)", image, "attention", "[24, 12, 6]"),
        ("resnet(decoder_attention: [64])", image, "decoder_attention", "resolution 64"),
        ("resnet(quant_conv: false, code_channels: 8)", image, "code_channels", "8 channels of the 64"),
        ("resnet(double_z: true, code_map: (4, 4))", image, "code_map", "leave `code_map` out"),
    ] {
        let text = complaint(call, image);
        assert!(text.starts_with(&format!("`{field}`")) && text.contains(part), "{call}: {text}");
    }
    assert!(complaint("resnet(multipliers: [1, 0])", image).contains("`multipliers` must lie in"));
    assert!(complaint("resnet(downsample: fourier)", image).contains("published"));
}

#[test]
fn it_keeps_the_contract_of_an_autoencoder() {
    let image = MapShape { height: 8, width: 4, channels: 3 };
    for call in [
        "resnet(width: 4, multipliers: [1, 2], groups: 2, latent: 5, attention: [8])",
        "resnet(width: 4, multipliers: [1], groups: 2, latent: 5, patch: 2, code_map: (2, 2), mid_attention: false)",
        "resnet(width: 4, multipliers: [1, 2], groups: 2, latent: 5, downsample: average, dropout: 0.5)",
        "resnet(width: 4, multipliers: [1, 2], groups: 2, latent: 5, code_channels: 3, attention: [8], decoder_attention: [], \
         double_z: true, mid_blocks: 1)",
        "resnet(family: maskgit, width: 4, multipliers: [2, 1], groups: 2, latent: 3, decoder_blocks: 1, mid_blocks: 3, \
         mid_attention: false, quant_conv: false, downsample: average, unit_range: true)",
    ] {
        let config = ResnetConfig::parse(call).unwrap();
        rqlab_sdk::testing::autoencoder(image, |cx| Resnet::new(config.clone(), cx));
    }
}
