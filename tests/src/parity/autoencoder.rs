//! The blocks of the convolutional autoencoder, and the whole.

use super::case::{number, numbers};
use super::outputs::{backward, gradient, inner};
use super::{Case, Outputs, Result, residual};
use rqlab_autoencoder_resnet::{Resnet, ResnetConfig};
use rqlab_quantizer_rq::{Rq, RqConfig};
use rqlab_sdk::nn::{Downsample, Downsampling, ResidualBlock, SpatialAttention, Upsample, patchify, unpatchify};
use rqlab_sdk::prelude::*;

/// Groups of the published group norms.
const GROUPS: usize = 32;

/// Runs a block on `in.{sub}x` with the weights `w.{sub}`, and puts its output and the gradients of `sum(g * y)`.
fn put_block(
    case: &Case,
    out: &mut Outputs,
    sub: &str,
    params: &Params,
    forward: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<()> {
    case.load(params, false, |name| format!("w.{sub}{name}"))?;
    let (x, g) = (case.map(&format!("in.{sub}x"))?.leaf(), case.map(&format!("in.{sub}g"))?);
    let mut gradients = backward(|| {
        let y = forward(&x)?;
        out.map(format!("out.{sub}y"), &y)?;
        inner(&y, &g)
    })?;
    out.map(format!("grad.{sub}in.x"), &gradient(&mut gradients, &x))?;
    out.parameter_gradients(params, &mut gradients, |name| format!("grad.{sub}w.{name}"));
    Ok(())
}

/// Channels of the stored map `name`, `[B, C, H, W]`.
fn channels(case: &Case, name: &str) -> Result<usize> {
    case.array(name)?.shape.get(1).copied().ok_or_else(|| format!("`{name}` is not a map").into())
}

pub(super) fn resnet_block(case: &Case, out: &mut Outputs) -> Result<()> {
    for sub in case.sub_cases("in.", "x") {
        let (inputs, outputs) = (channels(case, &format!("in.{sub}x"))?, channels(case, &format!("in.{sub}g"))?);
        let params = Params::new(0);
        let block = ResidualBlock::new(&params, inputs, outputs, GROUPS, 0.0)?;
        put_block(case, out, &sub, &params, |x| Ok(block.forward(x, &Mode::Eval)?))?;
    }
    Ok(())
}

pub(super) fn attn_block(case: &Case, out: &mut Outputs) -> Result<()> {
    for sub in case.sub_cases("in.", "x") {
        let params = Params::new(0);
        let block = SpatialAttention::new(&params, channels(case, &format!("in.{sub}x"))?, GROUPS)?;
        put_block(case, out, &sub, &params, |x| Ok(block.forward(x)?))?;
    }
    Ok(())
}

pub(super) fn downsample(case: &Case, out: &mut Outputs) -> Result<()> {
    for (sub, how) in [("conv.", Downsampling::Published), ("avg.", Downsampling::Average)] {
        let params = Params::new(0);
        let block = Downsample::new(&params, channels(case, &format!("in.{sub}x"))?, how)?;
        put_block(case, out, sub, &params, |x| Ok(block.forward(x)?))?;
    }
    Ok(())
}

pub(super) fn upsample(case: &Case, out: &mut Outputs) -> Result<()> {
    let params = Params::new(0);
    let block = Upsample::new(&params, channels(case, "in.conv.x")?)?;
    put_block(case, out, "conv.", &params, |x| Ok(block.forward(x)?))?;
    put_block(case, out, "plain.", &Params::new(0), |x| Ok(x.upsample_nearest(2)?))
}

pub(super) fn code_folding(case: &Case, out: &mut Outputs) -> Result<()> {
    let (latent, code) = (case.sizes("latent_shape")?, case.sizes("code_shape")?);
    let cell = [latent[0] / code[0], latent[1] / code[1]];
    let folded = case.tensor("in.x")?.space_to_depth(cell[0], cell[1])?;
    out.tensor("out.folded", &folded);
    out.tensor("out.unfolded", &folded.depth_to_space(cell[0], cell[1])?);
    Ok(())
}

pub(super) fn patches(case: &Case, out: &mut Outputs) -> Result<()> {
    let map = case.map("in.x")?;
    let patch = case.size("p")?;
    let patches = patchify(&map, patch)?;
    let [batch, height, width, features] = patches.dims("patches")?;
    out.tensor("out.tokens", &patches.reshape(&[batch, height * width, features])?);
    out.map("out.restored", &unpatchify(&patches, patch)?)
}

/// The published configuration `ddconfig` for images of `input`, with codes of `code_map` positions.
pub(super) fn published(
    config: &serde_json::Value,
    code_channels: usize,
    code_map: Option<[usize; 2]>,
) -> Result<ResnetConfig> {
    let size = |path: &str| -> Result<usize> { Ok(number(config, path)? as usize) };
    let sizes =
        |path: &str| -> Result<Vec<usize>> { Ok(numbers(config, path)?.into_iter().map(|x| x as usize).collect()) };
    let multipliers = sizes("ch_mult")?;
    let resolution = size("resolution")?;
    // The reference overlooks resolutions that no level has; the plugin refuses them.
    let levels: Vec<usize> = (0..multipliers.len()).map(|level| resolution >> level).collect();
    let attention =
        |path| -> Result<_> { Ok(sizes(path)?.into_iter().filter(|r| levels.contains(r)).collect::<Vec<_>>()) };
    let decoder = "decoder_attn_resolutions";
    Ok(ResnetConfig {
        width: size("ch")?,
        multipliers,
        blocks: size("num_res_blocks")?,
        attention: attention("attn_resolutions")?,
        decoder_attention: config.get(decoder).map(|_| attention(decoder)).transpose()?,
        resolution: Some(resolution),
        latent: size("z_channels")?,
        code_channels: Some(code_channels),
        code_map,
        ..ResnetConfig::parse("resnet")?
    })
}

pub(super) fn encoder_decoder(case: &Case, out: &mut Outputs) -> Result<()> {
    let x = case.map("in.x")?;
    let [_, height, width, channels] = x.dims("images")?;
    let &[rows, columns, depth] = case.sizes("code_shape")?.as_slice() else { return Err("code_shape".into()) };
    let config = published(&case.config["ddconfig"], case.size("embed_dim")?, Some([rows, columns]))?;
    let params = Params::new(0);
    let image = MapShape { height, width, channels };
    let resnet =
        Resnet::new(config, &AutoencoderContext { image, params: params.clone(), components: Components::none() })?;
    let latents = resnet.levels()[0];
    let rq_config = residual::published(case, depth, &case.sizes("K")?, true)?;
    let rq_config = RqConfig { beta: case.number("latent_loss_weight").unwrap_or(0.25) as f32, ..rq_config };
    let rq = Rq::new(
        rq_config,
        &QuantizerContext { latents, params: params.scope("quantizer"), components: Components::none() },
    )?;
    case.load(&params, true, |name| format!("w.{name}"))?;

    let mut identity = backward(|| {
        let mut seen = None;
        let recon = resnet.forward(&x, &mut |_, latents| Ok(seen.insert(latents.clone()).clone()), &Mode::Eval)?;
        let latent = seen.ok_or("the bottleneck was not called")?;
        let cell = case.wanted_shape("out.latent").map_or([1, 1], |s| [s[1] / rows, s[2] / columns]);
        out.tensor("out.latent", &latent.depth_to_space(cell[0], cell[1])?);
        let loss = recon.mse(&x)?;
        out.map("out.identity.recon", &recon)?;
        out.tensor("out.identity.loss", &loss);
        Ok(loss)
    })?;
    out.parameter_gradients(&params, &mut identity, |name| format!("grad.identity.w.{name}"));

    let mut full = backward(|| {
        let mut seen = None;
        let mut bottleneck = |_: usize, latents: &Tensor| {
            let quantized = rq.quantize(latents)?;
            Ok(seen.insert(quantized).latents.clone())
        };
        let recon = resnet.forward(&x, &mut bottleneck, &Mode::Eval)?;
        let quantized = seen.ok_or("the bottleneck was not called")?;
        let loss = recon.mse(&x)?.add(&quantized.loss)?;
        out.map("out.full.recon", &recon)?;
        out.codes("out.full.codes", quantized.tokens.codes()?);
        out.number("out.full.commitment", f64::from(quantized.terms[0].1.item()?));
        out.tensor("out.full.loss", &loss);
        Ok(loss)
    })?;
    out.parameter_gradients(&params, &mut full, |name| format!("grad.full.w.{name}"));
    Ok(())
}
