//! The kernel distance between two sets of features.

use super::features::{BLOCK, inner_products};
use super::{Error, Features, Result};
use rayon::prelude::*;
use rqlab_tensor::Rng;

const MEASURE: &str = "kernel distance";

/// The kernel distance over subsets of the rows.
#[derive(Debug, Clone, PartialEq)]
pub struct KernelDistance {
    /// Mean over the subsets.
    pub mean: f64,
    /// Standard deviation over the subsets (divided by their number).
    pub std: f64,
    /// The distance of each subset.
    pub subsets: Vec<f64>,
}

/// The unbiased squared maximum mean discrepancy with the kernel `(x . y / F + 1)^3` between features `[N, F]` and
/// `[M, F]` (Binkowski et al., "Demystifying MMD GANs", 2018, section 4): 0 in expectation for two samples of one
/// distribution, so negative values occur. On Inception features this is KID; on any others it is not.
///
/// An error if the rows differ in size, or below two rows in either set.
pub fn kernel_distance(x: Features, y: Features) -> Result<f64> {
    x.check_same_dim(&y, MEASURE)?;
    x.check_rows(2, MEASURE)?;
    y.check_rows(2, MEASURE)?;
    Ok(discrepancy(&x.to_f64(), &y.to_f64(), x.dim()))
}

/// The kernel distance between rows `x_rows[s]` of `x` and rows `y_rows[s]` of `y`, for each subset s, as KID is
/// usually estimated (100 subsets of 1000 rows): what it costs does not grow with the sets. Draw the rows with
/// [`subset_indices`].
///
/// Errors as [`kernel_distance`], and if there are no subsets, as many for `x` as for `y`, or a row does not exist.
pub fn kernel_distance_subsets(
    x: Features,
    y: Features,
    x_rows: &[Vec<usize>],
    y_rows: &[Vec<usize>],
) -> Result<KernelDistance> {
    x.check_same_dim(&y, MEASURE)?;
    if x_rows.len() != y_rows.len() || x_rows.is_empty() {
        let detail = format!("{} subsets against {}, wanted as many and at least 1", x_rows.len(), y_rows.len());
        return Err(Error::shape(MEASURE, detail));
    }
    let subsets = x_rows
        .iter()
        .zip(y_rows)
        .map(|(x_rows, y_rows)| Ok(discrepancy(&select(x, x_rows)?, &select(y, y_rows)?, x.dim())))
        .collect::<Result<Vec<f64>>>()?;
    let mean = subsets.iter().sum::<f64>() / subsets.len() as f64;
    let square: f64 = subsets.iter().map(|value| (value - mean).powi(2)).sum();
    Ok(KernelDistance { mean, std: (square / subsets.len() as f64).sqrt(), subsets })
}

/// `subsets` times `size` of `0..rows`, each drawn without replacement. Use streams of different purposes for the two
/// sets. An error if there are fewer rows than `size`.
pub fn subset_indices(rows: usize, size: usize, subsets: usize, rng: &Rng) -> Result<Vec<Vec<usize>>> {
    if rows < size {
        return Err(Error::TooFew { measure: MEASURE, of: "rows for such subsets", found: rows, wanted: size });
    }
    let draw = |s: usize| {
        let mut order = rng.part("subset", s as u64).permutation(rows);
        order.truncate(size);
        order
    };
    Ok((0..subsets).map(draw).collect())
}

/// The maximum mean discrepancy of CMMD (Jayasumana et al., "Rethinking FID", 2024): rows scaled to length 1, the kernel
/// `exp(-|a - b|^2 / 200)`, the biased estimate (pairs of a row with itself included), times 1000. On CLIP's embeddings
/// this is CMMD; on any others it is not.
///
/// An error if the rows differ in size, or either set has none.
pub fn unit_discrepancy(x: Features, y: Features) -> Result<f64> {
    const MEASURE: &str = "maximum mean discrepancy";
    x.check_same_dim(&y, MEASURE)?;
    x.check_rows(1, MEASURE)?;
    y.check_rows(1, MEASURE)?;
    let dim = x.dim();
    let [x, y] = [x, y].map(|set| {
        let mut rows = set.to_f64();
        for row in rows.chunks_exact_mut(dim) {
            let length = row.iter().map(|value| value * value).sum::<f64>().sqrt();
            row.iter_mut().for_each(|value| *value /= length);
        }
        rows
    });
    if x.iter().chain(&y).any(|value| value.is_nan()) {
        return Err(Error::value(MEASURE, "a row of zeros has no direction"));
    }
    // Of unit vectors |a - b|^2 = 2 - 2 a.b.
    let mean = |a: &[f64], b: &[f64]| {
        let pairs = (a.len() / dim) as f64 * (b.len() / dim) as f64;
        sum_over_pairs(a, b, dim, &|product| ((product - 1.0) / 100.0).exp()) / pairs
    };
    Ok(1000.0 * (mean(&x, &x) + mean(&y, &y) - 2.0 * mean(&x, &y)))
}

