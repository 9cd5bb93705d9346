//! A codebook that follows the vectors it encodes by exponential moving averages (van den Oord et al., "Neural discrete
//! representation learning", NeurIPS 2017, appendix A.1), with restarts of unused codes as in RQ-VAE (Lee et al.,
//! "Autoregressive image generation using residual quantization", CVPR 2022).

use crate::params::{Init, Params};
use crate::tensor::ops::averages::{count_rare, replace_rare, update_averages, write_means};
use crate::tensor::ops::nearest::{Search, nearest};
use crate::tensor::{Codes, Device, Rng, Tensor, Var};
use crate::{Error, Result};

crate::choice! {
    /// How a codebook of K codes with C channels starts.
    pub enum CodebookInit {
        /// N(0, 1): RQ-VAE, VQ-VAE-2.
        Normal = "normal",
        /// U(±1/K): VQ-VAE, VQGAN.
        Uniform = "uniform",
        /// U(±sqrt(6 / (K C))): vector-quantize-pytorch.
        Kaiming = "kaiming",
    }
}

impl CodebookInit {
    /// The distribution of the first values.
    pub fn of(self, size: usize, channels: usize) -> Init {
        match self {
            Self::Normal => Init::Normal(1.0),
            Self::Uniform => Init::Uniform(1.0 / size.max(1) as f32),
            Self::Kaiming => Init::Uniform((6.0 / (size * channels).max(1) as f32).sqrt()),
        }
    }
}

/// How an [`EmaCodebook`] moves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EmaRule {
    /// The averages keep this share of themselves at each update.
    pub decay: f64,
    /// Laplace smoothing of the counts.
    pub eps: f64,
    /// The average count that every code starts with. RQ-VAE starts at 0, vector-quantize-pytorch at 1.
    pub initial_count: f32,
    /// A code whose average count is below this is dead.
    pub dead_below: f32,
    /// Whether dead codes are restarted.
    pub restart: bool,
}

impl EmaRule {
    /// The count that codes start with if none is `asked` for. A code that gets no vector is `m / (N + eps)`, where sum m and
    /// count N decay alike: with N = 0 from the start and m = e, its own value, it is thrown to e / eps at the first update.
    /// Restarts forestall that, as the published RQ-VAE does; without them sum and count start alike, as in
    /// vector-quantize-pytorch.
    pub fn initial_count(asked: Option<f32>, restart: bool) -> f32 {
        asked.unwrap_or(if restart { 0.0 } else { 1.0 })
    }
}

impl Default for EmaRule {
    /// The published RQ-VAE.
    fn default() -> Self {
        Self { decay: 0.99, eps: 1e-5, initial_count: 0.0, dead_below: 1.0, restart: true }
    }
}

/// The random numbers of one restart.
#[derive(Debug, Clone, PartialEq)]
pub struct RestartDraw {
    /// An order of the rows of the pool: the vectors, repeated until there are as many as codes.
    pub order: Vec<usize>,
    /// Uniform in [0, 1), one for each element of the pool; read only if vectors are repeated.
    pub noise: Vec<f32>,
}

impl RestartDraw {
    /// Draws for `rows` vectors of `channels` and a codebook of `size`.
    pub fn new(rows: usize, channels: usize, size: usize, rng: &Rng) -> Self {
        let pool = pool_rows(rows, size);
        let noise = if pool > rows { rng.part("noise", 0).uniform(pool * channels) } else { Vec::new() };
        Self { order: rng.part("order", 0).permutation(pool), noise }
    }
}

/// Rows of the pool that restarts draw from: `rows`, or the least multiple of it that reaches `size`.
fn pool_rows(rows: usize, size: usize) -> usize {
    if rows == 0 { 0 } else { rows * size.div_ceil(rows).max(1) }
}

/// A candidate `[K, C]` for each of `size` codes, from vectors `[.., C]` in random order without repetition. If there are
/// fewer vectors than codes, all are repeated in order until there are enough, each element moved by
/// `u * 0.01 / sqrt(C)`.
///
/// # Errors
/// [`Error::Unsupported`] if there is no vector, or the draw was made for other sizes.
pub fn restart_candidates(vectors: &Tensor, size: usize, draw: &RestartDraw) -> Result<Tensor> {
    let channels = vectors.last_dim();
    let rows = vectors.len() / channels.max(1);
    let pool = pool_rows(rows, size);
    let repeated = pool > rows;
    if rows == 0 || draw.order.len() != pool || (repeated && draw.noise.len() != pool * channels) {
        return Err(Error::Unsupported(format!(
            "cannot restart {size} codes from {rows} vectors with an order of {} and {} numbers of noise",
            draw.order.len(),
            draw.noise.len()
        )));
    }
    let width = 0.01 / (channels as f32).sqrt();
    let order = &draw.order[..size];
    let rows_of = Codes::from_vec(order.iter().map(|row| (row % rows) as u32).collect(), &[size])?;
    let picked = vectors.detach().reshape(&[rows, channels])?.embedding(&rows_of)?;
    if !repeated {
        return Ok(picked);
    }
    let noise = order.iter().flat_map(|row| &draw.noise[row * channels..(row + 1) * channels]).map(|u| u * width);
    let noise = Tensor::from_vec(noise.collect(), &[size, channels])?.to_device(picked.device())?;
    Ok(picked.add(&noise)?)
}

