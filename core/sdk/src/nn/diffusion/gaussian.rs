//! Gaussian diffusion with a learned variance (Ho et al., "Denoising diffusion probabilistic models", NeurIPS 2020; Nichol
//! and Dhariwal, "Improved denoising diffusion probabilistic models", ICML 2021), as MAR's DiffLoss has it.

use crate::tensor::ops::denoiser::DenoisingStep;
use crate::tensor::{Codes, Tensor};
use crate::{Error, Result};
use std::f32::consts::{FRAC_2_PI, LN_2};

/// The largest share of a signal that one step may take away.
const MOST: f64 = 0.999;

/// Half the width of a bin of 8-bit pixels in [-1, 1]: what the last step's likelihood is integrated over, as published.
const HALF_BIN: f32 = 1.0 / 255.0;
/// Bins further out than this are open, as published.
const OUTERMOST: f32 = 0.999;

crate::choice! {
    /// How noise grows with the steps.
    pub enum NoiseSchedule {
        /// The signal's share is `cos²((t + 0.008) / 1.008 pi / 2)` (Nichol and Dhariwal 2021).
        Cosine = "cosine",
        /// Betas grow linearly from 0.0001 to 0.02 over 1000 steps, scaled for other numbers of steps (Ho et al. 2020).
        Linear = "linear",
    }
}

impl NoiseSchedule {
    /// The variance that each step adds.
    fn betas(self, steps: usize) -> Vec<f64> {
        let count = steps as f64;
        match self {
            Self::Cosine => {
                let left = |t: f64| ((t + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2);
                let beta = |i: usize| (1.0 - left((i + 1) as f64 / count) / left(i as f64 / count)).min(MOST);
                (0..steps).map(beta).collect()
            }
            Self::Linear => {
                let [first, last] = [1e-4, 0.02].map(|beta| beta * 1000.0 / count);
                let step = (last - first) / (count - 1.0).max(1.0);
                (0..steps).map(|i| (first + step * i as f64).min(MOST)).collect()
            }
        }
    }
}

/// A process that turns vectors into noise in steps, and its tables, one entry per step.
#[derive(Debug, Clone, PartialEq)]
pub struct GaussianDiffusion {
    /// The step of the original process that each is: what the network is told.
    pub timesteps: Vec<usize>,
    /// The variance that is added.
    pub betas: Vec<f64>,
    /// The share of the signal's variance that is left.
    pub alphas_cumprod: Vec<f64>,
    /// The variance of the step before, given this one and the vector.
    pub posterior_variance: Vec<f64>,
    /// Its logarithm, the first replaced by the second: that of the first is minus infinity.
    pub posterior_log_variance: Vec<f64>,
    /// The factor of the vector in the mean of the step before.
    pub posterior_mean_of_vector: Vec<f64>,
    /// The factor of this step in it.
    pub posterior_mean_of_step: Vec<f64>,
}

/// What outputs `[N, 2C]` say of the step before, `[N, C]` each.
#[derive(Debug, Clone)]
pub struct Predicted {
    /// The vector.
    pub vector: Tensor,
    /// The mean.
    pub mean: Tensor,
    /// The log-variance.
    pub log_variance: Tensor,
}

/// The parts of the loss of each row, `[N]`.
#[derive(Debug, Clone)]
pub struct DiffusionLosses {
    /// The mean squared error of the predicted noise.
    pub mse: Tensor,
    /// The step's term of the variational bound in bits per number. Its mean is taken as given: only the variance learns.
    pub bound: Tensor,
}

impl GaussianDiffusion {
    /// A process of `steps` steps.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for less than two.
    pub fn new(schedule: NoiseSchedule, steps: usize) -> Result<Self> {
        Self::of_betas((0..steps).collect(), schedule.betas(steps))
    }

