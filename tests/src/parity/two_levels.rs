//! VQ-VAE-2.

use super::outputs::backward;
use super::{Case, Outputs, Result, quantizers};
use rqlab_autoencoder_vqvae2::{Vqvae2, Vqvae2Config};
use rqlab_quantizer_vq::{DeadCodes, Vq, VqConfig};
use rqlab_sdk::prelude::*;

/// What the reference calls the levels, in the order in which they are quantized.
const LEVELS: [(&str, &str); 2] = [("t", "top"), ("b", "bottom")];

pub(super) fn vqvae2_forward(case: &Case, out: &mut Outputs) -> Result<()> {
    let x = case.map("in.x")?;
    let [_, height, width, channels] = x.dims("images")?;
    let image = MapShape { height, width, channels };
    for (sub, train) in [("train.", true), ("eval.", false)] {
        let params = Params::new(0);
        let cx = AutoencoderContext { image, params: params.clone(), components: Components::none() };
        let model = Vqvae2::new(published(case)?, &cx)?;
        case.load(&params, false, |name| format!("w.{name}"))?;
        let mut levels = Vec::new();
        for (latents, (name, _)) in model.levels().into_iter().zip(LEVELS) {
            let params = Params::new(0);
            let config = VqConfig {
                codebook: case.size("n_embed")?,
                decay: case.number("decay")?,
                beta: case.number("latent_weight")? as f32,
                dead_codes: Some(DeadCodes::Keep),
                ..VqConfig::parse("vq")?
            };
            let cx = QuantizerContext { latents, params: params.clone(), components: Components::none() };
            let vq = Vq::new(config, &cx)?;
            quantizers::load_columns(case, &params, &format!("w.quantize_{name}."))?;
            levels.push((vq, params));
        }

        let mut gradients = backward(|| {
            let (mut seen, mut decoded) = (Vec::new(), Vec::new());
            let mut bottleneck = |level: usize, latents: &Tensor| {
                let vq = &mut levels[level].0;
                let quantized =
                    if train { vq.quantize_train(latents, &Rng::new(0, "step", 0))? } else { vq.quantize(latents)? };
                decoded.push(vq.embed(&quantized.tokens, None)?);
                seen.push(quantized.clone());
                Ok(quantized.latents)
            };
            let recon = model.forward(&x, &mut bottleneck, &Mode::Eval)?;
            out.map(format!("out.{sub}recon"), &recon)?;
            let (mut loss, mut diff) = (recon.mse(&x)?, 0.0);
            for (quantized, (_, name)) in seen.iter().zip(LEVELS) {
                loss = loss.add(&quantized.loss)?;
                diff += f64::from(quantized.terms[0].1.item()?);
                out.codes(format!("out.{sub}codes_{name}"), &quantized.tokens.codes()?.column(0)?);
                out.map(format!("out.{sub}quant_{name}"), &quantized.latents)?;
            }
            out.numbers(format!("out.{sub}diff"), [diff]);
            out.tensor(format!("out.{sub}loss"), &loss);
            if !train {
                out.map(format!("out.{sub}decode_code"), &model.decode(&decoded)?)?;
            }
            Ok(loss)
        })?;
        out.parameter_gradients(&params, &mut gradients, |name| format!("grad.{sub}w.{name}"));
        for ((_, params), (name, _)) in levels.iter().zip(LEVELS) {
            quantizers::put_columns(out, params, &format!("out.{sub}quantize_{name}."))?;
        }
    }
    Ok(())
}

/// The reference's two levels, of the case's sizes.
fn published(case: &Case) -> Result<Vqvae2Config> {
    Ok(Vqvae2Config {
        width: case.size("channel")?,
        blocks: case.size("n_res_block")?,
        residual_width: case.size("n_res_channel")?,
        code_channels: case.size("embed_dim")?,
        ..Vqvae2Config::parse("vqvae2")?
    })
}
