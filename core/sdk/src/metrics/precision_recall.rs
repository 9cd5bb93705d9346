//! Precision and recall of generated images by nearest-neighbour manifolds.

use super::features::{BLOCK, inner_products};
use super::{Error, Features, Result};
use rayon::prelude::*;

const MEASURE: &str = "precision and recall";

/// How much of what is generated is realistic, and how much of what is real is generated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PrecisionRecall {
    /// Share of generated points on the manifold of the real ones.
    pub precision: f64,
    /// Share of real points on the manifold of the generated ones.
    pub recall: f64,
}

/// Improved precision and recall between features `[N, F]` of real and `[M, F]` of generated images, with the
/// manifold of a set being the balls around its points that reach to their `k`-th neighbour (Kynkäänniemi et al.,
/// "Improved precision and recall metric for assessing generative models", 2019; there k = 3). Both grow with the
/// sizes of the sets: compare at equal sizes only.
///
/// An error if the rows differ in size, or unless both sets have more than `k` rows and `k` is at least 1.
pub fn precision_recall(real: Features, generated: Features, k: usize) -> Result<PrecisionRecall> {
    real.check_same_dim(&generated, MEASURE)?;
    let (real_radii, generated_radii) = (knn_radii(real, k)?, knn_radii(generated, k)?);
    let share = |inside: Vec<bool>| inside.iter().filter(|inside| **inside).count() as f64 / inside.len() as f64;
    Ok(PrecisionRecall {
        precision: share(manifold_membership(generated, real, &real_radii)?),
        recall: share(manifold_membership(real, generated, &generated_radii)?),
    })
}

/// The Euclidean distance of each row to its `k`-th nearest other row: `[N]`. An error unless `1 <= k < N`.
pub fn knn_radii(features: Features, k: usize) -> Result<Vec<f64>> {
    if k == 0 {
        return Err(Error::value(MEASURE, "k is 0, wanted at least 1"));
    }
    features.check_rows(k + 1, MEASURE)?;
    let points = Points::new(features);
    let radii = points.par_blocks(|first, count| {
        let mut nearest = vec![Vec::with_capacity(k + 1); count];
        points.for_tiles(&points, first, count, |i, j, approximate, slack| {
            let nearest: &mut Vec<f64> = &mut nearest[i - first];
            if i == j || (nearest.len() == k && approximate - slack >= nearest[k - 1]) {
                return;
            }
            let distance = points.squared_distance(i, &points, j);
            nearest.insert(nearest.partition_point(|other| *other <= distance), distance);
            nearest.truncate(k);
        });
        nearest.iter().map(|nearest| nearest[k - 1].sqrt()).collect()
    });
    Ok(radii)
}

/// Whether each row of `features` `[M, F]` lies within the radius of some row of `support` `[N, F]`, borders included:
/// `[M]`. `radii` `[N]` comes from [`knn_radii`]. An error if sizes do not fit.
pub fn manifold_membership(features: Features, support: Features, radii: &[f64]) -> Result<Vec<bool>> {
    features.check_same_dim(&support, MEASURE)?;
    if radii.len() != support.rows() {
        return Err(Error::shape(MEASURE, format!("{} radii for {} rows", radii.len(), support.rows())));
    }
    let (points, support) = (Points::new(features), Points::new(support));
    let inside = points.par_blocks(|first, count| {
        let mut inside = vec![false; count];
        points.for_tiles(&support, first, count, |i, j, approximate, slack| {
            let square = radii[j] * radii[j];
            if inside[i - first] || approximate > square + slack {
                return;
            }
            inside[i - first] =
                approximate < square - slack || points.squared_distance(i, &support, j).sqrt() <= radii[j];
        });
        inside
    });
    Ok(inside)
}

/// Points whose distances are found tile by tile from inner products, and recomputed exactly (as a sum of squared
/// differences) only where the rounding of `|x|^2 + |y|^2 - 2 x.y` could decide: equal points are at distance 0.
struct Points {
    values: Vec<f64>,
    dim: usize,
    squared_norms: Vec<f64>,
}

impl Points {
    fn new(features: Features) -> Self {
        let (values, dim) = (features.to_f64(), features.dim());
        let squared_norms = values.chunks_exact(dim).map(|row| row.iter().map(|x| x * x).sum()).collect();
        Self { values, dim, squared_norms }
    }

    /// Calls `work(first row, rows)` for each block of rows, in parallel, and joins what it returns.
    fn par_blocks<T: Send>(&self, work: impl Fn(usize, usize) -> Vec<T> + Sync) -> Vec<T> {
        let rows = self.squared_norms.len();
        let starts: Vec<usize> = (0..rows).step_by(BLOCK).collect();
        let parts: Vec<Vec<T>> = starts.into_par_iter().map(|first| work(first, BLOCK.min(rows - first))).collect();
        parts.into_iter().flatten().collect()
    }

