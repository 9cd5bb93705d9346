//! How sure a quantizer is of its codes, and how evenly it uses them: the entropy terms of LFQ (Yu et al., "Language model
//! beats diffusion", ICLR 2024, equation 5), BSQ and IBQ.

use crate::Result;
use crate::params::{Init, Params};
use crate::tensor::ranks::Step;
use crate::tensor::{Tensor, Var};

crate::choice! {
    /// How logarithms of probabilities near 0 are kept finite. Published codes differ.
    pub enum EntropyEps {
        /// `-sum p ln p` of a sample, `-sum m ln(m + 1e-5)` of the mean m over samples: Open-MAGVIT2 and IBQ.
        Mean = "mean",
        /// `-sum p ln max(p, 1e-5)` of both: vector-quantize-pytorch.
        Clamp = "clamp",
        /// `-sum p ln(p + 1e-8)` of both: BSQ.
        Both = "both",
    }
}

impl EntropyEps {
    /// The entropies `[..]` of samples, from their logits and probabilities `[.., K]`.
    fn of_samples(self, logits: &Tensor, probabilities: &Tensor) -> Result<Tensor> {
        let logarithm = match self {
            Self::Mean => logits.log_softmax()?,
            Self::Clamp => probabilities.clamp(1e-5, f32::INFINITY)?.ln()?,
            Self::Both => probabilities.add_scalar(1e-8)?.ln()?,
        };
        minus_sum(probabilities, &logarithm)
    }

    /// The entropy of the mean probabilities `[K]`.
    fn of_mean(self, mean: &Tensor) -> Result<Tensor> {
        let logarithm = match self {
            Self::Mean => mean.add_scalar(1e-5)?.ln()?,
            Self::Clamp => mean.clamp(1e-5, f32::INFINITY)?.ln()?,
            Self::Both => mean.add_scalar(1e-8)?.ln()?,
        };
        minus_sum(mean, &logarithm)
    }
}

/// `-sum p l` over the innermost axis.
fn minus_sum(p: &Tensor, logarithm: &Tensor) -> Result<Tensor> {
    let last = p.rank().saturating_sub(1);
    Ok(p.mul(logarithm)?.sum(&[last], false)?.neg()?)
}

/// Entropies of codes in nats, of rank 0.
#[derive(Debug, Clone)]
pub struct CodeEntropies {
    /// The mean over vectors of the entropy of each one's distribution over codes: small where vectors lie near codes.
    pub sample: Tensor,
    /// The entropy of the mean distribution: large where all codes are used alike.
    pub codebook: Tensor,
}

impl CodeEntropies {
    /// Of the distributions that logits `[.., K]` mean; in a training step of several ranks, the mean one is that of all ranks'.
    ///
    /// # Errors
    /// Shapes without elements.
    pub fn of_logits(logits: &Tensor, eps: EntropyEps) -> Result<Self> {
        let codes = logits.last_dim();
        let logits = logits.reshape(&[logits.len() / codes.max(1), codes])?;
        let probabilities = logits.softmax()?;
        let sample = eps.of_samples(&logits, &probabilities)?.mean_all()?;
        let mean = Step::current().mean(&probabilities.mean(&[0], false)?)?;
        Ok(Self { sample, codebook: eps.of_mean(&mean)? })
    }

