//! Which images a step sees, and their decoding off the critical path.

use super::At;
use rqlab_sdk::contracts::{Dataset, Images, Split};
use rqlab_sdk::tensor::{Rng, beside_the_first};
use rqlab_sdk::{Error, Result};
use std::convert::Infallible;
use std::sync::Mutex;
use std::sync::mpsc::sync_channel;
use std::thread;

/// The order in which a training set is seen: each epoch is a permutation of its own, and the batch of a step depends on
/// (seed, step) alone.
pub(crate) struct Order {
    seed: u64,
    len: usize,
    batch: usize,
    epoch: Mutex<(u64, Vec<usize>)>,
}

impl Order {
    /// The order of `len` items in batches of `batch`.
    pub(crate) fn new(seed: u64, len: usize, batch: usize) -> Self {
        Self { seed, len, batch, epoch: Mutex::new((u64::MAX, Vec::new())) }
    }

    /// A share of the items of a step.
    pub(in crate::stages) fn at(&self, at: At) -> Vec<usize> {
        let Ok(items) = self.through(at, |rng| Ok::<_, Infallible>(rng.permutation(self.len)));
        items
    }

    /// A share of the images of a step over a data set, which may ask for an order of its own.
    pub(in crate::stages) fn images(&self, dataset: &dyn Dataset, at: At) -> Result<Vec<usize>> {
        self.through(at, |rng| match dataset.epoch_order(rng) {
            Some(order) if !is_permutation(&order, self.len) => {
                Err(Error::Data("the data set's order of an epoch does not hold each training image once".to_owned()))
            }
            Some(order) => Ok(order),
            None => Ok(rng.permutation(self.len)),
        })
    }

    /// A share of the items of a step, where `draw` gives the order of an epoch from the stream of that epoch.
    fn through<E>(
        &self,
        At { step, share }: At,
        draw: impl Fn(&Rng) -> std::result::Result<Vec<usize>, E>,
    ) -> std::result::Result<Vec<usize>, E> {
        let mut held = self.epoch.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        share
            .rows(self.batch)
            .map(|i| {
                let position = step * self.batch as u64 + i as u64;
                let (epoch, index) = (position / self.len as u64, (position % self.len as u64) as usize);
                if held.0 != epoch {
                    *held = (epoch, draw(&Rng::new(self.seed, "order", epoch))?);
                }
                Ok(held.1[index])
            })
            .collect()
    }
}

/// Whether each of `0..count` stands in `order` once.
fn is_permutation(order: &[usize], count: usize) -> bool {
    let mut seen = vec![false; count];
    order.len() == count && order.iter().all(|&item| item < count && !std::mem::replace(&mut seen[item], true))
}

/// A share of the training images of a step.
pub(in crate::stages) fn training_images(
    dataset: &dyn Dataset,
    order: &Order,
    seed: u64,
    augment: bool,
    at: At,
) -> Result<Images> {
    let rng = at.rng(seed, "augment");
    dataset.batch(Split::Train, &order.images(dataset, at)?, augment.then_some(&rng))
}

/// Calls `consume` with `produce(step)` for each step in order, while the next one is being produced on another thread.
pub(crate) fn prefetch<T: Send>(
    steps: std::ops::Range<u64>,
    produce: impl Fn(u64) -> Result<T> + Sync,
    mut consume: impl FnMut(u64, T) -> Result<()>,
) -> Result<()> {
    thread::scope(|scope| {
        let (sender, receiver) = sync_channel(1);
        let ahead = steps.clone();
        let produce = &produce;
        scope.spawn(move || {
            // What is prepared here must not wait for the thread that waits for it.
            let _own = match beside_the_first() {
                Ok(own) => own,
                Err(error) => return drop(sender.send(Err(error.into()))),
            };
            for step in ahead {
                // The receiver is gone when the consumer has failed.
                if sender.send(produce(step)).is_err() {
                    return;
                }
            }
        });
        for step in steps {
            match receiver.recv() {
                Ok(item) => consume(step, item?)?,
                Err(_) => {
                    return Err(Error::Data("the thread that prepares batches ended early".to_owned()));
                }
            }
        }
        Ok(())
    })
}

/// Ranges of at most `size` that cover `0..len`.
pub(crate) fn chunks(len: usize, size: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    (0..len).step_by(size.max(1)).map(move |start| start..(start + size).min(len))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use rqlab_sdk::contracts::{DatasetInfo, Summary};
    use rqlab_sdk::tensor::{Codes, Share, Tensor};

    fn whole(step: u64) -> At {
        At { step, share: Share::WHOLE }
    }

    #[test]
    fn an_epoch_sees_every_item_once_and_steps_need_no_history() {
        let order = Order::new(3, 10, 4);
        let seen: Vec<usize> = (0..5).flat_map(|step| order.at(whole(step))).collect();
        for epoch in seen.chunks(10) {
            let mut items = epoch.to_vec();
            items.sort_unstable();
            assert_eq!(items, (0..10).collect::<Vec<_>>());
        }
        assert_eq!(Order::new(3, 10, 4).at(whole(3)), seen[12..16]);
        let half = |index| Order::new(3, 10, 4).at(At { step: 3, share: Share { index, of: 2 } });
        assert_eq!([half(0), half(1)].concat(), seen[12..16]);
    }

    /// Goes backwards through its images, or, if it is `short`, leaves the last one out.
    struct Backwards {
        info: DatasetInfo,
        short: bool,
    }

    impl Dataset for Backwards {
        fn info(&self) -> &DatasetInfo {
            &self.info
        }

        fn epoch_order(&self, _rng: &Rng) -> Option<Vec<usize>> {
            Some((0..self.info.train - usize::from(self.short)).rev().collect())
        }

        fn batch(&self, _split: Split, indices: &[usize], _augment: Option<&Rng>) -> Result<Images> {
            let pixels =
                Tensor::from_vec(indices.iter().map(|&index| index as f32).collect(), &[indices.len(), 1, 1, 1])?;
            Ok(Images { pixels, labels: Codes::from_vec(vec![0; indices.len()], &[indices.len()])? })
        }
    }

    #[test]
    fn a_data_set_may_have_an_order_of_its_own() {
        let images = |short: bool, step: u64| {
            let digest = "backwards".to_owned();
            let info = DatasetInfo {
                image: [1, 1, 1],
                classes: Vec::new(),
                train: 5,
                test: 1,
                digest,
                summary: Summary::default(),
            };
            let order = Order::new(0, 5, 4);
            let dataset = Backwards { info, short };
            training_images(&dataset, &order, 0, false, whole(step)).map(|images| images.pixels.to_vec())
        };
        assert_eq!(images(false, 0).unwrap(), [4.0, 3.0, 2.0, 1.0]);
        assert_eq!(images(false, 1).unwrap(), [0.0, 4.0, 3.0, 2.0]);
        assert!(images(true, 0).unwrap_err().to_string().contains("each training image once"));
    }

    #[test]
    fn a_batch_may_be_larger_than_the_set() {
        assert_eq!(Order::new(0, 2, 5).at(whole(1)).len(), 5);
    }

    #[test]
    fn prefetch_keeps_order_and_stops_at_an_error() {
        let mut seen = Vec::new();
        let outcome = prefetch(
            2..9,
            |step| if step == 6 { Err(Error::Data("six".to_owned())) } else { Ok(step * 10) },
            |step, item| {
                seen.push((step, item));
                Ok(())
            },
        );
        assert_eq!(outcome.unwrap_err().to_string(), "six");
        assert_eq!(seen, [(2, 20), (3, 30), (4, 40), (5, 50)]);
    }
}