    /// Calls `visit(i, j, squared distance, bound of its rounding error)` for `count` rows i from `first`, and every
    /// row j of `other`.
    fn for_tiles(&self, other: &Self, first: usize, count: usize, mut visit: impl FnMut(usize, usize, f64, f64)) {
        let dim = self.dim;
        // Each of the three sums errs by at most (dim + 1) eps times the sum of its absolute terms.
        let unit = 4.0 * (dim + 4) as f64 * f64::EPSILON;
        let rows = &self.values[first * dim..(first + count) * dim];
        for (tile, others) in other.values.chunks(BLOCK * dim).enumerate() {
            let products = inner_products(rows, others, dim);
            for (column, products) in products.column_iter().enumerate() {
                let j = tile * BLOCK + column;
                for (row, product) in products.iter().enumerate() {
                    let norms = self.squared_norms[first + row] + other.squared_norms[j];
                    visit(first + row, j, norms - 2.0 * product, unit * norms);
                }
            }
        }
    }

    fn squared_distance(&self, i: usize, other: &Self, j: usize) -> f64 {
        let (x, y) = (&self.values[i * self.dim..][..self.dim], &other.values[j * self.dim..][..self.dim]);
        x.iter().zip(y).map(|(x, y)| (x - y).powi(2)).sum()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use rqlab_tensor::Rng;

    fn distance(x: &[f32], y: &[f32]) -> f64 {
        x.iter().zip(y).map(|(&x, &y)| (f64::from(x) - f64::from(y)).powi(2)).sum::<f64>().sqrt()
    }

    #[test]
    fn points_on_a_line() {
        // Neighbours at 1, 2, 4: the nearest other point of 0 is 1 away, of 3 is 2 away, of 7 is 4 away.
        let real = Features::new(&[0.0, 1.0, 3.0, 7.0], 1).unwrap();
        assert_eq!(knn_radii(real, 1).unwrap(), [1.0, 1.0, 2.0, 4.0]);
        assert_eq!(knn_radii(real, 3).unwrap(), [7.0, 6.0, 4.0, 7.0]);
        // -1 lies on the border of 0's ball, 11 on that of 7's, 11.5 and -1.5 outside.
        let generated = Features::new(&[-1.0, -1.5, 11.0, 11.5], 1).unwrap();
        assert_eq!(manifold_membership(generated, real, &[1.0, 1.0, 2.0, 4.0]).unwrap(), [true, false, true, false]);
        let found = precision_recall(real, generated, 1).unwrap();
        // The generated radii are 0.5: only no real point is within 0.5 of a generated one.
        assert_eq!(found, PrecisionRecall { precision: 0.5, recall: 0.0 });
    }

    #[test]
    fn a_set_covers_itself_and_nothing_far_away() {
        let x = Rng::new(9, "x", 0).normal(300 * 6);
        let far: Vec<f32> = x.iter().map(|x| x + 100.0).collect();
        let (x, far) = (Features::new(&x, 6).unwrap(), Features::new(&far, 6).unwrap());
        assert_eq!(precision_recall(x, x, 3).unwrap(), PrecisionRecall { precision: 1.0, recall: 1.0 });
        assert_eq!(precision_recall(x, far, 3).unwrap(), PrecisionRecall { precision: 0.0, recall: 0.0 });
    }

    #[test]
    fn repeated_points_have_radius_zero_and_contain_their_copies() {
        let point = [0.1f32, 1000.3, -7.7];
        let real = point.repeat(9);
        let real = Features::new(&real, 3).unwrap();
        let radii = knn_radii(real, 3).unwrap();
        assert_eq!(radii, [0.0; 9]);
        let moved = [point, [0.1, 1000.3, -7.700001]].concat();
        let moved = Features::new(&moved, 3).unwrap();
        assert_eq!(manifold_membership(moved, real, &radii).unwrap(), [true, false]);
    }

    #[test]
    fn tiles_equal_all_pairs() {
        for (n, m, dim, k) in [(4, 2, 1, 1), (60, 50, 5, 3), (300, 257, 17, 5), (520, 31, 3, 30)] {
            let (real, fake) = (Rng::new(10, "r", 0).normal(n * dim), Rng::new(10, "f", 0).normal(m * dim));
            let radii: Vec<f64> = (0..n)
                .map(|i| {
                    let row = |i: usize| &real[i * dim..][..dim];
                    let mut all: Vec<f64> = (0..n).filter(|&j| j != i).map(|j| distance(row(i), row(j))).collect();
                    all.sort_by(f64::total_cmp);
                    all[k - 1]
                })
                .collect();
            let within: Vec<bool> = fake
                .chunks(dim)
                .map(|x| real.chunks(dim).zip(&radii).any(|(y, radius)| distance(x, y) <= *radius))
                .collect();
            let (real, fake) = (Features::new(&real, dim).unwrap(), Features::new(&fake, dim).unwrap());
            assert_eq!(knn_radii(real, k).unwrap(), radii);
            assert_eq!(manifold_membership(fake, real, &radii).unwrap(), within);
        }
    }

    #[test]
    fn wrong_inputs_are_errors() {
        let x = Features::new(&[1.0, 2.0, 3.0], 1).unwrap();
        assert!(knn_radii(x, 0).is_err());
        assert_eq!(
            knn_radii(x, 3).unwrap_err().to_string(),
            "precision and recall needs at least 4 rows of features, found 3"
        );
        assert!(manifold_membership(x, x, &[1.0]).is_err());
        assert!(precision_recall(x, Features::new(&[1.0, 2.0], 2).unwrap(), 1).is_err());
    }
}