    /// Of independent bits: `log_odds` `[.., L]` has `ln p(1) / p(0)` of each. The distributions are over the `2^group` values
    /// of consecutive `group` bits (the last group may be smaller), and the groups' entropies are summed. One group of all
    /// bits is exact; with more, `codebook` is an upper bound, and nothing of the size of the codebook is made.
    ///
    /// # Errors
    /// Shapes without elements.
    pub fn of_bits(log_odds: &Tensor, group: usize, eps: EntropyEps) -> Result<Self> {
        let (last, bits) = (log_odds.rank().saturating_sub(1), log_odds.last_dim());
        let mut sum: Option<Self> = None;
        for start in (0..bits).step_by(group.max(1)) {
            let width = group.min(bits - start);
            let own = log_odds.slice(last, start..start + width)?;
            let of_group = Self::of_logits(&own.linear(&signs(width)?, None)?, eps)?;
            sum = Some(match sum {
                None => of_group,
                Some(sum) => {
                    Self { sample: sum.sample.add(&of_group.sample)?, codebook: sum.codebook.add(&of_group.codebook)? }
                }
            });
        }
        Ok(sum.unwrap_or_else(|| Self { sample: Tensor::scalar(0.0), codebook: Tensor::scalar(0.0) }))
    }

    /// How many numbers [`CodeEntropies::of_bits`] holds at once for the log-odds of one code: of each group logits and
    /// probabilities.
    pub fn numbers_of_bits(bits: usize, group: usize) -> usize {
        (0..bits).step_by(group.max(1)).map(|start| 2 << group.min(bits - start)).sum()
    }

    /// `sample_weight sample - codebook_weight codebook`, to be made small.
    ///
    /// # Errors
    /// None for entropies of one device.
    pub fn loss(&self, sample_weight: f32, codebook_weight: f32) -> Result<Tensor> {
        Ok(self.sample.mul_scalar(sample_weight)?.sub(&self.codebook.mul_scalar(codebook_weight)?)?)
    }

    /// Both as terms for the curves.
    pub fn terms(&self) -> [(&'static str, Tensor); 2] {
        [("sample_entropy", self.sample.detach()), ("codebook_entropy", self.codebook.detach())]
    }
}

/// A weight that is larger at first: `1 + factor max(0, 1 - t / steps)` times what it comes to, t the passes of training before,
/// as MaskBit and BSQ-ViT have it for their entropy terms. The passes, of which the parts of a step are one, are counted in the
/// buffer `entropy_annealing` `[1]`, so that a resumed run goes on where the first one stood, and a GPU is never waited for.
#[derive(Debug)]
pub struct EntropyAnnealing {
    factor: f32,
    steps: f32,
    passed: Var,
}

impl EntropyAnnealing {
    /// One that begins at `1 + factor` and ends after `steps` passes, at most 2^24, which f32 counts exactly; none if the factor
    /// or the steps are 0.
    ///
    /// # Errors
    /// A name that is taken.
    pub fn new(params: &Params, factor: f32, steps: u64) -> Result<Option<Self>> {
        if factor == 0.0 || steps == 0 {
            return Ok(None);
        }
        Ok(Some(Self { factor, steps: steps as f32, passed: params.buffer("entropy_annealing", &[1], Init::ZEROS)? }))
    }

