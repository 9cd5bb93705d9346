//! Means over the steps since the last point of a curve. What a GPU has yet to compute is read late and together, so that no
//! step waits for it.

use rqlab_reports::{Index, Reading};
use rqlab_sdk::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// Steps whose numbers may lie unread: they take memory of the GPU, and an error in them is found late.
pub(crate) const UNREAD: usize = 64;

/// A running mean. In a checkpoint its sum stands by its bits, since JSON has no infinities.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(into = "(u64, u64)", from = "(u64, u64)")]
pub(crate) struct Mean {
    sum: f64,
    count: u64,
}

impl Mean {
    pub(crate) fn add(&mut self, value: f64) {
        self.sum += value;
        self.count += 1;
    }

    fn absorb(&mut self, other: &Self) {
        self.sum += other.sum;
        self.count += other.count;
    }

    /// The mean of what was added, if anything was, and a fresh start.
    pub(crate) fn take(&mut self) -> Option<f64> {
        let mean = (self.count > 0).then(|| self.sum / self.count as f64);
        *self = Self::default();
        mean
    }
}

impl From<Mean> for (u64, u64) {
    fn from(mean: Mean) -> Self {
        (mean.sum.to_bits(), mean.count)
    }
}

impl From<(u64, u64)> for Mean {
    fn from((bits, count): (u64, u64)) -> Self {
        Self { sum: f64::from_bits(bits), count }
    }
}

/// The running means of the elements of tensors, all of one shape.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct LateMean {
    #[serde(skip)]
    unread: Vec<Tensor>,
    means: Vec<Mean>,
    /// Whether the elements are those of depths: that of a tensor of rank 0 is not.
    by_depth: bool,
}

impl LateMean {
    pub(crate) fn add(&mut self, value: &Tensor) {
        self.by_depth = value.rank() > 0;
        self.unread.push(value.detach());
        if self.unread.len() >= UNREAD {
            self.read();
        }
    }

    /// The readings of `measure`, of each depth where there are several, if anything was added; and a fresh start.
    pub(crate) fn take(&mut self, measure: &str, at: &[Index]) -> Vec<Reading> {
        self.read();
        let by_depth = self.by_depth;
        let index = |i: usize| by_depth.then_some(Index::Depth(i + 1));
        let readings = self.means.iter_mut().enumerate();
        readings
            .filter_map(|(i, mean)| Some(Reading::new(measure, at.iter().cloned().chain(index(i)), mean.take()?)))
            .collect()
    }

    /// Adds what another one was given, with nothing left unread.
    pub(crate) fn absorb(&mut self, other: &Self) {
        self.read();
        self.by_depth |= other.by_depth;
        self.means.resize_with(other.means.len().max(self.means.len()), Mean::default);
        self.means.iter_mut().zip(&other.means).for_each(|(mean, other)| mean.absorb(other));
    }

    /// It with nothing left unread, as a checkpoint keeps it.
    pub(crate) fn pending(&mut self) -> &Self {
        self.read();
        self
    }

    fn read(&mut self) {
        for values in self.unread.drain(..) {
            let values = values.as_slice();
            self.means.resize_with(values.len().max(self.means.len()), Mean::default);
            self.means.iter_mut().zip(values).for_each(|(mean, &value)| mean.add(f64::from(value)));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn each_depth_has_a_mean_of_its_own_over_any_number_of_steps() {
        let mut late = LateMean::default();
        for steps in [1, UNREAD - 1, UNREAD, 3 * UNREAD + 5] {
            for step in 0..steps {
                late.add(&Tensor::from_vec(vec![step as f32, 7.0], &[2]).unwrap());
            }
            let half = (steps - 1) as f64 / 2.0;
            let at = |depth| [Index::Level(2), Index::Depth(depth)];
            let wanted = [Reading::new("x", at(1), half), Reading::new("x", at(2), 7.0)];
            assert_eq!(late.take("x", &[Index::Level(2)]), wanted);
            assert!(late.take("x", &[]).is_empty());
        }
    }

    #[test]
    fn a_mean_goes_on_from_a_checkpoint_bit_for_bit() {
        let values = |step: u64| Tensor::from_vec(vec![0.1 * step as f32, f32::INFINITY], &[2]).unwrap();
        let (mut whole, mut first) = (LateMean::default(), LateMean::default());
        (0..7).for_each(|step| whole.add(&values(step)));
        (0..4).for_each(|step| first.add(&values(step)));
        let kept = serde_json::to_string(first.pending()).unwrap();
        let mut resumed = LateMean::default();
        resumed.absorb(&serde_json::from_str(&kept).unwrap());
        (4..7).for_each(|step| resumed.add(&values(step)));
        assert_eq!(resumed.take("x", &[]), whole.take("x", &[]));
    }

    #[test]
    fn a_single_number_has_no_depth() {
        let mut late = LateMean::default();
        late.add(&Tensor::scalar(1.0));
        late.add(&Tensor::scalar(4.0));
        assert_eq!(late.take("x", &[]), [Reading::new("x", [], 2.5)]);
    }
}
