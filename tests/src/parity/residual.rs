//! Residual quantization.

use super::outputs::{backward, gradient, inner};
use super::quantizers::{context, put_codebook};
use super::{Case, Outputs, Result};
use rqlab_quantizer_rq::{Assignments, Commitment, Rq, RqConfig, Update};
use rqlab_quantizer_vq::{Vq, VqConfig};
use rqlab_sdk::nn::{DeadCodes, Estimator, RestartDraw, restart_candidates};
use rqlab_sdk::prelude::*;

/// How latents lie under a code map that may be smaller: cells of latents are folded into one vector.
struct Folding {
    cell: [usize; 2],
    latent: Vec<usize>,
}

impl Folding {
    /// From the configuration's `latent_shape` and, if there is one, `code_shape`.
    fn of(case: &Case, at: &str) -> Result<Self> {
        let latent = case.sizes(&format!("{at}latent_shape"))?;
        let code = case.sizes(&format!("{at}code_shape")).unwrap_or_else(|_| latent.clone());
        match (latent.as_slice(), code.as_slice()) {
            (&[height, width, _], &[rows, columns, _]) => {
                Ok(Self { cell: [height / rows.max(1), width / columns.max(1)], latent })
            }
            _ => Err(format!("latent shape {latent:?} and code shape {code:?} are not of rank 3").into()),
        }
    }

    /// Channels of a folded vector.
    fn channels(&self) -> usize {
        self.latent[2] * self.cell[0] * self.cell[1]
    }

    fn fold(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.space_to_depth(self.cell[0], self.cell[1])?)
    }

    fn unfold(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.depth_to_space(self.cell[0], self.cell[1])?)
    }
}

/// The configuration of the published quantizer with the case's sizes, weight 1 and no restarts.
pub(super) fn published(case: &Case, depth: usize, sizes: &[usize], shared: bool) -> Result<RqConfig> {
    let decays = case.numbers("decay").unwrap_or_else(|_| vec![0.99]);
    let each = |one: bool| (!one).then_some(());
    Ok(RqConfig {
        depth,
        codebook: sizes[0],
        codebooks: each(sizes.len() == 1).map(|()| sizes.to_vec()),
        shared,
        decay: decays[0],
        decays: each(decays.len() == 1).map(|()| decays),
        eps: case.number("eps").unwrap_or(1e-5),
        dead_codes: DeadCodes::Keep,
        dead_below: 1.0,
        initial_count: Some(0.0),
        beta: 1.0,
        ..RqConfig::parse("rq")?
    })
}

/// Codes, values, commitment and partial sums of assignments.
fn put_assignments(
    case: &Case,
    out: &mut Outputs,
    sub: &str,
    folding: &Folding,
    quantized: &Quantized,
    assigned: &Assignments,
) -> Result<()> {
    let codes = quantized.tokens.codes()?;
    out.codes(format!("out.{sub}codes"), codes);
    out.tensor(format!("out.{sub}quantized"), &folding.unfold(&quantized.latents)?);
    out.tensor(format!("out.{sub}commitment_loss"), &quantized.loss);
    let energies = quantized.residual_energy.as_slice().iter().map(|&e| f64::from(e));
    out.numbers(format!("out.{sub}commitment_per_depth"), energies);
    let name = format!("out.{sub}partial_sums");
    let words: Vec<&Tensor> = assigned.codewords.iter().collect();
    let sums = Tensor::stack(&words, 0)?.cumsum(0)?;
    // They may be stored in the layout of the latents or of the codes.
    match (case.wanted_shape(&name), sums.shape()) {
        (Some(wanted @ &[depth, batch, ..]), shape) if wanted != shape => {
            let maps = sums.reshape(&[&[depth * batch], &shape[2..]].concat())?;
            out.tensor(name, &folding.unfold(&maps)?.reshape(wanted)?);
        }
        _ => out.tensor(name, &sums),
    }
    Ok(())
}

/// Gradients at the latents of `sum(g * quantized)`, of the commitment loss, and of the first plus 0.25 of the second.
fn put_gradients(
    case: &Case,
    out: &mut Outputs,
    sub: &str,
    folding: &Folding,
    rq: &Rq,
    assigned: &Assignments,
) -> Result<()> {
    let (x, g) = (case.tensor("in.x")?.leaf(), case.tensor("in.g")?);
    let both = || {
        let quantized = rq.assemble(&folding.fold(&x)?, assigned)?;
        Ok::<_, super::Error>((inner(&folding.unfold(&quantized.latents)?, &g)?, quantized.loss))
    };
    let mut ste = backward(|| Ok(both()?.0))?;
    let mut commit = backward(|| Ok(both()?.1))?;
    let mut total = backward(|| both().and_then(|(ste, commit)| Ok(ste.add(&commit.mul_scalar(0.25)?)?)))?;
    for (name, gradients) in [("x_ste", &mut ste), ("x_commit", &mut commit), ("x_total", &mut total)] {
        out.tensor(format!("grad.{sub}in.{name}"), &gradient(gradients, &x));
    }
    Ok(())
}

