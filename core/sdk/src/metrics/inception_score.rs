//! The inception score of class probabilities.

use super::{Error, Result};

const MEASURE: &str = "inception score";

/// A sum of probabilities may miss 1 by as much: room for a softmax in half precision.
const SUM_TOLERANCE: f64 = 1e-2;

/// The inception score over splits of the images.
#[derive(Debug, Clone, PartialEq)]
pub struct InceptionScore {
    /// Mean over the splits: from 1 (classes are never told apart) to the number of classes.
    pub mean: f64,
    /// Standard deviation over the splits (divided by their number - 1); none for one split.
    pub std: Option<f64>,
    /// The score of each split.
    pub splits: Vec<f64>,
}

/// `exp(mean_i KL(p_i || mean p))` for each of `splits` runs of rows, from class probabilities `[N, classes]`
/// (Salimans et al., "Improved techniques for training GANs", 2016). Split j holds the rows from `floor(j N / splits)`
/// to before `floor((j + 1) N / splits)`: shuffle rows that are sorted by class. It is named after the network whose
/// probabilities were published; another classifier's scores compare only among themselves.
///
/// An error if there is no split or fewer rows than splits, if values do not divide into rows, or if a row is not a
/// distribution.
pub fn inception_score(probabilities: &[f32], classes: usize, splits: usize) -> Result<InceptionScore> {
    if classes == 0 || !probabilities.len().is_multiple_of(classes) {
        return Err(Error::shape(MEASURE, format!("{} values are not rows of {classes} classes", probabilities.len())));
    }
    let rows = probabilities.len() / classes;
    if splits == 0 {
        return Err(Error::value(MEASURE, "0 splits, wanted at least 1"));
    }
    if rows < splits {
        return Err(Error::TooFew { measure: MEASURE, of: "rows for that many splits", found: rows, wanted: splits });
    }
    for (i, row) in probabilities.chunks_exact(classes).enumerate() {
        let sum: f64 = row.iter().map(|&p| f64::from(p)).sum();
        // A NaN fails both comparisons.
        if !((sum - 1.0).abs() <= SUM_TOLERANCE && row.iter().all(|&p| p >= 0.0)) {
            return Err(Error::value(MEASURE, format!("row {i} is not a distribution (its sum is {sum})")));
        }
    }

    let scores: Vec<f64> = (0..splits)
        .map(|j| score(&probabilities[j * rows / splits * classes..(j + 1) * rows / splits * classes], classes))
        .collect();
    let mean = scores.iter().sum::<f64>() / splits as f64;
    let square: f64 = scores.iter().map(|score| (score - mean).powi(2)).sum();
    let std = (splits > 1).then(|| (square / (splits - 1) as f64).sqrt());
    Ok(InceptionScore { mean, std, splits: scores })
}

fn score(probabilities: &[f32], classes: usize) -> f64 {
    let rows = (probabilities.len() / classes) as f64;
    let mut marginal = vec![0.0; classes];
    for row in probabilities.chunks_exact(classes) {
        marginal.iter_mut().zip(row).for_each(|(sum, &p)| *sum += f64::from(p) / rows);
    }
    let divergence: f64 = probabilities
        .chunks_exact(classes)
        .flat_map(|row| row.iter().zip(&marginal))
        // p ln p tends to 0 with p.
        .filter(|(p, _)| **p > 0.0)
        .map(|(&p, marginal)| f64::from(p) * (f64::from(p).ln() - marginal.ln()))
        .sum();
    (divergence / rows).exp()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn certain_and_balanced_predictions_score_the_number_of_classes() {
        let rows: Vec<f32> = (0..20).flat_map(|i| (0..5).map(move |k| if k == i % 5 { 1.0 } else { 0.0 })).collect();
        let score = inception_score(&rows, 5, 4).unwrap();
        assert!((score.mean - 5.0).abs() < 1e-12 && score.std.unwrap() < 1e-12);
        assert_eq!(score.splits.len(), 4);
    }

    #[test]
    fn predictions_that_never_differ_score_one() {
        let score = inception_score(&[0.7, 0.2, 0.1].repeat(8), 3, 1).unwrap();
        assert!((score.mean - 1.0).abs() < 1e-12);
        assert_eq!(score.std, None);
    }

    #[test]
    fn splits_are_runs_of_rows_and_the_deviation_is_unbiased() {
        // Rows 0..2 (floor(5/2) = 2) never differ: score 1. Rows 2..5 hold classes 0, 1, 1.
        let rows = [1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0];
        let score = inception_score(&rows, 2, 2).unwrap();
        let second = (-(1.0f64 / 3.0).ln() / 3.0 - 2.0 / 3.0 * (2.0f64 / 3.0).ln()).exp();
        assert!((score.splits[0] - 1.0).abs() < 1e-12 && (score.splits[1] - second).abs() < 1e-12);
        assert!((score.std.unwrap() - (second - 1.0) / 2f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn wrong_inputs_are_errors() {
        assert!(inception_score(&[0.5; 5], 2, 1).is_err());
        assert!(inception_score(&[0.5; 4], 2, 0).is_err());
        assert!(inception_score(&[0.5; 4], 2, 3).is_err());
        assert!(inception_score(&[0.5, 0.6], 2, 1).is_err());
        assert!(inception_score(&[1.5, -0.5], 2, 1).is_err());
        assert!(inception_score(&[f32::NAN, 0.5], 2, 1).is_err());
    }
}
