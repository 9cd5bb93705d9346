//! Flow matching along straight lines (Lipman et al., "Flow matching for generative modeling", ICLR 2023; Liu et al., "Flow
//! straight and fast", ICLR 2023): the alternative to diffusion, for few steps. At time t in [0, 1] a vector x is
//! `(1 - t) x + t noise`, and the network predicts the velocity `noise - x`.

use crate::Result;
use crate::tensor::Tensor;
use crate::tensor::ops::denoiser::DenoisingStep;

/// What times are multiplied with before the network embeds them, so that they spread as a diffusion's steps do.
pub const TIME_SCALE: f32 = 1000.0;

/// The vectors `[N, C]` at times `t` `[N]`.
///
/// # Errors
/// Shapes that do not fit.
pub fn noised(vectors: &Tensor, t: &[f32], noise: &Tensor) -> Result<Tensor> {
    let t = Tensor::from_vec(t.to_vec(), &[t.len(), 1])?.to_device(vectors.device())?;
    Ok(vectors.add(&noise.sub(vectors)?.mul(&t)?)?)
}

/// The squared error `[N]` of velocities `[N, C]`, averaged over channels.
///
/// # Errors
/// Shapes that do not fit.
pub fn losses(vectors: &Tensor, noise: &Tensor, velocity: &Tensor) -> Result<Tensor> {
    Ok(velocity.sub(&noise.sub(vectors)?)?.square()?.mean(&[1], false)?)
}

/// `steps` steps of Euler's method from noise to vectors, and the time of each as the network is told it.
pub fn euler_steps(steps: usize) -> (Vec<DenoisingStep>, Vec<f32>) {
    let length = 1.0 / steps as f32;
    let step = DenoisingStep { signal: 1.0, prediction: -length, log_variance: [0.0; 2] };
    (vec![step; steps], (0..steps).map(|i| (1.0 - i as f32 * length) * TIME_SCALE).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::nn::testing::random;

    #[test]
    fn the_true_velocity_leads_from_noise_to_the_vector_in_any_number_of_steps() {
        let (x, noise) = (random(&[2, 3], 1), random(&[2, 3], 2));
        let velocity = noise.sub(&x).unwrap();
        assert!(losses(&x, &noise, &velocity).unwrap().to_vec().iter().all(|&loss| loss == 0.0));
        for count in [1, 4] {
            let mut at = noise.clone();
            let (steps, times) = euler_steps(count);
            assert_eq!((times[0], times.len()), (TIME_SCALE, count));
            for step in steps {
                let moved = velocity.mul_scalar(step.prediction).unwrap();
                at = at.mul_scalar(step.signal).unwrap().add(&moved).unwrap();
            }
            for (a, b) in at.to_vec().iter().zip(x.to_vec()) {
                assert!((a - b).abs() < 1e-5, "{a} {b}");
            }
        }
    }
}