/// The codebooks' state after a step, and the total count of each.
fn put_state(case: &Case, out: &mut Outputs, sub: &str, params: &Params) -> Result<()> {
    for (name, value) in params.state() {
        if let Some(book) = name.strip_suffix("cluster_size_ema") {
            let total: f64 = value.as_slice().iter().map(|&n| f64::from(n)).sum();
            out.number(format!("out.{sub}{book}sum_N"), total);
        }
        let name = format!("out.{sub}{name}");
        match name.ends_with("weight") {
            true => put_codebook(case, out, &name, &value)?,
            false => out.tensor(name, &value),
        }
    }
    Ok(())
}

pub(super) fn rq_train(case: &Case, out: &mut Outputs) -> Result<()> {
    let folding = Folding::of(case, "")?;
    let depth = case.sizes("code_shape")?[2];
    let shared = case.config["shared_codebook"].as_bool().unwrap_or(true);
    let config = published(case, depth, &case.sizes("K")?, shared)?;
    for sub in case.sub_cases("w.", "codebooks.0.weight") {
        let params = Params::new(0);
        let mut rq = Rq::new(config.clone(), &context(&params, folding.channels()))?;
        case.load(&params, false, |name| format!("w.{sub}{name}"))?;
        let latents = folding.fold(&case.tensor("in.x")?)?;
        let rng = Rng::new(0, "step", 0);
        let (assigned, _) =
            rq.update(&latents, &rng, |_, _, _| Err(Error::Unsupported("no restarts here".to_owned())))?;
        put_assignments(case, out, &sub, &folding, &rq.assemble(&latents, &assigned)?, &assigned)?;
        put_gradients(case, out, &sub, &folding, &rq, &assigned)?;
        put_state(case, out, &sub, &params)?;
    }
    Ok(())
}

pub(super) fn rq_eval(case: &Case, out: &mut Outputs) -> Result<()> {
    let folding = Folding::of(case, "")?;
    let depth = case.sizes("code_shape")?[2];
    let shared = case.config["shared_codebook"].as_bool().unwrap_or(true);
    let params = Params::new(0);
    let rq = Rq::new(published(case, depth, &case.sizes("K")?, shared)?, &context(&params, folding.channels()))?;
    case.load(&params, true, |name| format!("w.{name}"))?;
    let latents = folding.fold(&case.tensor("in.x")?)?;
    let quantized = rq.quantize(&latents)?;
    let codes = quantized.tokens.codes()?.clone();
    let words = (0..depth).map(|d| rq.select(&codes, d)).collect::<rqlab_sdk::Result<Vec<_>>>()?;
    let columns = (0..depth).map(|d| codes.column(d)).collect::<Result<Vec<_>, _>>()?;
    let assigned = Assignments { codes: columns, codewords: words, kept: depth };
    put_assignments(case, out, "", &folding, &quantized, &assigned)?;
    put_gradients(case, out, "", &folding, &rq, &assigned)
}

/// The published restart with the case's order and noise.
fn candidates(case: &Case, order: &str, noise: &str, vectors: &Tensor, size: usize) -> rqlab_sdk::Result<Tensor> {
    let stored = || -> Result<RestartDraw> {
        let noise = if case.has(noise) { case.tensor(noise)?.to_vec() } else { Vec::new() };
        Ok(RestartDraw { order: case.indices(order)?, noise })
    };
    let draw = stored().map_err(|e| Error::Data(e.to_string()))?;
    restart_candidates(vectors, size, &draw)
}

