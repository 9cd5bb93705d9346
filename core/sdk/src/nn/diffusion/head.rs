//! A head that models vectors given what a transformer knows of them.

use super::gaussian::{GaussianDiffusion, NoiseSchedule};
use super::{DenoisingMlp, flow, respaced_timesteps};
use crate::config::ConfigError;
use crate::contracts::{PriorLoss, SampleRequest};
use crate::params::Params;
use crate::tensor::ops::denoiser::{Denoiser, Denoising, DenoisingStep};
use crate::tensor::ops::sampling::Draw;
use crate::tensor::{Rng, Tensor};
use crate::{Error, Result};

/// How noise becomes a vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Process {
    /// Gaussian diffusion with a learned variance: the published DiffLoss.
    Diffusion {
        /// How noise grows.
        schedule: NoiseSchedule,
        /// Steps in training.
        steps: usize,
    },
    /// Flow matching along straight lines.
    Flow,
}

/// The sizes of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiffusionHeadConfig {
    /// Numbers per vector, C.
    pub channels: usize,
    /// Numbers that are known of a vector, Z.
    pub condition: usize,
    /// Model width of the network.
    pub width: usize,
    /// Its blocks.
    pub depth: usize,
    /// How noise becomes a vector.
    pub process: Process,
    /// Draws of noise per vector in training; the condition is computed once for all of them.
    pub repeat: usize,
    /// Steps in sampling.
    pub sampling_steps: usize,
}

/// The loss of each row, `[N]`, and its parts.
#[derive(Debug, Clone)]
pub struct HeadLoss {
    /// What is minimised.
    pub loss: Tensor,
    /// The squared error of what the network predicts.
    pub mse: Tensor,
    /// The term of the variational bound in bits per number; a flow has none.
    pub bound: Option<Tensor>,
}

impl HeadLoss {
    /// What a prior trains on: the mean over rows, with its parts.
    ///
    /// # Errors
    /// No rows at all.
    pub fn mean(&self) -> Result<PriorLoss> {
        let mut terms = vec![("mse", self.mse.detach().mean_all()?)];
        if let Some(bound) = &self.bound {
            terms.push(("bound", bound.detach().mean_all()?));
        }
        Ok(PriorLoss { loss: self.loss.mean_all()?, terms })
    }
}

/// The noise of a sample: `[N, C]` at first, and `[S - 1, N, C]`, or more steps that are not read, after the steps.
#[derive(Debug, Clone)]
pub struct HeadNoise {
    /// What the vectors start from.
    pub start: Tensor,
    /// What is added in each step but the last, from N(0, 1); nothing where the process adds none.
    pub steps: Tensor,
}

/// How vectors are sampled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeadRequest {
    /// Scale of the guidance where conditions come in pairs: predictions are `u + s (c - u)`.
    pub guidance: f32,
    /// Factor of the noise of the steps; a flow, which adds none, starts from so much of it.
    pub temperature: f32,
}

impl HeadRequest {
    /// What a request asks of a prior that draws vectors, not guided.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for `top_k` or `top_p`, which cut distributions over codes.
    pub fn new(request: &SampleRequest) -> Result<Self> {
        let Draw { temperature, top_k, top_p } = request.draw_at(0);
        if top_k.is_some() || top_p.is_some() {
            let message = "`top_k` and `top_p` cut distributions over codes, and this prior draws vectors by diffusion: leave \
                           them out; `temperature` scales the noise";
            return Err(Error::Unsupported(message.to_owned()));
        }
        Ok(Self { guidance: 1.0, temperature })
    }
}

/// A denoiser with its process. Parameters: `net.*` (see [`DenoisingMlp`]).
#[derive(Debug, Clone)]
pub struct DiffusionHead {
    /// The network.
    pub net: DenoisingMlp,
    /// The steps of sampling, in their order.
    pub steps: Vec<DenoisingStep>,
    times: Vec<f32>,
    process: Option<GaussianDiffusion>,
    config: DiffusionHeadConfig,
}

