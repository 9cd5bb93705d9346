//! The guidance scale that suits priors best: found on a part of the test images that nothing else is measured on.

use super::how::How;
use super::samples::describe;
use crate::stages::features::{Described, FeatureNet};
use crate::stages::subset::subset;
use crate::stages::{Context, Sampler, Tokenizer};
use rqlab_reports::{Index, Reading, Scale};
use rqlab_sdk::Result;
use rqlab_sdk::tensor::Rng;

/// Test images in two parts, each ascending.
pub(super) struct Parts {
    /// Those that a scale is chosen on.
    pub(super) held: Vec<usize>,
    /// Those that the rest is measured on.
    pub(super) rest: Vec<usize>,
}

impl Parts {
    /// Half of `images`, which a count takes of a split of `len`, and the other half.
    pub(super) fn of(images: &[usize], len: usize) -> Self {
        // Fewer images are a part of more.
        let held = subset(len, images.len() / 2);
        let rest = images.iter().copied().filter(|image| held.binary_search(image).is_err()).collect();
        Self { held, rest }
    }

    /// The places of the images of one part among all of `images`.
    pub(super) fn places(images: &[usize], part: &[usize]) -> Vec<usize> {
        part.iter().filter_map(|image| images.binary_search(image).ok()).collect()
    }
}

/// The distance of samples at each of the scales from the images `real`, with the same random numbers at each.
///
/// # Errors
/// Those of the plugins.
pub(super) fn distances(
    cx: &mut Context<'_>,
    (model, sampler): (&Tokenizer, &Sampler),
    how: &mut How<'_>,
    (count, scales): (usize, &[f32]),
    (net, real): (&FeatureNet, &Described),
) -> Result<Vec<(f32, f64)>> {
    let asked = how.asked(count)?;
    let mut found = Vec::new();
    for (n, &scale) in scales.iter().enumerate() {
        how.guidance.scale = scale;
        let described = describe(model, sampler, (how, &asked), net, |i| Rng::new(0, "samples to tune", i))?;
        found.push((scale, described.frechet(real)?));
        cx.reporter.step((n + 1) as u64, scales.len() as u64, || "tuning guidance".to_owned());
    }
    Ok(found)
}

/// The scale of the least distance; of equal ones the first.
pub(super) fn best(distances: &[(f32, f64)]) -> Option<f32> {
    let least = distances.iter().filter(|(_, distance)| distance.is_finite()).min_by(|a, b| a.1.total_cmp(&b.1));
    least.map(|(scale, _)| *scale)
}

/// The distances as readings.
pub(super) fn readings(distances: &[(f32, f64)]) -> Vec<Reading> {
    let reading =
        |&(scale, distance): &(f32, f64)| Reading::new("tuning_frechet", [Index::Guidance(Scale::of(scale))], distance);
    distances.iter().map(reading).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_parts_have_no_image_in_common_and_all_together() {
        let images = subset(100, 31);
        let Parts { held, rest } = Parts::of(&images, 100);
        assert_eq!((held.len(), rest.len()), (15, 16));
        let mut all = [held.clone(), rest.clone()].concat();
        all.sort_unstable();
        assert_eq!(all, images);
        let places = Parts::places(&images, &held);
        assert!(places.iter().zip(&held).all(|(&place, image)| images[place] == *image) && places.len() == 15);
    }

    #[test]
    fn the_least_distance_decides() {
        assert_eq!(best(&[(1.0, 3.0), (2.0, 1.5), (3.0, 1.5), (4.0, f64::NAN)]), Some(2.0));
        assert_eq!(best(&[]), None);
    }
}