pub(super) fn rq_restart(case: &Case, out: &mut Outputs) -> Result<()> {
    let config = VqConfig {
        codebook: case.size("K")?,
        decay: case.number("decay")?,
        eps: case.number("eps")?,
        dead_below: 1.0,
        ..VqConfig::parse("vq")?
    };
    for sub in case.sub_cases("w.", "weight") {
        let step = |dead_codes| -> Result<(Quantized, std::collections::BTreeMap<String, Tensor>)> {
            let params = Params::new(0);
            let dead_codes = Some(dead_codes);
            let mut vq = Vq::new(VqConfig { dead_codes, ..config.clone() }, &context(&params, case.size("dim")?))?;
            case.load(&params, false, |name| name.replace("codebooks.0.", &format!("w.{sub}")))?;
            let (x, rng) = (case.tensor(&format!("in.{sub}x"))?, Rng::new(0, "step", 0));
            let quantized = vq.quantize_train_with(&x, &rng, |vectors, size| {
                candidates(case, &format!("rand.{sub}perm"), &format!("rand.{sub}noise"), vectors, size)
            })?;
            Ok((quantized, params.state()))
        };
        let (quantized, state) = step(rqlab_quantizer_vq::DeadCodes::Restart)?;
        out.codes(format!("out.{sub}codes"), &quantized.tokens.codes()?.column(0)?);
        out.tensor(format!("out.{sub}quantized"), &quantized.latents);
        for (name, value) in state {
            let name = name.replace("codebooks.0.", &format!("out.{sub}"));
            match name.ends_with("weight") {
                true => put_codebook(case, out, &name, &value)?,
                false => out.tensor(name, &value),
            }
        }
        // Which codes restart: those that the update alone leaves below a count of 1.
        let counts =
            step(rqlab_quantizer_vq::DeadCodes::Keep)?.1.remove("codebooks.0.cluster_size_ema").ok_or("no counts")?;
        let restarted: Vec<bool> = counts.as_slice().iter().map(|&n| n < config.dead_below).collect();
        out.flags(format!("out.{sub}restarted"), &restarted);
    }

    let folding = Folding::of(case, "rq/")?;
    let config = published(case, case.size("rq/D")?, &case.sizes("rq/K").or(case.sizes("K"))?, true)?;
    let params = Params::new(0);
    let mut rq = Rq::new(RqConfig { dead_codes: DeadCodes::Restart, ..config }, &context(&params, folding.channels()))?;
    case.load(&params, false, |name| format!("w.rq.{name}"))?;
    let latents = folding.fold(&case.tensor("in.rq.x")?)?;
    let (assigned, _) = rq.update(&latents, &Rng::new(0, "step", 0), |depth, vectors, size| {
        candidates(case, &format!("rand.rq.perm.{depth}"), &format!("rand.rq.noise.{depth}"), vectors, size)
    })?;
    put_assignments(case, out, "rq.", &folding, &rq.assemble(&latents, &assigned)?, &assigned)?;
    put_state(case, out, "rq.", &params)
}

pub(super) fn rq_soft_codes(case: &Case, out: &mut Outputs) -> Result<()> {
    let folding = Folding::of(case, "")?;
    let depth = case.sizes("code_shape")?[2];
    let params = Params::new(0);
    let sizes = case.sizes("K")?;
    let shared = case.config["shared_codebook"].as_bool().unwrap_or(sizes.len() == 1);
    let rq = Rq::new(published(case, depth, &sizes, shared)?, &context(&params, folding.channels()))?;
    case.load(&params, true, |name| format!("w.{name}"))?;
    let latents = folding.fold(&case.tensor("in.x")?)?;
    let temperatures = case.config["temperatures"].as_array().ok_or("no temperatures")?;
    for temperature in temperatures {
        let t = temperature.as_f64().ok_or("a temperature is not a number")? as f32;
        for how in ["det", "sto"] {
            let uniforms = match how {
                "det" => None,
                _ => {
                    let u = case.tensor(&format!("rand.sto.T{temperature}.u"))?;
                    let of = |d| u.as_slice().iter().skip(d).step_by(depth).copied().collect::<Vec<f32>>();
                    Some((0..depth).map(of).collect::<Vec<_>>())
                }
            };
            let soft = rq.soft_codes_with(&latents, t, uniforms.as_deref())?;
            out.codes(format!("out.{how}.T{temperature}.codes"), &soft.codes);
            let targets: Vec<&Tensor> = soft.targets.iter().collect();
            out.tensor(format!("out.{how}.T{temperature}.soft_codes"), &Tensor::stack(&targets, 3)?);
        }
    }
    Ok(())
}

pub(super) fn commitment_grad(case: &Case, out: &mut Outputs) -> Result<()> {
    let (x, sums) = (case.tensor("in.x")?.leaf(), case.tensor("in.partial_sums")?);
    let depth = sums.shape()[0];
    let sum = |d: usize| -> Result<Tensor> { Ok(sums.slice(0, d..d + 1)?.reshape(x.shape())?) };
    let mut codewords = vec![sum(0)?];
    for d in 1..depth {
        codewords.push(sum(d)?.sub(&sum(d - 1)?)?);
    }
    let positions = &x.shape()[..x.rank() - 1];
    let none = Codes::from_vec(vec![0; positions.iter().product()], positions)?;
    let assigned = Assignments { codes: vec![none; depth], codewords, kept: depth };
    for (commitment, name) in [(Commitment::Mean, "out.loss"), (Commitment::Sum, "out.loss_sum_over_depths")] {
        let config = RqConfig { commitment, ..published(case, depth, &[2], true)? };
        let rq = Rq::new(config, &context(&Params::new(0), x.last_dim()))?;
        let mut gradients = backward(|| {
            let loss = rq.assemble(&x, &assigned)?.loss;
            out.tensor(name, &loss);
            Ok(loss)
        })?;
        if commitment == Commitment::Mean {
            out.tensor("grad.in.x", &gradient(&mut gradients, &x));
        }
    }
    Ok(())
}

