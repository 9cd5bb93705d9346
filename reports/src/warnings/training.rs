//! A tokenizer that was not trained, diverged, or is no better than one picture for all images.

use super::{Found, Harm, Warning, each};
use crate::format;
use crate::results::{Curve, Example, Trial};
use crate::study::Study;

/// The part of a curve whose mean is its beginning, and its end.
const PART: f64 = 0.1;

pub(super) fn warnings(study: &Study<'_>) -> Vec<Warning> {
    each(study, judge)
}

fn judge(trial: &Trial) -> Option<Found> {
    if trial.sizes.steps == Some(0) {
        return Some(found(f64::INFINITY, "the tokenizer was not trained (0 steps)".to_owned()));
    }
    // The whole loss may rise while a tokenizer learns: what the quantizer adds begins when its turn comes, a critic's later.
    let curve = |measure: &&str| {
        let is_it = |curve: &&Curve| curve.stage == "tokenizer" && curve.measure == *measure && curve.at.is_empty();
        trial.curves.iter().find(is_it)
    };
    worse_than_the_mean_image(&trial.examples)
        .or_else(|| ["mse", "l1", "loss"].iter().find_map(curve).and_then(did_not_fall))
}

fn found(degree: f64, text: String) -> Found {
    Found { degree, harm: Harm::Grave, text }
}

fn did_not_fall(curve: &Curve) -> Option<Found> {
    let part = ((curve.values.len() as f64 * PART) as usize).max(1);
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    if curve.values.len() < 2 * part {
        return None;
    }
    let (first, last) = (mean(&curve.values[..part]), mean(&curve.values[curve.values.len() - part..]));
    // A loss that is not a number has not fallen either.
    (last < first).then_some(()).is_none().then(|| {
        let text = format!(
            "the tokenizer's {} did not fall: {} at first, {} at the end",
            curve.measure,
            format::number(first),
            format::number(last)
        );
        found(last - first, text)
    })
}

/// The pictures' reconstructions against the mean of the others: what a tokenizer gives that sees nothing.
fn worse_than_the_mean_image(examples: &[Example]) -> Option<Found> {
    let pairs: Vec<(&[u8], &[u8])> = examples
        .iter()
        .filter_map(|example| Some((example.original.rgb.as_slice(), example.reconstructions.last()?.rgb.as_slice())))
        .collect();
    let length = pairs.first()?.0.len();
    if pairs.len() < 2 || length == 0 || pairs.iter().any(|(a, b)| a.len() != length || b.len() != length) {
        return None;
    }
    let others = pairs.len() as f64 - 1.0;
    let (mut reconstructed, mut mean_image) = (0.0, 0.0);
    for place in 0..length {
        let sum: f64 = pairs.iter().map(|(original, _)| f64::from(original[place])).sum();
        for (original, reconstruction) in &pairs {
            let own = f64::from(original[place]);
            reconstructed += (own - f64::from(reconstruction[place])).powi(2);
            mean_image += (own - (sum - own) / others).powi(2);
        }
    }
    let psnr = |squares: f64| 10.0 * (255.0 * 255.0 * (pairs.len() * length) as f64 / squares).log10();
    (mean_image > 0.0 && reconstructed >= mean_image).then(|| {
        let text = format!(
            "the pictures are reconstructed at {:.1} dB, no better than the mean of the other pictures ({:.1} dB): the tokenizer \
             shows nothing of an image",
            psnr(reconstructed),
            psnr(mean_image)
        );
        found(reconstructed / mean_image, text)
    })
}
