//! Which classes samples are drawn of, and whose captions they have.

use crate::settings::Labels;
use rqlab_sdk::contracts::{Dataset, Split};
use rqlab_sdk::tensor::Rng;
use rqlab_sdk::{Error, Result};
use std::collections::BTreeMap;

/// How often each class is to occur among samples, in any unit.
pub(super) struct Mixture(Vec<u64>);

impl Mixture {
    /// What is asked for of samples that are compared with the test images `images`.
    ///
    /// # Errors
    /// A class that the data set has not, and those of the data set.
    pub(super) fn of(asked: &Labels, dataset: &dyn Dataset, images: &[usize]) -> Result<Self> {
        let classes = &dataset.info().classes;
        let mut shares = vec![0; classes.len().max(1)];
        match asked {
            Labels::Data => {
                for &label in dataset.labels(Split::Test, images)?.as_slice() {
                    shares[label as usize] += 1;
                }
            }
            Labels::Uniform => shares.fill(1),
            Labels::Class(name) => {
                let class = classes.iter().position(|class| class == name);
                shares[class.ok_or_else(|| Error::Data(format!("the data set has no class `{name}`")))?] = 1;
            }
        }
        Ok(Self(shares))
    }

    /// Labels of `count` samples: each class as often as its share of them says, to within one sample (the largest
    /// remainders are rounded up), in a fixed random order. Of equal remainders, too, it is this order that decides, and not
    /// that of the classes.
    pub(super) fn labels(&self, count: usize) -> Vec<u32> {
        let total: u128 = self.0.iter().map(|&share| u128::from(share)).sum();
        let product = |share: u64| u128::from(share) * count as u128;
        let mut often: Vec<usize> = self.0.iter().map(|&share| (product(share) / total.max(1)) as usize).collect();
        let mut open = Rng::new(0, "classes of samples", 0).permutation(often.len());
        open.sort_by_key(|&class| std::cmp::Reverse(product(self.0[class]) % total.max(1)));
        let missing = count - often.iter().sum::<usize>();
        open.into_iter().cycle().take(missing).for_each(|class| often[class] += 1);
        let sorted: Vec<u32> =
            often.iter().enumerate().flat_map(|(class, &often)| std::iter::repeat_n(class as u32, often)).collect();
        Rng::new(0, "labels of samples", 0).permutation(count).into_iter().map(|place| sorted[place]).collect()
    }
}

/// For each of the classes `labels` a test image of it, whose caption a sample is to have. Those of a class take turns in a fixed
/// random order; `classes` are those of `images`.
///
/// # Errors
/// A class of which there is no image.
pub(super) fn captioned(labels: &[u32], images: &[usize], classes: &[u32]) -> Result<Vec<usize>> {
    let mut of_class: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for place in Rng::new(0, "captions of samples", 0).permutation(images.len()) {
        of_class.entry(classes[place]).or_default().push(images[place]);
    }
    let mut taken: BTreeMap<u32, usize> = BTreeMap::new();
    let image = |label: &u32| {
        let own = of_class.get(label).ok_or_else(|| {
            Error::Data(format!(
                "samples of class number {label} are asked for, and no measured test image is of it, whose caption they could have: \
                 raise `evaluation.images`, or take `labels: data`"
            ))
        })?;
        let turn = taken.entry(*label).or_default();
        *turn += 1;
        Ok(own[(*turn - 1) % own.len()])
    };
    labels.iter().map(image).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn every_image_lends_its_caption_before_one_does_twice() {
        let (images, classes) = ([10, 11, 12, 13], [0, 1, 0, 1]);
        let found = captioned(&[0, 1, 0, 0, 1], &images, &classes).unwrap();
        let mut first: Vec<usize> = [found[0], found[1], found[2], found[4]].to_vec();
        first.sort_unstable();
        assert_eq!(first, images);
        assert_eq!(found[3], found[0]);
        assert!(captioned(&[2], &images, &classes).unwrap_err().to_string().contains("class number 2"));
    }

    fn counted(mixture: &[u64], count: usize) -> Vec<usize> {
        let mut often = vec![0; mixture.len()];
        let labels = Mixture(mixture.to_vec()).labels(count);
        assert_eq!(labels.len(), count);
        labels.iter().for_each(|&label| often[label as usize] += 1);
        often
    }

    #[test]
    fn classes_occur_in_their_shares() {
        assert_eq!(counted(&[180, 20], 200), [180, 20]);
        assert_eq!(counted(&[180, 20], 50), [45, 5]);
        // 7.5, 1.5 and 1: the two halves are equal, and one of them is rounded up.
        let often = counted(&[15, 3, 2], 10);
        assert!(often == [8, 1, 1] || often == [7, 2, 1], "{often:?}");
        // 3.3, 3.3 and 3.4.
        assert_eq!(counted(&[33, 33, 34], 10), [3, 3, 4]);
        assert_eq!(counted(&[0, 5], 7), [0, 7]);
        assert_eq!(counted(&[1], 7), [7]);
    }

    #[test]
    fn fewer_samples_than_classes_are_not_of_the_first_classes() {
        let often = counted(&[1; 1000], 100);
        assert!(often.iter().all(|&often| often <= 1));
        let late = often[500..].iter().sum::<usize>();
        // 50 are expected; the standard deviation is 5.
        assert!((30..=70).contains(&late), "{late} of 100 are of the second half of the classes");
    }

    #[test]
    fn any_run_of_samples_is_mixed() {
        let labels = Mixture(vec![1, 1]).labels(200);
        let second = labels[..50].iter().filter(|&&label| label == 1).count();
        assert!((10..=40).contains(&second), "{second} of the first 50");
    }
}
