//! Quantizers that search no codebook of their own: scalars, bits, a mapped table.

use super::outputs::{backward, gradient, inner};
use super::quantizers::context;
use super::{Case, Outputs, Result};
use rqlab_quantizer_fsq::{Fsq, FsqConfig};
use rqlab_quantizer_lfq::{Lfq, LfqConfig};
use rqlab_quantizer_simvq::{SimVq, SimVqConfig};
use rqlab_sdk::nn::{BitOrder, EntropyEps, Estimator};
use rqlab_sdk::prelude::*;
use serde_json::Value;

/// Codes `[.., 1]` as `[..]`.
pub(super) fn indices(quantized: &Quantized) -> Result<Codes> {
    Ok(quantized.tokens.codes()?.column(0)?)
}

/// An unweighted term of the loss.
pub(super) fn term(quantized: &Quantized, name: &str) -> Result<f64> {
    let (_, value) = quantized.terms.iter().find(|(term, _)| *term == name).ok_or("no such term")?;
    Ok(f64::from(value.item()?))
}

pub(super) fn fsq(case: &Case, out: &mut Outputs) -> Result<()> {
    let sub_cases = case.config["sub_cases"].as_array().ok_or("there are no sub-cases")?;
    for sub_case in sub_cases {
        let sub = sub_case["name"].as_str().ok_or("a sub-case has no name")?;
        let levels = sub_case["levels"].as_array().ok_or("a sub-case has no levels")?;
        let levels: Vec<usize> = levels.iter().filter_map(Value::as_u64).map(|level| level as usize).collect();
        let channels = levels.len();
        let config = FsqConfig {
            levels,
            eps: case.number("eps")? as f32,
            symmetric: sub_case["preserve_symmetry"].as_bool().unwrap_or(false),
            ..FsqConfig::parse("fsq")?
        };
        let fsq = Fsq::new(config, &context(&Params::new(0), channels))?;
        let (z, g) = (case.tensor(&format!("in.{sub}z"))?.leaf(), case.tensor(&format!("in.{sub}g"))?);
        let mut gradients = backward(|| {
            let quantized = fsq.quantize(&z)?;
            out.tensor(format!("out.{sub}codes"), &quantized.latents);
            out.codes(format!("out.{sub}indices"), &indices(&quantized)?);
            inner(&quantized.latents, &g)
        })?;
        out.tensor(format!("grad.{sub}in.z"), &gradient(&mut gradients, &z));
        out.tensor(format!("out.{sub}codebook"), &fsq.level().codes()?.tables[0]);
    }
    Ok(())
}

/// LFQ of vector-quantize-pytorch, also on the sphere.
pub(super) fn lfq(case: &Case, out: &mut Outputs) -> Result<()> {
    let bits = case.size("bits")?;
    for (sub, input, spherical) in [("", "in.x", false), ("sph.", "in.x_sph", true)] {
        let config = LfqConfig {
            bits,
            spherical,
            entropy_weight: case.number("entropy_loss_weight")? as f32,
            codebook_entropy_weight: case.number("gamma")? as f32,
            entropy_group: bits,
            entropy_eps: EntropyEps::Clamp,
            inv_temperature: case.number("inv_t")? as f32,
            beta: case.number("commitment_loss_weight")? as f32,
            bit_order: BitOrder::MsbFirst,
            ..LfqConfig::parse("lfq")?
        };
        let mut lfq = Lfq::new(config, &context(&Params::new(0), bits))?;
        let (x, g) = (case.tensor(input)?.leaf(), case.tensor("in.g")?);
        let mut of_output = backward(|| inner(&lfq.quantize(&x)?.latents, &g))?;
        out.tensor(format!("grad.{sub}x_out"), &gradient(&mut of_output, &x));
        let mut of_loss = backward(|| Ok(lfq.quantize(&x)?.loss))?;
        out.tensor(format!("grad.{sub}x_aux"), &gradient(&mut of_loss, &x));
        let trained = lfq.quantize_train(&x, &Rng::new(0, "step", 0))?;
        for (prefix, quantized) in [(sub.to_owned(), &trained), (format!("{sub}eval."), &lfq.quantize(&x)?)] {
            out.tensor(format!("out.{prefix}quantized"), &quantized.latents);
            out.codes(format!("out.{prefix}indices"), &indices(quantized)?);
        }
        out.tensor(format!("out.{sub}aux"), &trained.loss);
        out.number(format!("out.{sub}per_sample_entropy"), term(&trained, "sample_entropy")?);
        out.number(format!("out.{sub}batch_entropy"), term(&trained, "codebook_entropy")?);
        out.number(format!("out.{sub}commitment"), term(&trained, "commitment")?);
    }
    Ok(())
}

pub(super) fn simvq(case: &Case, out: &mut Outputs) -> Result<()> {
    for (sub, estimator) in [("ste.", Estimator::StraightThrough), ("rot.", Estimator::Rotation)] {
        let weight = case.number("commitment_weight")?;
        let config = SimVqConfig {
            codebook: case.size("K")?,
            table_dim: Some(case.size("fdim")?),
            codebook_weight: weight as f32,
            beta: (weight * case.number("input_to_quantize_commit_loss_weight")?) as f32,
            estimator,
            ..SimVqConfig::parse("simvq")?
        };
        let params = Params::new(0);
        let simvq = SimVq::new(config, &context(&params, case.size("dim")?))?;
        case.load(&params, false, |name| format!("w.{name}"))?;
        let (x, g) = (case.tensor("in.x")?.leaf(), case.tensor("in.g")?);
        let mut gradients = backward(|| {
            let quantized = simvq.quantize(&x)?;
            out.tensor(format!("out.{sub}quantized"), &quantized.latents);
            out.codes(format!("out.{sub}indices"), &indices(&quantized)?);
            out.tensor(format!("out.{sub}loss"), &quantized.loss);
            Ok(inner(&quantized.latents, &g)?.add(&quantized.loss)?)
        })?;
        out.tensor(format!("grad.{sub}in.x"), &gradient(&mut gradients, &x));
        out.parameter_gradients(&params, &mut gradients, |name| format!("grad.{sub}w.{name}"));
    }
    Ok(())
}
