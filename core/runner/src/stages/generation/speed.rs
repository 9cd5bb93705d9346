//! Images per second: sampling with and without cache, and decoding.

use super::how::How;
use crate::machine::Usage;
use crate::stages::{Sampler, Tokenizer};
use rqlab_reports::{Index, Reading};
use rqlab_sdk::Result;
use rqlab_sdk::contracts::Condition;
use rqlab_sdk::tensor::{Rng, no_grad, wait_for_device};
use std::time::Instant;

/// All calls take turns, so many times. What slows a machine for seconds, such as where its scheduler or its host puts two threads,
/// then shows in the spread of each, and not in the median of one.
const TURNS: usize = 3;
/// In a turn a call is timed in rounds, until so many seconds have passed, or so many rounds.
const SECONDS: f64 = 1.0 / TURNS as f64;
const ROUNDS: usize = 5;

/// A call that is timed.
struct Timed<'a> {
    measure: &'static str,
    at: Vec<Index>,
    /// Images of a call.
    count: usize,
    call: Box<dyn Fn() -> Result<()> + 'a>,
    /// What its rounds took.
    seconds: Vec<f64>,
}

/// Measures at each batch size: the median of the rounds, and the quartiles of them; and how much of the machine others used
/// meanwhile.
///
/// # Errors
/// Those of the plugins.
pub(super) fn measure(model: &Tokenizer, sampler: &Sampler, how: &How<'_>, batches: &[usize]) -> Result<Vec<Reading>> {
    let before = Usage::now();
    let mut timed = calls(model, sampler, how, batches)?;
    for _ in 0..TURNS {
        timed.iter_mut().try_for_each(Timed::turn)?;
    }
    let mut readings = Vec::new();
    for Timed { measure, at, count, mut seconds, .. } in timed {
        seconds.sort_by(f64::total_cmp);
        speeds(measure, &at, count, &seconds, &mut readings);
    }
    let others = before.zip(Usage::now()).and_then(|(before, after)| before.others_until(&after));
    readings.extend(others.filter(|_| !batches.is_empty()).map(|share| Reading::new("other_load", [], share)));
    Ok(readings)
}

/// What is timed; sampling with a cache was called once.
fn calls<'a>(
    model: &'a Tokenizer,
    sampler: &'a Sampler,
    how: &'a How<'_>,
    batches: &[usize],
) -> Result<Vec<Timed<'a>>> {
    let mut timed = Vec::new();
    for &count in batches {
        let condition = how.asked(count)?.condition().clone();
        let sample = move |condition: &Condition, cache: bool| {
            sampler.sample(condition, &how.draw, how.guidance, cache, &Rng::new(0, "speed", 0))
        };
        let tokens = sample(&condition, true)?;
        for cache in [true, false] {
            let (at, condition) = (vec![Index::Batch(count), Index::Cache(cache)], condition.clone());
            let call = Box::new(move || sample(&condition, cache).map(drop));
            timed.push(Timed { measure: "images_per_second", at, count, call, seconds: Vec::new() });
        }
        let call = Box::new(move || no_grad(|| model.decode(&tokens, None)).map(drop));
        let at = vec![Index::Batch(count)];
        timed.push(Timed { measure: "decode_images_per_second", at, count, call, seconds: Vec::new() });
    }
    Ok(timed)
}

impl Timed<'_> {
    /// Times the rounds of a turn.
    fn turn(&mut self) -> Result<()> {
        let started = Instant::now();
        for n in 0..ROUNDS {
            if n > 0 && started.elapsed().as_secs_f64() > SECONDS {
                break;
            }
            let round = Instant::now();
            (self.call)()?;
            // A GPU may still be at it.
            wait_for_device()?;
            self.seconds.push(round.elapsed().as_secs_f64());
        }
        Ok(())
    }
}

/// The median of the speeds of `count` images in each of `seconds` (ascending), and their quartiles.
fn speeds(measure: &str, at: &[Index], count: usize, seconds: &[f64], readings: &mut Vec<Reading>) {
    for (name, share) in [("", 0.5), ("_lower_quartile", 0.75), ("_upper_quartile", 0.25)] {
        let speed = count as f64 / quantile(seconds, share);
        readings.push(Reading::new(format!("{measure}{name}"), at.iter().cloned(), speed));
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
