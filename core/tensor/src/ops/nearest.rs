//! Nearest codebook rows: fused distance and argmin, never an N x K matrix in memory.

use super::{common_device, on_cpu};
use crate::cpu::buffer;
use crate::cpu::nearest as kernel;
use crate::{Codes, Error, Result, Tensor};
use std::fmt;

/// A codebook `[K, C]` prepared for searches: what depends on the codebook alone is computed once.
pub struct Search {
    pub(super) codebook: Tensor,
    prepared: Prepared,
}

enum Prepared {
    Host(kernel::Search),
    #[cfg(feature = "cuda")]
    Gpu(crate::cuda::nearest::Search),
}

impl Search {
    /// Prepares `codebook` `[K, C]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if it is no matrix or empty.
    pub fn new(codebook: &Tensor) -> Result<Self> {
        let [size, channels] = codebook.dims("nearest")?;
        if size == 0 {
            return Err(Error::shape("nearest", format!("the codebook {:?} is empty", codebook.shape())));
        }
        #[cfg(feature = "cuda")]
        if let Some(search) = crate::cuda::nearest::Search::new(codebook, size, channels)? {
            return Ok(Self { codebook: codebook.detach(), prepared: Prepared::Gpu(search) });
        }
        on_cpu("nearest", [codebook])?;
        let prepared = Prepared::Host(kernel::Search::new(size, channels, codebook.as_slice()));
        Ok(Self { codebook: codebook.detach(), prepared })
    }

    /// What kernels of the CPU search with, if the codebook is there.
    pub(super) fn on_cpu(&self) -> Option<(&kernel::Search, &[f32])> {
        match &self.prepared {
            Prepared::Host(prepared) => Some((prepared, self.codebook.as_slice())),
            #[cfg(feature = "cuda")]
            Prepared::Gpu(_) => None,
        }
    }

    /// What kernels of a GPU search with, if the codebook is there.
    #[cfg(feature = "cuda")]
    pub(super) fn on_gpu(&self) -> Option<&crate::cuda::nearest::Search> {
        match &self.prepared {
            Prepared::Host(_) => None,
            Prepared::Gpu(search) => Some(search),
        }
    }

    /// As the function [`nearest`].
    ///
    /// # Errors
    /// [`Error::Shape`] if the sizes do not fit.
    pub fn nearest(&self, vectors: &Tensor) -> Result<Codes> {
        common_device("nearest", [vectors, &self.codebook])?;
        let (outer, ..) = fit("nearest", vectors, &self.codebook)?;
        #[cfg(feature = "cuda")]
        if let Some(search) = self.on_gpu() {
            return_from_gpu!(crate::cuda::nearest::residual_codes(vectors, &[search], outer));
        }
        on_cpu("nearest", [vectors])?;
        let mut codes = vec![0; outer.iter().product()];
        if let Some((prepared, codebook)) = self.on_cpu() {
            kernel::nearest(prepared, codebook, vectors.as_slice(), &mut codes);
        }
        Codes::from_vec(codes, outer)
    }
}

impl fmt::Debug for Search {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Search({:?})", self.codebook.shape())
    }
}

/// For every row of `vectors` `[.., C]` the index of the nearest row of `codebook` `[K, C]` by squared Euclidean
/// distance; of exact ties the lowest index. Gives codes `[..]`.
///
/// # Errors
/// [`Error::Shape`] if the sizes do not fit or the codebook is empty.
pub fn nearest(vectors: &Tensor, codebook: &Tensor) -> Result<Codes> {
    common_device("nearest", [vectors, codebook])?;
    fit("nearest", vectors, codebook)?;
    Search::new(codebook)?.nearest(vectors)
}

