//! The quantizers of the case `lookup_free`, each on its own inputs.

use super::outputs::{backward, gradient, inner};
use super::quantizers::context;
use super::{Case, Outputs, Result};
use rqlab_quantizer_vq::{CodebookUpdate, DeadCodes, Normalize, Vq, VqConfig};
use rqlab_sdk::prelude::*;

pub(super) fn lookup_free(case: &Case, out: &mut Outputs) -> Result<()> {
    for part in ["lfq", "sub", "bsq", "ibq"] {
        out.not_yet(format!("out.{part}."), part);
        out.not_yet(format!("grad.{part}."), part);
    }
    anchored(case, out)
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