impl DiffusionHead {
    /// A head under `params`.
    ///
    /// # Errors
    /// [`ConfigError`] of the field `sampling_steps` if the process has no such respacing; a name that is taken.
    pub fn new(params: &Params, config: DiffusionHeadConfig) -> Result<Self> {
        let (process, outputs, steps, times) = match config.process {
            Process::Diffusion { schedule, steps } => {
                let process = GaussianDiffusion::new(schedule, steps)?;
                let refused = |error: Error| Error::from(ConfigError::field("sampling_steps", error.to_string()));
                let kept = respaced_timesteps(steps, &[config.sampling_steps]).map_err(refused)?;
                let respaced = process.respaced(&kept).map_err(refused)?;
                let times = respaced.timesteps.iter().rev().map(|&t| t as f32).collect();
                (Some(process), 2 * config.channels, respaced.ancestral_steps(), times)
            }
            Process::Flow => {
                let (steps, times) = flow::euler_steps(config.sampling_steps);
                (None, config.channels, steps, times)
            }
        };
        let sizes = [config.width, config.depth];
        let net = DenoisingMlp::new(&params.scope("net"), [config.channels, outputs], config.condition, sizes)?;
        Ok(Self { net, steps, times, process, config })
    }

    /// The loss of vectors `[N, C]` given conditions `[N, Z]`, with times and noise from `rng`: `repeat` draws of each, one
    /// block of N rows after another.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn loss(&self, vectors: &Tensor, conditions: &Tensor, rng: &Rng) -> Result<HeadLoss> {
        let (rows, repeat, channels) = (vectors.shape()[0], self.config.repeat, self.config.channels);
        let noise = rng.part("noise", 0).normal_blocks(repeat, rows * channels);
        let noise = Tensor::from_vec(noise, &[rows * repeat, channels])?.to_device(vectors.device())?;
        let draws = rng.part("time", 0);
        match &self.process {
            Some(process) => {
                let t = draws.below_blocks(repeat, rows, process.steps() as u32);
                let t: Vec<usize> = t.into_iter().map(|t| t as usize).collect();
                self.loss_at(vectors, conditions, &t, &noise)
            }
            None => {
                let t = draws.uniform_blocks(repeat, rows);
                let (vectors, conditions) = self.repeated(vectors, conditions)?;
                let times = self.net.embed_times(&t.iter().map(|t| t * flow::TIME_SCALE).collect::<Vec<_>>())?;
                let velocity = self.net.forward(&flow::noised(&vectors, &t, &noise)?, &times, &conditions)?;
                let loss = flow::losses(&vectors, &noise, &velocity)?;
                Ok(HeadLoss { mse: loss.clone(), loss, bound: None })
            }
        }
    }

    /// The loss of a diffusion at given steps `t` and noise: a multiple of N rows, block after block.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a flow; shapes that do not fit.
    pub fn loss_at(&self, vectors: &Tensor, conditions: &Tensor, t: &[usize], noise: &Tensor) -> Result<HeadLoss> {
        let process = self.diffusion()?;
        let (vectors, conditions) = self.repeated(vectors, conditions)?;
        let output = self.outputs(process, &vectors, &conditions, t, noise)?;
        let losses = process.losses(&vectors, t, noise, &output)?;
        Ok(HeadLoss { loss: losses.mse.add(&losses.bound)?, mse: losses.mse, bound: Some(losses.bound) })
    }

    /// Whether [`DiffusionHead::bound`] gives something.
    pub fn has_bound(&self) -> bool {
        self.process.is_some()
    }

    fn diffusion(&self) -> Result<&GaussianDiffusion> {
        self.process
            .as_ref()
            .ok_or_else(|| Error::Unsupported("a flow has no steps and no variational bound".to_owned()))
    }

    fn outputs(
        &self,
        process: &GaussianDiffusion,
        vectors: &Tensor,
        conditions: &Tensor,
        t: &[usize],
        noise: &Tensor,
    ) -> Result<Tensor> {
        let times = self.net.embed_times(&t.iter().map(|&t| t as f32).collect::<Vec<_>>())?;
        self.net.forward(&process.noised(vectors, t, noise)?, &times, conditions)
    }

    /// Every vector and its embedded condition `repeat` times, block after block.
    fn repeated(&self, vectors: &Tensor, conditions: &Tensor) -> Result<(Tensor, Tensor)> {
        let conditions = self.net.embed_condition(conditions)?;
        let copies = |x: &Tensor| Tensor::concat(&vec![x; self.config.repeat], 0);
        Ok((copies(vectors)?, copies(&conditions)?))
    }

    /// An upper bound in bits of the negative log-likelihood of each vector `[N, C]`, in bins of 2/255, given its condition
    /// `[N, Z]`: an estimate `[N]` whose mean is the variational bound. Of the terms of all steps one is drawn of each of
    /// 0, 1, 2..=3, 4..=7, .., so that the large terms at the end of the process are hit often. `None` for a flow.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn bound(&self, vectors: &Tensor, conditions: &Tensor, rng: &Rng) -> Result<Option<Tensor>> {
        let Some(process) = &self.process else { return Ok(None) };
        let rows = vectors.shape()[0];
        let conditions = self.net.embed_condition(conditions)?;
        let mut bits = process.last_bound(vectors)?;
        let (mut from, mut count, mut draw) = (0, 1, 0);
        while from < process.steps() {
            let count_here = count.min(process.steps() - from);
            let rng = rng.part("stratum", draw);
            let t: Vec<usize> =
                rng.part("time", 0).below(rows, count_here as u32).into_iter().map(|t| from + t as usize).collect();
            let noise = Tensor::from_vec(rng.part("noise", 0).normal(vectors.len()), vectors.shape())?
                .to_device(vectors.device())?;
            let output = self.outputs(process, vectors, &conditions, &t, &noise)?;
            bits = bits.add(&process.bound(vectors, &t, &noise, &output)?.mul_scalar(count_here as f32)?)?;
            from += count_here;
            count = from;
            draw += 1;
        }
        Ok(Some(bits.mul_scalar(self.config.channels as f32)?))
    }

    /// The noise of a sample of `vectors` vectors.
    ///
    /// # Errors
    /// None in practice: noise has a shape.
    pub fn noise(&self, vectors: usize, rng: &Rng) -> Result<HeadNoise> {
        let channels = self.config.channels;
        let draw = |name: &str, shape: &[usize]| -> Result<Tensor> {
            Ok(Tensor::from_vec(rng.part(name, 0).normal(shape.iter().product()), shape)?)
        };
        let steps = if self.process.is_some() { self.steps.len() - 1 } else { 0 };
        Ok(HeadNoise {
            start: draw("start", &[vectors, channels])?,
            steps: draw("steps", &[steps, vectors, channels])?,
        })
    }

    /// The network as it is now, laid out to sample about `rows` vectors, each twice if guided.
    ///
    /// # Errors
    /// A failing device.
    pub fn sampler(&self, rows: usize) -> Result<HeadSampler> {
        Ok(HeadSampler {
            denoiser: self.net.denoiser(rows)?,
            times: self.net.embed_times(&self.times)?,
            steps: self.steps.clone(),
            condition: self.net.clone(),
            flow: self.process.is_none(),
        })
    }
}

