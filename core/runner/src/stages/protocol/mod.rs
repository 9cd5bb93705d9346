//! Measures a tokenizer's reconstructions by a published protocol: how pictures become 8-bit ones, which network sees them
//! and how they are resized for it, how distortions are defined.

mod look;
mod reference;
mod rules;
mod samples;

pub use reference::DescribeForProtocol;
pub use samples::MeasureSamplesByProtocol;

use super::subset::test_images;
use super::training::means::Mean;
use super::{Context, Stage, as_json, distances, load_tokenizer};
use crate::id::Id;
use crate::settings::Precision;
use crate::store::{Done, StageDir};
use crate::weights::WeightsFile;
use look::{Network, as_pictures, in_colour};
use rqlab_reports::{Index, Protocol, Reading, Trial};
use rqlab_sdk::Result;
use rqlab_sdk::checkpoint::Checkpoint;
use rqlab_sdk::contracts::Split;
use rqlab_sdk::metrics::{self, DataRange, Features, Moments, Ssim};
use rqlab_sdk::networks::Lpips;
use rqlab_sdk::tensor::{Tensor, no_grad};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

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
        2
    }

    fn needs(&self) -> Vec<&str> {
        vec![&self.tokenizer]
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
        let chosen = test_images(dataset.as_ref(), self.images)?;
        let network = self.extractor.as_ref().map(|file| Network::load(self.protocol, file)).transpose()?;
        let lpips = self.lpips.as_ref().map(|file| Lpips::new(file.load()?)).transpose()?;
        let mut found = Found::default();
        cx.each_batch(dataset.as_ref(), (Split::Test, &chosen), self.protocol.name(), |_, images| {
            let real = &images.pixels;
            let decoded = no_grad(|| -> Result<Tensor> {
                let latents: Vec<Tensor> = model.encode(real)?.into_iter().map(|(_, q)| q.latents).collect();
                Ok(model.autoencoder.decode(&latents)?.clamp(-1.0, 1.0)?)
            })?;
            found.see(self.protocol, [real, &decoded], network.as_ref(), lpips.as_ref())
        })?;
        // Nothing but the readings is worth keeping.
        Checkpoint::default().save(&cx.dir().result())?;
        let mut readings = found.readings(self.protocol, network.as_ref())?;
        readings.push(Reading::new("protocol_images", [Index::Protocol(self.protocol)], chosen.len() as f64));
        Ok(Done { readings, ..Done::default() })
    }

    fn report(&self, _: &StageDir, _: &[String], out: &mut Trial) -> Result<()> {
        pin(out, self.protocol, "reconstructions", &[self.extractor.as_ref(), self.lpips.as_ref()]);
        Ok(())
    }

    fn describe(&self) -> Result<Value> {
        as_json(self)
    }
}

/// Tells a report what numbers of a protocol depend on beside the data: those of two trials compare where it is the same.
fn pin(out: &mut Trial, protocol: Protocol, of: &str, files: &[Option<&WeightsFile>]) {
    let digests: Vec<&str> = files.iter().map(|file| file.map_or("none", |file| file.digest.as_str())).collect();
    out.parts.insert(format!("{} networks of {of}", protocol.name()), digests.join(", "));
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
                let features = network.see(pictures)?.features;
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
            if real.rows() > 1 {
                let [a, b] = [real, decoded].map(|set| Moments::of(set).gaussian());
                out.push(at(frechet, metrics::frechet_distance(&a?, &b?)?));
                out.push(at(kernel, distances::kernel(real, decoded)?));
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use rqlab_sdk::tensor::Rng;

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
