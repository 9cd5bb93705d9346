//! Gaussians fitted to features, and the Fréchet distance between them.

use super::{Error, Features, Result};
use nalgebra::{DMatrix, DMatrixViewMut, SymmetricEigen};
use rayon::prelude::*;
use rqlab_tensor::Rng;

const FRECHET: &str = "Fréchet distance";

/// Rows that are centred and added at once.
const CHUNK: usize = 1024;
/// Columns of the scatter matrix that one thread updates.
const PANEL: usize = 64;

/// Mean and scatter of features, accumulated over batches in f64 (Chan, Golub and LeVeque, "Updating formulae and a
/// pairwise algorithm for computing sample variances", 1979).
#[derive(Debug, Clone)]
pub struct Moments {
    count: usize,
    mean: Vec<f64>,
    /// Sum of the outer products of deviations from the mean, `[F, F]` by columns; only the lower triangle is kept.
    scatter: Vec<f64>,
}

impl Moments {
    /// No rows yet, of `dim` features.
    pub fn new(dim: usize) -> Self {
        Self { count: 0, mean: vec![0.0; dim], scatter: vec![0.0; dim * dim] }
    }

    /// The moments of one set of features.
    pub fn of(features: Features) -> Self {
        let mut moments = Self::new(features.dim());
        moments.add_rows(features);
        moments
    }

    /// Rows seen so far.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Features per row, F.
    pub fn dim(&self) -> usize {
        self.mean.len()
    }

    /// Adds a batch of features `[N, F]`. An error if its rows have another size.
    pub fn push(&mut self, features: Features) -> Result<()> {
        self.check_dim(features.dim())?;
        self.add_rows(features);
        Ok(())
    }

    /// Adds the rows that `other` has seen. An error if they have another size.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        self.check_dim(other.dim())?;
        self.scatter.iter_mut().zip(&other.scatter).for_each(|(sum, value)| *sum += value);
        self.shift(other.count, &other.mean);
        Ok(())
    }

    /// The Gaussian with the rows' mean and unbiased covariance (divided by N - 1). An error below two rows.
    pub fn gaussian(&self) -> Result<Gaussian> {
        if self.count < 2 {
            let (found, wanted) = (self.count, 2);
            return Err(Error::TooFew { measure: "covariance", of: "rows of features", found, wanted });
        }
        let dim = self.dim();
        let entry = |i: usize| self.scatter[(i / dim).min(i % dim) * dim + (i / dim).max(i % dim)];
        let covariance = (0..dim * dim).map(|i| entry(i) / (self.count - 1) as f64).collect();
        Ok(Gaussian { mean: self.mean.clone(), covariance })
    }

    fn check_dim(&self, dim: usize) -> Result<()> {
        if dim == self.dim() {
            return Ok(());
        }
        Err(Error::shape("moments", format!("rows of {dim} features added to rows of {}", self.dim())))
    }

    fn add_rows(&mut self, features: Features) {
        let dim = self.dim();
        for chunk in features.values().chunks(CHUNK * dim) {
            let rows = chunk.len() / dim;
            let mut mean = vec![0.0; dim];
            for row in chunk.chunks_exact(dim) {
                mean.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f64::from(value));
            }
            mean.iter_mut().for_each(|sum| *sum /= rows as f64);
            let centred = DMatrix::from_iterator(
                dim,
                rows,
                chunk.chunks_exact(dim).flat_map(|row| row.iter().zip(&mean).map(|(&x, mean)| f64::from(x) - mean)),
            );
            let transposed = centred.transpose();
            self.scatter.par_chunks_mut(PANEL * dim).enumerate().for_each(|(panel, out)| {
                let (first, width) = (panel * PANEL, out.len() / dim);
                DMatrixViewMut::from_slice(out, dim, width).rows_mut(first, dim - first).gemm(
                    1.0,
                    &centred.rows(first, dim - first),
                    &transposed.columns(first, width),
                    1.0,
                );
            });
            self.shift(rows, &mean);
        }
    }

    /// Moves the mean for `count` more rows around `mean`, whose own scatter has been added.
    fn shift(&mut self, count: usize, mean: &[f64]) {
        if count == 0 {
            return;
        }
        let (before, total) = (self.count as f64, (self.count + count) as f64);
        let delta: Vec<f64> = mean.iter().zip(&self.mean).map(|(new, old)| new - old).collect();
        let weight = before * count as f64 / total;
        for (column, d) in self.scatter.chunks_exact_mut(delta.len()).zip(&delta) {
            column.iter_mut().zip(&delta).for_each(|(sum, e)| *sum += weight * d * e);
        }
        self.mean.iter_mut().zip(&delta).for_each(|(mean, d)| *mean += d * count as f64 / total);
        self.count += count;
    }
}