    fn of_betas(timesteps: Vec<usize>, betas: Vec<f64>) -> Result<Self> {
        if betas.len() < 2 {
            return Err(Error::Unsupported(format!("a diffusion takes 2 steps or more, not {}", betas.len())));
        }
        let mut left = 1.0;
        let alphas_cumprod: Vec<f64> = betas
            .iter()
            .map(|beta| {
                left *= 1.0 - beta;
                left
            })
            .collect();
        let before = |i: usize| if i == 0 { 1.0 } else { alphas_cumprod[i - 1] };
        let each = |f: &dyn Fn(usize) -> f64| -> Vec<f64> { (0..betas.len()).map(f).collect() };
        let posterior_variance = each(&|i| betas[i] * (1.0 - before(i)) / (1.0 - alphas_cumprod[i]));
        Ok(Self {
            posterior_log_variance: each(&|i| posterior_variance[i.max(1)].ln()),
            posterior_mean_of_vector: each(&|i| betas[i] * before(i).sqrt() / (1.0 - alphas_cumprod[i])),
            posterior_mean_of_step: each(&|i| (1.0 - before(i)) * (1.0 - betas[i]).sqrt() / (1.0 - alphas_cumprod[i])),
            posterior_variance,
            alphas_cumprod,
            timesteps,
            betas,
        })
    }

    /// How many steps it has.
    pub fn steps(&self) -> usize {
        self.betas.len()
    }

    /// The process that goes through `kept` of its steps alone, ascending.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for less than two steps, or one that it has not.
    pub fn respaced(&self, kept: &[usize]) -> Result<Self> {
        let mut last = 1.0;
        let mut betas = Vec::with_capacity(kept.len());
        for &step in kept {
            let left = self.alphas_cumprod.get(step);
            let left =
                left.ok_or_else(|| Error::Unsupported(format!("there is no step {step} of {}", self.steps())))?;
            betas.push(1.0 - left / last);
            last = *left;
        }
        Self::of_betas(kept.iter().map(|&step| self.timesteps[step]).collect(), betas)
    }

    /// The steps of ancestral sampling, the noisiest first. The network predicts noise.
    pub fn ancestral_steps(&self) -> Vec<DenoisingStep> {
        let step = |i: usize| {
            let (left, of_vector) = (self.alphas_cumprod[i], self.posterior_mean_of_vector[i]);
            DenoisingStep {
                signal: (of_vector / left.sqrt() + self.posterior_mean_of_step[i]) as f32,
                prediction: -(of_vector * (1.0 / left - 1.0).sqrt()) as f32,
                log_variance: [self.posterior_log_variance[i] as f32, self.betas[i].ln() as f32],
            }
        };
        (0..self.steps()).rev().map(step).collect()
    }

    /// A column `[N, 1]` of what `table` has at each row's step.
    fn column(&self, t: &[usize], like: &Tensor, table: impl Fn(usize) -> f64) -> Result<Tensor> {
        if let Some(step) = t.iter().find(|&&step| step >= self.steps()) {
            return Err(Error::Unsupported(format!("there is no step {step} of {}", self.steps())));
        }
        let column = t.iter().map(|&step| table(step) as f32).collect();
        Ok(Tensor::from_vec(column, &[t.len(), 1])?.to_device(like.device())?)
    }

    /// The vectors `[N, C]` at steps `t` `[N]`, with noise `[N, C]` from N(0, 1).
    ///
    /// # Errors
    /// Shapes that do not fit, a step that there is not.
    pub fn noised(&self, vectors: &Tensor, t: &[usize], noise: &Tensor) -> Result<Tensor> {
        let signal = self.column(t, vectors, |i| self.alphas_cumprod[i].sqrt())?;
        let share = self.column(t, vectors, |i| (1.0 - self.alphas_cumprod[i]).sqrt())?;
        Ok(vectors.mul(&signal)?.add(&noise.mul(&share)?)?)
    }

    /// What the network's outputs `[N, 2C]` at noised vectors `[N, C]` say of the step before: predicted noise, and where the
    /// log-variance lies between the posterior's (-1) and that of the step itself (1).
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn predicted(&self, noised: &Tensor, t: &[usize], output: &Tensor) -> Result<Predicted> {
        let channels = noised.last_dim();
        let noise = output.slice(1, 0..channels)?;
        let v = output.slice(1, channels..2 * channels)?;
        let column = |table: &dyn Fn(usize) -> f64| self.column(t, noised, table);
        let vector = noised
            .mul(&column(&|i| (1.0 / self.alphas_cumprod[i]).sqrt())?)?
            .sub(&noise.mul(&column(&|i| (1.0 / self.alphas_cumprod[i] - 1.0).sqrt())?)?)?;
        let mean = vector
            .mul(&column(&|i| self.posterior_mean_of_vector[i])?)?
            .add(&noised.mul(&column(&|i| self.posterior_mean_of_step[i])?)?)?;
        let range = |i: usize| self.betas[i].ln() - self.posterior_log_variance[i];
        let log_variance = v
            .mul(&column(&|i| 0.5 * range(i))?)?
            .add(&column(&|i| 0.5 * range(i) + self.posterior_log_variance[i])?)?;
        Ok(Predicted { vector, mean, log_variance })
    }

