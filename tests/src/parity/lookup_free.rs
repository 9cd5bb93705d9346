//! The quantizers of the case `lookup_free`, each on its own inputs.

use super::grids::{indices, term};
use super::outputs::{backward, gradient, inner};
use super::quantizers::context;
use super::{Case, Outputs, Result};
use rqlab_quantizer_bsq::{Bsq, BsqConfig};
use rqlab_quantizer_ibq::{Ibq, IbqConfig};
use rqlab_quantizer_lfq::{Lfq, LfqConfig};
use rqlab_quantizer_vq::{CodebookUpdate, DeadCodes, Normalize, Vq, VqConfig};
use rqlab_sdk::nn::l2_normalize;
use rqlab_sdk::prelude::*;

pub(super) fn lookup_free(case: &Case, out: &mut Outputs) -> Result<()> {
    open_magvit2(case, out)?;
    for (sub, group) in [("group.", case.size("bsq/group_size")?), ("analytical.", 1)] {
        bsq(case, out, sub, group)?;
    }
    ibq(case, out)?;
    anchored(case, out)
}

/// LFQ of Open-MAGVIT2: all bits as one code, and as two sub-tokens.
fn open_magvit2(case: &Case, out: &mut Outputs) -> Result<()> {
    let bits = case.size("lfq/bits")?;
    let config = LfqConfig {
        bits,
        entropy_weight: case.number("lfq/entropy_weight")? as f32,
        sample_entropy_weight: case.number("lfq/sample_minimization_weight")? as f32,
        codebook_entropy_weight: case.number("lfq/batch_maximization_weight")? as f32,
        entropy_group: bits,
        beta: case.number("lfq/commit_weight")? as f32,
        ..LfqConfig::parse("lfq")?
    };
    let (sample_weight, codebook_weight) =
        (f64::from(config.sample_entropy_weight), f64::from(config.codebook_entropy_weight));
    let lfq = Lfq::new(config.clone(), &context(&Params::new(0), bits))?;
    let (z, g) = (case.map("in.lfq.z")?.leaf(), case.map("in.lfq.g")?);
    let mut gradients = backward(|| {
        let quantized = lfq.quantize(&z)?;
        out.map("out.lfq.q", &quantized.latents)?;
        flat(out, "out.lfq.indices", &indices(&quantized)?)?;
        let (sample, codebook) = (term(&quantized, "sample_entropy")?, term(&quantized, "codebook_entropy")?);
        out.number("out.lfq.sample_entropy", sample);
        out.number("out.lfq.codebook_entropy", codebook);
        out.number("out.lfq.entropy_loss", sample_weight * sample - codebook_weight * codebook);
        out.number("out.lfq.commitment", term(&quantized, "commitment")?);
        Ok(inner(&quantized.latents, &g)?.add(&quantized.loss)?)
    })?;
    out.map("grad.lfq.in.z", &gradient(&mut gradients, &z))?;
    out.tensor("out.lfq.codebook", &lfq.level().codes()?.tables[0]);

    let sub_tokens = case.sizes("sub/factorized_bits")?;
    let bits = sub_tokens.iter().sum();
    let config = LfqConfig { bits, sub_tokens: Some(sub_tokens), ..config };
    let lfq = Lfq::new(config, &context(&Params::new(0), bits))?;
    let quantized = lfq.quantize(&case.map("in.sub.z")?)?;
    for (depth, name) in ["out.sub.first", "out.sub.second"].into_iter().enumerate() {
        flat(out, name, &quantized.tokens.codes()?.column(depth)?)?;
    }
    Ok(())
}

/// Codes in a row.
fn flat(out: &mut Outputs, name: &str, codes: &Codes) -> Result<()> {
    out.codes(name, &codes.reshape(&[codes.len()])?);
    Ok(())
}

fn bsq(case: &Case, out: &mut Outputs, sub: &str, entropy_group: usize) -> Result<()> {
    let (bits, group) = (case.size("bsq/embed_dim")?, case.size("bsq/group_size")?);
    let config = BsqConfig {
        bits,
        beta: case.number("bsq/beta")? as f32,
        sample_entropy_weight: case.number("bsq/gamma0")? as f32,
        codebook_entropy_weight: case.number("bsq/gamma")? as f32,
        entropy_weight: case.number("bsq/zeta")? as f32,
        inv_temperature: case.number("bsq/inv_temperature")? as f32,
        entropy_group,
        ..BsqConfig::parse("bsq")?
    };
    let bsq = Bsq::new(config.clone(), &context(&Params::new(0), bits))?;
    let (z, g) = (case.tensor("in.bsq.z")?.leaf(), case.tensor("in.bsq.g")?);
    let mut gradients = backward(|| {
        let quantized = bsq.quantize(&z)?;
        out.tensor(format!("out.bsq.{sub}q"), &quantized.latents);
        out.codes(format!("out.bsq.{sub}indices"), &indices(&quantized)?);
        out.tensor(format!("out.bsq.{sub}loss"), &quantized.loss);
        out.number(format!("out.bsq.{sub}token_entropy"), term(&quantized, "sample_entropy")?);
        out.number(format!("out.bsq.{sub}codebook_entropy"), term(&quantized, "codebook_entropy")?);
        Ok(inner(&quantized.latents, &g)?.add(&quantized.loss)?)
    })?;
    out.tensor(format!("grad.bsq.{sub}in.z"), &gradient(&mut gradients, &z));
    let h = l2_normalize(&z.detach())?.leaf();
    let mut gradients = backward(|| Ok(bsq.quantize_on_sphere(&h)?.latents.sum_all()?))?;
    out.tensor(format!("out.bsq.{sub}dq_dh"), &gradient(&mut gradients, &h));
    let config = BsqConfig { sub_tokens: Some(vec![group; bits / group]), ..config };
    let grouped = Bsq::new(config, &context(&Params::new(0), bits))?.quantize(&z)?;
    out.codes(format!("out.bsq.{sub}group_indices"), grouped.tokens.codes()?);
    Ok(())
}