/// A codebook `[K, C]` that is not trained by gradients: every code is the average of the vectors it got, over the past
/// `1 / (1 - decay)` updates or so.
///
/// One update is [`accumulate`](Self::accumulate), perhaps [`restart`](Self::restart), and [`rewrite`](Self::rewrite).
/// Its state has the published names: `weight` `[K, C]`, `cluster_size_ema` `[K]`, `embed_ema` `[K, C]`. The published
/// weight has one more row, of zeros, for padding.
#[derive(Debug, Clone)]
pub struct EmaCodebook {
    size: usize,
    rule: EmaRule,
    weight: Var,
    cluster_size: Var,
    embed: Var,
}

impl EmaCodebook {
    /// A codebook of `size` codes with `channels` each.
    ///
    /// # Errors
    /// Names that are taken.
    pub fn new(params: &Params, size: usize, channels: usize, init: CodebookInit, rule: EmaRule) -> Result<Self> {
        let weight = params.averaged("weight", &[size, channels], init.of(size, channels))?;
        let cluster_size = params.buffer("cluster_size_ema", &[size], Init::Constant(rule.initial_count))?;
        let embed = params.buffer("embed_ema", &[size, channels], Init::ZEROS)?;
        if !params.is_dry() {
            // The sum that belongs to the count. RQ-VAE starts with the code itself and no count.
            let count = if rule.initial_count > 0.0 { rule.initial_count } else { 1.0 };
            embed.set(&weight.get().mul_scalar(count)?)?;
        }
        Ok(Self { size, rule, weight, cluster_size, embed })
    }

    /// The number of codes, K.
    pub fn size(&self) -> usize {
        self.size
    }

    /// How it moves.
    pub fn rule(&self) -> &EmaRule {
        &self.rule
    }

    /// The codes `[K, C]`.
    pub fn weight(&self) -> Tensor {
        self.weight.get()
    }

    /// The codes as they are now, prepared for searches.
    ///
    /// # Errors
    /// A codebook that holds nothing.
    pub fn search(&self) -> Result<Search> {
        Ok(Search::new(&self.weight())?)
    }

