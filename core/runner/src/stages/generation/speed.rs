//! Images per second: sampling with and without cache, and decoding.

use super::samples::How;
use crate::stages::{Sampler, Tokenizer};
use rqlab_reports::{Index, Reading};
use rqlab_sdk::Result;
use rqlab_sdk::tensor::{Rng, no_grad, wait_for_device};
use std::time::Instant;

/// Sampling is timed until this many seconds have passed, or this many rounds.
const SECONDS: f64 = 1.0;
const ROUNDS: usize = 5;

/// Measures at each batch size.
///
/// # Errors
/// Those of the plugins.
pub(super) fn measure(model: &Tokenizer, sampler: &Sampler, how: &How<'_>, batches: &[usize]) -> Result<Vec<Reading>> {
    let mut readings = Vec::new();
    for &count in batches {
        let labels = how.labels(0..count)?;
        let rng = Rng::new(0, "speed", 0);
        let sample = |cache: bool| sampler.sample(&labels, how.draw, how.guidance, cache, &rng);
        let tokens = sample(true)?;
        for cache in [true, false] {
            let seconds = seconds_per_call(|| sample(cache).map(drop))?;
            let at = [Index::Batch(count), Index::Cache(cache)];
            readings.push(Reading::new("images_per_second", at, count as f64 / seconds));
        }
        let seconds = seconds_per_call(|| no_grad(|| model.decode(&tokens, None)).map(drop))?;
        readings.push(Reading::new("decode_images_per_second", [Index::Batch(count)], count as f64 / seconds));
    }
    Ok(readings)
}

/// The shortest of several calls.
fn seconds_per_call(mut call: impl FnMut() -> Result<()>) -> Result<f64> {
    let started = Instant::now();
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let round = Instant::now();
        call()?;
        // A GPU may still be at it.
        wait_for_device()?;
        best = best.min(round.elapsed().as_secs_f64());
        if started.elapsed().as_secs_f64() > SECONDS {
            break;
        }
    }
    Ok(best)
}
