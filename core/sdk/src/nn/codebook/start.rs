//! How codebooks start.

use super::restart::{RestartDraw, restart_candidates};
use crate::Result;
use crate::nn::l2_normalize;
use crate::params::{Init, Params};
use crate::tensor::ops::averages::{replace_rare, update_averages, write_means};
use crate::tensor::ops::nearest::nearest;
use crate::tensor::ranks::Step;
use crate::tensor::{Rng, Tensor, Var};
use std::sync::OnceLock;

crate::choice! {
    /// How a codebook of K codes with C channels starts.
    pub enum CodebookInit {
        /// N(0, 1): RQ-VAE, VQ-VAE-2.
        Normal = "normal",
        /// U(±1/K): VQ-VAE, VQGAN.
        Uniform = "uniform",
        /// U(±sqrt(6 / (K C))): vector-quantize-pytorch.
        Kaiming = "kaiming",
        /// The means that k-means finds in the first batch of training (vector-quantize-pytorch's `kmeans_init`);
        /// `kaiming` until then.
        KMeans = "kmeans",
    }
}

impl CodebookInit {
    /// The distribution of the first values.
    pub fn of(self, size: usize, channels: usize) -> Init {
        match self {
            Self::Normal => Init::Normal(1.0),
            Self::Uniform => Init::Uniform(1.0 / size.max(1) as f32),
            Self::Kaiming | Self::KMeans => Init::Uniform((6.0 / (size * channels).max(1) as f32).sqrt()),
        }
    }
}

/// Whether a codebook waits for its first batch. The answer lies in the buffer `initted`, so that a resumed run does not
/// start its codebook anew.
#[derive(Debug, Clone)]
pub struct FirstBatch {
    seen: Var,
    /// Set once the buffer is known to say so: it is not read again, which a GPU would be waited for.
    known: OnceLock<()>,
}

impl FirstBatch {
    /// One for a codebook that starts from data; none for others.
    ///
    /// # Errors
    /// A name that is taken.
    pub fn new(params: &Params, init: CodebookInit) -> Result<Option<Self>> {
        let waits = init == CodebookInit::KMeans;
        let buffer = |()| Ok(Self { seen: params.buffer("initted", &[1], Init::ZEROS)?, known: OnceLock::new() });
        waits.then_some(()).map(buffer).transpose()
    }

    /// Whether this is the first batch: true once in a codebook's life.
    ///
    /// # Errors
    /// A device that fails.
    pub fn is_now(&self) -> Result<bool> {
        if self.known.get().is_some() {
            return Ok(false);
        }
        let first = self.seen.get().reshape(&[])?.item()? == 0.0;
        self.seen.set(&Tensor::full(1.0, &[1]).to_device(self.seen.get().device())?)?;
        self.known.get_or_init(|| ());
        Ok(first)
    }
}

/// The means that k-means finds, and how many vectors each has.
#[derive(Debug, Clone)]
pub struct Clusters {
    /// The means `[K, C]`.
    pub means: Tensor,
    /// How many vectors each is the mean of `[K]`; one half of a mean that has none.
    pub counts: Tensor,
}

/// Counts are whole: below this, there is none.
const NONE: f32 = 0.5;

