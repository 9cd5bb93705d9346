//! Comparisons, effects and interactions with known answers.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod caveats;
mod comparisons;
mod effects;

use super::*;
use crate::results::{Results, Status};
use std::collections::BTreeMap;

/// t(0.975) of Student's distribution with 1, 2 and 4 degrees of freedom, from printed tables.
const T: [f64; 3] = [12.7062, 4.3027, 2.7764];

/// A finished trial of depth, codebook size and seed, with readings of plain measures.
fn trial(depth: i64, codebook: i64, seed: u64, readings: &[(&str, f64)]) -> Trial {
    Trial {
        id: format!("{depth}-{codebook}-{seed}"),
        axes: BTreeMap::from([("q.depth".to_owned(), depth.into()), ("q.codebook".to_owned(), codebook.into())]),
        seed: Some(seed),
        status: Status::Done,
        readings: readings.iter().map(|(measure, value)| crate::Reading::new(*measure, [], *value)).collect(),
        ..Trial::default()
    }
}

/// Depths 1 and 4, codebooks 64 and 256.
fn results(trials: Vec<Trial>) -> Results {
    let axis = |path: &str, values: [i64; 2]| Axis {
        path: path.to_owned(),
        label: String::new(),
        values: values.map(Value::from).into(),
    };
    Results { axes: vec![axis("q.depth", [1, 4]), axis("q.codebook", [64, 256])], trials, ..Results::default() }
}

/// From depth 1 to 4; of a codebook size, or averaged over them.
fn deeper(metric: &str, codebook: Option<i64>) -> Comparison {
    Comparison {
        metric: Some(Quantity::plain(metric)),
        axis: "q.depth".to_owned(),
        from: 1_i64.into(),
        to: 4_i64.into(),
        fixed: codebook.map(|size| ("q.codebook".to_owned(), size.into())).into_iter().collect(),
    }
}

/// Trials whose only reading is the PSNR.
fn psnrs(values: &[(i64, i64, u64, f64)]) -> Results {
    results(
        values.iter().map(|&(depth, codebook, seed, psnr)| trial(depth, codebook, seed, &[("psnr", psnr)])).collect(),
    )
}

fn judge(results: &Results, comparison: &Comparison) -> Verdict {
    compare(&Study::new(results), comparison)
}

fn near(found: f64, wanted: f64) {
    assert!((found - wanted).abs() < 1e-3 * wanted.abs().max(1.0), "{found} is not {wanted}");
}

fn interval_is(estimate: &Estimate, mean: f64, half: f64) {
    let (low, high) = estimate.interval.unwrap();
    near(estimate.mean, mean);
    near((high + low) / 2.0, mean);
    near((high - low) / 2.0, half);
}
