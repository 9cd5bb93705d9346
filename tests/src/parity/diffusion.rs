//! Diffusion of single vectors.

use super::case::number;
use super::outputs::{backward, gradient, inner};
use super::{Case, Outputs, Result};
use rqlab_sdk::contracts::Guidance;
use rqlab_sdk::nn::diffusion::{
    DenoisingMlp, DiffusionHead, DiffusionHeadConfig, GaussianDiffusion, HeadNoise, HeadRequest, NoiseSchedule,
    Predicted, Process, ddim_timesteps, respaced_timesteps,
};
use rqlab_sdk::params::Params;
use rqlab_sdk::tensor::Tensor;

/// Steps of the published process.
const STEPS: usize = 1000;
/// How many steps of a long trajectory go by from one that is kept to the next.
const KEPT: usize = 10;

fn cosine(steps: usize) -> Result<GaussianDiffusion> {
    Ok(GaussianDiffusion::new(NoiseSchedule::Cosine, steps)?)
}

/// What `sections` stands for: counts, or `ddimN`.
fn kept(steps: usize, sections: &str) -> Result<Vec<usize>> {
    Ok(match sections.strip_prefix("ddim") {
        Some(count) => ddim_timesteps(steps, count.parse()?)?,
        None => respaced_timesteps(steps, &sections.split(',').map(str::parse).collect::<Result<Vec<_>, _>>()?)?,
    })
}

pub(super) fn timesteps(case: &Case, out: &mut Outputs) -> Result<()> {
    for entry in case.config["cases"].as_array().ok_or("no cases")? {
        let (steps, sections) = (number(entry, "T")? as usize, entry["sections"].as_str().ok_or("no sections")?);
        let taken = kept(steps, sections)?;
        let name = format!("out.{steps}.{}", sections.replace(',', "_"));
        out.numbers(format!("{name}.timesteps"), taken.iter().map(|&t| t as f64));
        if case.wants(&format!("{name}.betas")) {
            let process = cosine(steps)?.respaced(&taken)?;
            out.numbers(format!("{name}.betas"), process.betas);
            out.numbers(format!("{name}.alphas_cumprod"), process.alphas_cumprod);
            out.numbers(format!("{name}.posterior_log_variance_clipped"), process.posterior_log_variance);
        }
    }
    Ok(())
}

pub(super) fn losses(case: &Case, out: &mut Outputs) -> Result<()> {
    let process = cosine(case.size("T")?)?;
    let (x, t, noise) = (case.tensor("in.x0")?, case.indices("in.t")?, case.tensor("rand.noise")?);
    let output = case.tensor("in.model_output")?.leaf();
    let noised = process.noised(&x, &t, &noise)?;
    out.tensor("out.x_t", &noised);
    let Predicted { vector, mean, log_variance } = process.predicted(&noised, &t, &output)?;
    out.tensor("out.pred_x0", &vector);
    out.tensor("out.model_mean", &mean);
    out.tensor("out.model_log_variance", &log_variance);
    let mut gradients = backward(|| {
        let losses = process.losses(&x, &t, &noise, &output)?;
        out.tensor("out.mse", &losses.mse);
        out.tensor("out.vb", &losses.bound);
        out.tensor("out.loss", &losses.mse.add(&losses.bound)?);
        Ok(losses.mse.sum_all()?)
    })?;
    out.tensor("grad.mse.model_output", &gradient(&mut gradients, &output));
    let mut gradients = backward(|| Ok(process.losses(&x, &t, &noise, &output)?.bound.sum_all()?))?;
    out.tensor("grad.vb.model_output", &gradient(&mut gradients, &output));
    out.numbers("out.schedule.betas", process.betas);
    out.numbers("out.schedule.alphas_cumprod", process.alphas_cumprod);
    out.numbers("out.schedule.posterior_variance", process.posterior_variance);
    out.numbers("out.schedule.posterior_log_variance_clipped", process.posterior_log_variance);
    out.numbers("out.schedule.posterior_mean_coef1", process.posterior_mean_of_vector);
    out.numbers("out.schedule.posterior_mean_coef2", process.posterior_mean_of_step);
    Ok(())
}

