//! Vector quantization.

use super::outputs::{backward, gradient, inner};
use super::{Case, Outputs, Result};
use rqlab_quantizer_vq::{BetaOn, CodebookUpdate, DeadCodes, Vq, VqConfig};
use rqlab_sdk::nn::{CodebookInit, EmaCodebook, EmaRule, rotate_to};
use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::ops::nearest::{nearest, squared_distances};

/// A stored codebook `[K + 1, C]` without its padding row.
fn codebook(case: &Case, name: &str, size: usize) -> Result<Tensor> {
    Ok(case.tensor(name)?.slice(0, 0..size)?)
}

/// A codebook as the reference stores it: `[K, C]` gains the padding row of zeros if that is what is expected.
pub(super) fn put_codebook(case: &Case, out: &mut Outputs, name: &str, weight: &Tensor) -> Result<()> {
    let [size, channels] = weight.dims("codebook")?;
    let padded = case.wanted_shape(name).is_some_and(|shape| shape.first() == Some(&(size + 1)));
    if padded {
        out.tensor(name, &Tensor::concat(&[weight, &Tensor::zeros(&[1, channels])], 0)?);
    } else {
        out.tensor(name, weight);
    }
    Ok(())
}

/// A quantizer's surroundings, for latents whose shape matters in nothing but the channels.
pub(super) fn context(params: &Params, channels: usize) -> QuantizerContext {
    let latents = MapShape { height: 1, width: 1, channels };
    QuantizerContext { latents, params: params.clone(), components: Components::none() }
}

pub(super) fn vq_distances(case: &Case, out: &mut Outputs) -> Result<()> {
    for sub in case.sub_cases("in.", "x") {
        let (x, weight) =
            (case.tensor(&format!("in.{sub}x"))?, codebook(case, &format!("w.{sub}weight"), case.size("K")?)?);
        out.tensor(format!("out.{sub}distances"), &squared_distances(&x, &weight)?);
        out.codes(format!("out.{sub}codes"), &nearest(&x, &weight)?);
    }
    Ok(())
}

pub(super) fn ema_update(case: &Case, out: &mut Outputs) -> Result<()> {
    let rule = EmaRule { decay: case.number("decay")?, eps: case.number("eps")?, ..EmaRule::default() };
    for sub in case.sub_cases("w.", "weight") {
        let params = Params::new(0);
        let book = EmaCodebook::new(&params, case.size("K")?, case.size("dim")?, CodebookInit::Normal, rule)?;
        case.load(&params, false, |name| format!("w.{sub}{name}"))?;
        for step in 0..case.size("steps")? {
            book.accumulate(&case.tensor(&format!("in.x.{step}"))?, &case.codes(&format!("in.idx.{step}"))?)?;
            book.rewrite()?;
            for (name, value) in params.state() {
                let name = format!("out.{sub}step{}.{name}", step + 1);
                match name.ends_with("weight") {
                    true => put_codebook(case, out, &name, &value)?,
                    false => out.tensor(name, &value),
                }
            }
        }
    }
    Ok(())
}

pub(super) fn vq_gradient_codebook(case: &Case, out: &mut Outputs) -> Result<()> {
    for (sub, beta_on) in [("fixed.", BetaOn::Commitment), ("legacy.", BetaOn::Codebook)] {
        let config = VqConfig {
            codebook: case.size("n_e")?,
            codebook_update: CodebookUpdate::Gradient,
            beta: case.number("beta")? as f32,
            beta_on,
            ..VqConfig::parse("vq")?
        };
        let params = Params::new(0);
        let vq = Vq::new(config, &context(&params, case.size("e_dim")?))?;
        case.load(&params, false, |name| format!("w.{name}"))?;
        let (z, g) = (case.map("in.z")?.leaf(), case.map("in.g")?);
        let mut gradients = backward(|| {
            let quantized = vq.quantize(&z)?;
            let total = inner(&quantized.latents, &g)?.add(&quantized.loss)?;
            out.map(format!("out.{sub}quantized"), &quantized.latents)?;
            out.tensor(format!("out.{sub}loss"), &quantized.loss);
            out.tensor(format!("out.{sub}total"), &total);
            let codes = quantized.tokens.codes()?;
            out.codes(format!("out.{sub}codes"), &codes.reshape(&[codes.len()])?);
            Ok(total)
        })?;
        out.map(format!("grad.{sub}in.z"), &gradient(&mut gradients, &z))?;
        out.parameter_gradients(&params, &mut gradients, |name| format!("grad.{sub}w.{name}"));
    }
    Ok(())
}