/// A normal distribution over features.
#[derive(Debug, Clone, PartialEq)]
pub struct Gaussian {
    mean: Vec<f64>,
    covariance: Vec<f64>,
}

impl Gaussian {
    /// From a mean `[F]` and a covariance `[F, F]`. An error if the sizes do not fit, a value is not finite, or the
    /// covariance is not symmetric to a millionth of its largest entry.
    pub fn new(mean: Vec<f64>, covariance: Vec<f64>) -> Result<Self> {
        let dim = mean.len();
        if dim == 0 || covariance.len() != dim * dim {
            let detail = format!("a mean of {dim} and a covariance of {} values", covariance.len());
            return Err(Error::shape("Gaussian", detail));
        }
        if mean.iter().chain(&covariance).any(|value| !value.is_finite()) {
            return Err(Error::value("Gaussian", "mean and covariance must be finite"));
        }
        let largest = covariance.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
        if (0..dim * dim).any(|i| (covariance[i] - covariance[i % dim * dim + i / dim]).abs() > 1e-6 * largest) {
            return Err(Error::value("Gaussian", "the covariance is not symmetric"));
        }
        Ok(Self { mean, covariance })
    }

    /// The mean, `[F]`.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// The covariance, `[F, F]`.
    pub fn covariance(&self) -> &[f64] {
        &self.covariance
    }

    fn matrix(&self) -> DMatrix<f64> {
        DMatrix::from_row_slice(self.mean.len(), self.mean.len(), &self.covariance)
    }
}

/// The Fréchet (2-Wasserstein) distance between two Gaussians, squared as is the custom:
/// `|m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2)` (Dowson and Landau 1982; Heusel et al., "GANs trained by a two
/// time-scale update rule", 2017). On Inception features of 50 000 images this is FID; on any others it is not.
///
/// The last trace is the sum of the square roots of the eigenvalues of `S1^(1/2) S2 S1^(1/2)`, which is defined for
/// singular covariances (fewer rows than features) too; negative eigenvalues count as zero. An error if the two differ in size.
pub fn frechet_distance(a: &Gaussian, b: &Gaussian) -> Result<f64> {
    Origin::new(a)?.distance(b)
}

/// The Fréchet distance at growing numbers of generated images, and where it leads.
#[derive(Debug, Clone, PartialEq)]
pub struct Extrapolated {
    /// Numbers of generated rows.
    pub sizes: Vec<usize>,
    /// The distance to the real Gaussian with so many rows.
    pub values: Vec<f64>,
    /// The distance with infinitely many: where the least-squares line of the values over 1 / size meets zero.
    pub infinite: f64,
}

/// Fifteen numbers of rows up to `rows`, equally spaced from `min(5000, max(rows div 10, 2))` and cut to integers: those
/// that dgm-eval extrapolates from.
pub fn extrapolation_sizes(rows: usize) -> Vec<usize> {
    let first = 5000.min((rows / 10).max(2)) as f64;
    let step = (rows as f64 - first) / 14.0;
    (0..15).map(|i| if i == 14 { rows } else { (first + step * f64::from(i)) as usize }).collect()
}

