//! Nearest codebook rows: fused distance and argmin, never an N x K matrix in memory.

use super::on_cpu;
use crate::cpu::{buffer, nearest as kernel};
use crate::{Codes, Error, Result, Tensor};

/// For every row of `vectors` `[.., C]` the index of the nearest row of `codebook` `[K, C]` by squared Euclidean
/// distance; of exact ties the lowest index. Gives codes `[..]`.
///
/// # Errors
/// [`Error::Shape`] if the sizes do not fit or the codebook is empty.
pub fn nearest(vectors: &Tensor, codebook: &Tensor) -> Result<Codes> {
    on_cpu("nearest", [vectors, codebook])?;
    let (outer, size, channels) = fit("nearest", vectors, codebook)?;
    let mut codes = vec![0; outer.iter().product()];
    kernel::nearest(size, channels, vectors.as_slice(), codebook.as_slice(), &mut codes);
    Codes::from_vec(codes, outer)
}

/// All squared distances `|x|² - 2 x·e + |e|²`: vectors `[.., C]` and codebook `[K, C]` give `[.., K]`. For soft codes;
/// no gradient flows. Rounding can leave a distance near zero slightly negative.
///
/// # Errors
/// [`Error::Shape`] if the sizes do not fit or the codebook is empty.
pub fn squared_distances(vectors: &Tensor, codebook: &Tensor) -> Result<Tensor> {
    on_cpu("squared_distances", [vectors, codebook])?;
    let (outer, size, channels) = fit("squared_distances", vectors, codebook)?;
    let shape: Vec<usize> = outer.iter().copied().chain([size]).collect();
    let mut data = buffer(shape.iter().product());
    kernel::squared_distances(size, channels, vectors.as_slice(), codebook.as_slice(), &mut data);
    Ok(Tensor::output(data, &shape, None))
}

/// Per code, how many vectors it got, and their sum: vectors `[.., C]` and codes `[..]` give `[K]` and `[K, C]`.
/// Sums run in the order of the vectors.
///
/// # Errors
/// [`Error::Shape`] if the sizes do not fit or a code is not below `codebook_size`.
pub fn code_sums(vectors: &Tensor, codes: &Codes, codebook_size: usize) -> Result<(Tensor, Tensor)> {
    on_cpu("code_sums", [vectors])?;
    let channels = vectors.last_dim();
    if vectors.shape().split_last().map(|(_, outer)| outer) != Some(codes.shape()) {
        return Err(Error::shape(
            "code_sums",
            format!("vectors {:?} and codes {:?} do not fit", vectors.shape(), codes.shape()),
        ));
    }
    if let Some(code) = codes.as_slice().iter().find(|&&code| code as usize >= codebook_size) {
        return Err(Error::shape("code_sums", format!("code {code} is outside a codebook of {codebook_size}")));
    }
    let (mut counts, mut sums) = (vec![0.0; codebook_size], vec![0.0; codebook_size * channels]);
    kernel::code_sums(channels, vectors.as_slice(), codes.as_slice(), &mut counts, &mut sums);
    Ok((Tensor::output(counts, &[codebook_size], None), Tensor::output(sums, &[codebook_size, channels], None)))
}

