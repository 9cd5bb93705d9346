//! Dropout.

use super::on_cpu;
use crate::cpu::loops::dropout;
use crate::tape::{GradKey, record};
use crate::{Error, Result, Rng, Tensor};

impl Tensor {
    /// Zeroes each element with probability `p` and scales the rest by 1 / (1 - p). The mask is a function of `rng` and
    /// the element's index alone (Srivastava et al., "Dropout", JMLR 2014).
    ///
    /// # Errors
    /// [`Error::Shape`] unless `0 <= p < 1`.
    pub fn dropout(&self, p: f32, rng: &Rng) -> Result<Tensor> {
        if !(0.0..1.0).contains(&p) {
            return Err(Error::shape("dropout", format!("the probability {p} is not in 0..1")));
        }
        if p == 0.0 {
            return Ok(self.clone());
        }
        return_from_gpu!(crate::cuda::loops::dropout::dropout(self, p, rng));
        on_cpu("dropout", [self])?;
        let key = self.tracked().map(|x| (x, GradKey::new()));
        let out =
            Tensor::output(dropout::dropped(self.as_slice(), p, rng), self.shape(), key.as_ref().map(|k| k.1.clone()));
        if let Some((x, key)) = key {
            let rng = *rng;
            record(&key, move |mut grad, flow| {
                // The mask is drawn again rather than kept.
                dropout::dropout(&mut grad, p, &rng);
                flow.add(&x, grad)
            });
        }
        Ok(out)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first failure")]
mod tests {
    use super::*;
    use crate::ops::testing::{check_gradients, on_every_device, random};
    use crate::{Share, Tape};

    #[test]
    fn the_fraction_dropped_is_p_and_the_mean_is_kept() {
        on_every_device(|| {
            let n = 100_003;
            for p in [0.1f32, 0.5, 0.9] {
                let y = Tensor::full(1.0, &[n]).dropout(p, &Rng::new(1, "dropout", 2)).unwrap();
                let dropped = y.as_slice().iter().filter(|&&y| y == 0.0).count() as f64 / n as f64;
                // Five standard errors of a proportion.
                let error = 5.0 * f64::from(p * (1.0 - p) / n as f32).sqrt();
                assert!((dropped - f64::from(p)).abs() < error, "{dropped} of {p}");
                assert!(y.as_slice().iter().all(|&y| y == 0.0 || y == 1.0 / (1.0 - p)));
            }
        });
    }

    #[test]
    fn the_mask_is_a_function_of_the_stream_and_the_index() {
        on_every_device(|| {
            let (x, rng) = (Tensor::full(1.0, &[70_001]), Rng::new(3, "dropout", 4));
            let words = rng.bits(70_001);
            let y = x.dropout(0.25, &rng).unwrap();
            assert!(y.as_slice().iter().zip(words).all(|(&y, word)| (y == 0.0) == (word < 1 << 30)));
            assert_ne!(y.to_vec(), x.dropout(0.25, &Rng::new(3, "dropout", 5)).unwrap().to_vec());
        });
    }

    #[test]
    fn the_mask_of_a_share_is_its_part_of_the_batchs() {
        on_every_device(|| {
            let rng = Rng::new(3, "dropout", 4);
            for (of, n) in [(2, 40_000), (3, 30_001), (4, 6)] {
                let mask = |n, rng: &Rng| Tensor::full(1.0, &[n]).dropout(0.25, rng).unwrap().to_vec();
                let shares = (0..of).flat_map(|index| mask(n, &rng.of_share(Share { index, of })));
                assert_eq!(shares.collect::<Vec<_>>(), mask(of * n, &rng));
            }
        });
    }

    #[test]
    fn the_gradient_passes_the_same_mask() {
        on_every_device(|| {
            let rng = Rng::new(5, "dropout", 0);
            check_gradients(&[random(&[7, 13], 6)], |t| t[0].dropout(0.4, &rng), 1e-3);
            let x = Tensor::full(1.0, &[40_009]).leaf();
            let tape = Tape::start().unwrap();
            let y = x.dropout(0.4, &rng).unwrap();
            let loss = y.sum_all().unwrap();
            assert_eq!(tape.backward(&loss).unwrap().take(&x).unwrap().to_vec(), y.to_vec());
        });
    }

    #[test]
    fn a_probability_of_one_is_an_error() {
        on_every_device(|| {
            let rng = Rng::new(0, "dropout", 0);
            assert!(
                Tensor::zeros(&[2]).dropout(1.0, &rng).is_err() && Tensor::zeros(&[2]).dropout(-0.1, &rng).is_err()
            );
            assert_eq!(random(&[9], 7).dropout(0.0, &rng).unwrap().to_vec(), random(&[9], 7).to_vec());
        });
    }
}
