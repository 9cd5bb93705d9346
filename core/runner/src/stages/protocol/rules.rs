//! What each protocol measures of samples, and how.

use rqlab_reports::Protocol;
use rqlab_sdk::metrics::Ball;

/// Real images, and of some protocols samples, whose neighbours precision and recall look at.
pub(super) const NEIGHBOURHOOD: usize = 10_000;

/// How the neighbours of images are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Neighbours {
    /// Which neighbour a ball reaches to.
    pub(super) k: usize,
    /// Whether its border belongs to it.
    pub(super) ball: Ball,
    /// At most so many samples; all of them otherwise.
    pub(super) samples: usize,
}

/// How images are split for the inception score, whose parts are averaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Splits {
    /// Runs of so many images; the last may be shorter.
    Of(usize),
    /// So many equal runs.
    Into(usize),
}

/// The rules of a protocol for samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rules {
    /// None where it takes no precision and recall.
    pub(super) neighbours: Option<Neighbours>,
    /// None where it takes no inception score.
    pub(super) splits: Option<Splits>,
    /// Whether it takes sFID.
    pub(super) spatial: bool,
}

impl Rules {
    pub(super) fn of(protocol: Protocol) -> Self {
        let adm = Neighbours { k: 3, ball: Ball::Closed, samples: usize::MAX };
        match protocol {
            Protocol::Adm | Protocol::Llamagen => {
                Self { neighbours: Some(adm), splits: Some(Splits::Of(5000)), spatial: true }
            }
            Protocol::Titok => Self { neighbours: Some(adm), splits: Some(Splits::Into(1)), spatial: true },
            Protocol::Clean => Self { neighbours: None, splits: None, spatial: false },
            Protocol::Rqvae => Self { neighbours: None, splits: Some(Splits::Into(10)), spatial: false },
            Protocol::Dgm => {
                let neighbours = Neighbours { k: 5, ball: Ball::Open, samples: NEIGHBOURHOOD };
                Self { neighbours: Some(neighbours), splits: None, spatial: false }
            }
        }
    }
}

impl Splits {
    /// The runs of `count` images; of fewer images than runs, a run each.
    pub(super) fn runs(self, count: usize) -> Vec<std::ops::Range<usize>> {
        match self {
            Self::Of(size) => (0..count).step_by(size).map(|first| first..count.min(first + size)).collect(),
            Self::Into(runs) => {
                let runs = runs.min(count).max(1);
                (0..runs).map(|run| run * count / runs..(run + 1) * count / runs).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_of_a_size_or_of_a_number() {
        assert_eq!(Splits::Of(5000).runs(12_000), [0..5000, 5000..10_000, 10_000..12_000]);
        assert_eq!(Splits::Of(5000).runs(100), std::slice::from_ref(&(0..100)));
        assert_eq!(Splits::Into(3).runs(10), [0..3, 3..6, 6..10]);
        assert_eq!(Splits::Into(10).runs(2), [0..1, 1..2]);
    }

    #[test]
    fn protocols_differ_in_what_they_count_as_near() {
        let [adm, dgm] = [Protocol::Adm, Protocol::Dgm].map(|protocol| Rules::of(protocol).neighbours);
        assert!(adm.is_some_and(|adm| adm.k == 3 && adm.ball == Ball::Closed));
        assert!(dgm.is_some_and(|dgm| dgm.k == 5 && dgm.ball == Ball::Open));
        assert_eq!(Rules::of(Protocol::Clean).splits, None);
    }
}