/// Rows for [`frechet_extrapolated`], `rows` of which there are: a random choice of each of the sizes.
pub fn extrapolation_subsets(rows: usize, rng: &Rng) -> Vec<Vec<usize>> {
    let subset = |(i, size): (usize, usize)| {
        let mut order = rng.part("subset", i as u64).permutation(rows);
        order.truncate(size);
        order
    };
    extrapolation_sizes(rows).into_iter().enumerate().map(subset).collect()
}

/// The Fréchet distance extrapolated to infinitely many generated images (Chong and Forsyth, "Effectively unbiased FID
/// and inception score", 2020), from the rows `subsets[i]` of `generated`. The real Gaussian keeps its own bias.
///
/// An error if sizes do not fit, a row does not exist, a subset has fewer than two rows, or all have as many.
pub fn frechet_extrapolated(real: &Gaussian, generated: Features, subsets: &[Vec<usize>]) -> Result<Extrapolated> {
    let dim = generated.dim();
    let mut whole = subsets.iter().flatten();
    if let Some(row) = whole.find(|&&row| row >= generated.rows()) {
        return Err(Error::value(FRECHET, format!("row {row} of {} asked for", generated.rows())));
    }
    let (origin, mut values) = (Origin::new(real)?, Vec::with_capacity(subsets.len()));
    for rows in subsets {
        let chosen: Vec<f32> = rows.iter().flat_map(|row| &generated.values()[row * dim..][..dim]).copied().collect();
        values.push(origin.distance(&Moments::of(Features::new(&chosen, dim)?).gaussian()?)?);
    }
    let sizes: Vec<usize> = subsets.iter().map(Vec::len).collect();
    let inverse: Vec<f64> = sizes.iter().map(|&size| 1.0 / size as f64).collect();
    let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
    let (x, y) = (mean(&inverse), mean(&values));
    let spread: f64 = inverse.iter().map(|value| (value - x).powi(2)).sum();
    if sizes.windows(2).all(|pair| pair[0] == pair[1]) {
        return Err(Error::value(FRECHET, format!("no line through subsets of {sizes:?} rows")));
    }
    let slope = inverse.iter().zip(&values).map(|(a, b)| (a - x) * (b - y)).sum::<f64>() / spread;
    Ok(Extrapolated { sizes, values, infinite: y - slope * x })
}

/// A Gaussian that distances are taken from, with `A`, F x rank, such that its covariance is `A A^T`: what takes longest is done
/// once for all of them.
struct Origin<'a> {
    gaussian: &'a Gaussian,
    factor: DMatrix<f64>,
}

impl<'a> Origin<'a> {
    fn new(gaussian: &'a Gaussian) -> Result<Self> {
        Ok(Self { gaussian, factor: eigen_factor(&gaussian.matrix())? })
    }

    /// See [`frechet_distance`].
    fn distance(&self, other: &Gaussian) -> Result<f64> {
        let (own, dim) = (self.gaussian, self.gaussian.mean.len());
        if dim != other.mean.len() {
            return Err(Error::shape(FRECHET, format!("{dim} features against {}", other.mean.len())));
        }
        let square: f64 = own.mean.iter().zip(&other.mean).map(|(x, y)| (x - y).powi(2)).sum();
        let covariance = other.matrix();
        let cross = 2.0 * self.trace_of_product_root(&covariance);
        // Zero for equal Gaussians, which rounding may miss on either side.
        Ok((square + own.matrix().trace() + covariance.trace() - cross).max(0.0))
    }

    /// `tr (A A^T S)^(1/2)`: the non-zero eigenvalues of the product are those of `A^T S A`, which is as small as the rank of A.
    fn trace_of_product_root(&self, covariance: &DMatrix<f64>) -> f64 {
        if self.factor.ncols() == 0 {
            return 0.0;
        }
        let product = self.factor.transpose() * (covariance * &self.factor);
        product.symmetric_eigenvalues().iter().map(|value| value.max(0.0).sqrt()).sum()
    }
}

