//! What a protocol's network is shown, and what it sees.

use crate::stages::training::batches::chunks;
use crate::weights::WeightsFile;
use rqlab_reports::Protocol;
use rqlab_sdk::Result;
use rqlab_sdk::metrics::Levels;
use rqlab_sdk::networks::{Dinov2, Inception};
use rqlab_sdk::resize::{Coordinates, Resize, Sampling};
use rqlab_sdk::tensor::Tensor;

/// Pictures that a network sees at once: its maps of them are large.
const BATCH: usize = 10;

/// Originals and reconstructions in [-1, 1] as the protocol's pictures.
pub(super) fn as_pictures(protocol: Protocol, [real, decoded]: [&Tensor; 2]) -> Result<[Tensor; 2]> {
    Ok([of_data(protocol, real)?, of_model(protocol, decoded)?])
}

/// Images of the data set: 8-bit pictures to begin with, so that rounding gives them back.
pub(super) fn of_data(protocol: Protocol, images: &Tensor) -> Result<Tensor> {
    if protocol == Protocol::Rqvae { Ok(images.clone()) } else { in_levels(images, Levels::Round) }
}

/// Decoded images: rounded, cut down, or left as floats.
pub(super) fn of_model(protocol: Protocol, images: &Tensor) -> Result<Tensor> {
    match protocol {
        Protocol::Adm | Protocol::Clean | Protocol::Llamagen | Protocol::Dgm => in_levels(images, Levels::Round),
        Protocol::Titok => in_levels(images, Levels::Truncate),
        Protocol::Rqvae => Ok(images.clamp(-1.0, 1.0)?),
    }
}

fn in_levels(images: &Tensor, levels: Levels) -> Result<Tensor> {
    let mut values = images.to_vec();
    levels.apply(&mut values);
    Ok(Tensor::from_vec(values, images.shape())?)
}

/// Three equal channels of a grey picture.
pub(super) fn in_colour(images: &Tensor) -> Result<Tensor> {
    match images.last_dim() {
        1 => Ok(Tensor::concat(&[images, images, images], 3)?),
        _ => Ok(images.clone()),
    }
}

/// The network that a protocol looks with, and how pictures are shown to it.
pub(super) enum Network {
    Inception(Box<Inception>, Protocol),
    Dinov2(Box<Dinov2>),
}

/// What a network sees in a batch of pictures.
pub(super) struct Seen {
    /// The features `[B, F]` that distances are taken on.
    pub(super) features: Tensor,
    /// Inception's spatial features, of sFID; DINOv2 has none.
    pub(super) spatial: Option<Tensor>,
    /// Inception's class probabilities, where the file has them.
    pub(super) probabilities: Option<Tensor>,
}

impl Network {
    pub(super) fn load(protocol: Protocol, file: &WeightsFile) -> Result<Self> {
        let weights = file.load()?;
        Ok(match protocol {
            Protocol::Dgm => Self::Dinov2(Box::new(Dinov2::published(weights)?)),
            _ => Self::Inception(Box::new(Inception::new(weights)?), protocol),
        })
    }

    /// What it sees in pictures `[B, H, W, C]` in [-1, 1].
    ///
    /// # Errors
    /// Pictures that are none.
    pub(super) fn see(&self, pictures: &Tensor) -> Result<Seen> {
        let mut parts = Vec::new();
        for range in chunks(pictures.shape()[0], BATCH) {
            parts.push(self.see_few(&in_colour(&pictures.slice(0, range)?)?)?);
        }
        let joined = |part: fn(&Seen) -> Option<&Tensor>| -> Result<Option<Tensor>> {
            let found: Vec<&Tensor> = parts.iter().filter_map(part).collect();
            if found.is_empty() { Ok(None) } else { Ok(Some(Tensor::concat(&found, 0)?)) }
        };
        Ok(Seen {
            features: joined(|seen| Some(&seen.features))?.unwrap_or_else(|| Tensor::zeros(&[0, 1])),
            spatial: joined(|seen| seen.spatial.as_ref())?,
            probabilities: joined(|seen| seen.probabilities.as_ref())?,
        })
    }

    fn see_few(&self, pictures: &Tensor) -> Result<Seen> {
        let (network, protocol) = match self {
            Self::Inception(network, protocol) => (network, *protocol),
            Self::Dinov2(network) => {
                let features = network.forward(&Dinov2::prepare(pictures)?)?.class;
                return Ok(Seen { features, spatial: None, probabilities: None });
            }
        };
        const SIZE: [usize; 2] = [299; 2];
        let shown = match protocol {
            Protocol::Rqvae | Protocol::Dgm => Inception::prepare(pictures)?,
            Protocol::Clean => graph_range(&Resize::to(SIZE, Sampling::SMOOTH_CUBIC).of(pictures)?)?,
            Protocol::Adm | Protocol::Titok | Protocol::Llamagen => {
                let corners = Resize::to(SIZE, Sampling::LINEAR).with_coordinates(Coordinates::Corners);
                graph_range(&corners.of(pictures)?)?
            }
        };
        let maps = network.forward(&shown)?;
        // RQ-VAE-Transformer's inception score is the only one with the layer's bias.
        let probabilities = match (network.has_classes(), protocol) {
            (false, _) => None,
            (true, Protocol::Rqvae) => Some(network.biased_probabilities(&maps.pool)?),
            (true, _) => Some(network.probabilities(&maps.pool)?),
        };
        Ok(Seen { features: maps.pool, spatial: Some(maps.spatial), probabilities })
    }

    /// The names of the two distances of reconstructions.
    pub(super) fn measures(&self) -> [&'static str; 2] {
        match self {
            Self::Inception(..) => ["rfid", "rkid"],
            Self::Dinov2(_) => ["recon_fd_dinov2", "recon_kd_dinov2"],
        }
    }
}

/// Intensities in [-1, 1] as the graph of 2015 wants them: `(level - 128) / 128`, with 255 levels between -1 and 1.
fn graph_range(pictures: &Tensor) -> Result<Tensor> {
    Ok(pictures.mul_scalar(127.5 / 128.0)?.add_scalar(-0.5 / 128.0)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    /// Half a level below level 11: rounded up, cut down, or left.
    #[test]
    fn protocols_differ_in_what_becomes_of_a_level_and_a_half() {
        let intensity = |level: f32| level / 127.5 - 1.0;
        let images = Tensor::from_vec(vec![intensity(10.7)], &[1, 1, 1, 1]).unwrap();
        for (protocol, decoded) in [
            (Protocol::Adm, 11.0),
            (Protocol::Clean, 11.0),
            (Protocol::Titok, 10.0),
            (Protocol::Llamagen, 11.0),
            (Protocol::Rqvae, 10.7),
            (Protocol::Dgm, 11.0),
        ] {
            let [real, found] = as_pictures(protocol, [&images, &images]).unwrap();
            assert!((found.as_slice()[0] - intensity(decoded)).abs() < 1e-6, "{protocol:?}");
            let kept = if protocol == Protocol::Rqvae { 10.7 } else { 11.0 };
            assert!((real.as_slice()[0] - intensity(kept)).abs() < 1e-6, "{protocol:?}");
        }
    }

    /// Black is level 0 and white level 255.
    #[test]
    fn the_graph_sees_levels_around_128() {
        let ends = Tensor::from_vec(vec![-1.0, 1.0], &[2]).unwrap();
        assert_eq!(graph_range(&ends).unwrap().to_vec(), [-1.0, 127.0 / 128.0]);
    }
}
