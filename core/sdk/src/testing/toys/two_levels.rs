//! An autoencoder of two levels.

use crate::Result;
use crate::config::ConfigError;
use crate::nn::Linear;
use crate::prelude::*;

crate::config! {
    /// Two levels as in VQ-VAE-2 (Razavi et al., "Generating diverse high-fidelity images with VQ-VAE-2", NeurIPS 2019), with
    /// linear maps per patch: the upper level has a position per 4 x 4 pixels, the lower one per 2 x 2, and the lower is
    /// encoded knowing the quantized upper one.
    pub struct ToyTwoLevelsConfig {
        /// Channels of the latents of both levels.
        channels: usize = 8, in 1..=1024;
    }
}

/// The autoencoder. Parameters: `encoder.0`, `encoder.1`, `up` (from the upper level to the lower map) and `decoder`.
#[derive(Debug)]
pub struct ToyTwoLevels {
    image: MapShape,
    channels: usize,
    encoders: [Linear; 2],
    up: Linear,
    decoder: Linear,
}

impl ToyTwoLevels {
    /// An autoencoder of images whose sides are multiples of 4.
    ///
    /// # Errors
    /// Images of other sides.
    pub fn new(config: ToyTwoLevelsConfig, cx: &AutoencoderContext) -> Result<Self> {
        let MapShape { height, width, channels: colours } = cx.image;
        if !height.is_multiple_of(4) || !width.is_multiple_of(4) {
            let message = format!("two levels need images whose sides are multiples of 4, found {height} x {width}");
            return Err(ConfigError::field("channels", message).into());
        }
        let channels = config.channels;
        let linear = |name: &str, inputs, outputs| Linear::new(&cx.params.scope(name), inputs, outputs, true);
        Ok(Self {
            image: cx.image,
            channels,
            encoders: [
                linear("encoder.0", 16 * colours, channels)?,
                linear("encoder.1", 4 * colours + channels, channels)?,
            ],
            up: linear("up", channels, 4 * channels)?,
            decoder: linear("decoder", 2 * channels, 4 * colours)?,
        })
    }

    /// The upper level `[B, H/4, W/4, C]` on the lower map, `[B, H/2, W/2, C]`.
    fn lower_map(&self, upper: &Tensor) -> Result<Tensor> {
        Ok(self.up.forward(upper)?.depth_to_space(2, 2)?)
    }
}

impl Autoencoder for ToyTwoLevels {
    fn levels(&self) -> Vec<MapShape> {
        let level = |factor: usize| MapShape {
            height: self.image.height / factor,
            width: self.image.width / factor,
            channels: self.channels,
        };
        vec![level(4), level(2)]
    }

    fn encode(&self, images: &Tensor, bottleneck: &mut Bottleneck<'_>, _mode: &Mode) -> Result<()> {
        let upper = bottleneck(0, &self.encoders[0].forward(&images.space_to_depth(4, 4)?)?)?;
        let seen = Tensor::concat(&[&images.space_to_depth(2, 2)?, &self.lower_map(&upper)?], 3)?;
        bottleneck(1, &self.encoders[1].forward(&seen)?)?;
        Ok(())
    }

    fn decode_features(&self, levels: &[Tensor], _mode: &Mode) -> Result<Tensor> {
        let [upper, lower] = levels else {
            return Err(Error::Unsupported(format!("two levels of latents are decoded, found {}", levels.len())));
        };
        Ok(Tensor::concat(&[&self.lower_map(upper)?, lower], 3)?)
    }

    fn decode_output(&self, features: &Tensor) -> Result<Tensor> {
        Ok(self.decoder.forward(features)?.depth_to_space(2, 2)?)
    }

    fn last_layer(&self) -> Var {
        self.decoder.weight.clone()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn it_keeps_the_contract_and_refuses_odd_images() {
        let image = MapShape { height: 8, width: 4, channels: 3 };
        let config = ToyTwoLevelsConfig::parse("toy_two_levels(channels: 5)").unwrap();
        crate::testing::autoencoder(image, |cx| ToyTwoLevels::new(config.clone(), cx));
        let image = MapShape { width: 6, ..image };
        let cx = AutoencoderContext { image, params: Params::dry(), components: Components::none() };
        assert!(ToyTwoLevels::new(config, &cx).unwrap_err().to_string().contains("8 x 6"));
    }
}
