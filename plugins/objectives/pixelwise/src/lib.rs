//! Distances between an image and its reconstruction, pixel by pixel.

use rqlab_sdk::prelude::*;

declare_plugin! {
    objective "mse": MseConfig => Mse::new;
    objective "l1": L1Config => L1::new;
}

config! {
    /// Mean squared error over pixels and channels, of images in [-1, 1]: the loss of VQ-VAE and RQ-VAE.
    pub struct MseConfig {
        /// What it counts beside other objectives.
        weight: f32 = 1.0, in 0.0..=1e6;
    }
}

config! {
    /// Mean absolute error over pixels and channels, of images in [-1, 1]: the pixel loss of VQGAN. It blurs less than `mse`.
    pub struct L1Config {
        /// What it counts beside other objectives.
        weight: f32 = 1.0, in 0.0..=1e6;
    }
}

/// `mean (x - y)²`.
#[derive(Debug)]
pub struct Mse {
    config: MseConfig,
}

impl Mse {
    /// An objective without parameters.
    ///
    /// # Errors
    /// None.
    pub fn new(config: MseConfig, _cx: &ObjectiveContext) -> Result<Self> {
        Ok(Self { config })
    }
}

impl Objective for Mse {
    fn loss(&mut self, reconstruction: &Reconstruction<'_>) -> Result<Loss> {
        let loss = reconstruction.output.mse(reconstruction.images)?;
        Ok(Loss { terms: vec![("mse", loss.detach())], loss })
    }

    fn weight(&self, _step: u64) -> Weight {
        Weight::Fixed(self.config.weight)
    }
}

/// `mean |x - y|`.
#[derive(Debug)]
pub struct L1 {
    config: L1Config,
}

impl L1 {
    /// An objective without parameters.
    ///
    /// # Errors
    /// None.
    pub fn new(config: L1Config, _cx: &ObjectiveContext) -> Result<Self> {
        Ok(Self { config })
    }
}

impl Objective for L1 {
    fn loss(&mut self, reconstruction: &Reconstruction<'_>) -> Result<Loss> {
        let loss = reconstruction.output.sub(reconstruction.images)?.abs()?.mean_all()?;
        Ok(Loss { terms: vec![("l1", loss.detach())], loss })
    }

    fn weight(&self, _step: u64) -> Weight {
        Weight::Fixed(self.config.weight)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    const IMAGE: MapShape = MapShape { height: 4, width: 5, channels: 3 };

    #[test]
    fn both_keep_the_contract_of_an_objective() {
        rqlab_sdk::testing::objective(IMAGE, |cx| Mse::new(MseConfig::parse("mse").unwrap(), cx));
        rqlab_sdk::testing::objective(IMAGE, |cx| L1::new(L1Config::parse("l1").unwrap(), cx));
    }

    #[test]
    fn they_are_means_over_pixels_of_squares_and_of_absolute_values() {
        let cx = ObjectiveContext::new(IMAGE, Params::new(0));
        let images = Tensor::from_vec(vec![0.0, 1.0, -1.0, 0.5], &[1, 2, 2, 1]).unwrap();
        let output = Tensor::from_vec(vec![0.5, 1.0, 1.0, 0.0], &[1, 2, 2, 1]).unwrap();
        let rng = Rng::new(0, "objective", 0);
        let asked = Reconstruction { images: &images, output: &output, step: 0, rng: &rng };
        let loss = |objective: &mut dyn Objective| objective.loss(&asked).unwrap().loss.item().unwrap();
        let mut mse = Mse::new(MseConfig::parse("mse(weight: 2.0)").unwrap(), &cx).unwrap();
        let mut l1 = L1::new(L1Config::parse("l1").unwrap(), &cx).unwrap();
        assert_eq!((loss(&mut mse), loss(&mut l1)), ((0.25 + 4.0 + 0.25) / 4.0, (0.5 + 2.0 + 0.5) / 4.0));
        // The trainer weighs; the curves show the distance itself.
        assert_eq!((mse.weight(0), l1.weight(0)), (Weight::Fixed(2.0), Weight::Fixed(1.0)));
        assert!(MseConfig::parse("mse(weight: -1.0)").is_err());
    }
}
