//! Softmax over the innermost axis.

use crate::cpu::rows;
use crate::tape::{GradKey, record};
use crate::{Result, Tensor};

impl Tensor {
    /// `e^x / sum e^x` over the innermost axis.
    pub fn softmax(&self) -> Result<Tensor> {
        let width = self.last_dim();
        let key = self.tracked().map(|x| (x, GradKey::new()));
        let out =
            Tensor::output(rows::softmax(self.as_slice(), width), self.shape(), key.as_ref().map(|k| k.1.clone()));
        if let Some((x, key)) = key {
            let y = out.detach();
            record(&key, move |mut grad, flow| {
                rows::softmax_backward(&mut grad, y.as_slice(), width);
                flow.add(&x, grad)
            });
        }
        Ok(out)
    }

    /// `x - log sum e^x` over the innermost axis.
    pub fn log_softmax(&self) -> Result<Tensor> {
        let width = self.last_dim();
        let key = self.tracked().map(|x| (x, GradKey::new()));
        let data = rows::log_softmax(self.as_slice(), width);
        let out = Tensor::output(data, self.shape(), key.as_ref().map(|k| k.1.clone()));
        if let Some((x, key)) = key {
            let y = out.detach();
            record(&key, move |mut grad, flow| {
                rows::log_softmax_backward(&mut grad, y.as_slice(), width);
                flow.add(&x, grad)
            });
        }
        Ok(out)
    }
}
