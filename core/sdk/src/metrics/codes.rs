//! How a quantizer uses its codes, and how many bits they take.

use super::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// How often each code was chosen at each depth, accumulated over batches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeCounts {
    histograms: Vec<Vec<u64>>,
}

impl CodeCounts {
    /// No codes yet, with a codebook of `codebook_sizes[d]` codes at depth d (all equal for a shared one). An error if
    /// there is no depth or a codebook is empty.
    pub fn new(codebook_sizes: &[usize]) -> Result<Self> {
        if codebook_sizes.is_empty() || codebook_sizes.contains(&0) {
            return Err(Error::value("code counts", format!("codebooks of {codebook_sizes:?} codes")));
        }
        Ok(Self { histograms: codebook_sizes.iter().map(|&size| vec![0; size]).collect() })
    }

    /// Counts codes `[.., D]`, the depth last. An error, and nothing counted, if they do not divide into D or a code
    /// is not in its codebook.
    pub fn push(&mut self, codes: &[u32]) -> Result<()> {
        let depth = self.depth();
        if !codes.len().is_multiple_of(depth) {
            return Err(Error::shape(
                "code counts",
                format!("{} codes do not divide into {depth} depths", codes.len()),
            ));
        }
        for (i, &code) in codes.iter().enumerate() {
            let size = self.histograms[i % depth].len();
            if code as usize >= size {
                let detail = format!("code {code} at depth {}, whose codebook has {size} codes", i % depth + 1);
                return Err(Error::value("code counts", detail));
            }
        }
        for stack in codes.chunks_exact(depth) {
            for (histogram, &code) in self.histograms.iter_mut().zip(stack) {
                histogram[code as usize] += 1;
            }
        }
        Ok(())
    }

    /// Adds the codes that `other` has counted. An error if the codebooks differ in number or size.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        let sizes = |counts: &Self| counts.histograms.iter().map(Vec::len).collect::<Vec<_>>();
        if sizes(self) != sizes(other) {
            let detail = format!("codebooks of {:?} codes added to {:?}", sizes(other), sizes(self));
            return Err(Error::shape("code counts", detail));
        }
        for (sums, counts) in self.histograms.iter_mut().zip(&other.histograms) {
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
        Ok(())
    }

    /// The number of depths D.
    pub fn depth(&self) -> usize {
        self.histograms.len()
    }

    /// The count of each code, for each depth: D histograms of as many counts as the depth's codebook has codes.
    pub fn histograms(&self) -> &[Vec<u64>] {
        &self.histograms
    }

    /// The counts of a shared codebook over all depths together. An error if the codebooks differ in size, and hence
    /// are not shared.
    pub fn pooled(&self) -> Result<Vec<u64>> {
        let (first, rest) = self.histograms.split_at(1);
        let mut pooled = first.concat();
        for histogram in rest {
            check_shared(&pooled, histogram)?;
            pooled.iter_mut().zip(histogram).for_each(|(sum, count)| *sum += count);
        }
        Ok(pooled)
    }
}

/// The share of codes that were chosen at least once, in [0, 1]; 0 for an empty histogram.
pub fn usage(histogram: &[u64]) -> f64 {
    let used = histogram.iter().filter(|count| **count > 0).count();
    used as f64 / histogram.len().max(1) as f64
}

/// The entropy in bits of the choice of codes, `-sum p log2 p` with their relative frequencies: from 0 to log2 K.
/// 0 if nothing was counted. It is that of the counted codes: with few counts per code, it lies below the true one.
pub fn entropy_bits(histogram: &[u64]) -> f64 {
    let total: u64 = histogram.iter().sum();
    let chosen = histogram.iter().filter(|count| **count > 0).map(|&count| count as f64 / total as f64);
    // The sum over one certain code is -0.
    (-chosen.map(|p| p * p.log2()).sum::<f64>()).max(0.0)
}

/// The entropy in bits as TiTok's evaluation adds `eps` in its logarithm: `-sum p log2(p + eps)` over all codes, with 1e-8
/// there.
pub fn entropy_bits_eps(histogram: &[u64], eps: f64) -> f64 {
    -shares(histogram).map(|p| p * (p + eps).log2()).sum::<f64>()
}