/// Two halves of rows, `[2N, ..]`, as pairs `[N, 2, ..]`.
pub(super) fn pairs(halves: &Tensor) -> Result<Tensor> {
    let n = halves.shape()[0] / 2;
    Ok(Tensor::stack(&[&halves.slice(0, 0..n)?, &halves.slice(0, n..2 * n)?], 1)?)
}

pub(super) fn mlp(case: &Case, out: &mut Outputs) -> Result<()> {
    let (channels, params) = (case.size("cin")?, Params::new(0));
    let sizes = [case.size("w")?, case.size("d")?];
    let net = DenoisingMlp::new(&params, [channels, 2 * channels], case.size("z")?, sizes)?;
    case.load(&params, false, |name| format!("w.{name}"))?;
    let times: Vec<f32> = case.indices("in.t")?.iter().map(|&t| t as f32).collect();
    out.tensor("out.freq", &DenoisingMlp::time_features(&times)?);
    out.tensor("out.temb", &net.embed_times(&times)?);
    let (x, c, upstream) = (case.tensor("in.x")?.leaf(), case.tensor("in.c")?.leaf(), case.tensor("in.g")?);
    let mut gradients = backward(|| {
        let y = net.forward(&x, &net.embed_times(&times)?, &net.embed_condition(&c)?)?;
        out.tensor("out.y", &y);
        inner(&y, &upstream)
    })?;
    out.tensor("grad.in.x", &gradient(&mut gradients, &x));
    out.tensor("grad.in.c", &gradient(&mut gradients, &c));
    out.parameter_gradients(&params, &mut gradients, |name| format!("grad.w.{name}"));

    let half = x.detach().slice(0, 0..times.len() / 2)?;
    let twice = Tensor::concat(&[&half, &half], 0)?;
    let y = net.forward(&twice, &net.embed_times(&times)?, &net.embed_condition(&c.detach())?)?;
    let noise = Guidance::mix(&pairs(&y.slice(1, 0..channels)?)?, case.number("cfg")? as f32)?;
    let noise = Tensor::concat(&[&noise, &noise], 0)?;
    out.tensor("out.cfg", &Tensor::concat(&[&noise, &y.slice(1, channels..2 * channels)?], 1)?);
    Ok(())
}

/// Makes what is predicted `sqrt(1 - a) x + sqrt(a) n` of the network's n, with a the signal's share at each step of the
/// published process: the cases keep chains of untrained networks small by that.
pub(super) fn tame(head: &mut DiffusionHead) -> Result<()> {
    let process = cosine(STEPS)?;
    let kept = respaced_timesteps(STEPS, &[head.steps.len()])?;
    for (step, &t) in head.steps.iter_mut().zip(kept.iter().rev()) {
        let left = process.alphas_cumprod[t];
        step.signal += step.prediction * (1.0 - left).sqrt() as f32;
        step.prediction *= left.sqrt() as f32;
    }
    Ok(())
}

