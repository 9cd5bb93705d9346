//! Images per second: sampling with and without cache, and decoding.

use super::samples::How;
use crate::stages::{Sampler, Tokenizer};
use rqlab_reports::{Index, Reading};
use rqlab_sdk::Result;
use rqlab_sdk::tensor::{Codes, Rng, no_grad, wait_for_device};
use std::time::Instant;

/// A call is timed in rounds, of which there are at least three: until so many seconds have passed, or so many rounds.
const SECONDS: f64 = 1.0;
const ROUNDS: std::ops::Range<usize> = 3..15;

/// Measures at each batch size: the median of the rounds, and the quartiles of them; and how much of the machine others used
/// meanwhile.
///
/// # Errors
/// Those of the plugins.
pub(super) fn measure(model: &Tokenizer, sampler: &Sampler, how: &How<'_>, batches: &[usize]) -> Result<Vec<Reading>> {
    let mut readings = Vec::new();
    let before = Usage::now();
    for &count in batches {
        let labels = Codes::from_vec(how.mixture.labels(count), &[count])?;
        let rng = Rng::new(0, "speed", 0);
        let sample = |cache: bool| sampler.sample(&labels, how.draw, how.guidance, cache, &rng);
        let tokens = sample(true)?;
        for cache in [true, false] {
            let seconds = seconds_per_call(|| sample(cache).map(drop))?;
            speeds("images_per_second", &[Index::Batch(count), Index::Cache(cache)], count, &seconds, &mut readings);
        }
        let seconds = seconds_per_call(|| no_grad(|| model.decode(&tokens, None)).map(drop))?;
        speeds("decode_images_per_second", &[Index::Batch(count)], count, &seconds, &mut readings);
    }
    let others = before.zip(Usage::now()).and_then(|(before, after)| before.others_until(&after));
    readings.extend(others.filter(|_| !batches.is_empty()).map(|share| Reading::new("other_load", [], share)));
    Ok(readings)
}

/// The seconds that each of several calls takes, ascending.
fn seconds_per_call(mut call: impl FnMut() -> Result<()>) -> Result<Vec<f64>> {
    let started = Instant::now();
    let mut seconds = Vec::new();
    while seconds.len() < ROUNDS.start || (seconds.len() < ROUNDS.end && started.elapsed().as_secs_f64() < SECONDS) {
        let round = Instant::now();
        call()?;
        // A GPU may still be at it.
        wait_for_device()?;
        seconds.push(round.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds)
}

/// The median of the speeds of `count` images in each of `seconds` (ascending), and their quartiles.
fn speeds(measure: &str, at: &[Index], count: usize, seconds: &[f64], readings: &mut Vec<Reading>) {
    for (name, share) in [("", 0.5), ("_lower_quartile", 0.75), ("_upper_quartile", 0.25)] {
        let speed = count as f64 / quantile(seconds, share);
        readings.push(Reading::new(format!("{measure}{name}"), at.iter().copied(), speed));
    }
}

/// The value below which a share of ascending values lies, between the two next to it in proportion.
fn quantile(ascending: &[f64], share: f64) -> f64 {
    let place = share * ascending.len().saturating_sub(1) as f64;
    let at = |place: f64| ascending.get(place as usize).copied().unwrap_or(f64::NAN);
    at(place.floor()) + (at(place.ceil()) - at(place.floor())) * place.fract()
}

/// What the processors have done until now, in ticks of the system's clock, where the system tells (Linux).
struct Usage {
    /// For this process, and the processes it waited for.
    own: u64,
    /// For all processes.
    busy: u64,
    /// In all, idle time included, over all processors.
    all: u64,
}

impl Usage {
    fn now() -> Option<Self> {
        let own = std::fs::read_to_string("/proc/self/stat").ok()?;
        let machine = std::fs::read_to_string("/proc/stat").ok()?;
        Self::of(&own, &machine)
    }

    /// Of the texts of `/proc/self/stat` and `/proc/stat`.
    fn of(own: &str, machine: &str) -> Option<Self> {
        // The name of the program, which may hold anything, ends with the last bracket; 11 fields later the times begin.
        let times = own.rsplit_once(')')?.1.split_whitespace().skip(11).take(2);
        let own = times.map(|ticks| ticks.parse::<u64>().ok()).sum::<Option<u64>>()?;
        let line = machine.lines().find_map(|line| line.strip_prefix("cpu "))?;
        // user, nice, system, idle, waiting for disks, interrupts (two), time that a virtual machine was denied
        let ticks: Vec<u64> = line.split_whitespace().take(8).map(|ticks| ticks.parse().ok()).collect::<Option<_>>()?;
        let all = ticks.iter().sum::<u64>();
        let idle = ticks.get(3)? + ticks.get(4)?;
        Some(Self { own, busy: all - idle, all })
    }

    /// The share of the machine's processors that other processes, or other machines on the same processors, had from then
    /// until `later`; none if the clock has not moved.
    fn others_until(&self, later: &Self) -> Option<f64> {
        let all = later.all.checked_sub(self.all).filter(|&all| all > 0)?;
        let others = (later.busy.saturating_sub(self.busy)).saturating_sub(later.own.saturating_sub(self.own));
        Some(others as f64 / all as f64)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn one_slow_round_does_not_move_the_speed() {
        let mut readings = Vec::new();
        speeds("images_per_second", &[Index::Batch(4)], 4, &[1.0, 2.0, 2.0, 4.0, 400.0], &mut readings);
        let values: Vec<(&str, f64)> =
            readings.iter().map(|reading| (reading.measure.as_str(), reading.value)).collect();
        assert_eq!(
            values,
            [
                ("images_per_second", 2.0),
                ("images_per_second_lower_quartile", 1.0),
                ("images_per_second_upper_quartile", 2.0)
            ]
        );
        assert_eq!(quantile(&[1.0, 2.0], 0.5), 1.5);
    }

    #[test]
    fn the_load_of_others_is_what_is_not_our_own() {
        let own = |user: u64| format!("7 (rq) lab) S 1 7 7 0 -1 4194560 1 0 0 0 {user} 20 0 0 20 0 4 0 100 1 1");
        let machine = |user: u64, idle: u64| format!("cpu  {user} 0 100 {idle} 0 0 0 0 0 0\ncpu0 1 1 1 1\n");
        let before = Usage::of(&own(100), &machine(1000, 5000)).unwrap();
        // 200 ticks, half of them idle; of the rest 60 were ours.
        let after = Usage::of(&own(160), &machine(1100, 5100)).unwrap();
        assert_eq!(before.others_until(&after), Some(0.2));
        assert_eq!(before.others_until(&before), None);
        assert!(Usage::of("", "").is_none());
    }
}