    /// The loss of outputs `[N, 2C]` at `noised(vectors, t, noise)`. In the bound the predicted noise is a constant, so that
    /// it trains the variance alone (Nichol and Dhariwal 2021, section 3.1).
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn losses(&self, vectors: &Tensor, t: &[usize], noise: &Tensor, output: &Tensor) -> Result<DiffusionLosses> {
        let channels = vectors.last_dim();
        let predicted = output.slice(1, 0..channels)?;
        let mse = predicted.sub(noise)?.square()?.mean(&[1], false)?;
        let frozen = Tensor::concat(&[&predicted.detach(), &output.slice(1, channels..2 * channels)?], 1)?;
        Ok(DiffusionLosses { mse, bound: self.bound(vectors, t, noise, &frozen)? })
    }

    /// The terms `[N]` of the variational bound, in bits per number: KL divergence from the posterior to the prediction at
    /// step t > 0, negative log-likelihood of the vector's bins at t = 0.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn bound(&self, vectors: &Tensor, t: &[usize], noise: &Tensor, output: &Tensor) -> Result<Tensor> {
        let noised = self.noised(vectors, t, noise)?;
        let Predicted { vector, log_variance, mean } = self.predicted(&noised, t, output)?;
        let column = |table: &dyn Fn(usize) -> f64| self.column(t, vectors, table);
        let truth = column(&|i| self.posterior_log_variance[i])?;
        let gap = vectors.sub(&vector)?.mul(&column(&|i| self.posterior_mean_of_vector[i])?)?;
        let ratio = truth.sub(&log_variance)?;
        let squares = gap.square()?.mul(&log_variance.neg()?.exp()?)?;
        let divergence = ratio.exp()?.sub(&ratio)?.add(&squares)?.add_scalar(-1.0)?;
        let bits = divergence.mean(&[1], false)?.mul_scalar(0.5 / LN_2)?;
        let first: Vec<u32> = (0..t.len()).filter(|&row| t[row] == 0).map(|row| row as u32).collect();
        if first.is_empty() {
            return Ok(bits);
        }
        // The few rows of the first step, and their places among all.
        let rows = Codes::from_vec(first.clone(), &[first.len()])?;
        let nats = bin_nats(&vectors.embedding(&rows)?, &mean.embedding(&rows)?, &log_variance.embedding(&rows)?)?;
        let nats = nats.mean(&[1], false)?.mul_scalar(1.0 / LN_2)?;
        let all = Tensor::concat(&[&bits, &nats], 0)?;
        let mut places: Vec<u32> = (0..t.len() as u32).collect();
        first.iter().enumerate().for_each(|(i, &row)| places[row as usize] = (t.len() + i) as u32);
        let places = Codes::from_vec(places, &[t.len()])?;
        Ok(all.reshape(&[all.len(), 1])?.embedding(&places)?.reshape(&[t.len()])?)
    }

    /// KL divergence `[N]` in bits per number from the last step's distribution given the vectors to N(0, 1): the bound's last
    /// term.
    ///
    /// # Errors
    /// A failing device.
    pub fn last_bound(&self, vectors: &Tensor) -> Result<Tensor> {
        let left = self.alphas_cumprod[self.steps() - 1];
        let constant = (-(1.0 - left).ln() - left) as f32;
        let bits = vectors.square()?.mul_scalar(left as f32)?.add_scalar(constant)?;
        Ok(bits.mean(&[1], false)?.mul_scalar(0.5 / LN_2)?)
    }
}