/// The perplexity as published codes add `eps` in its logarithm: `exp(-sum p ln(p + eps))`, with 1e-10 in VQGAN's and 1e-5
/// in JAX's.
pub fn perplexity_eps(histogram: &[u64], eps: f64) -> f64 {
    (-shares(histogram).map(|p| p * (p + eps).ln()).sum::<f64>()).exp()
}

/// The share of codes whose own share of the choices exceeds `least / K`, in [0, 1]: with 0.01, vaex' usage of a batch.
pub fn usage_above(histogram: &[u64], least: f64) -> f64 {
    let threshold = least / histogram.len().max(1) as f64;
    shares(histogram).filter(|share| *share > threshold).count() as f64 / histogram.len().max(1) as f64
}

/// Relative frequencies; zeros if nothing was counted.
fn shares(histogram: &[u64]) -> impl Iterator<Item = f64> {
    let total = histogram.iter().sum::<u64>().max(1) as f64;
    histogram.iter().map(move |&count| count as f64 / total)
}

/// LlamaGen's usage: the share of codes among the last choices.
///
/// Its buffer starts as zeros, so that code 0 counts as used until the buffer has been filled once.
#[derive(Debug, Clone)]
pub struct RecentUsage {
    recent: VecDeque<u32>,
    hits: Vec<u64>,
}

impl RecentUsage {
    /// Over the last `window` choices (65,536 as published) from `codes` codes. An error if either is 0.
    pub fn new(codes: usize, window: usize) -> Result<Self> {
        if codes == 0 || window == 0 {
            return Err(Error::value("recent usage", format!("{codes} codes over {window} choices")));
        }
        let mut hits = vec![0; codes];
        hits[0] = window as u64;
        Ok(Self { recent: VecDeque::from(vec![0; window]), hits })
    }

    /// Adds choices, and gives the usage after them. An error, and nothing added, if a code is not in the codebook.
    pub fn push(&mut self, codes: &[u32]) -> Result<f64> {
        if let Some(code) = codes.iter().find(|code| **code as usize >= self.hits.len()) {
            return Err(Error::value("recent usage", format!("code {code} of {}", self.hits.len())));
        }
        for &code in codes {
            if let Some(old) = self.recent.pop_front() {
                self.hits[old as usize] -= 1;
            }
            self.recent.push_back(code);
            self.hits[code as usize] += 1;
        }
        Ok(usage(&self.hits))
    }
}

/// VAR's usage: a moving average of each scale's hits against a threshold.
///
/// One count of updates goes over all scales and steps. The very first update is copied; the next ones, until there have
/// been 100, keep 0.9 of the average, later ones 0.99. So the later scales of the first step decay from zero.
#[derive(Debug, Clone)]
pub struct ScaleHits {
    hits: Vec<Vec<f64>>,
    updates: usize,
}

impl ScaleHits {
    /// No hits yet, of `scales` scales with `codes` codes.
    pub fn new(scales: usize, codes: usize) -> Self {
        Self { hits: vec![vec![0.0; codes]; scales], updates: 0 }
    }

    /// Adds the hits of a batch at `scale`. An error if there is no such scale or code.
    pub fn push(&mut self, scale: usize, codes: &[u32]) -> Result<()> {
        let scales = self.hits.len();
        let average = self.hits.get_mut(scale);
        let average = average.ok_or_else(|| Error::value("usage by scale", format!("scale {scale} of {scales}")))?;
        let mut counts = vec![0.0; average.len()];
        for &code in codes {
            let known = counts.len();
            let count = counts.get_mut(code as usize);
            *count.ok_or_else(|| Error::value("usage by scale", format!("code {code} of {known}")))? += 1.0;
        }
        let kept = match self.updates {
            0 => 0.0,
            1..100 => 0.9,
            _ => 0.99,
        };
        average.iter_mut().zip(counts).for_each(|(hits, count)| *hits = kept * *hits + (1.0 - kept) * count);
        self.updates += 1;
        Ok(())
    }

    /// The averages of each scale.
    pub fn hits(&self) -> &[Vec<f64>] {
        &self.hits
    }

    /// The share of each scale's codes that are hit at least 0.08 times as often as in a batch of `positions` even
    /// choices, in [0, 1].
    pub fn usage(&self, positions: usize) -> Vec<f64> {
        let share = |hits: &Vec<f64>| {
            let least = 0.08 * positions as f64 / hits.len() as f64;
            hits.iter().filter(|hits| **hits >= least).count() as f64 / hits.len().max(1) as f64
        };
        self.hits.iter().map(share).collect()
    }
}