    /// What the weight is multiplied by in this pass (rank 0), which is counted.
    ///
    /// # Errors
    /// A device that fails.
    pub fn pass(&self) -> Result<Tensor> {
        let passed = self.passed.get();
        if Step::current().is_last() {
            self.passed.set(&passed.add_scalar(1.0)?.clamp(0.0, self.steps)?)?;
        }
        let left = passed.mul_scalar(-1.0 / self.steps)?.add_scalar(1.0)?;
        Ok(left.mul_scalar(self.factor)?.add_scalar(1.0)?.reshape(&[])?)
    }
}

/// Half the signs of all values of `bits` bits, `[2^bits, bits]`: what log odds are multiplied with for logits.
fn signs(bits: usize) -> Result<Tensor> {
    let sign = |value: usize, bit: usize| if value >> bit & 1 == 1 { 0.5 } else { -0.5 };
    let signs = (0..1 << bits).flat_map(|value| (0..bits).map(move |bit| sign(value, bit))).collect();
    Ok(Tensor::from_vec(signs, &[1 << bits, bits])?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::nn::testing::random;
    use crate::tensor::Tape;

    const ALL: [EntropyEps; 3] = [EntropyEps::Mean, EntropyEps::Clamp, EntropyEps::Both];

    #[test]
    fn uniform_logits_have_ln_k_and_sure_ones_none() {
        for eps in ALL {
            let uniform = CodeEntropies::of_logits(&Tensor::zeros(&[3, 5, 8]), eps).unwrap();
            for entropy in [&uniform.sample, &uniform.codebook] {
                assert!((entropy.item().unwrap() - 8f32.ln()).abs() < 1e-4);
            }
            // Eight vectors, each sure of a code of its own.
            let own = (0..64).map(|i| if i % 9 == 0 { 100.0 } else { 0.0 }).collect();
            let sure = CodeEntropies::of_logits(&Tensor::from_vec(own, &[8, 8]).unwrap(), eps).unwrap();
            assert!(sure.sample.item().unwrap().abs() < 1e-5);
            assert!((sure.codebook.item().unwrap() - 8f32.ln()).abs() < 1e-4);
            assert!((sure.loss(1.0, 0.5).unwrap().item().unwrap() + 0.5 * 8f32.ln()).abs() < 1e-4);
        }
    }

    /// The entropy of independent bits is the sum of theirs, so that a sample's is the same for any grouping; that of the
    /// mean is at least the joint one.
    #[test]
    fn groups_keep_the_entropy_of_samples_and_bound_that_of_the_codebook() {
        let odds = random(&[4, 6, 7], 1).mul_scalar(2.0).unwrap();
        let of = |group| CodeEntropies::of_bits(&odds, group, EntropyEps::Mean).unwrap();
        let joint = of(7);
        for group in [1, 3, 8] {
            let grouped = of(group);
            let (a, b) = (joint.sample.item().unwrap(), grouped.sample.item().unwrap());
            assert!((a - b).abs() < 1e-4, "{group}: {a} {b}");
            assert!(grouped.codebook.item().unwrap() > joint.codebook.item().unwrap() - 1e-3);
        }
    }

    #[test]
    fn annealing_sinks_to_one_and_goes_on_from_its_buffer() {
        let params = Params::new(0);
        assert!(EntropyAnnealing::new(&params, 0.0, 10).unwrap().is_none());
        assert!(EntropyAnnealing::new(&params, 2.0, 0).unwrap().is_none());
        let annealing = EntropyAnnealing::new(&params, 2.0, 4).unwrap().unwrap();
        let pass = || annealing.pass().unwrap().item().unwrap();
        assert_eq!([pass(), pass()], [3.0, 2.5]);
        let resumed = Params::new(1);
        let other = EntropyAnnealing::new(&resumed, 2.0, 4).unwrap().unwrap();
        resumed.load(&params.state()).unwrap();
        let after: Vec<f32> = (0..4).map(|_| other.pass().unwrap().item().unwrap()).collect();
        assert_eq!(after, [2.0, 1.5, 1.0, 1.0]);
        assert_eq!((params.count(), params.buffers()), (0, 1));
    }

    /// Along a random direction. The logits are small: `clamp` has kinks.
    #[test]
    fn gradients_agree_with_finite_differences() {
        let (x, direction) = (random(&[5, 6], 2), random(&[5, 6], 3));
        for eps in ALL {
            let loss = |x: &Tensor| CodeEntropies::of_bits(x, 4, eps).unwrap().loss(0.7, 1.3).unwrap();
            let leaf = x.leaf();
            let tape = Tape::start().unwrap();
            let gradient = tape.backward(&loss(&leaf)).unwrap().take(&leaf).unwrap();
            let got: f32 = gradient.as_slice().iter().zip(direction.as_slice()).map(|(g, d)| g * d).sum();
            let at = |t: f32| loss(&x.add(&direction.mul_scalar(t).unwrap()).unwrap()).item().unwrap();
            let wanted = (at(0.02) - at(-0.02)) / 0.04;
            assert!((got - wanted).abs() < 2e-3 * wanted.abs().max(1.0), "{got} {wanted}");
        }
    }
}