/// The vectors' outer shape, the codebook's size, and the channels of both.
fn fit<'a>(op: &'static str, vectors: &'a Tensor, codebook: &Tensor) -> Result<(&'a [usize], usize, usize)> {
    let [size, channels] = codebook.dims(op)?;
    match vectors.shape().split_last() {
        Some((&last, outer)) if last == channels && size > 0 => Ok((outer, size, channels)),
        _ => Err(Error::shape(
            op,
            format!("vectors {:?} and codebook {:?} do not fit", vectors.shape(), codebook.shape()),
        )),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first failure")]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, random};

    /// All squared distances by their definition, in f64.
    fn twin(vectors: &Tensor, codebook: &Tensor) -> Vec<Vec<f64>> {
        let c = codebook.last_dim();
        let distance =
            |x: &[f32], e: &[f32]| x.iter().zip(e).map(|(x, e)| (f64::from(*x) - f64::from(*e)).powi(2)).sum();
        let rows = vectors.as_slice().chunks(c);
        rows.map(|x| codebook.as_slice().chunks(c).map(|e| distance(x, e)).collect()).collect()
    }

    const SIZES: [[usize; 3]; 9] = [
        [1, 1, 1],
        [3, 2, 5],
        [17, 33, 3],
        [64, 100, 64],
        [13, 31, 65],
        [129, 257, 16],
        [30, 1000, 7],
        [5, 16, 256],
        [1000, 48, 2],
    ];

    #[test]
    fn nearest_finds_the_smallest_distance() {
        for [rows, size, channels] in SIZES {
            let (x, e) = (random(&[rows, channels], 1), random(&[size, channels], 2));
            let codes = nearest(&x, &e).unwrap();
            assert_eq!(codes.shape(), [rows]);
            for (code, distances) in codes.as_slice().iter().zip(twin(&x, &e)) {
                let least = distances.iter().copied().fold(f64::INFINITY, f64::min);
                assert!(distances[*code as usize] <= least + 1e-5 * (1.0 + least), "{rows} {size} {channels}");
            }
        }
    }

    /// Small integers are exact in f32, so equal distances are exactly equal.
    #[test]
    fn of_equal_distances_the_lowest_index_wins() {
        for [rows, size, channels] in SIZES {
            let whole = |n: usize, seed: u64| {
                let data = crate::Rng::new(seed, "ties", 0).below(n * channels, 3).into_iter().map(|x| x as f32 - 1.0);
                Tensor::from_vec(data.collect(), &[n, channels]).unwrap()
            };
            let (x, e) = (whole(rows, 1), whole(size, 2));
            for (code, distances) in nearest(&x, &e).unwrap().as_slice().iter().zip(twin(&x, &e)) {
                let least = distances.iter().copied().fold(f64::INFINITY, f64::min);
                assert_eq!(*code as usize, distances.iter().position(|&d| d == least).unwrap());
            }
        }
        // Copies of one row tie as well, whatever its numbers.
        let row = random(&[1, 19], 5);
        let copies = Tensor::from_vec(row.to_vec().repeat(77), &[77, 19]).unwrap();
        assert_eq!(nearest(&random(&[50, 19], 6), &copies).unwrap().as_slice(), [0; 50]);
    }

    #[test]
    fn squared_distances_agree_with_their_definition() {
        for [rows, size, channels] in SIZES {
            let (x, e) = (random(&[rows, channels], 1), random(&[size, channels], 2));
            let wanted: Vec<f32> = twin(&x, &e).concat().into_iter().map(|d| d as f32).collect();
            assert_close(squared_distances(&x, &e).unwrap().as_slice(), &wanted, 1e-5);
        }
    }

    #[test]
    fn code_sums_agree_with_their_definition() {
        for (rows, size, channels) in [(1, 1, 1), (100, 7, 5), (5000, 300, 33), (3, 1000, 2), (0, 4, 3)] {
            let x = random(&[rows, channels], 1);
            let codes = Codes::from_vec(crate::Rng::new(2, "codes", 0).below(rows, size), &[rows]).unwrap();
            let size = size as usize;
            let (counts, sums) = code_sums(&x, &codes, size).unwrap();
            let (mut n, mut total) = (vec![0.0f32; size], vec![0.0f64; size * channels]);
            for (x, &code) in x.as_slice().chunks(channels).zip(codes.as_slice()) {
                n[code as usize] += 1.0;
                for (c, x) in x.iter().enumerate() {
                    total[code as usize * channels + c] += f64::from(*x);
                }
            }
            assert_eq!(counts.as_slice(), n);
            let total: Vec<f32> = total.into_iter().map(|x| x as f32).collect();
            assert_close(sums.as_slice(), &total, 1e-5);
        }
    }

    #[test]
    fn misfits_are_errors() {
        let (x, codes) = (Tensor::zeros(&[2, 3]), Codes::from_vec(vec![0, 4], &[2]).unwrap());
        assert!(nearest(&x, &Tensor::zeros(&[5, 4])).is_err());
        assert!(nearest(&x, &Tensor::zeros(&[0, 3])).is_err());
        assert!(squared_distances(&Tensor::scalar(0.0), &x).is_err());
        assert!(code_sums(&x, &codes, 4).is_err() && code_sums(&x, &codes, 5).is_ok());
        assert!(code_sums(&Tensor::zeros(&[3, 3]), &codes, 5).is_err());
    }
}