fn select(features: Features, rows: &[usize]) -> Result<Vec<f64>> {
    if rows.len() < 2 {
        return Err(Error::TooFew { measure: MEASURE, of: "rows in a subset", found: rows.len(), wanted: 2 });
    }
    if let Some(row) = rows.iter().find(|&&row| row >= features.rows()) {
        return Err(Error::value(MEASURE, format!("row {row} of {} asked for", features.rows())));
    }
    let dim = features.dim();
    Ok(rows.iter().flat_map(|row| &features.values()[row * dim..][..dim]).map(|&value| f64::from(value)).collect())
}

fn discrepancy(x: &[f64], y: &[f64], dim: usize) -> f64 {
    let (m, n) = ((x.len() / dim) as f64, (y.len() / dim) as f64);
    within(x, dim) / (m * (m - 1.0)) + within(y, dim) / (n * (n - 1.0)) - 2.0 * between(x, y, dim) / (m * n)
}

fn cubic(product: f64, dim: usize) -> f64 {
    (product / dim as f64 + 1.0).powi(3)
}

/// The sum of the kernel over pairs of different rows of `x`. Every tile above the diagonal counts for its mirror too.
fn within(x: &[f64], dim: usize) -> f64 {
    let tile = BLOCK * dim;
    let sums: Vec<f64> = (0..x.len().div_ceil(tile))
        .into_par_iter()
        .map(|block| {
            let rows = &x[block * tile..x.len().min((block + 1) * tile)];
            let own = inner_products(rows, rows, dim);
            let diagonal: f64 = own.diagonal().iter().map(|&product| cubic(product, dim)).sum();
            let own: f64 = own.iter().map(|&product| cubic(product, dim)).sum();
            let rest = &x[block * tile + rows.len()..];
            own - diagonal + 2.0 * rest.chunks(tile).map(|other| tile_sum(rows, other, dim)).sum::<f64>()
        })
        .collect();
    sums.iter().sum()
}

/// The sum of the kernel over pairs of a row of `x` and a row of `y`.
fn between(x: &[f64], y: &[f64], dim: usize) -> f64 {
    sum_over_pairs(x, y, dim, &|product| cubic(product, dim))
}

/// The sum of `kernel(inner product)` over pairs of a row of `x` and a row of `y`.
fn sum_over_pairs(x: &[f64], y: &[f64], dim: usize, kernel: &(impl Fn(f64) -> f64 + Sync)) -> f64 {
    let tile = BLOCK * dim;
    let of_tiles = |rows: &[f64], others: &[f64]| -> f64 {
        inner_products(rows, others, dim).iter().map(|&product| kernel(product)).sum()
    };
    let sums: Vec<f64> =
        x.par_chunks(tile).map(|rows| y.chunks(tile).map(|others| of_tiles(rows, others)).sum()).collect();
    sums.iter().sum()
}