/// Negative log-likelihood in nats of the bins that hold `x` under a Gaussian, the outermost ones open: `[N, C]`. The normal
/// distribution function is approximated by a hyperbolic tangent, and no probability is below 1e-12, as published.
fn bin_nats(x: &Tensor, mean: &Tensor, log_variance: &Tensor) -> Result<Tensor> {
    let centred = x.sub(mean)?;
    let inverse = log_variance.mul_scalar(-0.5)?.exp()?;
    let below = |shift: f32| -> Result<Tensor> {
        let u = centred.add_scalar(shift)?.mul(&inverse)?;
        let cubed = u.square()?.mul_scalar(0.044_715)?.add_scalar(1.0)?.mul(&u)?;
        Ok(cubed.mul_scalar(FRAC_2_PI.sqrt())?.tanh()?.add_scalar(1.0)?.mul_scalar(0.5)?)
    };
    let (upper, lower) = (below(HALF_BIN)?, below(-HALF_BIN)?);
    // 1 where the bin is closed on that side, 0 where it is open: by arithmetic, so that nobody reads from a GPU.
    let closed = |sign: f32| -> Result<Tensor> {
        Ok(x.mul_scalar(-sign)?.add_scalar(OUTERMOST)?.mul_scalar(1e6)?.clamp(0.0, 1.0)?)
    };
    let (above, under) = (closed(1.0)?, closed(-1.0)?);
    let open_above = above.mul_scalar(-1.0)?.add_scalar(1.0)?;
    let probability = upper.mul(&above)?.add(&open_above)?.sub(&lower.mul(&under)?)?;
    Ok(probability.clamp(1e-12, f32::INFINITY)?.ln()?.neg()?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::nn::testing::random;

    #[test]
    fn the_signal_fades_from_all_to_nothing() {
        for schedule in [NoiseSchedule::Cosine, NoiseSchedule::Linear] {
            let process = GaussianDiffusion::new(schedule, 1000).unwrap();
            let left = &process.alphas_cumprod;
            assert!(left[0] > 0.999 && left[999] < 1e-4 && left.is_sorted_by(|a, b| a > b));
        }
    }

    #[test]
    fn a_respaced_process_has_the_signal_of_the_steps_that_it_keeps() {
        let process = GaussianDiffusion::new(NoiseSchedule::Cosine, 100).unwrap();
        let kept = process.respaced(&[0, 7, 50, 99]).unwrap();
        assert_eq!(kept.timesteps, [0, 7, 50, 99]);
        for (i, &step) in kept.timesteps.iter().enumerate() {
            assert!((kept.alphas_cumprod[i] - process.alphas_cumprod[step]).abs() < 1e-12);
        }
        assert!(process.respaced(&[0, 100]).is_err() && process.respaced(&[3]).is_err());
    }

    /// The true noise is predicted, and the variance is the posterior's: the bound's divergence is zero.
    #[test]
    fn the_truth_has_no_error_and_no_divergence() {
        let process = GaussianDiffusion::new(NoiseSchedule::Cosine, 50).unwrap();
        let (x, noise) = (random(&[3, 4], 1), random(&[3, 4], 2));
        let output = Tensor::concat(&[&noise, &Tensor::full(-1.0, &[3, 4])], 1).unwrap();
        let losses = process.losses(&x, &[1, 20, 49], &noise, &output).unwrap();
        assert!(losses.mse.to_vec().iter().all(|&x| x == 0.0));
        assert!(losses.bound.to_vec().iter().all(|x| x.abs() < 1e-3), "{:?}", losses.bound);
    }

    #[test]
    fn the_bins_of_a_gaussian_hold_all_of_it() {
        // Around 0, with a deviation of 0.1: bins of 2/255 whose probabilities sum to 1.
        let bins: Vec<f32> = (0..255).map(|i| (2.0 * i as f32 - 254.0) / 255.0).collect();
        let x = Tensor::from_vec(bins, &[255, 1]).unwrap();
        let log_variance = Tensor::full(2.0 * 0.1f32.ln(), &[255, 1]);
        let nats = bin_nats(&x, &Tensor::zeros(&[255, 1]), &log_variance).unwrap();
        let sum: f32 = nats.to_vec().iter().map(|x| (-x).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-4, "{sum}");
    }
}
