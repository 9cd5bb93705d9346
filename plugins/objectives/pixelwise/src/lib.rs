//! Distances between images and their reconstructions, pixel by pixel.

use rqlab_sdk::prelude::*;

config! {
    /// Mean squared error over pixels and channels.
    pub struct MseConfig {
        /// How much it counts beside other objectives.
        weight: f32 = 1.0, in 0.0..;
    }
}

config! {
    /// Mean absolute error over pixels and channels.
    pub struct L1Config {
        /// How much it counts beside other objectives.
        weight: f32 = 1.0, in 0.0..;
    }
}

/// See [`MseConfig`].
#[derive(Debug)]
pub struct Mse {
    config: MseConfig,
}

impl Mse {
    /// Builds it.
    ///
    /// # Errors
    /// None.
    pub fn new(config: MseConfig, _: &ObjectiveContext) -> Result<Self> {
        Ok(Self { config })
    }
}

impl Objective for Mse {
    fn loss(&mut self, reconstruction: &Reconstruction<'_>) -> Result<Loss> {
        let loss = reconstruction.output.mse(reconstruction.images)?;
        Ok(Loss { terms: vec![("mse", loss.detach())], loss })
    }

    fn weight(&self, _: u64) -> Weight {
        Weight::Fixed(self.config.weight)
    }
}

/// See [`L1Config`].
#[derive(Debug)]
pub struct L1 {
    config: L1Config,
}

impl L1 {
    /// Builds it.
    ///
    /// # Errors
    /// None.
    pub fn new(config: L1Config, _: &ObjectiveContext) -> Result<Self> {
        Ok(Self { config })
    }
}

impl Objective for L1 {
    fn loss(&mut self, reconstruction: &Reconstruction<'_>) -> Result<Loss> {
        let loss = reconstruction.output.sub(reconstruction.images)?.abs()?.mean_all()?;
        Ok(Loss { terms: vec![("l1", loss.detach())], loss })
    }

    fn weight(&self, _: u64) -> Weight {
        Weight::Fixed(self.config.weight)
    }
}

declare_plugin! {
    objective "mse": MseConfig => Mse::new;
    objective "l1": L1Config => L1::new;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use rqlab_sdk::tensor::Tape;

    /// The loss of the reconstruction [1, -1, 0.5, 0] of [0, 0, 0, 0], and its gradient.
    fn measured(objective: &mut dyn Objective) -> (f32, Vec<f32>) {
        let images = Tensor::zeros(&[1, 2, 2, 1]);
        let output = Tensor::from_vec(vec![1.0, -1.0, 0.5, 0.0], &[1, 2, 2, 1]).unwrap().leaf();
        let rng = Rng::new(0, "test", 0);
        let tape = Tape::start().unwrap();
        let loss = objective.loss(&Reconstruction { images: &images, output: &output, step: 0, rng: &rng }).unwrap().loss;
        let gradient = tape.backward(&loss).unwrap().take(&output).unwrap();
        (loss.item().unwrap(), gradient.to_vec())
    }

    #[test]
    fn squared_and_absolute_errors_are_means_over_pixels() {
        let (value, gradient) = measured(&mut Mse { config: MseConfig::parse("mse").unwrap() });
        assert_eq!((value, gradient), (2.25 / 4.0, vec![0.5, -0.5, 0.25, 0.0]));
        let (value, gradient) = measured(&mut L1 { config: L1Config::parse("l1").unwrap() });
        assert_eq!((value, &gradient[..3]), (2.5 / 4.0, &[0.25, -0.25, 0.25][..]));
    }

    #[test]
    fn a_weight_is_the_configurations() {
        let objective = Mse { config: MseConfig::parse("mse(weight: 0.5)").unwrap() };
        assert_eq!(objective.weight(3), Weight::Fixed(0.5));
    }
}