/// The number of equally likely codes with the same entropy, `2^entropy_bits` = `exp(entropy in nats)`: from 1 to K.
pub fn perplexity(histogram: &[u64]) -> f64 {
    entropy_bits(histogram).exp2()
}

/// How alike two depths use a shared codebook: the intersection `sum_k min(p_k, q_k)` of their relative frequencies,
/// from 0 (no code in common) to 1 (equal frequencies). 0 if either counted nothing. An error if the histograms differ
/// in size.
pub fn overlap(a: &[u64], b: &[u64]) -> Result<f64> {
    check_shared(a, b)?;
    let [total_a, total_b] = [a, b].map(|histogram| histogram.iter().sum::<u64>().max(1) as f64);
    Ok(a.iter().zip(b).map(|(&a, &b)| (a as f64 / total_a).min(b as f64 / total_b)).sum())
}

/// The share of codes used at either of two depths that is used at both (Jaccard index), however often. 0 if neither
/// counted anything. An error if the histograms differ in size.
pub fn jaccard(a: &[u64], b: &[u64]) -> Result<f64> {
    check_shared(a, b)?;
    let both = a.iter().zip(b).filter(|(a, b)| **a > 0 && **b > 0).count();
    let either = a.iter().zip(b).filter(|(a, b)| **a > 0 || **b > 0).count();
    Ok(both as f64 / either.max(1) as f64)
}

/// The bits of one image's codes as plain indices: `positions * sum_d log2 K_d`, with `positions` code stacks per image
/// (h * w).
pub fn nominal_bits(positions: usize, codebook_sizes: &[usize]) -> f64 {
    positions as f64 * codebook_sizes.iter().map(|&size| (size.max(1) as f64).log2()).sum::<f64>()
}

/// The bits of one image's codes after ideal entropy coding with one fixed table of frequencies per depth:
/// `positions * sum_d entropy_d`. It counts no table, and what codes tell of one another is left to a prior.
pub fn entropy_coded_bits(positions: usize, counts: &CodeCounts) -> f64 {
    positions as f64 * counts.histograms.iter().map(|histogram| entropy_bits(histogram)).sum::<f64>()
}