/// A chain with every step kept, `[S, R, C]`, of the network itself: also of the second half of guided rows, which takes the
/// first half's predicted noise and its own variance.
fn trajectory(
    head: &DiffusionHead,
    times: &[usize],
    c: &Tensor,
    noise: [&Tensor; 2],
    [guidance, temperature]: [f32; 2],
    channels: usize,
) -> Result<Vec<Tensor>> {
    let rows = c.shape()[0];
    let guided = noise[0].shape()[0] != rows;
    let mut x = if guided { Tensor::concat(&[noise[0], noise[0]], 0)? } else { noise[0].clone() };
    let mut all = Vec::new();
    for (j, (step, &t)) in head.steps.iter().zip(times).enumerate() {
        let n = noise[0].shape()[0];
        let first = x.slice(0, 0..n)?;
        let input = if guided { Tensor::concat(&[&first, &first], 0)? } else { first };
        let embedded = head.net.embed_times(&vec![t as f32; rows])?;
        let y = head.net.forward(&input, &embedded, &head.net.embed_condition(c)?)?;
        let mut predicted = y.slice(1, 0..channels)?;
        if guided {
            let mixed = Guidance::mix(&pairs(&predicted)?, guidance)?;
            predicted = Tensor::concat(&[&mixed, &mixed], 0)?;
        }
        // The tamed share of x is that of the first half.
        let plain = cosine(STEPS)?.respaced(&respaced_timesteps(STEPS, &[head.steps.len()])?)?.ancestral_steps()[j];
        let tamed = input.mul_scalar(step.signal - plain.signal)?;
        x = x.mul_scalar(plain.signal)?.add(&tamed)?.add(&predicted.mul_scalar(step.prediction)?)?;
        if j + 1 < head.steps.len() {
            let [low, high] = step.log_variance;
            let v = y.slice(1, channels..2 * channels)?;
            let half = v.add_scalar(1.0)?.mul_scalar(0.25 * (high - low))?.add_scalar(0.5 * low)?;
            let noise = noise[1].slice(0, j..j + 1)?.reshape(x.shape())?;
            x = x.add(&half.exp()?.mul(&noise)?.mul_scalar(temperature)?)?;
        }
        all.push(x.clone());
    }
    Ok(all)
}

pub(super) fn sample(case: &Case, out: &mut Outputs) -> Result<()> {
    let channels = case.size("cin")?;
    for sub in case.sub_cases("in.", "c") {
        let (c, start) = (case.tensor(&format!("in.{sub}c"))?, case.tensor(&format!("rand.{sub}init"))?);
        let noise = case.tensor(&format!("rand.{sub}steps"))?;
        let (steps, vectors) = (noise.shape()[0], start.shape()[0]);
        let params = Params::new(0);
        let config = DiffusionHeadConfig {
            channels,
            condition: case.size("z")?,
            width: case.size("w")?,
            depth: case.size("d")?,
            process: Process::Diffusion { schedule: NoiseSchedule::Cosine, steps: STEPS },
            repeat: 1,
            sampling_steps: steps,
        };
        let mut head = DiffusionHead::new(&params, config)?;
        case.load(&params, false, |name| format!("w.{}", name.trim_start_matches("net.")))?;
        if sub != "raw." {
            tame(&mut head)?;
        }
        let guided = c.shape()[0] != vectors;
        let (guidance, temperature) = (case.number("cfg")? as f32, case.number("temp")? as f32);
        let conditions = if guided { pairs(&c)? } else { c.clone() };
        let own = noise.slice(1, 0..vectors)?;
        let request = HeadRequest { guidance, temperature };
        let drawn = head.sampler(c.shape()[0])?.sample(
            &conditions,
            &request,
            &HeadNoise { start: start.clone(), steps: own },
        )?;
        out.tensor(format!("out.{sub}sample"), &drawn);

        let times: Vec<usize> = respaced_timesteps(STEPS, &[steps])?.into_iter().rev().collect();
        let all = trajectory(&head, &times, &c, [&start, &noise], [guidance, temperature], channels)?;
        let wanted = case.wanted_shape(&format!("out.{sub}trajectory")).and_then(|shape| shape.first().copied());
        // All of them, or of a long one every tenth.
        let wanted = wanted.ok_or("no trajectory")?;
        let every = if steps.div_ceil(KEPT) == wanted { KEPT } else { steps / wanted };
        let shown: Vec<&Tensor> = all.iter().step_by(every).collect();
        out.tensor(format!("out.{sub}trajectory"), &Tensor::stack(&shown, 0)?);
    }
    Ok(())
}
