//! Diagonal Gaussians over vectors of a map.

use rqlab_sdk::Result;
use rqlab_sdk::tensor::Tensor;

/// Log-variances outside of this range are clamped, as in the published code.
const LOG_VARIANCE: (f32, f32) = (-30.0, 20.0);

/// A Gaussian for each element of a map `[B, h, w, C]`, independent of the others (Kingma and Welling, "Auto-encoding
/// variational Bayes", ICLR 2014).
#[derive(Debug, Clone)]
pub struct DiagonalGaussian {
    /// The means `[B, h, w, C]`: also the modes.
    pub mean: Tensor,
    /// The natural logarithms of the variances `[B, h, w, C]`.
    pub log_variance: Tensor,
}

impl DiagonalGaussian {
    /// Of moments `[B, h, w, 2C]`: the first half of the channels are means, the second log-variances, clamped to
    /// [-30, 20].
    ///
    /// # Errors
    /// An odd number of channels, or another rank.
    pub fn of_moments(moments: &Tensor) -> Result<Self> {
        let [_, _, _, channels] = moments.dims("a posterior's moments")?;
        let half = channels / 2;
        Ok(Self {
            mean: moments.slice(3, 0..half)?,
            log_variance: moments.slice(3, half..2 * half)?.clamp(LOG_VARIANCE.0, LOG_VARIANCE.1)?,
        })
    }

    /// The draw `mean + exp(log_variance / 2) * noise`, with noise from N(0, 1) of the same shape.
    ///
    /// # Errors
    /// Noise of another shape.
    pub fn sample(&self, noise: &Tensor) -> Result<Tensor> {
        Ok(self.mean.add(&self.log_variance.mul_scalar(0.5)?.exp()?.mul(noise)?)?)
    }

    /// `KL(N(mean, variance) || N(0, 1))` of each element in nats, `[B, h, w, C]`:
    /// `(mean² + variance - 1 - ln variance) / 2`.
    ///
    /// # Errors
    /// None for posteriors that were made.
    pub fn kl(&self) -> Result<Tensor> {
        let squares = self.mean.square()?.add(&self.log_variance.exp()?)?;
        Ok(squares.sub(&self.log_variance)?.add_scalar(-1.0)?.mul_scalar(0.5)?)
    }

    /// The divergence from another Gaussian, `KL(self || other)`, of each element in nats.
    ///
    /// # Errors
    /// A Gaussian of another shape.
    pub fn kl_to(&self, other: &Self) -> Result<Tensor> {
        let distance = self.mean.sub(&other.mean)?.square()?.add(&self.log_variance.exp()?)?;
        let relative = distance.mul(&other.log_variance.neg()?.exp()?)?;
        let logarithms = other.log_variance.sub(&self.log_variance)?;
        Ok(relative.add(&logarithms)?.add_scalar(-1.0)?.mul_scalar(0.5)?)
    }

    /// The negative logarithm of the density at `value`, of each element in nats.
    ///
    /// # Errors
    /// A value of another shape.
    pub fn negative_log_likelihood(&self, value: &Tensor) -> Result<Tensor> {
        let distance = value.sub(&self.mean)?.square()?.mul(&self.log_variance.neg()?.exp()?)?;
        Ok(distance.add(&self.log_variance)?.add_scalar(std::f32::consts::TAU.ln())?.mul_scalar(0.5)?)
    }
}