    /// The nearest code of every vector: `[.., C]` to `[..]`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn nearest(&self, vectors: &Tensor) -> Result<Codes> {
        Ok(nearest(vectors, &self.weight())?)
    }

    /// Takes vectors `[.., C]` and their codes `[..]` into the averages: with n the number and s the sum of a code's
    /// vectors, `N = decay N + (1 - decay) n` and `m = decay m + (1 - decay) s`.
    ///
    /// # Errors
    /// Shapes that do not fit, codes out of range.
    pub fn accumulate(&self, vectors: &Tensor, codes: &Codes) -> Result<()> {
        Ok(update_averages(vectors, codes, self.rule.decay, &self.cluster_size, &self.embed)?)
    }

    /// How many codes are dead, `N < dead_below`: rank 0.
    ///
    /// # Errors
    /// A device that fails.
    pub fn dead(&self) -> Result<Tensor> {
        Ok(count_rare(&self.cluster_size.get(), self.rule.dead_below)?)
    }

    /// Gives every dead code k the k-th row of what `candidates` returns, `[K, C]`, and the count `dead_below`. Returns how
    /// many there were, of rank 0. `candidates` is called only if there are any, or if it takes a GPU to know.
    ///
    /// # Errors
    /// Shapes that do not fit, and those of `candidates`.
    pub fn restart(&self, candidates: impl FnOnce() -> Result<Tensor>) -> Result<Tensor> {
        let dead = self.dead()?;
        if dead.device() == Device::Cpu && dead.item()? == 0.0 {
            return Ok(dead);
        }
        let candidates = candidates()?;
        let shape = self.embed.get().shape().to_vec();
        if candidates.shape() != shape {
            return Err(Error::Unsupported(format!(
                "{} codes of {} channels cannot restart from candidates {:?}",
                self.size,
                shape.last().copied().unwrap_or(0),
                candidates.shape()
            )));
        }
        replace_rare(&candidates, self.rule.dead_below, &self.cluster_size, &self.embed)?;
        Ok(dead)
    }

    /// Writes the codes anew from the averages: with `S = sum N`, `e = m / (S (N + eps) / (S + K eps))`.
    ///
    /// # Errors
    /// None for a codebook that holds numbers.
    pub fn rewrite(&self) -> Result<()> {
        Ok(write_means(&self.embed.get(), &self.cluster_size.get(), self.rule.eps, &self.weight)?)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn random(shape: &[usize], seed: u64) -> Tensor {
        Tensor::from_vec(Rng::new(seed, "test", 0).normal(shape.iter().product()), shape).unwrap()
    }

    fn book(size: usize, channels: usize, rule: EmaRule) -> (EmaCodebook, Params) {
        let params = Params::new(5);
        (EmaCodebook::new(&params, size, channels, CodebookInit::Normal, rule).unwrap(), params)
    }

    fn sum(t: &Tensor) -> f64 {
        t.as_slice().iter().map(|&x| f64::from(x)).sum()
    }

    #[test]
    fn counts_and_sums_are_geometric_series() {
        let rule = EmaRule { decay: 0.9, restart: false, ..EmaRule::default() };
        let (book, _) = book(7, 3, rule);
        let (x, first) = (random(&[20, 3], 1), book.embed.get());
        let codes = book.nearest(&x).unwrap();
        for _ in 0..4 {
            book.accumulate(&x, &codes).unwrap();
        }
        let decayed = 0.9f64.powi(4);
        assert!((sum(&book.cluster_size.get()) - 20.0 * (1.0 - decayed)).abs() < 1e-4);
        let wanted = decayed * sum(&first) + (1.0 - decayed) * sum(&x);
        assert!((sum(&book.embed.get()) - wanted).abs() < 1e-4);
    }

    #[test]
    fn with_constant_assignments_codes_converge_to_the_means_of_their_vectors() {
        let rule = EmaRule { decay: 0.5, ..EmaRule::default() };
        let (book, _) = book(2, 1, rule);
        let x = Tensor::from_vec(vec![1.0, 2.0, 3.0, 10.0, 20.0], &[5, 1]).unwrap();
        let codes = Codes::from_vec(vec![0, 0, 0, 1, 1], &[5]).unwrap();
        for _ in 0..40 {
            book.accumulate(&x, &codes).unwrap();
        }
        book.rewrite().unwrap();
        let weight = book.weight().to_vec();
        assert!((weight[0] - 2.0).abs() < 1e-4 && (weight[1] - 15.0).abs() < 1e-4, "{weight:?}");
    }

    /// `sum_k N_k e_k` would be `sum_k m_k` without smoothing; the smoothed counts have the same sum as the counts.
    #[test]
    fn smoothing_keeps_the_total_count() {
        let (book, _) = book(5, 2, EmaRule { eps: 0.1, ..EmaRule::default() });
        book.accumulate(&random(&[30, 2], 2), &Codes::from_vec(vec![0; 30], &[30]).unwrap()).unwrap();
        let embed = Tensor::full(1.0, &[5, 2]);
        book.embed.set(&embed).unwrap();
        book.rewrite().unwrap();
        let smoothed: f64 = book.weight().as_slice().iter().step_by(2).map(|&e| 1.0 / f64::from(e)).sum();
        assert!((smoothed - sum(&book.cluster_size.get())).abs() < 1e-5);
    }

    #[test]
    fn a_dead_code_restarts_at_its_candidate_and_a_living_one_stays() {
        let (book, _) = book(4, 2, EmaRule { decay: 0.0, ..EmaRule::default() });
        let x = random(&[9, 2], 3);
        book.accumulate(&x, &Codes::from_vec(vec![0, 0, 0, 2, 2, 2, 2, 2, 2], &[9]).unwrap()).unwrap();
        let before = book.embed.get().to_vec();
        assert_eq!(book.dead().unwrap().item().unwrap(), 2.0);
        let draw = RestartDraw::new(9, 2, 4, &Rng::new(1, "restart", 0));
        assert_eq!(book.restart(|| restart_candidates(&x, 4, &draw)).unwrap().item().unwrap(), 2.0);
        assert_eq!(book.cluster_size.get().to_vec(), [3.0, 1.0, 6.0, 1.0]);
        let after = book.embed.get().to_vec();
        assert_eq!((&after[0..2], &after[4..6]), (&before[0..2], &before[4..6]));
        for k in [1, 3] {
            let row = draw.order[k];
            assert_eq!(after[2 * k..2 * k + 2], x.as_slice()[2 * row..2 * row + 2]);
        }
        let none = book.restart(|| Err(Error::Unsupported("not called".to_owned()))).unwrap();
        assert_eq!(none.item().unwrap(), 0.0);
    }

    #[test]
    fn few_vectors_are_repeated_with_a_little_noise() {
        let x = random(&[3, 4], 4);
        let draw = RestartDraw::new(3, 4, 8, &Rng::new(2, "restart", 0));
        assert_eq!((draw.order.len(), draw.noise.len()), (9, 36));
        let candidates = restart_candidates(&x, 8, &draw).unwrap();
        for (candidate, &row) in candidates.as_slice().chunks(4).zip(&draw.order) {
            for (a, b) in candidate.iter().zip(&x.as_slice()[row % 3 * 4..]) {
                assert!((0.0..0.01 / 2.0 + 1e-6).contains(&(a - b)), "{a} {b}");
            }
        }
        assert!(restart_candidates(&Tensor::zeros(&[0, 4]), 8, &draw).is_err());
    }

    #[test]
    fn a_dry_codebook_holds_nothing() {
        let params = Params::dry();
        let book = EmaCodebook::new(&params, 1 << 20, 256, CodebookInit::Normal, EmaRule::default()).unwrap();
        assert!(book.weight().is_empty());
        assert_eq!((params.count(), params.buffers()), (1 << 28, (1 << 28) + (1 << 20)));
        assert!(params.trained().is_empty());
    }
}