/// `iterations` of Lloyd's algorithm on vectors `[.., C]`, of all ranks in a training step, from `size` of them as
/// [`restart_candidates`] draws them. A mean that gets no vector stays. `spherical` means have length 1.
///
/// # Errors
/// No vectors.
pub fn k_means(vectors: &Tensor, size: usize, iterations: usize, spherical: bool, rng: &Rng) -> Result<Clusters> {
    let channels = vectors.last_dim();
    let rows = vectors.len() / channels.max(1);
    let vectors = Step::current().gather(&vectors.reshape(&[rows, channels])?)?;
    let rows = vectors.shape()[0];
    let draw = RestartDraw::new(rows, channels, size, rng);
    let means = Var::buffer(&restart_candidates(&vectors, size, &draw)?);
    let zeros =
        |shape: &[usize]| Ok::<_, crate::Error>(Var::buffer(&Tensor::zeros(shape).to_device(vectors.device())?));
    let (counts, sums) = (zeros(&[size])?, zeros(&[size, channels])?);
    for _ in 0..iterations {
        let codes = nearest(&vectors, &means.get())?;
        // Without memory, the averages are the counts and sums of these vectors.
        update_averages(&vectors, &codes, 0.0, &counts, &sums)?;
        replace_rare(&means.get(), NONE, &counts, &sums)?;
        write_means(&sums.get(), &counts.get(), 0.0, &means)?;
        if spherical {
            means.set(&l2_normalize(&means.get())?)?;
        }
    }
    Ok(Clusters { means: means.get(), counts: counts.get() })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::nn::testing::random;

    /// Lloyd's algorithm by its definition, from the same start.
    fn twin(x: &[f32], channels: usize, means: &mut [f32], iterations: usize) -> Vec<f32> {
        let size = means.len() / channels;
        let mut counts = vec![0.0; size];
        for _ in 0..iterations {
            counts.fill(0.0);
            let mut sums = vec![0.0f64; means.len()];
            for x in x.chunks(channels) {
                let distance = |k: usize| {
                    let mean = &means[k * channels..(k + 1) * channels];
                    x.iter().zip(mean).map(|(x, m)| f64::from(x - m).powi(2)).sum::<f64>()
                };
                let own = (0..size).min_by(|&a, &b| distance(a).total_cmp(&distance(b))).unwrap();
                counts[own] += 1.0;
                sums[own * channels..].iter_mut().zip(x).for_each(|(sum, &x)| *sum += f64::from(x));
            }
            for k in (0..size).filter(|&k| counts[k] > 0.0) {
                for c in k * channels..(k + 1) * channels {
                    means[c] = (sums[c] / f64::from(counts[k])) as f32;
                }
            }
        }
        counts
    }

    #[test]
    fn k_means_is_lloyds_algorithm() {
        let (x, rng) = (random(&[10, 20, 3], 1), Rng::new(2, "kmeans", 0));
        let draw = RestartDraw::new(200, 3, 9, &rng);
        let mut means = restart_candidates(&x, 9, &draw).unwrap().to_vec();
        let counts = twin(x.as_slice(), 3, &mut means, 10);
        let got = k_means(&x, 9, 10, false, &rng).unwrap();
        assert_eq!(got.counts.to_vec(), counts);
        assert!(got.means.as_slice().iter().zip(&means).all(|(a, b)| (a - b).abs() < 1e-5));
    }

    #[test]
    fn means_without_vectors_stay_where_they_are() {
        let x = Tensor::from_vec(vec![1.0, 1.0, 1.0, 5.0], &[4, 1]).unwrap();
        let clusters = k_means(&x, 3, 4, false, &Rng::new(1, "kmeans", 0)).unwrap();
        assert!(clusters.counts.as_slice().contains(&0.5));
        assert!(clusters.means.as_slice().iter().all(|mean| [1.0, 5.0].contains(mean)));
    }

    #[test]
    fn spherical_means_have_length_one() {
        let x = l2_normalize(&random(&[50, 4], 3)).unwrap();
        let means = k_means(&x, 5, 3, true, &Rng::new(1, "kmeans", 0)).unwrap().means;
        for mean in means.as_slice().chunks(4) {
            assert!((mean.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-5);
        }
    }

    #[test]
    fn the_first_batch_comes_once_also_after_a_resume() {
        let params = Params::new(0);
        let first = FirstBatch::new(&params, CodebookInit::KMeans).unwrap().unwrap();
        assert!(first.is_now().unwrap() && !first.is_now().unwrap());
        let resumed = Params::new(0);
        let again = FirstBatch::new(&resumed, CodebookInit::KMeans).unwrap().unwrap();
        resumed.load(&params.state()).unwrap();
        assert!(!again.is_now().unwrap());
        assert!(FirstBatch::new(&Params::new(0), CodebookInit::Normal).unwrap().is_none());
    }
}
