//! A codebook that follows the vectors it encodes by exponential moving averages (van den Oord et al., "Neural discrete
//! representation learning", NeurIPS 2017, appendix A.1): how it starts, how it moves, what becomes of codes that nothing
//! uses.

mod restart;
mod start;

pub use restart::{RestartDraw, restart_candidates, sample_vectors};
pub use start::{Clusters, CodebookInit, FirstBatch, k_means};

use super::l2_normalize;
use crate::params::{Init, Params};
use crate::tensor::ops::averages::{count_rare, replace_rare, update_averages, write_means};
use crate::tensor::ops::nearest::{Search, nearest};
use crate::tensor::ranks::Step;
use crate::tensor::{Codes, Device, Rng, Tensor, Var};
use crate::{Error, Result};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

crate::choice! {
    /// What becomes of the dead codes of an [`EmaCodebook`], those whose average count is low.
    pub enum DeadCodes {
        /// They stay where they are: VQ-VAE-2.
        Keep = "keep",
        /// Averages restart at random vectors, of which none is taken twice, before the codes are written: RQ-VAE (Lee et
        /// al., CVPR 2022).
        Restart = "restart",
        /// Codes and averages are replaced by random vectors after the codes are written: vector-quantize-pytorch's
        /// `threshold_ema_dead_code`.
        Threshold = "threshold",
    }
}

