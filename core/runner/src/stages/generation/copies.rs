//! Whether samples are copies of training images: how near they come to one, against how near test images come.

use super::samples::Drawn;
use crate::pictures::image;
use crate::stages::distances::Values;
use crate::stages::subset::BATCH;
use crate::stages::training_images::{DescribeTraining, Likeness, small};
use crate::store::StageDir;
use rqlab_reports::{SampleAndTraining, Trial};
use rqlab_sdk::Result;
use rqlab_sdk::checkpoint::Checkpoint;
use rqlab_sdk::contracts::{Dataset, Split};
use rqlab_sdk::metrics::{Features, Nearest};
use rqlab_sdk::tensor::{Codes, Tensor};

/// The share of test images that lie within the distance which counts as near.
const NEAR: f64 = 0.05;
/// Samples that are shown beside their training images.
const SHOWN: usize = 3;
/// The names of the pictures in a result.
const SAMPLES: &str = "nearest_samples";
const TRAINING: &str = "nearest_training";
const INDICES: &str = "nearest_indices";

/// How near test images come to training images, and the way to ask the same of samples.
pub(super) struct Copies {
    training: StageDir,
    measures: Vec<Near>,
}

/// One way to compare images.
struct Near {
    measure: &'static str,
    likeness: Likeness,
    /// The distance to the nearest training image that a twentieth of the test images do not exceed.
    threshold: f64,
}

/// A sample and the training image that is nearest to it, by its index in the split.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Copy {
    pub(super) sample: usize,
    pub(super) training: usize,
}

impl Copies {
    /// Finds the thresholds: of the test images `images`, whose features are `features`, if there is a classifier.
    ///
    /// # Errors
    /// Those of the data set; a description of training images that is missing or damaged.
    pub(super) fn new(
        training: StageDir,
        dataset: &dyn Dataset,
        images: &[usize],
        features: Option<Features<'_>>,
    ) -> Result<Self> {
        let mut measures = Vec::new();
        let mut add = |measure, likeness, rows: Features<'_>| -> Result<()> {
            let nearest = DescribeTraining::nearest(&training, likeness, rows)?;
            measures.push(Near { measure, likeness, threshold: threshold(&nearest) });
            Ok(())
        };
        if let Some(features) = features {
            add("near_training", Likeness::Features, features)?;
        }
        let (mut pixels, mut width) = (Vec::new(), 1);
        for indices in images.chunks(BATCH) {
            let rows = small(&dataset.batch(Split::Test, indices, None)?.pixels)?;
            width = rows.last_dim();
            pixels.extend_from_slice(rows.as_slice());
        }
        add("near_training_pixels", Likeness::Pixels, Features::new(&pixels, width)?)?;
        Ok(Self { training, measures })
    }

    /// The shares of samples that are as near, and the samples that are nearest: by features if there are some, else by pixels.
    ///
    /// # Errors
    /// As for [`Copies::new`].
    pub(super) fn of(&self, drawn: &Drawn) -> Result<(Values, Vec<Copy>)> {
        let (mut shares, mut copies) = (Vec::new(), Vec::new());
        for Near { measure, likeness, threshold } in &self.measures {
            let rows = match likeness {
                Likeness::Features => drawn.described.view()?,
                Likeness::Pixels => Features::new(&drawn.small, drawn.small.len() / drawn.count.max(1))?,
            };
            let nearest = DescribeTraining::nearest(&self.training, *likeness, rows)?;
            let near = nearest.iter().filter(|nearest| nearest.distance <= *threshold).count();
            shares.push((*measure, near as f64 / nearest.len().max(1) as f64));
            if copies.is_empty() {
                copies = nearest_of(&nearest);
            }
        }
        let indices = DescribeTraining::indices(&self.training)?;
        let in_split = |copy: Copy| Some(Copy { training: *indices.get(copy.training)?, ..copy });
        Ok((shares, copies.into_iter().filter_map(in_split).collect()))
    }
}

/// The distance that a twentieth of them (one at least) do not exceed.
fn threshold(nearest: &[Nearest]) -> f64 {
    let mut distances: Vec<f64> = nearest.iter().map(|nearest| nearest.distance).collect();
    distances.sort_by(f64::total_cmp);
    let within = (NEAR * distances.len() as f64).ceil() as usize;
    distances.get(within.saturating_sub(1)).copied().unwrap_or(0.0)
}

/// Those that come nearest, the nearest first.
fn nearest_of(nearest: &[Nearest]) -> Vec<Copy> {
    let mut order: Vec<usize> = (0..nearest.len()).collect();
    order.sort_by(|&a, &b| nearest[a].distance.total_cmp(&nearest[b].distance));
    order.into_iter().take(SHOWN).map(|sample| Copy { sample, training: nearest[sample].row }).collect()
}

/// Puts the nearest samples, which `decode` gives by their rows, and their training images into a result.
///
/// # Errors
/// Those of the data set and of `decode`.
pub(super) fn keep(
    copies: &[Copy],
    dataset: &dyn Dataset,
    decode: impl FnOnce(&[usize]) -> Result<Tensor>,
    result: &mut Checkpoint,
) -> Result<()> {
    if copies.is_empty() {
        return Ok(());
    }
    let samples: Vec<usize> = copies.iter().map(|copy| copy.sample).collect();
    let training: Vec<usize> = copies.iter().map(|copy| copy.training).collect();
    result.tensors.insert(SAMPLES.to_owned(), decode(&samples)?);
    result.tensors.insert(TRAINING.to_owned(), dataset.batch(Split::Train, &training, None)?.pixels);
    let indices = Codes::from_vec(training.iter().map(|&index| index as u32).collect(), &[training.len()])?;
    result.codes.insert(INDICES.to_owned(), indices);
    Ok(())
}

/// Hands what a result holds of them to a report.
///
/// # Errors
/// Pictures that are none.
pub(super) fn report(kept: &Checkpoint, out: &mut Trial) -> Result<()> {
    let pictures = kept.tensors.get(SAMPLES).zip(kept.tensors.get(TRAINING)).zip(kept.codes.get(INDICES));
    let Some(((samples, training), indices)) = pictures else { return Ok(()) };
    for (n, index) in indices.as_slice().iter().enumerate() {
        let label = format!("training image {index}");
        out.copies.push(SampleAndTraining { label, sample: image(samples, n)?, training: image(training, n)? });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(distances: &[f64]) -> Vec<Nearest> {
        distances.iter().enumerate().map(|(row, &distance)| Nearest { row, distance }).collect()
    }

    #[test]
    fn a_twentieth_of_the_test_images_is_near() {
        let distances: Vec<f64> = (0..100).rev().map(f64::from).collect();
        assert_eq!(threshold(&at(&distances)), 4.0);
        assert_eq!(threshold(&at(&[7.0, 3.0, 5.0])), 3.0);
    }

    #[test]
    fn the_nearest_samples_come_first() {
        let found = nearest_of(&at(&[4.0, 1.0, 3.0, 0.5, 9.0]));
        assert_eq!(found.iter().map(|copy| copy.sample).collect::<Vec<_>>(), [3, 1, 2]);
        assert_eq!(nearest_of(&at(&[4.0])), [Copy { sample: 0, training: 0 }]);
    }
}
