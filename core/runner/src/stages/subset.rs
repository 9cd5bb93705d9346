//! Which images of a split a count takes.
//!
//! Files and rows are often sorted by class: the first of them are all of one. A count therefore takes the first of a fixed
//! random order, the same for every purpose. More images hold all that fewer hold, and all images are all there are.

use super::Context;
use rqlab_sdk::contracts::{Dataset, Images, Split};
use rqlab_sdk::tensor::Rng;
use rqlab_sdk::{Error, Result};

/// Images at once where they are evaluated.
pub(super) const BATCH: usize = 50;

/// The first `count` of `len` images in the fixed random order; all of them if there are fewer.
fn drawn(len: usize, count: usize) -> Vec<usize> {
    let mut order = Rng::new(0, "images of a split", 0).permutation(len);
    order.truncate(count);
    order
}

/// The images that `count` takes of a split of `len`, by their indices. They are ordered as in the split, which is how files
/// are read fastest; what depends on the order must not take it for a random one.
pub(crate) fn subset(len: usize, count: usize) -> Vec<usize> {
    let mut indices = drawn(len, count);
    indices.sort_unstable();
    indices
}

/// The test images that `count` takes.
///
/// # Errors
/// There are none.
pub(super) fn test_images(dataset: &dyn Dataset, count: usize) -> Result<Vec<usize>> {
    match dataset.info().test {
        0 => Err(Error::Data("the data set has no test images".to_owned())),
        len => Ok(subset(len, count)),
    }
}

impl Context<'_> {
    /// Hands `see` the images `chosen` of a split as they are, a batch at a time, each with the place of its first among the
    /// chosen; and tells how far it is, and with what.
    ///
    /// # Errors
    /// Those of the data set and of `see`.
    pub(super) fn each_batch(
        &mut self,
        dataset: &dyn Dataset,
        (split, chosen): (Split, &[usize]),
        note: &str,
        mut see: impl FnMut(usize, &Images) -> Result<()>,
    ) -> Result<()> {
        for (i, indices) in chosen.chunks(BATCH).enumerate() {
            see(i * BATCH, &dataset.batch(split, indices, None)?)?;
            self.reporter.step((i * BATCH + indices.len()) as u64, chosen.len() as u64, || note.to_owned());
        }
        Ok(())
    }
}

/// The images of a split that are shown, of the `pool` that a count takes of it: `count` of them, of all classes in turn,
/// and ordered by class.
///
/// # Errors
/// Those of the data set.
pub(crate) fn shown(dataset: &dyn Dataset, split: Split, pool: usize, count: usize) -> Result<Vec<usize>> {
    let pool = drawn(dataset.info().len(split), pool);
    let labels = dataset.labels(split, &pool)?;
    let chosen = in_turn(labels.as_slice(), count);
    Ok(chosen.into_iter().map(|place| pool[place]).collect())
}

/// The places of `count` of the images that have these labels: the first of each class, then the second, until there are as
/// many; ordered by class.
fn in_turn(labels: &[u32], count: usize) -> Vec<usize> {
    let mut seen = vec![0_usize; labels.iter().max().map_or(0, |&last| last as usize + 1)];
    let turn = |(place, &label): (usize, &u32)| {
        seen[label as usize] += 1;
        (seen[label as usize], place)
    };
    let mut turns: Vec<(usize, usize)> = labels.iter().enumerate().map(turn).collect();
    turns.sort_unstable();
    turns.truncate(count);
    let mut places: Vec<usize> = turns.into_iter().map(|(_, place)| place).collect();
    places.sort_by_key(|&place| labels[place]);
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_takes_every_class_of_a_sorted_split() {
        // Four classes of 250, one after the other.
        let class = |index: usize| index / 250;
        let mut found = [0; 4];
        subset(1000, 100).into_iter().for_each(|index| found[class(index)] += 1);
        // 25 each are expected; the standard deviation of each is 4.
        assert!(found.iter().all(|&n| (13..=37).contains(&n)), "{found:?}");
    }

    #[test]
    fn more_images_hold_all_that_fewer_hold() {
        for (fewer, more) in [(0, 1), (1, 2), (7, 40), (40, 99), (99, 100)] {
            let (few, many) = (subset(100, fewer), subset(100, more));
            assert_eq!((few.len(), many.len()), (fewer, more));
            assert!(few.iter().all(|index| many.contains(index)), "{fewer} of {more}");
            assert!(many.is_sorted(), "images are read in the order of their files");
        }
    }

    #[test]
    fn all_images_are_all_there_are() {
        assert_eq!(subset(10, 10), (0..10).collect::<Vec<_>>());
        assert_eq!(subset(10, usize::MAX), subset(10, 10));
        assert_eq!(subset(0, 5), Vec::<usize>::new());
    }

    #[test]
    fn classes_are_shown_in_turn() {
        // Of class 0 there is one image: the others fill its places.
        assert_eq!(in_turn(&[2, 2, 2, 1, 1, 1, 0], 5), [6, 3, 4, 0, 1]);
        assert_eq!(in_turn(&[3, 3], 5), [0, 1]);
        assert_eq!(in_turn(&[], 5), Vec::<usize>::new());
        // Fewer places than classes: those whose images come first.
        assert_eq!(in_turn(&[4, 0, 2, 1], 2), [1, 0]);
    }
}