fn ibq(case: &Case, out: &mut Outputs) -> Result<()> {
    let plain = IbqConfig {
        codebook: case.size("ibq/n_e")?,
        beta: case.number("ibq/beta")? as f32,
        entropy_temperature: case.number("ibq/entropy_temperature")? as f32,
        sample_entropy_weight: case.number("ibq/sample_minimization_weight")? as f32,
        codebook_entropy_weight: case.number("ibq/batch_maximization_weight")? as f32,
        entropy_weight: 0.0,
        ..IbqConfig::parse("ibq")?
    };
    let entropy_weight = case.number("ibq/entropy_weight")? as f32;
    let (sample_weight, codebook_weight) =
        (f64::from(plain.sample_entropy_weight), f64::from(plain.codebook_entropy_weight));
    let (z, g) = (case.map("in.ibq.z")?.leaf(), case.map("in.ibq.g")?);
    for (sub, config) in [("", plain.clone()), ("losses.", IbqConfig { entropy_weight, ..plain })] {
        let params = Params::new(0);
        let ibq = Ibq::new(config, &context(&params, case.size("ibq/e_dim")?))?;
        case.load(&params, false, |name| format!("w.ibq.{name}"))?;
        let mut gradients = backward(|| {
            let quantized = ibq.quantize(&z)?;
            if sub.is_empty() {
                out.map("out.ibq.q", &quantized.latents)?;
                flat(out, "out.ibq.indices", &indices(&quantized)?)?;
                out.tensor("out.ibq.quant_loss", &quantized.loss);
                return Ok(inner(&quantized.latents, &g)?.add(&quantized.loss)?);
            }
            let (sample, codebook) = (term(&quantized, "sample_entropy")?, term(&quantized, "codebook_entropy")?);
            out.number("out.ibq.sample_entropy", sample);
            out.number("out.ibq.codebook_entropy", codebook);
            out.number("out.ibq.entropy_loss", sample_weight * sample - codebook_weight * codebook);
            Ok(quantized.loss)
        })?;
        out.map(format!("grad.ibq.{sub}in.z"), &gradient(&mut gradients, &z))?;
        out.parameter_gradients(&params, &mut gradients, |name| format!("grad.ibq.{sub}w.{name}"));
    }
    Ok(())
}

/// The codebook that moves unused codes to anchors, whose vectors have length 1 (`l2`) or not (`plain`).
fn anchored(case: &Case, out: &mut Outputs) -> Result<()> {
    for (sub, normalize) in [("l2.", Normalize::Always), ("plain.", Normalize::Never)] {
        let config = VqConfig {
            codebook: case.size("cvq/codebook_size")?,
            codebook_update: CodebookUpdate::Gradient,
            normalize,
            beta: case.number("cvq/commitment_cost")? as f32,
            dead_codes: Some(DeadCodes::Anchored),
            ..VqConfig::parse("vq")?
        };
        let beta = f64::from(config.beta);
        let params = Params::new(0);
        let mut vq = Vq::new(config, &context(&params, case.size("cvq/token_size")?))?;
        case.load(&params, false, |name| format!("w.cvq.{sub}{name}"))?;
        for step in 0..case.size("cvq/steps")? {
            let z = case.map(&format!("in.cvq.{sub}z.{step}"))?.leaf();
            let g = case.map(&format!("in.cvq.{sub}g.{step}"))?;
            let here = format!("{sub}{step}.");
            let mut gradients = backward(|| {
                let quantized = vq.quantize_train(&z, &Rng::new(0, "step", step as u64))?;
                let term = |name: &str| quantized.terms.iter().find(|(term, _)| *term == name).ok_or("no such term");
                let item = |name: &str| Ok::<_, super::Error>(f64::from(term(name)?.1.item()?));
                out.number(format!("out.cvq.{here}commitment_loss"), beta * item("commitment")?);
                out.number(format!("out.cvq.{here}codebook_loss"), item("codebook")?);
                out.map(format!("out.cvq.{here}q"), &quantized.latents)?;
                out.tensor(format!("out.cvq.{here}loss"), &quantized.loss);
                out.codes(format!("out.cvq.{here}indices"), &quantized.tokens.codes()?.column(0)?);
                Ok(inner(&quantized.latents, &g)?.add(&quantized.loss)?)
            })?;
            out.map(format!("grad.cvq.{here}in.z"), &gradient(&mut gradients, &z))?;
            out.parameter_gradients(&params, &mut gradients, |name| format!("grad.cvq.{here}w.{name}"));
            for (name, value) in params.state() {
                out.tensor(format!("out.cvq.{here}{name}"), &value);
            }
        }
    }
    Ok(())
}
