//! Precision, recall, density and coverage of generated images by nearest neighbours.

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

/// Whether a point at exactly the radius of a ball belongs to it. It decides where images repeat: their balls have
/// radius 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ball {
    /// It does: `<=`, as ADM's evaluation has it.
    Closed,
    /// It does not: `<`, as prdc and dgm-eval have it.
    Open,
}

impl Ball {
    fn holds(self, distance: f64, radius: f64) -> bool {
        match self {
            Self::Closed => distance <= radius,
            Self::Open => distance < radius,
        }
    }
}

/// Precision and recall, and what does not hang on single outliers: density and coverage.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prdc {
    /// Share of generated points in a ball around some real one.
    pub precision: f64,
    /// Share of real points in a ball around some generated one.
    pub recall: f64,
    /// Mean over generated points of the number of real points in whose ball they lie, divided by k: 1 in expectation for
    /// two samples of one distribution, and unbounded above.
    pub density: f64,
    /// Share of real points that have a generated one in their ball.
    pub coverage: f64,
}

/// Precision and recall as [`precision_recall`] takes them, with density and coverage (Naeem et al., "Reliable fidelity
/// and diversity metrics for generative models", 2020; there k = 5). Balls reach to the `k`-th neighbour within the own
/// set, whose sizes may differ.
///
/// Errors as [`precision_recall`].
pub fn prdc(real: Features, generated: Features, k: usize, ball: Ball) -> Result<Prdc> {
    real.check_same_dim(&generated, MEASURE)?;
    let (real_radii, generated_radii) = (knn_radii(real, k)?, knn_radii(generated, k)?);
    let counts = balls_around(generated, real, &real_radii, ball)?;
    let (n, m) = (real.rows() as f64, generated.rows() as f64);
    let recalled = membership(real, generated, &generated_radii, ball)?;
    let nearest = nearest_neighbours(real, generated)?;
    let covered = nearest.iter().zip(&real_radii).filter(|(nearest, radius)| ball.holds(nearest.distance, **radius));
    Ok(Prdc {
        precision: counts.iter().filter(|count| **count > 0).count() as f64 / m,
        recall: recalled.iter().filter(|inside| **inside).count() as f64 / n,
        density: counts.iter().sum::<usize>() as f64 / (k as f64 * m),
        coverage: covered.count() as f64 / n,
    })
}

/// The row of a set that lies nearest to a point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Nearest {
    /// The row; of equally near ones the first.
    pub row: usize,
    /// Its Euclidean distance.
    pub distance: f64,
}

/// The row of `others` `[N, F]` that is nearest to each row of `features` `[M, F]`: `[M]`. An error if the rows differ in
/// size or `others` has none.
pub fn nearest_neighbours(features: Features, others: Features) -> Result<Vec<Nearest>> {
    const MEASURE: &str = "nearest neighbours";
    features.check_same_dim(&others, MEASURE)?;
    others.check_rows(1, MEASURE)?;
    let (points, others) = (Points::new(features), Points::new(others));
    Ok(points.par_blocks(|first, count| {
        let mut nearest = vec![(f64::INFINITY, 0); count];
        points.for_tiles(&others, first, count, |i, j, approximate, slack| {
            let (least, row) = &mut nearest[i - first];
            if approximate - slack < *least {
                let exact = points.squared_distance(i, &others, j);
                if exact < *least {
                    (*least, *row) = (exact, j);
                }
            }
        });
        nearest.into_iter().map(|(square, row)| Nearest { row, distance: square.sqrt() }).collect()
    }))
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
    membership(features, support, radii, Ball::Closed)
}

fn membership(features: Features, support: Features, radii: &[f64], ball: Ball) -> Result<Vec<bool>> {
    Ok(ball_hits(features, support, radii, ball, 1)?.into_iter().map(|hits| hits > 0).collect())
}

/// In how many of the balls around `support`'s rows each row of `features` lies: `[M]`.
fn balls_around(features: Features, support: Features, radii: &[f64], ball: Ball) -> Result<Vec<usize>> {
    ball_hits(features, support, radii, ball, usize::MAX)
}

