//! Features of images, and blocks of their inner products.

use super::{Error, Result};
use nalgebra::DMatrix;

/// Rows of one product tile: a tile of inner products stays in the cache, and no larger matrix of pairs is ever held.
pub(super) const BLOCK: usize = 256;

/// Finite features `[N, F]`, a row per image.
#[derive(Debug, Clone, Copy)]
pub struct Features<'a> {
    values: &'a [f32],
    dim: usize,
}

impl<'a> Features<'a> {
    /// Views `values` as rows of `dim` features. An error if they do not divide into rows, or if one is not finite.
    pub fn new(values: &'a [f32], dim: usize) -> Result<Self> {
        if dim == 0 || !values.len().is_multiple_of(dim) {
            return Err(Error::shape("features", format!("{} values are not rows of {dim} features", values.len())));
        }
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            let (row, column) = (at / dim, at % dim);
            return Err(Error::value("features", format!("row {row}, column {column} is {}", values[at])));
        }
        Ok(Self { values, dim })
    }

    /// Number of rows N.
    pub fn rows(&self) -> usize {
        self.values.len() / self.dim
    }

    /// Features per row, F.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The values `[N, F]`.
    pub fn values(&self) -> &'a [f32] {
        self.values
    }

    pub(super) fn to_f64(self) -> Vec<f64> {
        self.values.iter().map(|&value| f64::from(value)).collect()
    }

    pub(super) fn check_same_dim(&self, other: &Self, measure: &'static str) -> Result<()> {
        if self.dim == other.dim {
            return Ok(());
        }
        Err(Error::shape(measure, format!("rows of {} features against rows of {}", self.dim, other.dim)))
    }

    pub(super) fn check_rows(&self, wanted: usize, measure: &'static str) -> Result<()> {
        if self.rows() >= wanted {
            return Ok(());
        }
        Err(Error::TooFew { measure, of: "rows of features", found: self.rows(), wanted })
    }
}

/// The inner products of rows of `x` `[M, dim]` and of `y` `[N, dim]`, both row-major: an M x N matrix.
pub(super) fn inner_products(x: &[f64], y: &[f64], dim: usize) -> DMatrix<f64> {
    // Copies, not row-major views: nalgebra 0.33 reads and writes out of bounds when it multiplies narrow ones.
    DMatrix::from_row_slice(x.len() / dim, dim, x) * DMatrix::from_column_slice(dim, y.len() / dim, y)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn ragged_or_infinite_features_are_errors() {
        assert!(Features::new(&[1.0; 5], 2).is_err());
        assert!(Features::new(&[], 0).is_err());
        assert_eq!(Features::new(&[1.0; 6], 2).unwrap().rows(), 3);
        let error = Features::new(&[1.0, 2.0, 3.0, f32::NAN], 2).unwrap_err();
        assert_eq!(error.to_string(), "features: row 1, column 1 is NaN");
    }

    #[test]
    fn inner_products_of_rows() {
        let products = inner_products(&[1.0, 2.0, 3.0, 4.0], &[5.0, 6.0, 7.0, 8.0, 0.0, 1.0], 2);
        assert_eq!(products, DMatrix::from_row_slice(2, 3, &[17.0, 23.0, 2.0, 39.0, 53.0, 4.0]));
    }
}
