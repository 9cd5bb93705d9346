//! The learning rate over time.

use std::f64::consts::PI;

/// A linear warm-up, a time at the peak, and half a cosine down.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// The rate that the warm-up starts at.
    pub start: f64,
    /// The rate after the warm-up.
    pub peak: f64,
    /// The rate that the cosine ends at; equal to the peak for a constant rate.
    pub end: f64,
    /// Steps of the warm-up: step `warmup` is the first at the peak.
    pub warmup: u64,
    /// Steps at the peak before the cosine begins.
    pub hold: u64,
    /// Steps of the whole; the cosine would reach `end` at this step, one after the last.
    pub total: u64,
}

/// The warm-up of the published RQ-VAE and RQ-Transformer configurations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PublishedWarmup {
    /// The peak is this times the initial rate; values below 1 count as 1.
    pub multiplier: f64,
    /// Steps of the warm-up.
    pub steps: u64,
    /// Steps at the peak after it.
    pub buffer: u64,
    /// Whether it starts at 0 rather than at the initial rate.
    pub from_zero: bool,
}

impl Schedule {
    /// From 0 to `lr` over `warmup` steps, where it stays.
    pub fn constant(lr: f64, warmup: u64) -> Self {
        Self { start: 0.0, peak: lr, end: lr, warmup, hold: 0, total: u64::MAX }
    }

    /// From 0 to `lr` over `warmup` steps, then half a cosine down to `end` at step `total`.
    pub fn cosine(lr: f64, warmup: u64, total: u64, end: f64) -> Self {
        Self { start: 0.0, peak: lr, end, warmup, hold: 0, total }
    }

    /// The scheduler of the published RQ-VAE and RQ-Transformer code. Without a warm-up it knows neither peak nor buffer:
    /// the cosine then starts from the initial rate at once.
    pub fn published(initial: f64, end: f64, warmup: PublishedWarmup, total: u64) -> Self {
        if warmup.steps == 0 {
            return Self::cosine(initial, 0, total, end);
        }
        Self {
            start: if warmup.from_zero { 0.0 } else { initial },
            peak: initial * warmup.multiplier.max(1.0),
            end,
            warmup: warmup.steps,
            hold: warmup.buffer,
            total,
        }
    }

    /// The rate of the optimizer step `step`, counted from 0: the first step of a warm-up from 0 changes nothing.
    pub fn lr(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.start + (self.peak - self.start) * step as f64 / self.warmup as f64;
        }
        let begin = self.warmup.saturating_add(self.hold);
        if step <= begin || self.total <= begin {
            return self.peak;
        }
        let progress = (step - begin) as f64 / (self.total - begin) as f64;
        self.end + (self.peak - self.end) * (1.0 + (PI * progress.min(1.0)).cos()) / 2.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-12
    }

    #[test]
    fn warm_up_then_cosine() {
        let schedule = Schedule::cosine(1.0, 10, 110, 0.2);
        let wanted =
            [(0, 0.0), (5, 0.5), (10, 1.0), (60, 0.6), (85, 0.6 - 0.4 * (PI / 4.0).sin()), (110, 0.2), (500, 0.2)];
        for (step, lr) in wanted {
            assert!(close(schedule.lr(step), lr), "step {step}: {}", schedule.lr(step));
        }
    }

    #[test]
    fn constant_after_the_warm_up() {
        let schedule = Schedule::constant(0.3, 4);
        assert!([(0, 0.0), (1, 0.075), (4, 0.3), (1_000_000, 0.3)].iter().all(|&(i, lr)| close(schedule.lr(i), lr)));
        assert!(close(Schedule::constant(0.3, 0).lr(0), 0.3));
    }

    #[test]
    fn the_published_scheduler_multiplies_and_holds_only_with_a_warm_up() {
        let mut warmup = PublishedWarmup { multiplier: 2.0, steps: 4, buffer: 3, from_zero: false };
        let schedule = Schedule::published(0.1, 0.0, warmup, 17);
        for (step, lr) in [(0, 0.1), (2, 0.15), (4, 0.2), (7, 0.2), (12, 0.1), (17, 0.0)] {
            assert!(close(schedule.lr(step), lr), "step {step}: {}", schedule.lr(step));
        }
        warmup.steps = 0;
        let schedule = Schedule::published(0.1, 0.0, warmup, 20);
        assert!(close(schedule.lr(0), 0.1) && close(schedule.lr(10), 0.05));
    }

    /// With `end` equal to the initial rate (the published RQ-VAE), the rate is constant after the warm-up.
    #[test]
    fn a_cosine_to_its_own_peak_is_constant() {
        let warmup = PublishedWarmup { multiplier: 1.0, steps: 6, buffer: 0, from_zero: true };
        let schedule = Schedule::published(4e-5, 4e-5, warmup, 24);
        assert!((6..24).all(|i| close(schedule.lr(i), 4e-5)));
    }
}
