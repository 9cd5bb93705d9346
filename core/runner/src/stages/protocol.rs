//! Measures a tokenizer's reconstructions by a published protocol: how pictures become 8-bit ones, which network sees them
//! and how they are resized for it, how distortions are defined.

use super::subset::subset;
use super::training::means::Mean;
use super::{Context, Stage, as_json, load_tokenizer};
use crate::id::Id;
use crate::job::Call;
use crate::settings::Precision;
use crate::store::Done;
use crate::weights::WeightsFile;
use rqlab_reports::{Index, Protocol, Reading};
use rqlab_sdk::checkpoint::Checkpoint;
use rqlab_sdk::contracts::Split;
use rqlab_sdk::metrics::{self, DataRange, Features, Levels, Moments, Ssim};
use rqlab_sdk::networks::{Dinov2, Inception, Lpips};
use rqlab_sdk::resize::{Coordinates, Resize, Sampling};
use rqlab_sdk::tensor::{Rng, Tensor, no_grad};
use rqlab_sdk::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Images at once.
const BATCH: usize = 10;
/// Subsets of a kernel distance, and the rows of each; fewer where there are fewer images.
const SUBSETS: usize = 100;
const SUBSET: usize = 1000;

/// Measures reconstructions by a protocol.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MeasureByProtocol {
    /// The tokenizer's job.
    pub tokenizer: Id,
    /// Whose practice is followed.
    pub protocol: Protocol,
    /// The weights of the network that it looks with; none if they are left out.
    pub extractor: Option<WeightsFile>,
    /// The weights of LPIPS; none for no such measure.
    pub lpips: Option<WeightsFile>,
    /// How many test images, of all classes; all of them if there are fewer.
    pub images: usize,
    /// That of the evaluation.
    pub precision: Precision,
}

impl MeasureByProtocol {
    /// See [`Stage::name`].
    pub const NAME: &str = "protocol";
}

impl Stage for MeasureByProtocol {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn revision(&self) -> u32 {
        1
    }

    fn needs(&self) -> Vec<&str> {
        vec![&self.tokenizer]
    }

    fn calls(&self) -> Vec<&Call> {
        vec![]
    }

    fn identity(&self) -> Result<Value> {
        let digest = |file: &Option<WeightsFile>| file.as_ref().map(|file| file.digest.clone());
        let digests = [digest(&self.extractor), digest(&self.lpips)];
        Ok(json!({ "protocol": self.protocol, "images": self.images, "weights": digests }))
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    fn work(&self) -> f64 {
        // A picture takes Inception and DINOv2 as long as a training step takes many small ones.
        20.0 * self.images as f64
    }

    fn run(&self, cx: &mut Context<'_>) -> Result<Done> {
        let (dataset, model) = load_tokenizer(cx.plugins, cx.store, &self.tokenizer)?;
        let info = dataset.info();
        if info.test == 0 {
            return Err(Error::Data("the data set has no test images".to_owned()));
        }
        let chosen = subset(info.test, self.images);
        let network = self.extractor.as_ref().map(|file| Network::load(self.protocol, file)).transpose()?;
        let lpips = self.lpips.as_ref().map(|file| Lpips::new(file.load()?)).transpose()?;
        let mut found = Found::default();
        let mut done = 0;
        for indices in chosen.chunks(BATCH) {
            let real = dataset.batch(Split::Test, indices, None)?.pixels;
            let decoded = no_grad(|| -> Result<Tensor> {
                let latents: Vec<Tensor> = model.encode(&real)?.into_iter().map(|(_, q)| q.latents).collect();
                Ok(model.autoencoder.decode(&latents)?.clamp(-1.0, 1.0)?)
            })?;
            found.see(self.protocol, [&real, &decoded], network.as_ref(), lpips.as_ref())?;
            done += indices.len();
            cx.reporter.step(done as u64, chosen.len() as u64, || self.protocol.name().to_owned());
        }
        // Nothing but the readings is worth keeping.
        Checkpoint::default().save(&cx.dir().result())?;
        Ok(Done { readings: found.readings(self.protocol, network.as_ref())?, ..Done::default() })
    }

    fn describe(&self) -> Result<Value> {
        as_json(self)
    }
}

/// Originals and reconstructions in [-1, 1] as the protocol's pictures. Originals are 8-bit pictures to begin with, so that
/// rounding gives them back; only what is decoded is cut down.
fn as_pictures(protocol: Protocol, [real, decoded]: [&Tensor; 2]) -> Result<[Tensor; 2]> {
    let levels = match protocol {
        Protocol::Adm | Protocol::Clean | Protocol::Llamagen | Protocol::Dgm => Levels::Round,
        Protocol::Titok => Levels::Truncate,
        Protocol::Rqvae => return Ok([real.clone(), decoded.clamp(-1.0, 1.0)?]),
    };
    let of = |images: &Tensor, levels: Levels| -> Result<Tensor> {
        let mut values = images.to_vec();
        levels.apply(&mut values);
        Ok(Tensor::from_vec(values, images.shape())?)
    };
    Ok([of(real, Levels::Round)?, of(decoded, levels)?])
}

/// Three equal channels of a grey picture.
fn in_colour(images: &Tensor) -> Result<Tensor> {
    match images.last_dim() {
        1 => Ok(Tensor::concat(&[images, images, images], 3)?),
        _ => Ok(images.clone()),
    }
}

/// The network that a protocol looks with, and how pictures are shown to it.
enum Network {
    Inception(Box<Inception>, Protocol),
    Dinov2(Box<Dinov2>),
}

impl Network {
    fn load(protocol: Protocol, file: &WeightsFile) -> Result<Self> {
        let weights = file.load()?;
        Ok(match protocol {
            Protocol::Dgm => Self::Dinov2(Box::new(Dinov2::published(weights)?)),
            _ => Self::Inception(Box::new(Inception::new(weights)?), protocol),
        })
    }