/// As [`balls_around`], counted up to `enough`.
fn ball_hits(features: Features, support: Features, radii: &[f64], ball: Ball, enough: usize) -> Result<Vec<usize>> {
    features.check_same_dim(&support, MEASURE)?;
    if radii.len() != support.rows() {
        return Err(Error::shape(MEASURE, format!("{} radii for {} rows", radii.len(), support.rows())));
    }
    let (points, support) = (Points::new(features), Points::new(support));
    let hits = points.par_blocks(|first, count| {
        let mut hits = vec![0; count];
        points.for_tiles(&support, first, count, |i, j, approximate, slack| {
            let square = radii[j] * radii[j];
            let hits: &mut usize = &mut hits[i - first];
            if *hits == enough || approximate > square + slack {
                return;
            }
            let sure = approximate < square - slack;
            let inside = sure || ball.holds(points.squared_distance(i, &support, j).sqrt(), radii[j]);
            *hits += usize::from(inside);
        });
        hits
    });
    Ok(hits)
}

/// Points whose distances are found tile by tile from inner products, and recomputed exactly (as a sum of squared
/// differences) only where the rounding of `|x|^2 + |y|^2 - 2 x.y` could decide: equal points are at distance 0.
/// Only a tile of them is ever held in f64.
struct Points<'a> {
    values: &'a [f32],
    dim: usize,
    squared_norms: Vec<f64>,
}

impl<'a> Points<'a> {
    fn new(features: Features<'a>) -> Self {
        let (values, dim) = (features.values(), features.dim());
        let square = |row: &[f32]| row.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        Self { values, dim, squared_norms: values.chunks_exact(dim).map(square).collect() }
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
        let wide = |values: &[f32]| values.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
        let rows = wide(&self.values[first * dim..(first + count) * dim]);
        for (tile, others) in other.values.chunks(BLOCK * dim).enumerate() {
            let products = inner_products(&rows, &wide(others), dim);
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
        x.iter().zip(y).map(|(&x, &y)| (f64::from(x) - f64::from(y)).powi(2)).sum()
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
    fn density_and_coverage_of_points_on_a_line() {
        // Real balls with k = 1: [-1, 1], [0, 2], [1, 5], [3, 11].
        let real = Features::new(&[0.0, 1.0, 3.0, 7.0], 1).unwrap();
        let generated = Features::new(&[1.0, 4.0, 4.5], 1).unwrap();
        // 1 lies on three borders and at one centre: strictly in one ball, else in three. 4 and 4.5 lie in two.
        let found = |ball| prdc(real, generated, 1, ball).unwrap();
        let open = found(Ball::Open);
        assert_eq!((open.precision, open.density), (1.0, (1 + 2 + 2) as f64 / 3.0));
        let closed = found(Ball::Closed);
        assert_eq!((closed.precision, closed.density), (1.0, (3 + 2 + 2) as f64 / 3.0));
        // Nearest generated points: 1, 0, 1 and 2.5 away; radii 1, 1, 2, 4.
        assert_eq!((open.coverage, closed.coverage), (0.75, 1.0));
        // Generated radii: 3, 0.5, 0.5, around 1, 4 and 4.5: 0, 1 and 3 are within 3 of 1.
        assert_eq!((open.recall, closed.recall), (0.75, 0.75));
    }

    #[test]
    fn sets_of_unequal_sizes_equal_all_pairs() {
        for (n, m, dim, k) in [(60, 37, 5, 3), (300, 530, 7, 5)] {
            let (real, fake) = (Rng::new(11, "r", 0).normal(n * dim), Rng::new(11, "f", 0).normal(m * dim));
            let rows = |x: &[f32]| x.chunks(dim).map(<[f32]>::to_vec).collect::<Vec<_>>();
            let (r, f) = (rows(&real), rows(&fake));
            let nearest: Vec<f64> =
                r.iter().map(|x| f.iter().map(|y| distance(x, y)).fold(f64::INFINITY, f64::min)).collect();
            let (real, fake) = (Features::new(&real, dim).unwrap(), Features::new(&fake, dim).unwrap());
            let radii = knn_radii(real, k).unwrap();
            let hits = f.iter().map(|y| r.iter().zip(&radii).filter(|(x, radius)| distance(x, y) < **radius).count());
            let found = prdc(real, fake, k, Ball::Open).unwrap();
            assert_eq!(found.density, hits.sum::<usize>() as f64 / (k * m) as f64);
            let covered = nearest.iter().zip(&radii).filter(|(d, radius)| d < radius).count();
            assert_eq!(found.coverage, covered as f64 / n as f64);
            let found = nearest_neighbours(real, fake).unwrap();
            assert_eq!(found.iter().map(|found| found.distance).collect::<Vec<_>>(), nearest);
            assert!(found.iter().zip(&r).all(|(found, x)| distance(x, &f[found.row]) == found.distance));
            let published = precision_recall(real, fake, k).unwrap();
            let closed = prdc(real, fake, k, Ball::Closed).unwrap();
            assert_eq!((closed.precision, closed.recall), (published.precision, published.recall));
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
