//! Distances between the features of real and of generated images, as the lab and the protocols take them alike.

use rqlab_sdk::Result;
use rqlab_sdk::metrics::{
    Features, Gaussian, extrapolation_subsets, frechet_extrapolated, kernel_distance, kernel_distance_subsets,
    subset_indices,
};
use rqlab_sdk::tensor::Rng;

/// Values of measures by their plain names.
pub(super) type Values = Vec<(&'static str, f64)>;

/// Subsets of a kernel distance, and the rows of each; fewer where there are fewer images.
const SUBSETS: usize = 100;
const SUBSET: usize = 1000;

/// The kernel distance as the mean over 100 subsets of 1000 rows, or of as many as the smaller set has.
///
/// # Errors
/// Features of unequal width; fewer than two rows.
pub(super) fn kernel(real: Features<'_>, generated: Features<'_>) -> Result<f64> {
    let size = SUBSET.min(real.rows()).min(generated.rows());
    if real.rows() == size && generated.rows() == size {
        // Every subset is all there is.
        return Ok(kernel_distance(real, generated)?);
    }
    let rows = |set, all| subset_indices(all, size, SUBSETS, &Rng::new(0, set, 0));
    let (of_real, of_generated) = (rows("real", real.rows())?, rows("decoded", generated.rows())?);
    Ok(kernel_distance_subsets(real, generated, &of_real, &of_generated)?.mean)
}

/// The Fréchet distance from a real Gaussian that infinitely many generated images would have.
///
/// # Errors
/// Features of another width; fewer than three rows.
pub(super) fn frechet_infinite(real: &Gaussian, generated: Features<'_>) -> Result<f64> {
    let subsets = extrapolation_subsets(generated.rows(), &Rng::new(0, "extrapolation", 0));
    Ok(frechet_extrapolated(real, generated, &subsets)?.infinite)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_distance_of_few_images_is_that_of_all() {
        let (x, y) = (Rng::new(1, "x", 0).normal(40 * 3), Rng::new(1, "y", 0).normal(50 * 3));
        let [x, all, some] = [&x[..], &y[..], &y[..120]].map(|values| Features::new(values, 3).unwrap());
        assert_eq!(kernel(x, some).unwrap(), kernel_distance(x, some).unwrap());
        // A mean over subsets of 40 of the 50 rows is about that of all 50.
        let (of_subsets, of_all) = (kernel(x, all).unwrap(), kernel_distance(x, all).unwrap());
        assert!(of_subsets != of_all && (of_subsets - of_all).abs() < 0.05, "{of_subsets} {of_all}");
    }
}
