//! VAR: multi-scale residual quantization, and the prior over its codes.

use super::outputs::{backward, gradient, inner};
use super::{Case, Outputs, Result, next_scale};
use crate::held::Held;
use rqlab_quantizer_multi_scale::{MultiScale, MultiScaleConfig, phi_of};
use rqlab_sdk::prelude::*;

pub(super) fn var(case: &Case, out: &mut Outputs) -> Result<()> {
    for scales in case.sizes("phi_counts")? {
        for phis in case.sizes("phi_shared")? {
            let chosen = (0..scales).map(|scale| phi_of(scale, scales, phis) as f64);
            out.numbers(format!("out.phi_index.{scales}.{phis}"), chosen);
        }
    }
    let (sides, channels) = (case.sizes("patch_nums")?, case.size("Cvae")?);
    let side = sides.last().copied().ok_or("no scales")?;
    let normalize = if case.config["using_znorm"] == true { "lookup" } else { "never" };
    let size = case.size("vocab_size")?;
    let of = format!("vq(codebook: {size}, codebook_update: gradient, normalize: {normalize})");
    let config = MultiScaleConfig {
        of: QuantizerCall::new(&of),
        phi_ratio: case.number("quant_resi")? as f32,
        phis: case.size("share_quant_resi")?,
        beta: case.number("beta")? as f32,
        ..MultiScaleConfig::parse(&format!("multi_scale(of: vq, scales: {sides:?})"))?
    };
    let params = Params::new(0);
    let latents = MapShape { height: side, width: side, channels };
    let cx = QuantizerContext { latents, params: params.clone(), components: Components::new(Held) };
    let quantizer = MultiScale::new(config, &cx)?;
    let published = |name: &str| format!("w.quant.{}", name.strip_prefix("of.").unwrap_or(name));
    case.load(&params, false, published)?;

    let (f, g) = (case.map("in.f")?.leaf(), case.map("in.g")?);
    let mut tokens = None;
    let mut gradients = backward(|| {
        let quantized = quantizer.quantize(&f)?;
        out.map("out.f_hat", &quantized.latents)?;
        out.tensor("out.vq_loss", &quantized.loss);
        let total = inner(&quantized.latents, &g)?.add(&quantized.loss)?;
        tokens = Some(quantized.tokens);
        Ok(total)
    })?;
    out.map("grad.in.f", &gradient(&mut gradients, &f))?;
    out.parameter_gradients(&params, &mut gradients, |name| format!("grad.{}", published(name)));

    let tokens = tokens.ok_or("nothing was quantized")?;
    let images = tokens.images();
    let codes = tokens.codes()?;
    out.codes("out.tokens", &codes.reshape(&[images, codes.len() / images.max(1)])?);
    let sums = quantizer.sums(&tokens, sides.len(), None)?;
    let sums = sums.iter().map(|sum| sum.permute(&[0, 3, 1, 2])).collect::<Result<Vec<_>, _>>()?;
    out.tensor("out.f_hat_by_scale", &Tensor::stack(&sums.iter().collect::<Vec<_>>(), 0)?);
    let scales = quantizer.level().scales.ok_or("the level has no scales")?;
    let seen = scales.before(&tokens, 1..sides.len())?;
    let rows = |map: &Tensor| map.reshape(&[images, map.len() / (images * channels), channels]);
    let seen = seen.iter().map(rows).collect::<Result<Vec<_>, _>>()?;
    out.tensor("out.prior_input", &Tensor::concat(&seen.iter().collect::<Vec<_>>(), 1)?);
    next_scale::prior(case, &quantizer, &tokens, out)
}
