//! Dropout.

use crate::cpu::mask;
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
        let key = self.tracked().map(|x| (x, GradKey::new()));
        let mut data = self.to_vec();
        mask::dropout(&mut data, p, rng);
        let out = Tensor::output(data, self.shape(), key.as_ref().map(|k| k.1.clone()));
        if let Some((x, key)) = key {
            let rng = *rng;
            record(&key, move |mut grad, flow| {
                // The mask is drawn again rather than kept.
                mask::dropout(&mut grad, p, &rng);
                flow.add(&x, grad)
            });
        }
        Ok(out)
    }
}
