//! Classifier-free guidance: how far from the unconditional prediction a sampler goes.

use crate::tensor::Tensor;
use crate::{Error, Result};

/// How strongly the condition counts: predictions `u + s (c - u)` from `c` with the condition and `u` without, with the
/// scale `s` that the schedule gives at each step. With `s = 1` there is no guidance, and samplers spare `u`. Papers that
/// write `c + w (c - u)` have `w = s - 1`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Guidance {
    /// The scale s.
    pub scale: f32,
    /// How it moves over the steps of a sample.
    pub schedule: GuidanceSchedule,
}

impl Default for Guidance {
    fn default() -> Self {
        Self { scale: 1.0, schedule: GuidanceSchedule::Constant }
    }
}

/// How the scale moves over the steps of a sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum GuidanceSchedule {
    /// s at every step.
    Constant,
    /// From 1 at progress 0 to s at progress 1, linearly (MUSE, MAR).
    Linear,
    /// `1 + (s - 1) (1 - cos(pi t^power)) / 2` at progress t in [0, 1] (MDT, MaskBit).
    PowerCosine {
        /// The power; above 0.
        power: f32,
    },
    /// s where the progress t lies in [from, to], 1 elsewhere (Kynkäänniemi et al., "Applying guidance in a limited interval
    /// improves sample and distribution quality in diffusion models", 2024).
    Interval {
        /// The least progress.
        from: f32,
        /// The greatest progress.
        to: f32,
    },
}

impl Guidance {
    /// Whether any step is guided.
    pub fn is_on(&self) -> bool {
        self.scale != 1.0
    }

    /// The scale at step `step`, from 0, of `steps`: that at the progress `step / (steps - 1)`, which is 1 at the last step, as
    /// published for VAR; a single step counts as the last.
    pub fn at(&self, step: usize, steps: usize) -> f32 {
        self.at_progress(if steps > 1 { step.min(steps - 1) as f32 / (steps - 1) as f32 } else { 1.0 })
    }

    /// The scale at progress `t` in [0, 1]. Samplers that take `step / steps` for it never reach the end of a schedule: those
    /// of one code after another and of masked codes, as published for RAR and TiTok. MAR takes the share of tokens that are
    /// known after the step.
    pub fn at_progress(&self, t: f32) -> f32 {
        match self.schedule {
            GuidanceSchedule::Constant => self.scale,
            GuidanceSchedule::Linear => 1.0 + (self.scale - 1.0) * t,
            GuidanceSchedule::PowerCosine { power } => {
                1.0 + (self.scale - 1.0) * (1.0 - (std::f32::consts::PI * t.powf(power)).cos()) / 2.0
            }
            GuidanceSchedule::Interval { from, to } => {
                if (from..=to).contains(&t) {
                    self.scale
                } else {
                    1.0
                }
            }
        }
    }

    /// `u + s (c - u)` of predictions `[B, 2, ..]`, of each image first the one with its condition (c), then the one without
    /// (u): `[B, ..]`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if there are not two of each image.
    pub fn mix(pairs: &Tensor, scale: f32) -> Result<Tensor> {
        let [_, 2, ..] = pairs.shape() else {
            return Err(Error::Unsupported(format!("guidance mixes pairs [B, 2, ..], found {:?}", pairs.shape())));
        };
        let mut shape = pairs.shape().to_vec();
        shape.remove(1);
        let with = pairs.slice(1, 0..1)?.reshape(&shape)?;
        if scale == 1.0 {
            return Ok(with);
        }
        let without = pairs.slice(1, 1..2)?.reshape(&shape)?;
        Ok(without.add(&with.sub(&without)?.mul_scalar(scale)?)?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn schedules_reach_the_scale_where_they_say() {
        let at = |schedule, step| Guidance { scale: 3.0, schedule }.at(step, 5);
        assert_eq!([at(GuidanceSchedule::Constant, 0), at(GuidanceSchedule::Constant, 4)], [3.0, 3.0]);
        assert_eq!([0, 2, 4].map(|step| at(GuidanceSchedule::Linear, step)), [1.0, 2.0, 3.0]);
        let cosine = GuidanceSchedule::PowerCosine { power: 1.0 };
        assert_eq!([0, 4].map(|step| at(cosine, step)), [1.0, 3.0]);
        assert!((at(cosine, 2) - 2.0).abs() < 1e-6);
        // t = 1/4 squared is 1/16: 1 + 2 (1 - cos(pi / 16)) / 2.
        assert!((at(GuidanceSchedule::PowerCosine { power: 2.0 }, 1) - 1.019_214_7).abs() < 1e-5);
        let interval = GuidanceSchedule::Interval { from: 0.25, to: 0.5 };
        assert_eq!([0, 1, 2, 3, 4].map(|step| at(interval, step)), [1.0, 3.0, 3.0, 1.0, 1.0]);
        assert_eq!(Guidance { scale: 3.0, schedule: GuidanceSchedule::Linear }.at(0, 1), 3.0);
    }

    #[test]
    fn a_mix_is_the_published_formula() {
        let pairs = Tensor::from_vec(vec![1.0, 5.0, 2.0, 2.0], &[1, 2, 2]).unwrap();
        assert_eq!(Guidance::mix(&pairs, 2.0).unwrap().to_vec(), [0.0, 8.0]);
        assert_eq!(Guidance::mix(&pairs, 1.0).unwrap().to_vec(), [1.0, 5.0]);
        assert_eq!(Guidance::mix(&pairs, 0.0).unwrap().to_vec(), [2.0, 2.0]);
        assert!(Guidance::mix(&Tensor::zeros(&[3, 1]), 2.0).is_err());
    }
}
