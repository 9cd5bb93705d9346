//! What a configuration means for images of one size, checked before any parameter is made.

use crate::ResnetConfig;
use rqlab_sdk::config::ConfigError;
use rqlab_sdk::prelude::*;

/// Shapes, level by level.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) image: MapShape,
    /// The images with patches folded into channels: what encoder and decoder work on.
    pub(crate) folded: MapShape,
    /// Channels of each level, finest first.
    pub(crate) channels: Vec<usize>,
    /// Whether each level of the encoder has attention.
    pub(crate) attends: Vec<bool>,
    /// Whether each level of the decoder has attention.
    pub(crate) decoder_attends: Vec<bool>,
    pub(crate) code_channels: usize,
    /// Numbers that are encoded for each that is decoded: 2 with means and log-variances.
    pub(crate) moments: usize,
    /// Whether the network sees and makes images in [0, 1].
    pub(crate) unit_range: bool,
    /// Rows and columns of latents that are folded into one code vector.
    pub(crate) cell: [usize; 2],
    /// What the decoder reads.
    pub(crate) code: MapShape,
}

impl Plan {
    pub(crate) fn new(config: &ResnetConfig, image: MapShape) -> Result<Self, ConfigError> {
        let levels = config.multipliers.len();
        if levels == 0 {
            return Err(ConfigError::field("multipliers", "there must be at least one level"));
        }
        let patch = config.patch;
        if !image.height.is_multiple_of(patch) || !image.width.is_multiple_of(patch) {
            let message = format!("patches of {patch} do not divide images of {} x {}", image.height, image.width);
            return Err(ConfigError::field("patch", message));
        }
        let folded = MapShape {
            height: image.height / patch,
            width: image.width / patch,
            channels: image.channels * patch * patch,
        };
        let shrink = u32::try_from(levels - 1).ok().and_then(|n| 1usize.checked_shl(n)).unwrap_or(usize::MAX);
        let divides = |size: usize| size > 0 && size.is_multiple_of(shrink);
        if !divides(folded.height) || !divides(folded.width) {
            let message = format!(
                "{levels} levels halve the images {} times, so their sides must be multiples of {}; they are {} x {}",
                levels - 1,
                shrink.saturating_mul(patch),
                image.height,
                image.width
            );
            return Err(ConfigError::field("multipliers", message));
        }
        let channels: Vec<usize> = config.multipliers.iter().map(|m| config.width * m).collect();
        if let Some(odd) = channels.iter().find(|c| !c.is_multiple_of(config.groups)) {
            let message = format!(
                "{} groups do not divide the {odd} channels of a level; `width` times each of `multipliers` must be a \
                 multiple of `groups`",
                config.groups
            );
            return Err(ConfigError::field("groups", message));
        }
        let attends_at = |field, asked| attends(config, folded.height, field, asked);
        let attends = attends_at("attention", &config.attention)?;
        let decoder_attends = match &config.decoder_attention {
            Some(asked) => attends_at("decoder_attention", asked)?,
            None => attends.clone(),
        };

        let code_channels = config.code_channels.unwrap_or(config.latent);
        if !config.quant_conv && code_channels != config.latent {
            let message = format!(
                "without `quant_conv` nothing makes {code_channels} channels of the {} of `latent`: leave one of the two out",
                config.latent
            );
            return Err(ConfigError::field("code_channels", message));
        }
        let latent = [folded.height / shrink, folded.width / shrink];
        let map = config.code_map.unwrap_or(latent);
        if map.iter().zip(latent).any(|(&code, latent)| code == 0 || !latent.is_multiple_of(code)) {
            let message = format!(
                "a code map of {} x {} does not divide the latent map of {} x {} (images of {} x {}, halved {} times)",
                map[0],
                map[1],
                latent[0],
                latent[1],
                image.height,
                image.width,
                levels - 1
            );
            return Err(ConfigError::field("code_map", message));
        }
        let cell = [latent[0] / map[0], latent[1] / map[1]];
        if config.double_z && cell != [1, 1] {
            let message = "with `double_z` there is a code at every latent: leave `code_map` out, or `double_z`";
            return Err(ConfigError::field("code_map", message));
        }
        let code = MapShape { height: map[0], width: map[1], channels: cell[0] * cell[1] * code_channels };
        let (moments, unit_range) = (if config.double_z { 2 } else { 1 }, config.unit_range);
        Ok(Self { image, folded, channels, attends, decoder_attends, code_channels, moments, unit_range, cell, code })
    }
}

impl Plan {
    /// Side of the squares of pixels that are folded into channels.
    pub(crate) fn patch(&self) -> usize {
        self.image.height / self.folded.height
    }
}

/// Which levels have attention. Every resolution that `field` asks for must be that of a level.
fn attends(config: &ResnetConfig, height: usize, field: &str, asked: &[usize]) -> Result<Vec<bool>, ConfigError> {
    let mut resolution = config.resolution.unwrap_or(height);
    let mut resolutions = Vec::new();
    for _ in &config.multipliers {
        resolutions.push(resolution);
        resolution /= 2;
    }
    match asked.iter().find(|asked| !resolutions.contains(asked)) {
        Some(odd) => {
            let message = format!("no level has resolution {odd}; the levels have {resolutions:?}");
            Err(ConfigError::field(field, message))
        }
        None => Ok(resolutions.iter().map(|r| asked.contains(r)).collect()),
    }
}
