//! Images per second: sampling with and without cache, and decoding.

use super::samples::How;
use crate::machine::Usage;
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
pub(super) fn measure(model: &Tokenizer, sampler: &Sampler, how: &How, batches: &[usize]) -> Result<Vec<Reading>> {
    let mut readings = Vec::new();
    let before = Usage::now();
    for &count in batches {
        let labels = Codes::from_vec(how.mixture.labels(count), &[count])?;
        let rng = Rng::new(0, "speed", 0);
        let sample = |cache: bool| sampler.sample(&labels, &how.draw, how.guidance, cache, &rng);
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

#[cfg(test)]
mod tests {
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
}