/// All squared distances `|x|² - 2 x·e + |e|²`: vectors `[.., C]` and codebook `[K, C]` give `[.., K]`. For soft codes;
/// no gradient flows. Rounding can leave a distance near zero slightly negative.
///
/// # Errors
/// [`Error::Shape`] if the sizes do not fit or the codebook is empty.
pub fn squared_distances(vectors: &Tensor, codebook: &Tensor) -> Result<Tensor> {
    let (outer, size, channels) = fit("squared_distances", vectors, codebook)?;
    let shape: Vec<usize> = outer.iter().copied().chain([size]).collect();
    return_from_gpu!(crate::cuda::nearest::squared_distances(vectors, codebook, &shape));
    on_cpu("squared_distances", [vectors, codebook])?;
    let (x, e) = (vectors.as_slice(), codebook.as_slice());
    let data = buffer(shape.iter().product(), |out| kernel::squared_distances(size, channels, x, e, out));
    Ok(Tensor::output(data, &shape, None))
}

/// The vectors' outer shape, the codebook's size, and the channels of both.
pub(super) fn fit<'a>(op: &'static str, vectors: &'a Tensor, codebook: &Tensor) -> Result<(&'a [usize], usize, usize)> {
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
    use crate::ops::testing::{assert_close, on_every_device, random};

    /// All squared distances by their definition, in f64.
    fn twin(vectors: &Tensor, codebook: &Tensor) -> Vec<Vec<f64>> {
        let c = codebook.last_dim();
        let distance =
            |x: &[f32], e: &[f32]| x.iter().zip(e).map(|(x, e)| (f64::from(*x) - f64::from(*e)).powi(2)).sum();
        let rows = vectors.as_slice().chunks(c);
        rows.map(|x| codebook.as_slice().chunks(c).map(|e| distance(x, e)).collect()).collect()
    }

    const SIZES: [[usize; 3]; 10] = [
        [1, 1, 1],
        [3, 2, 5],
        [17, 33, 3],
        [64, 100, 64],
        [13, 31, 65],
        [129, 257, 16],
        [30, 1000, 7],
        [40, 130, 12],
        [5, 16, 256],
        [1000, 48, 2],
    ];

    #[test]
    fn nearest_finds_the_smallest_distance() {
        on_every_device(|| {
            for [rows, size, channels] in SIZES {
                let (x, e) = (random(&[rows, channels], 1), random(&[size, channels], 2));
                let codes = nearest(&x, &e).unwrap();
                assert_eq!(codes.shape(), [rows]);
                for (code, distances) in codes.as_slice().iter().zip(twin(&x, &e)) {
                    let least = distances.iter().copied().fold(f64::INFINITY, f64::min);
                    assert!(distances[*code as usize] <= least + 1e-5 * (1.0 + least), "{rows} {size} {channels}");
                }
            }
        });
    }

    /// Small integers are exact in f32, so equal distances are exactly equal.
    #[test]
    fn of_equal_distances_the_lowest_index_wins() {
        on_every_device(|| {
            for [rows, size, channels] in SIZES {
                let whole = |n: usize, seed: u64| {
                    let data =
                        crate::Rng::new(seed, "ties", 0).below(n * channels, 3).into_iter().map(|x| x as f32 - 1.0);
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
        });
    }

    #[test]
    fn squared_distances_agree_with_their_definition() {
        on_every_device(|| {
            for [rows, size, channels] in SIZES {
                let (x, e) = (random(&[rows, channels], 1), random(&[size, channels], 2));
                let wanted: Vec<f32> = twin(&x, &e).concat().into_iter().map(|d| d as f32).collect();
                assert_close(squared_distances(&x, &e).unwrap().as_slice(), &wanted, 1e-5);
            }
        });
    }

    #[test]
    fn misfits_are_errors() {
        on_every_device(|| {
            let x = Tensor::zeros(&[2, 3]);
            assert!(nearest(&x, &Tensor::zeros(&[5, 4])).is_err());
            assert!(nearest(&x, &Tensor::zeros(&[0, 3])).is_err());
            assert!(squared_distances(&Tensor::scalar(0.0), &x).is_err());
            assert!(Search::new(&Tensor::zeros(&[0, 3])).is_err() && Search::new(&Tensor::scalar(0.0)).is_err());
        });
    }
}
