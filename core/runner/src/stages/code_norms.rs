//! How far the farthest code lies from those that images use: an average that follows nothing can throw a code anywhere.

use rqlab_sdk::tensor::Tensor;

/// The largest norm of a codebook `[K, C]`, over the root mean square norm of its codes as often as they were used. `None`
/// where no code was used, or all that were are zero.
pub(super) fn largest_code_norm(table: &Tensor, hits: &[u64]) -> Option<f64> {
    let width = *table.shape().get(1)?;
    let squares =
        || table.as_slice().chunks(width.max(1)).map(|code| code.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>());
    let used: f64 = squares().zip(hits).map(|(square, &hits)| square * hits as f64).sum();
    let mean = used / hits.iter().sum::<u64>() as f64;
    (mean > 0.0).then(|| (squares().fold(0.0, f64::max) / mean).sqrt())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn codes_count_as_often_as_they_are_used() {
        let table = Tensor::from_vec(vec![3.0, 4.0, 0.0, 1.0, -300.0, 400.0], &[3, 2]).unwrap();
        // Norms 5, 1 and 500; used 1, 1 and 0 times: the mean square is 13.
        assert_eq!(largest_code_norm(&table, &[1, 1, 0]), Some((250_000.0_f64 / 13.0).sqrt()));
        assert_eq!(largest_code_norm(&table, &[0, 0, 0]), None);
        let zero = Tensor::from_vec(vec![0.0; 4], &[2, 2]).unwrap();
        assert_eq!(largest_code_norm(&zero, &[1, 0]), None);
    }
}
