//! How a quantizer uses its codes, and how many bits they take.

use super::{Error, Result};

/// How often each code was chosen at each depth, accumulated over batches.
#[derive(Debug, Clone, PartialEq, Eq)]
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
