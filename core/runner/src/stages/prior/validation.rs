//! The loss of a prior on test images, while it trains.

use super::feed::{Feed, Given};
use crate::stages::Tokenizer;
use crate::stages::conditions::Conditions;
use crate::stages::subset::subset;
use rqlab_sdk::Result;
use rqlab_sdk::contracts::{Condition, Dataset, Mode, Prior, Split};
use rqlab_sdk::tensor::{Rng, no_grad};

/// Images that the model goes through at once.
const BATCH: usize = 32;

/// Test images, encoded once.
pub(super) struct Validation {
    batches: Vec<(Condition, Vec<Given>)>,
    /// Steps between measurements.
    every: u64,
}

impl Validation {
    /// Encodes `count` test images of a data set, under their conditions. A step trains on `batch` images.
    pub(super) fn new(
        feed: &Feed,
        model: &Tokenizer,
        (dataset, conditions): (&dyn Dataset, &Conditions),
        count: usize,
        batch: usize,
    ) -> Result<Self> {
        let chosen = subset(dataset.info().test, count);
        let mut batches = Vec::new();
        for indices in chosen.chunks(BATCH) {
            let images = dataset.batch(Split::Test, indices, None)?;
            let condition = conditions.of_images(dataset, Split::Test, indices, &images.labels)?;
            batches.push((condition, no_grad(|| feed.encode(model, &images.pixels))?));
        }
        // A step goes through its images forwards and backwards, which is the work of three times forwards.
        let every = (4 * chosen.len()).div_ceil(batch.max(1)).max(1) as u64;
        Ok(Self { batches, every })
    }

    /// Whether the point of the curves at `step`, the first since `last`, is one to measure at. Depends on the steps alone: a
    /// resumed training measures where another one does.
    pub(super) fn due(&self, last: u64, step: u64, end: u64) -> bool {
        !self.batches.is_empty() && (step / self.every > last / self.every || step == end)
    }

    /// The loss per image, with the same random numbers each time where the prior or its targets draw some.
    pub(super) fn loss(&self, feed: &Feed, model: &Tokenizer, prior: &dyn Prior) -> Result<f64> {
        let (mut sum, mut count) = (0.0, 0);
        for (i, (condition, given)) in self.batches.iter().enumerate() {
            let rng = Rng::new(0, "validation", i as u64);
            let loss = no_grad(|| {
                let batch = feed.batch(model, condition, given, 0.0, &rng)?;
                prior.loss(&batch, &Mode::Eval)
            })?;
            sum += f64::from(loss.loss.item()?) * condition.images() as f64;
            count += condition.images();
        }
        Ok(sum / count.max(1) as f64)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn measurements_stand_at_steps_that_a_resumed_training_finds_again() {
        let batches = vec![(Condition::none(1).unwrap(), Vec::new())];
        let validation = Validation { batches, every: 16 };
        let due = |log: u64, end: u64| -> Vec<u64> {
            let points = (1..=end).filter(|step| step % log == 0 || *step == end);
            points.filter(|&step| validation.due(step.saturating_sub(1) / log * log, step, end)).collect()
        };
        assert_eq!(due(20, 90), [20, 40, 60, 80, 90]);
        assert_eq!(due(5, 50), [20, 35, 50]);
        assert!(!Validation { batches: vec![], every: 1 }.due(0, 9, 9), "without images there is no measurement");
    }
}
