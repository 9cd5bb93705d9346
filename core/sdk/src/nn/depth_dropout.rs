//! Training with fewer depths: quantizer dropout (Zeghidour et al., "SoundStream", TASLP 2022, section III.C).

use crate::config::ConfigError;
use crate::tensor::Rng;

/// Which numbers of depths, or scales, a batch of training may keep: the first ones, a number drawn anew for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DepthDropout {
    /// The first depth, from 0, that may be the last kept one: `dropout_cutoff`.
    pub cutoff: usize,
    /// The number of kept depths is rounded up to a multiple of this: `dropout_multiple_of`.
    pub multiple_of: usize,
}

impl DepthDropout {
    /// Refuses a cutoff that none of `depths` depths has; `what` names one of them ("depth").
    ///
    /// # Errors
    /// A message for the field `dropout_cutoff`.
    pub fn check(self, depths: usize, what: &str) -> Result<(), ConfigError> {
        if self.cutoff < depths {
            return Ok(());
        }
        let message = format!(
            "of {depths} {what}s, counted from 0, there is no {what} {} to be the last kept one: at most {}",
            self.cutoff,
            depths.saturating_sub(1)
        );
        Err(ConfigError::field("dropout_cutoff", message))
    }

    /// How many of `depths` a batch keeps.
    pub fn kept(self, depths: usize, rng: &Rng) -> usize {
        let last = self.cutoff + rng.whole().below(1, (depths - self.cutoff) as u32)[0] as usize;
        (last + 1).next_multiple_of(self.multiple_of).min(depths)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_keeps_any_number_from_the_cutoff_on() {
        let drawn = |cutoff, multiple_of, depths| {
            let kept =
                (0..200).map(|step| DepthDropout { cutoff, multiple_of }.kept(depths, &Rng::new(0, "kept", step)));
            kept.collect::<std::collections::BTreeSet<_>>().into_iter().collect::<Vec<_>>()
        };
        assert_eq!(drawn(0, 1, 4), [1, 2, 3, 4]);
        assert_eq!(drawn(2, 1, 4), [3, 4]);
        assert_eq!(drawn(0, 4, 6), [4, 6]);
        assert_eq!(drawn(3, 1, 4), [4]);
        let refused = DepthDropout { cutoff: 4, multiple_of: 1 }.check(4, "depth");
        assert!(refused.is_err_and(|error| error.to_string().contains("no depth 4")));
    }
}