impl DeadCodes {
    /// A candidate `[K, C]` for each of `size` codes from vectors `[.., C]`, of all ranks in a training step, as the policy draws
    /// them.
    ///
    /// # Errors
    /// No vectors.
    pub fn candidates(self, vectors: &Tensor, size: usize, rng: &Rng) -> Result<Tensor> {
        let channels = vectors.last_dim();
        let vectors = Step::current().gather(&vectors.reshape(&[vectors.len() / channels.max(1), channels])?)?;
        if self == Self::Threshold {
            return sample_vectors(&vectors, size, rng);
        }
        let draw = RestartDraw::new(vectors.shape()[0], channels, size, rng);
        restart_candidates(&vectors, size, &draw)
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
    /// What becomes of dead codes.
    pub dead_codes: DeadCodes,
    /// Whether codes have length 1: the vectors must have, too (vector-quantize-pytorch's cosine codebook).
    pub unit_length: bool,
}

impl EmaRule {
    /// The count that codes start with if none is `asked` for. A code that gets no vector is `m / (N + eps)`, where sum m
    /// and count N decay alike: with N = 0 from the start and m = e, its own value, it is thrown to e / eps at the first
    /// update. Restarts forestall that, as the published RQ-VAE does; without them sum and count start alike, as in
    /// vector-quantize-pytorch.
    pub fn initial_count(asked: Option<f32>, dead_codes: DeadCodes) -> f32 {
        asked.unwrap_or(if dead_codes == DeadCodes::Restart { 0.0 } else { 1.0 })
    }
}

impl Default for EmaRule {
    /// The published RQ-VAE.
    fn default() -> Self {
        let dead_codes = DeadCodes::Restart;
        Self { decay: 0.99, eps: 1e-5, initial_count: 0.0, dead_below: 1.0, dead_codes, unit_length: false }
    }
}

/// What an update did with dead codes, as numbers of rank 0.
#[derive(Debug, Clone)]
pub struct Settled {
    /// How many there were.
    pub dead: Tensor,
    /// How many restarted.
    pub restarted: Tensor,
}

/// A codebook `[K, C]` that is not trained by gradients: every code is the average of the vectors it got, over the past
/// `1 / (1 - decay)` updates or so.
///
/// One update is [`accumulate`](Self::accumulate) and [`settle`](Self::settle); before the first comes
/// [`start`](Self::start). Its state has the published names: `weight` `[K, C]`, `cluster_size_ema` `[K]`, `embed_ema`
/// `[K, C]`. The published weight has one more row, of zeros, for padding. Where it starts from data, there is `initted`
/// `[1]` as well.
#[derive(Debug, Clone)]
pub struct EmaCodebook {
    size: usize,
    rule: EmaRule,
    weight: Var,
    cluster_size: Var,
    embed: Var,
    first: Option<FirstBatch>,
    waiting: Arc<Mutex<Waiting>>,
}

/// Counts and sums of the parts of a step that is not over yet, in the order in which a part gives them: a codebook that depths
/// share gets those of each.
#[derive(Debug, Default)]
struct Waiting {
    part: usize,
    given: usize,
    sums: Vec<[Tensor; 2]>,
}

impl Waiting {
    /// Takes the next counts and sums of a part, and gives those of the step so far.
    fn add(&mut self, part: usize, own: [Tensor; 2]) -> Result<[Tensor; 2]> {
        if part == 0 && self.part > 0 {
            self.sums.clear();
        }
        if part != self.part {
            (self.part, self.given) = (part, 0);
        }
        let given = self.given;
        self.given += 1;
        let Some(before) = self.sums.get_mut(given) else {
            self.sums.push(own.clone());
            return Ok(own);
        };
        for (sum, own) in before.iter_mut().zip(own) {
            *sum = sum.add(&own)?;
        }
        Ok(before.clone())
    }
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
        let first = FirstBatch::new(params, init)?;
        if !params.is_dry() {
            if rule.unit_length {
                weight.set(&l2_normalize(&weight.get())?)?;
            }
            // The sum that belongs to the count. RQ-VAE starts with the code itself and no count.
            let count = if rule.initial_count > 0.0 { rule.initial_count } else { 1.0 };
            embed.set(&weight.get().mul_scalar(count)?)?;
        }
        Ok(Self { size, rule, weight, cluster_size, embed, first, waiting: Arc::default() })
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
    /// vectors, `N = decay N + (1 - decay) n` and `m = decay m + (1 - decay) s`. In a training step of several parts and ranks, n
    /// and s are summed over all of them, and the averages move with the last part.
    ///
    /// # Errors
    /// Shapes that do not fit, codes out of range.
    pub fn accumulate(&self, vectors: &Tensor, codes: &Codes) -> Result<()> {
        let (step, decay) = (Step::current(), self.rule.decay);
        if step.is_undivided() {
            return Ok(update_averages(vectors, codes, decay, &self.cluster_size, &self.embed)?);
        }
        let averages = [&self.cluster_size, &self.embed];
        let [counts, sums] = averages.map(|average| average.get().mul_scalar(0.0).map(|zeros| Var::buffer(&zeros)));
        let (counts, sums) = (counts?, sums?);
        update_averages(vectors, codes, 0.0, &counts, &sums)?;
        let so_far = self.waiting().add(step.part(), [counts.get(), sums.get()])?;
        if step.is_last() {
            for (average, own) in averages.into_iter().zip(so_far) {
                let new = step.sum(&own)?.mul_scalar((1.0 - decay) as f32)?;
                average.set(&average.get().mul_scalar(decay as f32)?.add(&new)?)?;
            }
        }
        Ok(())
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many codes are dead, `N < dead_below`: rank 0.
    ///
    /// # Errors
    /// A device that fails.
    pub fn dead(&self) -> Result<Tensor> {
        Ok(count_rare(&self.cluster_size.get(), self.rule.dead_below)?)
    }

    /// Sets the codes to the means that [`k_means`] finds in the first vectors `[.., C]` that it is shown, and the
    /// averages to their counts and sums; nothing if the codebook does not start from data, or has started.
    ///
    /// # Errors
    /// No vectors; a device that fails.
    pub fn start(&self, vectors: &Tensor, iterations: usize, rng: &Rng) -> Result<()> {
        let Some(first) = &self.first else { return Ok(()) };
        if !first.is_now()? {
            return Ok(());
        }
        let clusters = k_means(vectors, self.size, iterations, self.rule.unit_length, rng)?;
        self.embed.set(&clusters.means.mul(&clusters.counts.reshape(&[self.size, 1])?)?)?;
        self.cluster_size.set(&clusters.counts)?;
        Ok(self.weight.set(&clusters.means)?)
    }

    /// Writes the codes anew from the averages, and does with dead ones what the rule says. `candidates` gives what they
    /// restart from, `[K, C]`, a row for each code; it is called only if there are any, or if it takes a GPU to know. Before the
    /// last part of a training step nothing is written.
    ///
    /// # Errors
    /// Shapes that do not fit, and those of `candidates`.
    pub fn settle(&self, candidates: impl FnOnce() -> Result<Tensor>) -> Result<Settled> {
        let dead = self.dead()?;
        if !Step::current().is_last() {
            return Ok(Settled { dead, restarted: Tensor::scalar(0.0) });
        }
        let none = self.rule.dead_codes == DeadCodes::Keep || (dead.device() == Device::Cpu && dead.item()? == 0.0);
        if none {
            self.rewrite()?;
            return Ok(Settled { dead, restarted: Tensor::scalar(0.0) });
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
        let least = self.rule.dead_below;
        if self.rule.dead_codes == DeadCodes::Threshold {
            self.rewrite()?;
            // The codes themselves: a sum is `least` times the candidate.
            let counts = Var::buffer(&self.cluster_size.get());
            replace_rare(&candidates.mul_scalar(1.0 / least)?, least, &counts, &self.weight)?;
            replace_rare(&candidates, least, &self.cluster_size, &self.embed)?;
        } else {
            replace_rare(&candidates, least, &self.cluster_size, &self.embed)?;
            self.rewrite()?;
        }
        Ok(Settled { restarted: dead.clone(), dead })
    }

    /// Writes the codes anew from the averages: with `S = sum N`, `e = m / (S (N + eps) / (S + K eps))`, and e / |e| where
    /// codes have length 1.
    ///
    /// # Errors
    /// None for a codebook that holds numbers.
    pub fn rewrite(&self) -> Result<()> {
        write_means(&self.embed.get(), &self.cluster_size.get(), self.rule.eps, &self.weight)?;
        if self.rule.unit_length {
            self.weight.set(&l2_normalize(&self.weight.get())?)?;
        }
        Ok(())
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
        let rule = EmaRule { decay: 0.9, ..EmaRule::default() };
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
        let draw = RestartDraw::new(9, 2, 4, &Rng::new(1, "restart", 0));
        let settled = book.settle(|| restart_candidates(&x, 4, &draw)).unwrap();
        assert_eq!((settled.dead.item().unwrap(), settled.restarted.item().unwrap()), (2.0, 2.0));
        assert_eq!(book.cluster_size.get().to_vec(), [3.0, 1.0, 6.0, 1.0]);
        let after = book.embed.get().to_vec();
        assert_eq!((&after[0..2], &after[4..6]), (&before[0..2], &before[4..6]));
        for k in [1, 3] {
            let row = draw.order[k];
            assert_eq!(after[2 * k..2 * k + 2], x.as_slice()[2 * row..2 * row + 2]);
        }
        let none = book.settle(|| Err(Error::Unsupported("not called".to_owned()))).unwrap();
        assert_eq!(none.restarted.item().unwrap(), 0.0);
    }

    /// vector-quantize-pytorch: the code is the vector, the count the threshold, and the sum their product.
    #[test]
    fn a_code_below_the_threshold_becomes_a_vector_of_the_batch() {
        let rule = EmaRule { decay: 0.5, dead_below: 2.0, dead_codes: DeadCodes::Threshold, ..EmaRule::default() };
        let (book, _) = book(3, 2, rule);
        let x = random(&[12, 2], 3);
        book.accumulate(&x, &Codes::from_vec(vec![1; 12], &[12]).unwrap()).unwrap();
        let candidates = random(&[3, 2], 4);
        assert_eq!(book.settle(|| Ok(candidates.clone())).unwrap().restarted.item().unwrap(), 2.0);
        assert_eq!(book.cluster_size.get().to_vec(), [2.0, 6.0, 2.0]);
        let (weight, embed) = (book.weight().to_vec(), book.embed.get().to_vec());
        for (i, &x) in candidates.as_slice().iter().enumerate() {
            let replaced = i / 2 != 1;
            assert_eq!((weight[i] == x, embed[i] == 2.0 * x), (replaced, replaced));
        }
    }

    #[test]
    fn codes_of_length_one_stay_so() {
        let (book, _) = book(5, 3, EmaRule { unit_length: true, ..EmaRule::default() });
        let lengths =
            || book.weight().as_slice().chunks(3).map(|e| e.iter().map(|x| x * x).sum::<f32>()).collect::<Vec<_>>();
        let x = l2_normalize(&random(&[40, 3], 1)).unwrap();
        for _ in 0..2 {
            assert!(lengths().iter().all(|length| (length - 1.0).abs() < 1e-5), "{:?}", lengths());
            book.accumulate(&x, &book.nearest(&x).unwrap()).unwrap();
            book.settle(|| DeadCodes::Restart.candidates(&x, 5, &Rng::new(1, "restart", 0))).unwrap();
        }
    }

    #[test]
    fn a_codebook_starts_from_its_first_batch_alone() {
        let params = Params::new(5);
        let book = EmaCodebook::new(&params, 4, 3, CodebookInit::KMeans, EmaRule::default()).unwrap();
        let (x, rng) = (random(&[50, 3], 1), Rng::new(1, "kmeans", 0));
        book.start(&x, 10, &rng).unwrap();
        let clusters = k_means(&x, 4, 10, false, &rng).unwrap();
        assert_eq!(book.weight().to_vec(), clusters.means.to_vec());
        assert_eq!(sum(&book.cluster_size.get()), 50.0);
        book.start(&random(&[50, 3], 2), 10, &rng).unwrap();
        assert_eq!(book.weight().to_vec(), clusters.means.to_vec());
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