fn tile_sum(x: &[f64], y: &[f64], dim: usize) -> f64 {
    inner_products(x, y, dim).iter().map(|&product| cubic(product, dim)).sum()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn obvious(x: &[f32], y: &[f32], dim: usize) -> f64 {
        let kernel = |a: &[f32], b: &[f32]| {
            let product: f64 = a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
            (product / dim as f64 + 1.0).powi(3)
        };
        let mean = |a: &[f32], b: &[f32], same: bool| {
            let (mut sum, mut count) = (0.0, 0.0);
            for (i, a) in a.chunks(dim).enumerate() {
                for (j, b) in b.chunks(dim).enumerate() {
                    if !(same && i == j) {
                        sum += kernel(a, b);
                        count += 1.0;
                    }
                }
            }
            sum / count
        };
        mean(x, x, true) + mean(y, y, true) - 2.0 * mean(x, y, false)
    }

    #[test]
    fn tiles_equal_the_double_sum() {
        for (m, n, dim) in [(2, 3, 1), (7, 300, 9), (257, 256, 5), (600, 513, 16)] {
            let (x, y) = (Rng::new(5, "x", 0).normal(m * dim), Rng::new(5, "y", 0).uniform(n * dim));
            let found = kernel_distance(Features::new(&x, dim).unwrap(), Features::new(&y, dim).unwrap()).unwrap();
            let expected = obvious(&x, &y, dim);
            assert!((found - expected).abs() < 1e-10 * (1.0 + expected.abs()), "{m} {n} {dim}: {found} {expected}");
        }
    }

    #[test]
    fn two_points_against_two_points() {
        // One feature, x = {0, 0}, y = {1, 1}: k(0, 0) = 1, k(1, 1) = 8, k(0, 1) = 1.
        let x = Features::new(&[0.0, 0.0], 1).unwrap();
        let y = Features::new(&[1.0, 1.0], 1).unwrap();
        assert_eq!(kernel_distance(x, y).unwrap(), 1.0 + 8.0 - 2.0);
    }

    #[test]
    fn samples_of_one_distribution_are_at_distance_zero_on_average() {
        let (n, dim) = (2000, 4);
        let (x, y) = (Rng::new(6, "x", 0).normal(n * dim), Rng::new(6, "y", 0).normal(n * dim));
        let (x, y) = (Features::new(&x, dim).unwrap(), Features::new(&y, dim).unwrap());
        let [x_rows, y_rows] = ["x", "y"].map(|set| subset_indices(n, 100, 20, &Rng::new(7, set, 0)).unwrap());
        let same = kernel_distance_subsets(x, y, &x_rows, &y_rows).unwrap();
        assert!(same.mean.abs() < 3.0 * same.std / 20f64.sqrt(), "{same:?}");
        assert!(same.subsets.iter().any(|value| *value < 0.0));
    }

    #[test]
    fn subsets_are_drawn_without_replacement_and_their_spread_is_divided_by_their_number() {
        let drawn = subset_indices(10, 10, 3, &Rng::new(8, "x", 0)).unwrap();
        for subset in &drawn {
            let mut sorted = subset.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..10).collect::<Vec<_>>());
        }
        assert_ne!(drawn[0], drawn[1]);

        let x = Features::new(&[0.0, 0.0, 1.0, 1.0], 1).unwrap();
        let found = kernel_distance_subsets(x, x, &[vec![0, 1], vec![0, 1]], &[vec![0, 1], vec![2, 3]]).unwrap();
        assert_eq!(found, KernelDistance { mean: 3.5, std: 3.5, subsets: vec![0.0, 7.0] });
    }

    #[test]
    fn the_discrepancy_of_directions() {
        let pairs = |rows: &[f32]| {
            let y = Features::new(rows, 2).unwrap();
            unit_discrepancy(Features::new(&[3.0, 0.0], 2).unwrap(), y).unwrap()
        };
        assert_eq!(pairs(&[7.0, 0.0]), 0.0);
        // Orthogonal: |a - b|^2 = 2. Opposite: 4.
        assert!((pairs(&[0.0, 2.0]) - 2000.0 * (1.0 - (-0.01f64).exp())).abs() < 1e-9);
        assert!((pairs(&[-1.0, 0.0]) - 2000.0 * (1.0 - (-0.02f64).exp())).abs() < 1e-9);
        let (x, y) = (Features::new(&[1.0, 0.0], 2).unwrap(), Features::new(&[0.0, 0.0], 2).unwrap());
        assert!(unit_discrepancy(x, y).is_err());
    }

    #[test]
    fn wrong_inputs_are_errors() {
        let x = Features::new(&[1.0, 2.0, 3.0], 1).unwrap();
        assert!(kernel_distance(x, Features::new(&[1.0, 2.0], 2).unwrap()).is_err());
        assert!(kernel_distance(x, Features::new(&[1.0], 1).unwrap()).is_err());
        assert!(kernel_distance_subsets(x, x, &[], &[]).is_err());
        assert!(kernel_distance_subsets(x, x, &[vec![0, 1]], &[vec![0, 3]]).is_err());
        assert!(kernel_distance_subsets(x, x, &[vec![0, 1]], &[vec![0]]).is_err());
        assert!(subset_indices(3, 4, 1, &Rng::new(0, "x", 0)).is_err());
    }
}