fn check_shared(a: &[u64], b: &[u64]) -> Result<()> {
    if a.len() == b.len() {
        return Ok(());
    }
    Err(Error::shape("shared codebook", format!("{} codes against {}", a.len(), b.len())))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_uniform_histogram_has_perplexity_k() {
        let uniform = [3; 16];
        assert_eq!((usage(&uniform), entropy_bits(&uniform), perplexity(&uniform)), (1.0, 4.0, 16.0));
        let single = [0, 7, 0, 0];
        assert_eq!((usage(&single), entropy_bits(&single), perplexity(&single)), (0.25, 0.0, 1.0));
        assert!(entropy_bits(&single).is_sign_positive());
        assert_eq!((usage(&[0; 4]), entropy_bits(&[0; 4]), perplexity(&[0; 4])), (0.0, 0.0, 1.0));
    }

    #[test]
    fn entropy_of_a_biased_coin() {
        let expected = -(0.25f64 * 0.25f64.log2() + 0.75 * 0.75f64.log2());
        assert!((entropy_bits(&[1, 3]) - expected).abs() < 1e-15);
        assert!((perplexity(&[1, 3]).ln() - expected * std::f64::consts::LN_2).abs() < 1e-15);
    }

    #[test]
    fn published_entropies_add_a_little_to_each_share() {
        let biased = [1, 3, 0, 0];
        assert!((entropy_bits_eps(&biased, 0.0_f64.max(1e-300)) - entropy_bits(&biased)).abs() < 1e-12);
        let expected = -(0.25 * 0.26f64.log2() + 0.75 * 0.76f64.log2());
        assert!((entropy_bits_eps(&biased, 0.01) - expected).abs() < 1e-15);
        assert!((perplexity_eps(&biased, 0.01) - expected.exp2()).abs() < 1e-12);
        // Shares 0.25 and 0.75 of 4 codes: above half of an even share, above an even share, above twice and never 4 times.
        let used: Vec<f64> = [0.5, 1.5, 2.5, 3.5].map(|least| usage_above(&biased, least)).to_vec();
        assert_eq!(used, [0.5, 0.25, 0.25, 0.0]);
    }

    #[test]
    fn recent_usage_forgets_what_leaves_its_window() {
        let mut recent = RecentUsage::new(4, 3).unwrap();
        // 0 0 1; 0 1 2; 1 2 2; 2 2 2.
        let found = [[1], [2], [2], [2]].map(|codes| recent.push(&codes).unwrap());
        assert_eq!(found, [0.5, 0.75, 0.5, 0.25]);
        assert!(recent.push(&[4]).is_err() && RecentUsage::new(4, 0).is_err());
    }

    #[test]
    fn hits_of_scales_share_one_count_of_updates() {
        let mut hits = ScaleHits::new(2, 2);
        hits.push(0, &[0, 0]).unwrap();
        hits.push(1, &[1, 1, 1, 1]).unwrap();
        hits.push(0, &[1, 1]).unwrap();
        let near = |a: f64, b: f64| (a - b).abs() < 1e-12;
        assert!(near(hits.hits()[0][0], 1.8) && near(hits.hits()[0][1], 0.2) && near(hits.hits()[1][1], 0.4));
        // With 8 positions 0.32 hits are enough, with 11 there must be 0.44.
        assert_eq!((hits.usage(8), hits.usage(11)), (vec![0.5, 0.5], vec![0.5, 0.0]));
        for _ in 3..100 {
            hits.push(1, &[]).unwrap();
        }
        hits.push(0, &[0]).unwrap();
        assert!(near(hits.hits()[0][0], 0.99 * 1.8 + 0.01));
        assert!(hits.push(2, &[]).is_err() && hits.push(0, &[2]).is_err());
    }

    #[test]
    fn codes_are_counted_by_depth_with_the_depth_last() {
        let mut counts = CodeCounts::new(&[2, 3]).unwrap();
        counts.push(&[0, 2, 1, 2]).unwrap();
        let mut more = counts.clone();
        more.push(&[1, 0]).unwrap();
        counts.merge(&more).unwrap();
        assert_eq!(counts.histograms(), [vec![2, 3], vec![1, 0, 4]]);
        assert!(counts.pooled().is_err());
    }

    #[test]
    fn a_bad_code_is_an_error_and_counts_nothing() {
        let mut counts = CodeCounts::new(&[2, 3]).unwrap();
        let error = counts.push(&[0, 0, 1, 3]).unwrap_err();
        assert_eq!(error.to_string(), "code counts: code 3 at depth 2, whose codebook has 3 codes");
        assert!(counts.push(&[0]).is_err());
        assert_eq!(counts.histograms(), [vec![0, 0], vec![0, 0, 0]]);
        assert!(counts.merge(&CodeCounts::new(&[2]).unwrap()).is_err());
        assert!(CodeCounts::new(&[]).is_err() && CodeCounts::new(&[4, 0]).is_err());
    }

    #[test]
    fn overlap_of_depths_of_a_shared_codebook() {
        let mut counts = CodeCounts::new(&[4, 4]).unwrap();
        counts.push(&[0, 1, 0, 1, 1, 2, 1, 2]).unwrap();
        let [first, second] = counts.histograms() else { unreachable!() };
        assert_eq!(overlap(first, second).unwrap(), 0.5);
        assert_eq!(jaccard(first, second).unwrap(), 1.0 / 3.0);
        assert_eq!((overlap(first, first).unwrap(), jaccard(first, first).unwrap()), (1.0, 1.0));
        assert_eq!(counts.pooled().unwrap(), [2, 4, 2, 0]);
        assert_eq!(usage(&counts.pooled().unwrap()), 0.75);
        assert!(overlap(&[1, 2], &[1]).is_err());
    }

    #[test]
    fn bits_of_an_image() {
        // The published 8 x 8 x 4 codes of 16 384: 3584 bits.
        assert_eq!(nominal_bits(64, &[16384; 4]), 3584.0);
        let mut counts = CodeCounts::new(&[4, 4]).unwrap();
        counts.push(&[0, 0, 1, 0, 2, 0, 3, 0]).unwrap();
        assert_eq!(entropy_coded_bits(64, &counts), 128.0);
    }
}