pub(super) fn partial_decode(case: &Case, out: &mut Outputs) -> Result<()> {
    let folding = Folding::of(case, "")?;
    let depth = case.sizes("code_shape")?[2];
    for (sub, shared) in [("shared.", true), ("separate.", false)] {
        let sizes = case.sizes(if shared { "K_shared" } else { "K_separate" })?;
        let params = Params::new(0);
        let rq = Rq::new(published(case, depth, &sizes, shared)?, &context(&params, folding.channels()))?;
        case.load(&params, true, |name| format!("w.{sub}{name}"))?;
        let codes = case.codes(&format!("in.{sub}codes"))?;
        let tokens = Tokens::Codes(codes.clone());
        for d in 0..depth {
            out.tensor(format!("out.{sub}add.{d}"), &folding.unfold(&rq.embed(&tokens, Some(d + 1))?)?);
            out.tensor(format!("out.{sub}select.{d}"), &folding.unfold(&rq.select(&codes, d)?)?);
        }
        out.tensor(format!("out.{sub}embed_code"), &folding.unfold(&rq.embed(&tokens, None)?)?);
        out.tensor(format!("out.{sub}with_depth"), &rq.embed_by_depth(&codes)?);
    }
    Ok(())
}

/// vector-quantize-pytorch: the buffers have a leading axis of size 1 and other names.
pub(super) fn vqp_residual_vq(case: &Case, out: &mut Outputs) -> Result<()> {
    const NAMES: [(&str, &str); 3] =
        [("cluster_size_ema", "cluster_size"), ("embed_ema", "embed_avg"), ("weight", "embed")];
    for sub in case.sub_cases("w.", "layers.0._codebook.embed") {
        let weight = case.number("commitment_weight").unwrap_or(1.0) as f32;
        let depth = case.size("D")?;
        let config = RqConfig {
            beta: weight,
            commitment: Commitment::Sum,
            estimator: if sub.contains("rot") { Estimator::Rotation } else { Estimator::StraightThrough },
            estimator_per_depth: true,
            update: Update::PerStep,
            initial_count: Some(1.0),
            ..published(case, depth, &case.sizes("K")?, sub.contains("shared"))?
        };
        let params = Params::new(0);
        let mut rq = Rq::new(config, &context(&params, case.size("dim")?))?;
        let published = |name: &str| {
            let (book, buffer) = name.strip_prefix("codebooks.")?.split_once('.')?;
            let (_, theirs) = NAMES.iter().find(|(ours, _)| *ours == buffer)?;
            Some(format!("{sub}layers.{book}._codebook.{theirs}"))
        };
        for (name, entry) in params.entries() {
            let stored = case.tensor(&format!("w.{}", published(&name).ok_or("an unknown buffer")?))?;
            entry.var.set(&stored.reshape(&entry.shape)?)?;
        }
        let (x, g) = (case.tensor("in.x")?.leaf(), case.tensor("in.g")?);
        let mut at_out = backward(|| inner(&rq.quantize(&x)?.latents, &g))?;
        let mut at_loss = backward(|| Ok(rq.quantize(&x)?.loss))?;
        out.tensor(format!("grad.{sub}x_out"), &gradient(&mut at_out, &x));
        out.tensor(format!("grad.{sub}x_loss"), &gradient(&mut at_loss, &x));
        let quantized = rq.quantize_train(&x, &Rng::new(0, "step", 0))?;
        out.codes(format!("out.{sub}codes"), quantized.tokens.codes()?);
        out.tensor(format!("out.{sub}quantized"), &quantized.latents);
        out.numbers(
            format!("out.{sub}losses"),
            quantized.residual_energy.as_slice().iter().map(|&e| f64::from(e * weight)),
        );
        for (name, value) in params.state() {
            let name = published(&name).ok_or("an unknown buffer")?;
            let shape: Vec<usize> = [1].iter().chain(value.shape()).copied().collect();
            out.tensor(format!("out.{name}"), &value.reshape(&shape)?);
            if let Some(layer) = name.strip_suffix("_codebook.cluster_size") {
                let total = value.as_slice().iter().map(|&n| f64::from(n)).sum();
                out.number(format!("out.{layer}sum_N"), total);
            }
        }
    }
    Ok(())
}