/// What the reference of VQ-VAE-2 calls the state of a codebook, and its name here. It stores codewords as columns: `embed`
/// `[C, K]`.
const COLUMNS: [(&str, &str); 3] =
    [("cluster_size", "cluster_size_ema"), ("embed", "weight"), ("embed_avg", "embed_ema")];

/// A codebook's state with rows and columns exchanged.
fn turned(t: &Tensor) -> Result<Tensor> {
    Ok(if t.rank() == 2 { t.transpose(0, 1)? } else { t.clone() })
}

/// Sets the one codebook of `params` from the state that is stored under `prefix`.
pub(super) fn load_columns(case: &Case, params: &Params, prefix: &str) -> Result<()> {
    let entries = params.entries();
    for (published, name) in COLUMNS {
        let (_, entry) = entries.iter().find(|(full, _)| full.ends_with(name)).ok_or("no such buffer")?;
        entry.var.set(&turned(&case.tensor(&format!("{prefix}{published}"))?)?)?;
    }
    Ok(())
}

/// Puts the state of the one codebook of `params` under `prefix`.
pub(super) fn put_columns(out: &mut Outputs, params: &Params, prefix: &str) -> Result<()> {
    let state = params.state();
    for (published, name) in COLUMNS {
        let (_, value) = state.iter().find(|(full, _)| full.ends_with(name)).ok_or("no such buffer")?;
        out.tensor(format!("{prefix}{published}"), &turned(value)?);
    }
    Ok(())
}

pub(super) fn vqvae2_quantize(case: &Case, out: &mut Outputs) -> Result<()> {
    for (sub, state, train) in [("cold.", "cold.", true), ("warm.", "warm.", true), ("eval.", "warm.", false)] {
        let config = VqConfig {
            codebook: case.size("K")?,
            decay: case.number("decay")?,
            eps: case.number("eps")?,
            beta: 1.0,
            dead_codes: Some(DeadCodes::Keep),
            ..VqConfig::parse("vq")?
        };
        let params = Params::new(0);
        let mut vq = Vq::new(config, &context(&params, case.size("dim")?))?;
        load_columns(case, &params, &format!("w.{state}"))?;
        let (x, g) = (case.tensor("in.x")?.leaf(), case.tensor("in.g")?);
        // The gradients do not depend on the update: take them before it.
        let mut ste = backward(|| inner(&vq.quantize(&x)?.latents, &g))?;
        let mut diff = backward(|| Ok(vq.quantize(&x)?.loss))?;
        out.tensor(format!("grad.{sub}in.x_ste"), &gradient(&mut ste, &x));
        out.tensor(format!("grad.{sub}in.x_diff"), &gradient(&mut diff, &x));
        let quantized = if train { vq.quantize_train(&x, &Rng::new(0, "step", 0))? } else { vq.quantize(&x)? };
        out.tensor(format!("out.{sub}quantized"), &quantized.latents);
        out.tensor(format!("out.{sub}diff"), &quantized.loss);
        out.codes(format!("out.{sub}codes"), &quantized.tokens.codes()?.column(0)?);
        put_columns(out, &params, &format!("out.{sub}"))?;
    }
    Ok(())
}

pub(super) fn rotation_trick(case: &Case, out: &mut Outputs) -> Result<()> {
    let (x, q, g) = (case.tensor("in.x")?.leaf(), case.tensor("in.q")?, case.tensor("in.g")?);
    let [rows, channels] = x.dims("rotation")?;
    out.tensor("out.y", &rotate_to(&x, &q)?);
    let mut gradients = backward(|| inner(&rotate_to(&x, &q)?, &g))?;
    out.tensor("grad.in.x", &gradient(&mut gradients, &x));
    let mut jacobian = Vec::with_capacity(channels);
    for a in 0..channels {
        let one = (0..rows * channels).map(|i| if i % channels == a { 1.0 } else { 0.0 }).collect();
        let one = Tensor::from_vec(one, &[rows, channels])?;
        jacobian.push(gradient(&mut backward(|| inner(&rotate_to(&x, &q)?, &one))?, &x));
    }
    out.tensor("out.jacobian", &Tensor::stack(&jacobian.iter().collect::<Vec<_>>(), 1)?);
    Ok(())
}