/// A [`DiffusionHead`] laid out for sampling.
#[derive(Debug, Clone)]
pub struct HeadSampler {
    denoiser: Denoiser,
    times: Tensor,
    steps: Vec<DenoisingStep>,
    condition: DenoisingMlp,
    flow: bool,
}

impl HeadSampler {
    /// Vectors `[N, C]` given conditions `[N, Z]`, or `[N, 2, Z]` to be guided: with the image's condition, then without.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn sample(&self, conditions: &Tensor, request: &HeadRequest, noise: &HeadNoise) -> Result<Tensor> {
        let embedded = self.condition.embed_condition(conditions)?;
        let [vectors, group, width] = match embedded.shape() {
            &[vectors, width] => [vectors, 1, width],
            _ => embedded.dims("HeadSampler")?,
        };
        let scaled =
            |noise: &Tensor, scale: f32| if scale == 1.0 { Ok(noise.clone()) } else { noise.mul_scalar(scale) };
        let start = scaled(&noise.start, if self.flow { request.temperature } else { 1.0 })?;
        Ok(self.denoiser.run(&Denoising {
            condition: &embedded.reshape(&[vectors, group, width])?,
            times: &self.times,
            steps: &self.steps,
            guidance: request.guidance,
            start: &start,
            noise: &scaled(&noise.steps, request.temperature)?,
        })?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::nn::testing::random;
    use crate::optim::{Adam, AdamSettings};
    use crate::tensor::Tape;

    fn head(process: Process, params: &Params) -> DiffusionHead {
        let config = DiffusionHeadConfig {
            channels: 2,
            condition: 3,
            width: 32,
            depth: 2,
            process,
            repeat: 4,
            sampling_steps: 20,
        };
        DiffusionHead::new(params, config).unwrap()
    }

    const PROCESSES: [Process; 2] = [Process::Diffusion { schedule: NoiseSchedule::Linear, steps: 100 }, Process::Flow];

    /// Two kinds of condition, each with a vector of its own: samples lie where the training data lie.
    #[test]
    fn samples_are_what_was_learned() {
        for process in PROCESSES {
            let params = Params::new(0);
            let head = head(process, &params);
            let rows = 64;
            let condition: Vec<f32> =
                (0..rows).flat_map(|i| if i % 2 == 0 { [1.0, 0.0, 0.0] } else { [0.0, 1.0, 0.0] }).collect();
            let vectors: Vec<f32> =
                (0..rows).flat_map(|i| if i % 2 == 0 { [1.0, -0.5] } else { [-1.0, 0.5] }).collect();
            let z = Tensor::from_vec(condition, &[rows, 3]).unwrap();
            let x = Tensor::from_vec(vectors.clone(), &[rows, 2]).unwrap();
            let mut optimizer = Adam::new(params.trained(), AdamSettings::default()).unwrap();
            for step in 0..300 {
                let tape = Tape::start().unwrap();
                let loss = head.loss(&x, &z, &Rng::new(0, "train", step)).unwrap().loss.mean_all().unwrap();
                optimizer.step(&mut tape.backward(&loss).unwrap(), 3e-3, None).unwrap();
            }
            let request = HeadRequest { guidance: 1.0, temperature: 1.0 };
            let noise = head.noise(rows, &Rng::new(0, "sample", 0)).unwrap();
            let samples = head.sampler(rows).unwrap().sample(&z, &request, &noise).unwrap();
            let error =
                samples.to_vec().iter().zip(&vectors).map(|(a, b)| (a - b).abs()).sum::<f32>() / (2 * rows) as f32;
            assert!(error < 0.15, "{process:?}: {error}");
            let bound = head.bound(&x, &z, &Rng::new(0, "bound", 0)).unwrap();
            assert_eq!(bound.is_some(), process != Process::Flow);
            if let Some(bound) = bound {
                // Two numbers that are known to a few bins of 2/255 take a few bits; N(0, 1) would take some 17.
                let bits = bound.mean_all().unwrap().item().unwrap();
                assert!(bits > 0.0 && bits < 17.0, "{bits}");
            }
        }
    }

    #[test]
    fn guidance_of_scale_one_is_none() {
        for process in PROCESSES {
            let params = Params::new(0);
            let head = head(process, &params);
            for (i, (_, var)) in params.trained().into_iter().enumerate() {
                var.set(&random(var.get().shape(), i as u64).mul_scalar(0.2).unwrap()).unwrap();
            }
            let z = random(&[6, 2, 3], 1);
            let noise = head.noise(6, &Rng::new(0, "sample", 0)).unwrap();
            let sample = |z: &Tensor, guidance| {
                let request = HeadRequest { guidance, temperature: 0.9 };
                head.sampler(12).unwrap().sample(z, &request, &noise).unwrap().to_vec()
            };
            let plain = sample(&z.slice(1, 0..1).unwrap().reshape(&[6, 3]).unwrap(), 1.0);
            let worst = |a: Vec<f32>| a.iter().zip(&plain).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
            assert!(worst(sample(&z, 1.0)) < 1e-3);
            assert!(worst(sample(&z, 3.0)) > 1e-3);
        }
    }

    #[test]
    fn steps_that_do_not_respace_are_refused() {
        let config = DiffusionHeadConfig {
            channels: 2,
            condition: 3,
            width: 8,
            depth: 1,
            process: PROCESSES[0],
            repeat: 1,
            sampling_steps: 101,
        };
        let refused = DiffusionHead::new(&Params::dry(), config).unwrap_err().to_string();
        assert!(refused.contains("sampling_steps") && refused.contains("101"), "{refused}");
        assert!(DiffusionHead::new(&Params::dry(), DiffusionHeadConfig { sampling_steps: 1, ..config }).is_err());
    }
}
