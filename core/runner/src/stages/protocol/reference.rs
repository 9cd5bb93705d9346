//! What a protocol's network sees in training images: the reference of samples. Trials of one data set share it.

use super::look::{Network, of_data};
use super::rules::NEIGHBOURHOOD;
use crate::job::Call;
use crate::settings::Precision;
use crate::stages::subset::subset;
use crate::stages::{Context, Stage, as_json, open_dataset};
use crate::store::{Done, StageDir};
use crate::weights::WeightsFile;
use rqlab_reports::Protocol;
use rqlab_sdk::checkpoint::Checkpoint;
use rqlab_sdk::contracts::Split;
use rqlab_sdk::metrics::{Features, Gaussian, Moments};
use rqlab_sdk::tensor::{Codes, Tensor};
use rqlab_sdk::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Names in the result: of the Gaussians, of the features of some images, and of how many images there were.
const POOL: &str = "pool";
const SPATIAL: &str = "spatial";
const FEATURES: &str = "features";
const COUNT: &str = "images";

/// Describes training images as a protocol has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DescribeForProtocol {
    /// The data set.
    pub data: Call,
    /// Whose practice is followed.
    pub protocol: Protocol,
    /// The weights of the network that it looks with.
    pub extractor: WeightsFile,
    /// How many training images, of all classes.
    pub images: usize,
    /// That of the evaluation.
    pub precision: Precision,
}

/// What a finished stage knows of training images.
pub(super) struct Reference {
    /// How many there were.
    pub(super) images: usize,
    /// The Gaussian of their features.
    pub(super) pool: Gaussian,
    /// The Gaussian of their spatial features, if the network has some.
    pub(super) spatial: Option<Gaussian>,
    /// The features `[N, F]` of 10,000 of them at most.
    pub(super) features: Tensor,
}

impl DescribeForProtocol {
    /// See [`Stage::name`].
    pub const NAME: &str = "protocol_reference";

    /// What a finished stage left.
    ///
    /// # Errors
    /// A result that is missing or damaged.
    pub(super) fn load(dir: &StageDir) -> Result<Reference> {
        let mut kept = dir.load_result()?;
        let damaged = || Error::Checkpoint(format!("{} holds no reference; delete its folder", dir.result().display()));
        Ok(Reference {
            images: kept.codes.get(COUNT).and_then(|count| count.as_slice().first()).map_or(0, |&count| count as usize),
            pool: gaussian(&kept, POOL)?.ok_or_else(damaged)?,
            spatial: gaussian(&kept, SPATIAL)?,
            features: kept.tensors.remove(FEATURES).ok_or_else(damaged)?,
        })
    }
}

impl Stage for DescribeForProtocol {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn revision(&self) -> u32 {
        1
    }

    fn calls(&self) -> Vec<&Call> {
        vec![&self.data]
    }

    fn identity(&self) -> Result<Value> {
        let data = [&self.data.name, &self.data.trained];
        Ok(json!({ "data": data, "protocol": self.protocol, "weights": self.extractor.digest, "images": self.images }))
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    fn work(&self) -> f64 {
        // As for reconstructions, of which each is seen with its original.
        10.0 * self.images as f64
    }

    fn run(&self, cx: &mut Context<'_>) -> Result<Done> {
        let dataset = open_dataset(cx.plugins, &self.data, cx.job)?;
        let network = Network::load(self.protocol, &self.extractor)?;
        let chosen = subset(dataset.info().train, self.images);
        // Fewer images are a part of more: these are among the chosen, in the same order.
        let mut few = subset(dataset.info().train, self.images.min(NEIGHBOURHOOD)).into_iter().peekable();
        let (mut pool, mut spatial): (Option<Moments>, Option<Moments>) = (None, None);
        let mut rows = Vec::new();
        let mut width = 1;
        cx.each_batch(dataset.as_ref(), (Split::Train, &chosen), self.protocol.name(), |first, images| {
            let seen = network.see(&of_data(self.protocol, &images.pixels)?)?;
            add(&mut pool, &seen.features)?;
            seen.spatial.iter().try_for_each(|features| add(&mut spatial, features))?;
            width = seen.features.last_dim();
            for (row, index) in seen.features.as_slice().chunks(width).zip(&chosen[first..]) {
                if few.next_if_eq(index).is_some() {
                    rows.extend_from_slice(row);
                }
            }
            Ok(())
        })?;
        let mut codes = BTreeMap::from([(COUNT.to_owned(), Codes::from_vec(vec![chosen.len() as u32], &[1])?)]);
        for (name, moments) in [(POOL, pool), (SPATIAL, spatial)] {
            let Some(moments) = moments else { continue };
            let gaussian = moments.gaussian()?;
            codes.insert(format!("{name}_mean"), bits(gaussian.mean())?);
            codes.insert(format!("{name}_covariance"), bits(gaussian.covariance())?);
        }
        let count = rows.len() / width;
        let tensors = BTreeMap::from([(FEATURES.to_owned(), Tensor::from_vec(rows, &[count, width])?)]);
        Checkpoint { tensors, codes, ..Checkpoint::default() }.save(&cx.dir().result())?;
        Ok(Done::default())
    }

    fn describe(&self) -> Result<Value> {
        as_json(self)
    }
}

/// Adds features `[B, F]` to moments, which begin with the first of them.
///
/// # Errors
/// Features that are not finite.
pub(super) fn add(moments: &mut Option<Moments>, features: &Tensor) -> Result<()> {
    let rows = Features::new(features.as_slice(), features.last_dim())?;
    Ok(moments.get_or_insert_with(|| Moments::new(rows.dim())).push(rows)?)
}

/// Numbers as a result keeps them to the last bit: two words each, the lower one first.
fn bits(values: &[f64]) -> Result<Codes> {
    let words = values.iter().flat_map(|value| [value.to_bits() as u32, (value.to_bits() >> 32) as u32]).collect();
    Ok(Codes::from_vec(words, &[values.len(), 2])?)
}

fn numbers(codes: &Codes) -> Vec<f64> {
    let pairs = codes.as_slice().as_chunks::<2>().0.iter();
    pairs.map(|[low, high]| f64::from_bits(u64::from(*low) | u64::from(*high) << 32)).collect()
}

fn gaussian(kept: &Checkpoint, name: &str) -> Result<Option<Gaussian>> {
    let part = |part: &str| kept.codes.get(&format!("{name}_{part}")).map(numbers);
    match (part("mean"), part("covariance")) {
        (Some(mean), Some(covariance)) => Ok(Some(Gaussian::new(mean, covariance)?)),
        _ => Ok(None),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_kept_to_the_last_bit() {
        let values = [0.1, -0.0, f64::MIN_POSITIVE, 1e300, std::f64::consts::PI];
        let back = numbers(&bits(&values).unwrap());
        assert!(values.iter().zip(&back).all(|(a, b)| a.to_bits() == b.to_bits()), "{back:?}");
    }
}
