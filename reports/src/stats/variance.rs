//! Where spread comes from: training and sampling, seeds and images.

use super::Estimate;

/// The variance of values that were drawn in two stages, and its two parts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Components {
    /// Variance between groups: of training, where groups are trained models.
    pub(crate) between: f64,
    /// Variance within a group: of sampling, where its values are draws of one model.
    pub(crate) within: f64,
    /// Groups.
    pub(crate) groups: usize,
    /// Values of a group.
    pub(crate) each: usize,
}

/// The parts of the variance of groups of equal size, by the one-way analysis of variance with random effects; a negative estimate
/// of the part between groups is 0. `None` of fewer than two groups, of fewer than two values in them, or of unequal sizes.
pub(crate) fn nested(groups: &[Vec<f64>]) -> Option<Components> {
    let each = groups.first()?.len();
    if groups.len() < 2 || each < 2 || groups.iter().any(|group| group.len() != each) {
        return None;
    }
    let (a, b) = (groups.len() as f64, each as f64);
    let means: Vec<f64> = groups.iter().map(|group| group.iter().sum::<f64>() / b).collect();
    let grand = means.iter().sum::<f64>() / a;
    let between = b * means.iter().map(|mean| (mean - grand).powi(2)).sum::<f64>() / (a - 1.0);
    let of_group = |(group, mean): (&Vec<f64>, &f64)| group.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
    let within = groups.iter().zip(&means).map(of_group).sum::<f64>() / (a * (b - 1.0));
    (between + within).is_finite().then(|| Components {
        between: ((between - within) / b).max(0.0),
        within,
        groups: groups.len(),
        each,
    })
}

/// The mean of a table of seeds by images, `rows[seed][image]`, with an interval that holds for other seeds and other images: both
/// are random and crossed, so that the variance of the mean is `(MS_seeds + MS_images - MS_rest) / (S N)`, with Satterthwaite's
/// degrees of freedom; never less than that of the seeds alone. `None` of fewer than three seeds or two images, or of rows of
/// unequal length.
pub(crate) fn crossed(rows: &[&[f64]]) -> Option<Estimate> {
    let images = rows.first()?.len();
    if rows.len() < super::FEWEST || images < 2 || rows.iter().any(|row| row.len() != images) {
        return None;
    }
    let (s, n) = (rows.len() as f64, images as f64);
    let of_seed: Vec<f64> = rows.iter().map(|row| row.iter().sum::<f64>() / n).collect();
    let mean = of_seed.iter().sum::<f64>() / s;
    let mut of_image = vec![0.0; images];
    rows.iter().for_each(|row| of_image.iter_mut().zip(*row).for_each(|(sum, value)| *sum += value / s));
    let seeds = n * of_seed.iter().map(|seed| (seed - mean).powi(2)).sum::<f64>() / (s - 1.0);
    let pictures = s * of_image.iter().map(|image| (image - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let left = |(row, seed): (&&[f64], &f64)| -> f64 {
        row.iter().zip(&of_image).map(|(value, image)| (value - seed - image + mean).powi(2)).sum()
    };
    let rest = rows.iter().zip(&of_seed).map(left).sum::<f64>() / ((s - 1.0) * (n - 1.0));
    let sum = seeds + pictures - rest;
    if !sum.is_finite() {
        return None;
    }
    if sum <= seeds {
        return Some(Estimate::new(mean, (seeds / (s * n)).sqrt(), s - 1.0, rows.len()));
    }
    let freedom = sum.powi(2)
        / (seeds.powi(2) / (s - 1.0) + pictures.powi(2) / (n - 1.0) + rest.powi(2) / ((s - 1.0) * (n - 1.0)));
    Some(Estimate::new(mean, (sum / (s * n)).sqrt(), freedom, rows.len()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail loudly")]
mod tests {
    use super::*;
    use crate::stats;

    #[test]
    fn the_strength_of_cloth_from_four_looms_splits_as_published() {
        // Montgomery, Design and Analysis of Experiments, random effects: mean squares 29.73 and 1.90, components 6.96 and 1.90.
        let looms = [[98, 97, 99, 96], [91, 90, 93, 92], [96, 95, 97, 95], [95, 96, 99, 98]];
        let groups: Vec<Vec<f64>> = looms.iter().map(|loom| loom.iter().map(|&x| f64::from(x)).collect()).collect();
        let found = nested(&groups).unwrap();
        assert!((found.between - 6.96).abs() < 0.005 && (found.within - 1.896).abs() < 0.005, "{found:?}");
    }

    #[test]
    fn groups_that_differ_no_more_than_their_values_have_no_part_between() {
        let found = nested(&[vec![1.0, 3.0], vec![3.0, 1.0]]).unwrap();
        assert_eq!((found.between, found.within), (0.0, 2.0));
        assert_eq!(nested(&[vec![1.0, 2.0]]), None);
        assert_eq!(nested(&[vec![1.0], vec![2.0]]), None);
    }

    #[test]
    fn equal_images_leave_the_interval_of_the_seeds() {
        let rows: [&[f64]; 3] = [&[1.0, 1.0, 1.0], &[2.0, 2.0, 2.0], &[3.0, 3.0, 3.0]];
        let (found, seeds) = (crossed(&rows).unwrap(), stats::mean(&[1.0, 2.0, 3.0]).unwrap());
        assert!((found.mean - 2.0).abs() < 1e-12);
        assert!((found.interval.unwrap().0 - seeds.interval.unwrap().0).abs() < 1e-9);
    }

    #[test]
    fn equal_seeds_leave_the_interval_of_the_images() {
        let rows: [&[f64]; 3] = [&[1.0, 2.0, 3.0, 6.0]; 3];
        let (found, images) = (crossed(&rows).unwrap(), stats::mean(&[1.0, 2.0, 3.0, 6.0]).unwrap());
        let (found, images) = (found.interval.unwrap(), images.interval.unwrap());
        assert!((found.0 - images.0).abs() < 1e-9 && (found.1 - images.1).abs() < 1e-9, "{found:?} {images:?}");
    }

    #[test]
    fn an_additive_table_has_the_sum_of_both_variances() {
        // Seeds -1, 0, 1 and images -3, 0, 3: mean squares 3 and 27, no rest; variance (3 + 27) / 9.
        let rows: [&[f64]; 3] = [&[-4.0, -1.0, 2.0], &[-3.0, 0.0, 3.0], &[-2.0, 1.0, 4.0]];
        let (error, freedom) = crossed(&rows).unwrap().error.unwrap();
        assert!((error - (30.0_f64 / 9.0).sqrt()).abs() < 1e-12);
        assert!((freedom - 900.0 / (9.0 / 2.0 + 729.0 / 2.0)).abs() < 1e-9);
    }
}
