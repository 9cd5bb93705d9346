//! Gaussian bottlenecks.

use super::outputs::{backward, gradient};
use super::{Case, Outputs, Result, autoencoder};
use rqlab_autoencoder_resnet::{Resnet, ResnetConfig};
use rqlab_quantizer_kl::{DiagonalGaussian, Kl, KlConfig};
use rqlab_sdk::prelude::*;
use serde_json::json;

/// A sum over an image's elements, `[B]`.
fn per_image(elements: &Tensor) -> Result<Tensor> {
    Ok(elements.sum(&[1, 2, 3], false)?)
}

pub(super) fn diag_gaussian(case: &Case, out: &mut Outputs) -> Result<()> {
    let params = case.map("in.params")?.leaf();
    let posterior = DiagonalGaussian::of_moments(&params)?;
    let other = DiagonalGaussian::of_moments(&case.map("in.other")?)?;
    out.tensor("out.kl", &per_image(&posterior.kl()?)?);
    out.tensor("out.kl_small", &per_image(&other.kl()?)?);
    out.tensor("out.kl_other_to_self", &per_image(&other.kl_to(&posterior)?)?);
    out.tensor("out.nll_other", &per_image(&other.negative_log_likelihood(&case.map("in.value")?)?)?);
    out.map("out.sample", &posterior.sample(&case.map("rand.noise")?)?)?;
    out.map("out.mode", &posterior.mean)?;
    let mut gradients = backward(|| Ok(DiagonalGaussian::of_moments(&params)?.kl()?.sum_all()?))?;
    out.map("grad.in.params", &gradient(&mut gradients, &params))
}

pub(super) fn kl_vae_forward(case: &Case, out: &mut Outputs) -> Result<()> {
    let x = case.map("in.x")?;
    let [_, height, width, channels] = x.dims("images")?;
    let network = json!({
        "ch": case.size("ch")?,
        "ch_mult": case.sizes("mult")?,
        "num_res_blocks": case.size("nrb")?,
        "attn_resolutions": case.sizes("attn")?,
        "decoder_attn_resolutions": case.sizes("decoder_attn_resolutions").unwrap_or_default(),
        "resolution": case.size("res")?,
        "z_channels": case.size("z")?,
    });
    let code_channels = case.array("w.post_quant_conv.weight")?.shape[1];
    let config = ResnetConfig { double_z: true, ..autoencoder::published(&network, code_channels, None)? };
    let params = Params::new(0);
    let image = MapShape { height, width, channels };
    let resnet =
        Resnet::new(config, &AutoencoderContext { image, params: params.clone(), components: Components::none() })?;
    case.load(&params, false, |name| format!("w.{name}"))?;
    let cx = QuantizerContext { latents: resnet.levels()[0], params: Params::new(0), components: Components::none() };
    let kl = Kl::new(KlConfig { weight: case.number("kl_weight")? as f32, ..KlConfig::parse("kl")? }, &cx)?;

    let noise = case.map("rand.noise")?;
    let mut gradients = backward(|| {
        let mut seen = None;
        let mut bottleneck = |_: usize, moments: &Tensor| {
            let quantized = kl.quantize_with(moments, Some(&noise))?;
            let (_, quantized) = seen.insert((moments.clone(), quantized));
            Ok(quantized.latents.clone())
        };
        let recon = resnet.forward(&x, &mut bottleneck, &Mode::Eval)?;
        let (moments, quantized) = seen.ok_or("the bottleneck was not called")?;
        let loss = recon.mse(&x)?.add(&quantized.loss)?;
        out.map("out.moments", &moments)?;
        out.map("out.z", &quantized.latents)?;
        out.map("out.recon", &recon)?;
        out.tensor("out.kl", &per_image(&DiagonalGaussian::of_moments(&moments)?.kl()?)?);
        out.tensor("out.loss", &loss);
        let mode = kl.quantize(&moments)?.latents;
        out.map("out.recon_mode", &resnet.decode(&[mode])?)?;
        Ok(loss)
    })?;
    out.parameter_gradients(&params, &mut gradients, |name| format!("grad.w.{name}"));
    Ok(())
}