    /// The features of a batch of pictures in [-1, 1].
    fn features(&self, pictures: &Tensor) -> Result<Tensor> {
        let pictures = in_colour(pictures)?;
        match self {
            Self::Dinov2(network) => Ok(network.forward(&Dinov2::prepare(&pictures)?)?.class),
            Self::Inception(network, protocol) => {
                const SIZE: [usize; 2] = [299; 2];
                let shown = match protocol {
                    Protocol::Rqvae | Protocol::Dgm => Inception::prepare(&pictures)?,
                    Protocol::Clean => graph_range(&Resize::to(SIZE, Sampling::SMOOTH_CUBIC).of(&pictures)?)?,
                    Protocol::Adm | Protocol::Titok | Protocol::Llamagen => {
                        let corners = Resize::to(SIZE, Sampling::LINEAR).with_coordinates(Coordinates::Corners);
                        graph_range(&corners.of(&pictures)?)?
                    }
                };
                Ok(network.forward(&shown)?.pool)
            }
        }
    }

    fn measures(&self) -> [&'static str; 2] {
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

/// Sums over test images.
#[derive(Default)]
struct Found {
    psnr: Mean,
    ssim: Mean,
    lpips: Mean,
    /// Features of the originals and of the reconstructions, by rows.
    features: [Vec<f32>; 2],
    width: usize,
}

impl Found {
    fn see(
        &mut self,
        protocol: Protocol,
        [real, decoded]: [&Tensor; 2],
        network: Option<&Network>,
        lpips: Option<&Lpips>,
    ) -> Result<()> {
        let pictures = as_pictures(protocol, [real, decoded])?;
        if protocol == Protocol::Llamagen {
            self.distortions(real, &pictures[1])?;
        }
        if let Some(lpips) = lpips {
            let [real, decoded] = [in_colour(&pictures[0])?, in_colour(&pictures[1])?];
            let distances = no_grad(|| lpips.distance(&real, &decoded))?;
            distances.as_slice().iter().for_each(|&distance| self.lpips.add(f64::from(distance)));
        }
        if let Some(network) = network {
            for (pictures, rows) in pictures.iter().zip(&mut self.features) {
                let features = network.features(pictures)?;
                self.width = features.last_dim();
                rows.extend_from_slice(features.as_slice());
            }
        }
        Ok(())
    }

    /// LlamaGen's: an original of floats against an 8-bit picture, and a range of 2 for intensities in [0, 1].
    fn distortions(&mut self, real: &Tensor, decoded: &Tensor) -> Result<()> {
        let unit = |images: &Tensor| -> Result<Tensor> { Ok(images.add_scalar(1.0)?.mul_scalar(0.5)?) };
        let (real, decoded) = (unit(real)?, unit(decoded)?);
        let shape = real.dims("images")?;
        let (a, b) = (metrics::Images::new(real.as_slice(), shape)?, metrics::Images::new(decoded.as_slice(), shape)?);
        for mse in metrics::mse(a, b)? {
            self.psnr.add(metrics::psnr(mse, DataRange::UNIT));
        }
        // An image smaller than the window has no SSIM.
        for ssim in Ssim::scikit_image(DataRange::new(0.0, 2.0)?).per_image(a, b).unwrap_or_default() {
            self.ssim.add(ssim);
        }
        Ok(())
    }

    fn readings(mut self, protocol: Protocol, network: Option<&Network>) -> Result<Vec<Reading>> {
        let at = |measure: &str, value: f64| Reading::new(measure, [Index::Protocol(protocol)], value);
        let means = [("psnr", self.psnr.take()), ("ssim", self.ssim.take()), ("lpips", self.lpips.take())];
        let mut out: Vec<Reading> = means.into_iter().filter_map(|(name, value)| Some(at(name, value?))).collect();
        if let Some(network) = network {
            let [real, decoded] = [0, 1].map(|set| Features::new(&self.features[set], self.width));
            let (real, decoded) = (real?, decoded?);
            let [frechet, kernel] = network.measures();
            let [a, b] = [real, decoded].map(|set| Moments::of(set).gaussian());
            out.push(at(frechet, metrics::frechet_distance(&a?, &b?)?));
            let size = SUBSET.min(real.rows());
            let rows = |set| metrics::subset_indices(real.rows(), size, SUBSETS, &Rng::new(0, set, 0));
            let distance = metrics::kernel_distance_subsets(real, decoded, &rows("real")?, &rows("decoded")?)?;
            out.push(at(kernel, distance.mean));
        }
        Ok(out)
    }
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

    /// LlamaGen's range of 2 on [0, 1] makes the constants four times as large, and the index higher.
    #[test]
    fn distortions_are_llamagens_own() {
        let shape = [1, 8, 8, 3];
        let values = |seed| Rng::new(seed, "pictures", 0).uniform(192).into_iter().map(|x| 2.0 * x - 1.0).collect();
        let (a, b) = (Tensor::from_vec(values(1), &shape).unwrap(), Tensor::from_vec(values(2), &shape).unwrap());
        let mut found = Found::default();
        found.see(Protocol::Llamagen, [&a, &b], None, None).unwrap();
        let (psnr, ssim) = (found.psnr.take().unwrap(), found.ssim.take().unwrap());
        let view = |t: &Tensor| -> Vec<f32> { t.as_slice().iter().map(|x| (x + 1.0) / 2.0).collect() };
        let rounded = as_pictures(Protocol::Llamagen, [&a, &b]).unwrap()[1].clone();
        let (x, y) = (view(&a), view(&rounded));
        let (x, y) = (metrics::Images::new(&x, shape).unwrap(), metrics::Images::new(&y, shape).unwrap());
        assert!((psnr - metrics::psnr(metrics::mse(x, y).unwrap()[0], DataRange::UNIT)).abs() < 1e-4);
        let plain = Ssim::scikit_image(DataRange::UNIT).per_image(x, y).unwrap()[0];
        assert!(ssim > plain + 1e-3, "{ssim} {plain}");
        let mut others = Found::default();
        others.see(Protocol::Adm, [&a, &b], None, None).unwrap();
        assert!(others.readings(Protocol::Adm, None).unwrap().is_empty());
    }
}