/// `A = V L^(1/2)`, F x rank, with `S = V L V^T`. Eigenvalues below the rounding error of the largest carry no
/// information, and their square roots would be far above it: they count as zero.
fn eigen_factor(s: &DMatrix<f64>) -> Result<DMatrix<f64>> {
    let size = s.nrows();
    // The usual bound of QR iterations per eigenvalue, as in LAPACK's dsteqr.
    let found = SymmetricEigen::try_new(s.clone(), f64::EPSILON, 30 * size);
    let SymmetricEigen { eigenvectors, eigenvalues } = found.ok_or(Error::NoConvergence { measure: FRECHET, size })?;
    let floor = size as f64 * f64::EPSILON * eigenvalues.max();
    let kept: Vec<usize> = (0..size).filter(|&i| eigenvalues[i] > floor.max(0.0)).collect();
    let mut factor = eigenvectors.select_columns(&kept);
    for (mut column, &i) in factor.column_iter_mut().zip(&kept) {
        column *= eigenvalues[i].sqrt();
    }
    Ok(factor)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn gaussian(mean: &[f64], covariance: &[f64]) -> Gaussian {
        Gaussian::new(mean.to_vec(), covariance.to_vec()).unwrap()
    }

    fn identity(dim: usize) -> Vec<f64> {
        DMatrix::<f64>::identity(dim, dim).as_slice().to_vec()
    }

    fn distance(a: &Gaussian, b: &Gaussian) -> f64 {
        frechet_distance(a, b).unwrap()
    }

    #[test]
    fn a_shift_costs_its_square() {
        let (a, b) = (gaussian(&[0.0; 3], &identity(3)), gaussian(&[1.0, -2.0, 0.5], &identity(3)));
        assert!((distance(&a, &b) - 5.25).abs() < 1e-12);
    }

    #[test]
    fn commuting_covariances_compare_by_standard_deviation() {
        let a = gaussian(&[0.0; 2], &[4.0, 0.0, 0.0, 9.0]);
        let b = gaussian(&[0.0; 2], &[1.0, 0.0, 0.0, 0.25]);
        assert!((distance(&a, &b) - (1.0 + 2.5 * 2.5)).abs() < 1e-12);
    }

    #[test]
    fn singular_covariances_have_a_distance() {
        // Two segments at an angle t: tr S1 + tr S2 - 2 |cos t|; a point: the trace of the other.
        let a = gaussian(&[0.0; 2], &[1.0, 0.0, 0.0, 0.0]);
        let (c, s) = (0.6, 0.8);
        let b = gaussian(&[0.0; 2], &[c * c, c * s, c * s, s * s]);
        assert!((distance(&a, &b) - (2.0 - 1.2)).abs() < 1e-7);
        assert!((distance(&a, &gaussian(&[0.0; 2], &[0.0; 4])) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn it_is_symmetric_and_zero_for_equals_even_with_fewer_rows_than_features() {
        for (rows, dim) in [(5, 6), (40, 7), (30, 90), (300, 70)] {
            let draw = |purpose| Rng::new(3, purpose, 0).normal(rows * dim);
            let [a, b] = [draw("a"), draw("b")]
                .map(|values| Moments::of(Features::new(&values, dim).unwrap()).gaussian().unwrap());
            let scale = distance(&a, &b);
            assert!(scale > 0.1);
            assert!((scale - distance(&b, &a)).abs() < 1e-5 * scale, "{rows} x {dim}");
            assert!(distance(&a, &a) < 1e-5 * scale, "{rows} x {dim}");
        }
    }

    #[test]
    fn moments_equal_the_two_pass_formula_however_they_are_batched() {
        for (rows, dim) in [(2101, 67), (1025, 1), (20, 4), (20, 6), (15, 64), (14, 130)] {
            let values: Vec<f32> = Rng::new(4, "x", 0).normal(rows * dim).iter().map(|x| 100.0 + x).collect();
            let column = |c: usize| values.iter().skip(c).step_by(dim).map(|&x| f64::from(x)).collect::<Vec<f64>>();
            let whole = Moments::of(Features::new(&values, dim).unwrap());
            let mut parts = Moments::new(dim);
            let (first, rest) = values.split_at(13 * dim);
            parts.push(Features::new(first, dim).unwrap()).unwrap();
            parts.push(Features::new(&[], dim).unwrap()).unwrap();
            parts.merge(&Moments::of(Features::new(rest, dim).unwrap())).unwrap();
            assert_eq!((whole.count(), parts.count()), (rows, rows));
            for moments in [whole.gaussian().unwrap(), parts.gaussian().unwrap()] {
                for (i, j) in [(0, 0), (3, 66), (66, 3), (65, 64), (12, 40), (129, 65)].map(|(i, j)| (i % dim, j % dim))
                {
                    let (x, y) = (column(i), column(j));
                    let (mx, my) = (x.iter().sum::<f64>() / rows as f64, y.iter().sum::<f64>() / rows as f64);
                    let sum: f64 = x.iter().zip(&y).map(|(x, y)| (x - mx) * (y - my)).sum();
                    assert!((moments.mean()[i] - mx).abs() < 1e-10);
                    assert!((moments.covariance()[i * dim + j] - sum / (rows - 1) as f64).abs() < 1e-10);
                }
            }
        }
    }

    #[test]
    fn wrong_inputs_are_errors() {
        let one = Moments::of(Features::new(&[1.0, 2.0], 2).unwrap());
        assert_eq!(one.gaussian().unwrap_err().to_string(), "covariance needs at least 2 rows of features, found 1");
        assert!(Moments::new(3).push(Features::new(&[1.0, 2.0], 2).unwrap()).is_err());
        assert!(Gaussian::new(vec![0.0; 2], vec![1.0, 0.5, 0.4, 1.0]).is_err());
        assert!(Gaussian::new(vec![0.0; 2], vec![f64::NAN; 4]).is_err());
        let (a, b) = (gaussian(&[0.0; 2], &identity(2)), gaussian(&[0.0; 3], &identity(3)));
        assert!(frechet_distance(&a, &b).is_err());
    }

    #[test]
    fn sizes_of_the_extrapolation() {
        let sizes = extrapolation_sizes(160);
        assert_eq!((sizes[0], sizes[1], sizes[13], sizes[14]), (16, 26, 149, 160));
        let sizes = extrapolation_sizes(50_000);
        assert_eq!((sizes[0], sizes[1], sizes[14]), (5000, 8214, 50_000));
        assert_eq!(extrapolation_sizes(3)[0], 2);
    }

    /// The bias of a distance between samples falls as 1 / n: what is extrapolated lies far below all of its values.
    #[test]
    fn extrapolation_takes_the_bias_of_small_samples_away() {
        let dim = 6;
        let (real, fake) = (Rng::new(3, "real", 0).normal(20_000 * dim), Rng::new(3, "fake", 0).normal(600 * dim));
        let real = Moments::of(Features::new(&real, dim).unwrap()).gaussian().unwrap();
        let subsets = extrapolation_subsets(600, &Rng::new(4, "rows", 0));
        let found = frechet_extrapolated(&real, Features::new(&fake, dim).unwrap(), &subsets).unwrap();
        // 0.41 with 60 rows, 0.026 with all, 0 in truth.
        assert!(found.values[0] > 0.2 && found.infinite.abs() < 0.04, "{found:?}");
        let fake = Features::new(&fake, dim).unwrap();
        assert!(frechet_extrapolated(&real, fake, &[vec![0, 1], vec![2, 3]]).is_err());
        assert!(frechet_extrapolated(&real, fake, &[vec![0, 1], vec![2, 600, 3]]).is_err());
        assert!(frechet_extrapolated(&real, fake, &[]).is_err());
    }
}
