//! The order of an epoch for storage that is slow in random order: shard by shard, through a shuffle buffer.

use rqlab_sdk::tensor::Rng;
use std::ops::Range;

/// Which images each shard holds, of shards with so many images.
pub(crate) fn ranges(counts: impl Iterator<Item = usize>) -> Vec<Range<usize>> {
    counts
        .scan(0, |start, count| {
            let range = *start..*start + count;
            *start = range.end;
            Some(range)
        })
        .collect()
}

/// Goes through the shards in a random order and through the images of each (`shards`: which they are) as they lie, so that
/// one pass reads every shard from its beginning to its end. Of the next `buffer` images a random one is taken at a time, as
/// WebDataset's `shuffle` does. Every image comes once.
pub(crate) fn sequential(shards: &[Range<usize>], buffer: usize, rng: &Rng) -> Vec<usize> {
    let count = shards.iter().map(ExactSizeIterator::len).sum();
    let stream = rng.part("shards", 0).permutation(shards.len()).into_iter().flat_map(|shard| shards[shard].clone());
    let mut order = Vec::with_capacity(count);
    let mut held = Vec::with_capacity(buffer.min(count));
    for (image, word) in stream.zip(rng.part("buffer", 0).bits(count)) {
        if held.len() < buffer {
            held.push(image);
        } else {
            let chosen = ((u64::from(word) * held.len() as u64) >> 32) as usize;
            order.push(std::mem::replace(&mut held[chosen], image));
        }
    }
    order.extend(rng.part("rest", 0).permutation(held.len()).into_iter().map(|at| held[at]));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARDS: [Range<usize>; 4] = [0..10, 10..10, 10..37, 37..40];

    #[test]
    fn every_epoch_sees_every_image_once() {
        for buffer in [1, 2, 7, 40, 1000] {
            for epoch in 0..5 {
                let mut order = sequential(&SHARDS, buffer, &Rng::new(3, "order", epoch));
                order.sort_unstable();
                assert_eq!(order, (0..40).collect::<Vec<_>>(), "buffer {buffer}, epoch {epoch}");
            }
        }
    }

    #[test]
    fn it_follows_seed_and_epoch_alone() {
        let order = |seed, epoch| sequential(&SHARDS, 8, &Rng::new(seed, "order", epoch));
        assert_eq!(order(1, 0), order(1, 0));
        assert_ne!(order(1, 0), order(1, 1));
        assert_ne!(order(1, 0), order(2, 0));
    }

    /// The n-th image to be used lies among the first n + buffer that were read.
    #[test]
    fn no_image_is_used_before_it_is_read() {
        let shards = [0..50, 50..100];
        let rng = Rng::new(0, "order", 0);
        let read: Vec<usize> =
            rng.part("shards", 0).permutation(2).into_iter().flat_map(|shard| shards[shard].clone()).collect();
        for (used, image) in sequential(&shards, 5, &rng).into_iter().enumerate() {
            let place = read.iter().position(|other| *other == image);
            assert!(place.is_some_and(|place| place < used + 6), "{image}, used at {used}, is read at {place:?}");
        }
    }
}
