//! Losses.

use crate::cpu::{rows, squared};
use crate::tape::{GradKey, record};
use crate::{Codes, Error, Result, Tensor};

impl Tensor {
    /// The mean squared difference over all elements: rank 0. Differentiable in both.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes differ or are empty.
    pub fn mse(&self, target: &Tensor) -> Result<Tensor> {
        if self.shape() != target.shape() || self.is_empty() {
            return Err(Error::shape(
                "mse",
                format!("wanted two equal shapes, found {:?} and {:?}", self.shape(), target.shape()),
            ));
        }
        let n = self.len() as f64;
        let mean = (squared::squared_distance(self.as_slice(), target.as_slice()) / n) as f32;
        let (x_key, y_key) = (self.tracked(), target.tracked());
        let key = (x_key.is_some() || y_key.is_some()).then(GradKey::new);
        let out = Tensor::output(vec![mean], &[], key.clone());
        if let Some(key) = key {
            let (x, y) = (self.detach(), target.detach());
            record(&key, move |grad, flow| {
                let scale = (f64::from(grad[0]) * 2.0 / n) as f32;
                for (key, scale) in [(x_key, scale), (y_key, -scale)] {
                    if let Some(key) = key {
                        flow.with(&key, x.len(), |out, accumulate| {
                            squared::scaled_difference(x.as_slice(), y.as_slice(), scale, out, accumulate);
                        })?;
                    }
                }
                Ok(())
            });
        }
        Ok(out)
    }

    /// `-log softmax(x)[target]` of every row: logits [.., K], targets [..] -> [..], in nats.
    ///
    /// # Errors
    /// [`Error::Shape`] if the targets' shape is not that of the rows, or a target is K or more.
    pub fn cross_entropy(&self, targets: &Codes) -> Result<Tensor> {
        let (outer, width) = super::rows_of("cross_entropy", self, targets.shape())?;
        super::check_codes("cross_entropy", "target", targets, width)?;
        let (loss, normalizer) = rows::cross_entropy(self.as_slice(), targets.as_slice(), width);
        let key = self.tracked().map(|x| (x, GradKey::new()));
        let out = Tensor::output(loss, outer, key.as_ref().map(|k| k.1.clone()));
        if let Some((key_x, key)) = key {
            let (x, targets) = (self.detach(), targets.clone());
            record(&key, move |grad, flow| {
                flow.with(&key_x, x.len(), |out, accumulate| {
                    rows::cross_entropy_backward(
                        x.as_slice(),
                        targets.as_slice(),
                        &normalizer,
                        &grad,
                        width,
                        out,
                        accumulate,
                    );
                })
            });
        }
        Ok(out)
    }

    /// `-sum_k q_k (x_k - M - log(sum_j e^(x_j - M) + 1e-7))` of every row, with `M = max x`: logits x and targets q
    /// [.., K] -> [..], in nats. The gradient flows to the logits only.
    ///
    /// The 1e-7 is part of the published RQ-Transformer's loss (Lee et al., "Autoregressive image generation using
    /// residual quantization", CVPR 2022).
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes differ or K is zero.
    pub fn soft_cross_entropy(&self, targets: &Tensor) -> Result<Tensor> {
        let width = self.last_dim();
        if self.shape() != targets.shape() || self.rank() == 0 || width == 0 {
            return Err(Error::shape(
                "soft_cross_entropy",
                format!("wanted logits and targets [.., K], found {:?} and {:?}", self.shape(), targets.shape()),
            ));
        }
        let loss = rows::soft_cross_entropy(self.as_slice(), targets.as_slice(), width);
        let key = self.tracked().map(|x| (x, GradKey::new()));
        let out = Tensor::output(loss, &self.shape()[..self.rank() - 1], key.as_ref().map(|k| k.1.clone()));
        if let Some((key_x, key)) = key {
            let (x, targets) = (self.detach(), targets.detach());
            record(&key, move |grad, flow| {
                flow.with(&key_x, x.len(), |out, accumulate| {
                    rows::soft_cross_entropy_backward(x.as_slice(), targets.as_slice(), &grad, width, out, accumulate);
                })
            });
        }
        Ok(out)
    }
}
