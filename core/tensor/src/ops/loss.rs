//! Losses.

use super::{common_device, on_cpu};
use crate::cpu::loops::loss;
use crate::cpu::loops::rows;
use crate::tape::{GradKey, record};
use crate::{Codes, Error, Result, Tensor};

impl Tensor {
    /// The mean squared difference over all elements: rank 0. Differentiable in both.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes differ or are empty.
    pub fn mse(&self, target: &Tensor) -> Result<Tensor> {
        common_device("mse", [self, target])?;
        if self.shape() != target.shape() || self.is_empty() {
            return Err(Error::shape(
                "mse",
                format!("wanted two equal shapes, found {:?} and {:?}", self.shape(), target.shape()),
            ));
        }
        return_from_gpu!(crate::cuda::loops::loss::mse(self, target));
        let n = self.len() as f64;
        let mean = (loss::squared_distance(self.as_slice(), target.as_slice()) / n) as f32;
        let (x_key, y_key) = (self.tracked(), target.tracked());
        let key = (x_key.is_some() || y_key.is_some()).then(GradKey::new);
        let out = Tensor::output(vec![mean], &[], key.clone());
        if let Some(key) = key {
            let (x, y) = (self.detach(), target.detach());
            record(&key, move |grad, flow| {
                let scale = (f64::from(grad[0]) * 2.0 / n) as f32;
                for (key, scale) in [(x_key, scale), (y_key, -scale)] {
                    if let Some(key) = key {
                        flow.with(&key, x.len(), |out| {
                            loss::scaled_difference(x.as_slice(), y.as_slice(), scale, out)
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
        return_from_gpu!(crate::cuda::loops::rows::cross_entropy(self, targets, outer));
        on_cpu("cross_entropy", [self])?;
        let (loss, normalizer) = rows::cross_entropy(self.as_slice(), targets.as_slice(), width);
        let key = self.tracked().map(|x| (x, GradKey::new()));
        let out = Tensor::output(loss, outer, key.as_ref().map(|k| k.1.clone()));
        if let Some((key_x, key)) = key {
            let (x, targets) = (self.detach(), targets.clone());
            record(&key, move |grad, flow| {
                flow.with(&key_x, x.len(), |out| {
                    rows::cross_entropy_backward(x.as_slice(), targets.as_slice(), &normalizer, &grad, width, out)
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
        common_device("soft_cross_entropy", [self, targets])?;
        let width = self.last_dim();
        if self.shape() != targets.shape() || self.rank() == 0 || width == 0 {
            return Err(Error::shape(
                "soft_cross_entropy",
                format!("wanted logits and targets [.., K], found {:?} and {:?}", self.shape(), targets.shape()),
            ));
        }
        let outer = &self.shape()[..self.rank() - 1];
        return_from_gpu!(crate::cuda::loops::loss::soft_cross_entropy(self, targets, outer));
        let loss = rows::soft_cross_entropy(self.as_slice(), targets.as_slice(), width);
        let key = self.tracked().map(|x| (x, GradKey::new()));
        let out = Tensor::output(loss, outer, key.as_ref().map(|k| k.1.clone()));
        if let Some((key_x, key)) = key {
            let (x, targets) = (self.detach(), targets.detach());
            record(&key, move |grad, flow| {
                flow.with(&key_x, x.len(), |out| {
                    rows::soft_cross_entropy_backward(x.as_slice(), targets.as_slice(), &grad, width, out)
                })
            });
        }
        Ok(out)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first failure")]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, check_gradients, on_every_device, random};
    use crate::{Rng, Tape};

    fn targets(shape: &[usize], limit: usize) -> Codes {
        let n = shape.iter().product();
        Codes::from_vec(Rng::new(1, "targets", 0).below(n, limit as u32), shape).unwrap()
    }

    #[test]
    fn mse_is_the_mean_squared_difference() {
        on_every_device(|| {
            for shape in [&[1][..], &[3, 7], &[65, 1031]] {
                let (x, y) = (random(shape, 1), random(shape, 2));
                let wanted = x.as_slice().iter().zip(y.as_slice()).map(|(x, y)| f64::from(x - y).powi(2)).sum::<f64>();
                assert_close(x.mse(&y).unwrap().as_slice(), &[(wanted / x.len() as f64) as f32], 1e-6);
            }
            let both = [random(&[3, 7], 3), random(&[3, 7], 4)];
            check_gradients(&both, |t| t[0].mse(&t[1]), 1e-3);
            check_gradients(&both, |t| t[0].square()?.mse(&t[0].add(&t[1])?), 1e-3);
        });
    }

    #[test]
    fn cross_entropy_is_the_negative_log_softmax_of_the_target() {
        on_every_device(|| {
            for shape in [&[1, 1][..], &[5, 3], &[2, 3, 17], &[70, 513], &[2, 40_000]] {
                let (outer, k) = (&shape[..shape.len() - 1], shape[shape.len() - 1]);
                let (x, targets) = (random(shape, 5).mul_scalar(4.0).unwrap(), targets(outer, k));
                let wanted = x.log_softmax().unwrap().gather_last(&targets).unwrap().neg().unwrap();
                assert_close(x.cross_entropy(&targets).unwrap().as_slice(), wanted.as_slice(), 1e-6);
            }
        });
    }

    #[test]
    fn cross_entropy_and_its_gradient_agree_on_every_device() {
        on_every_device(|| {
            for shape in [&[3, 2][..], &[2, 3, 17], &[5, 700]] {
                let codes = targets(&shape[..shape.len() - 1], shape[shape.len() - 1]);
                let x = random(shape, 6);
                let host: Vec<f64> = x.as_slice().iter().map(|&x| f64::from(x)).collect();
                let wanted: Vec<f32> = (host.chunks(x.last_dim()).zip(codes.as_slice()))
                    .map(|(row, &code)| (row.iter().map(|x| x.exp()).sum::<f64>().ln() - row[code as usize]) as f32)
                    .collect();
                assert_close(x.cross_entropy(&codes).unwrap().as_slice(), &wanted, 1e-6);
                check_gradients(&[x], |t| t[0].cross_entropy(&codes)?.mul(&t[0].cross_entropy(&codes)?), 2e-3);
            }
        });
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        on_every_device(|| {
            for shape in [&[3, 2][..], &[2, 3, 17]] {
                let x = random(shape, 6);
                let codes = targets(&shape[..shape.len() - 1], shape[shape.len() - 1]);
                let soft = random(shape, 7).softmax().unwrap();
                check_gradients(std::slice::from_ref(&x), |t| t[0].cross_entropy(&codes), 1e-3);
                check_gradients(std::slice::from_ref(&x), |t| t[0].soft_cross_entropy(&soft), 1e-3);
                // A second use of the logits adds to the gradient.
                check_gradients(std::slice::from_ref(&x), |t| t[0].cross_entropy(&codes)?.add(&t[0].max_last()?), 1e-3);
                check_gradients(&[x], |t| t[0].soft_cross_entropy(&soft)?.add(&t[0].cross_entropy(&codes)?), 1e-3);
            }
        });
    }

    #[test]
    fn soft_targets_that_are_certain_give_the_hard_loss() {
        on_every_device(|| {
            let (x, codes) = (random(&[6, 11], 8), targets(&[6], 11));
            let mut certain = vec![0.0; 66];
            codes.as_slice().iter().enumerate().for_each(|(row, &code)| certain[row * 11 + code as usize] = 1.0);
            let soft = x.soft_cross_entropy(&Tensor::from_vec(certain, &[6, 11]).unwrap()).unwrap();
            assert_close(soft.as_slice(), x.cross_entropy(&codes).unwrap().as_slice(), 1e-6);
        });
    }

    #[test]
    fn the_soft_loss_includes_the_published_constant() {
        on_every_device(|| {
            // One logit: log(1 + 1e-7) in f32 is that of the next number above 1.
            let x = Tensor::zeros(&[1, 1]);
            let loss = x.soft_cross_entropy(&Tensor::full(1.0, &[1, 1])).unwrap().item().unwrap();
            assert_eq!(loss, (1.0f32 + 1e-7).ln());
            assert!(loss > 0.0);
        });
    }

    #[test]
    fn targets_get_no_gradient() {
        on_every_device(|| {
            let (x, q) = (random(&[2, 3], 9).leaf(), random(&[2, 3], 10).leaf());
            let tape = Tape::start().unwrap();
            let loss = x.soft_cross_entropy(&q).unwrap().sum_all().unwrap();
            let mut gradients = tape.backward(&loss).unwrap();
            assert!(gradients.take(&x).is_some() && gradients.take(&q).is_none());
        });
    }

    #[test]
    fn misfits_are_errors_with_numbers() {
        on_every_device(|| {
            let x = Tensor::zeros(&[2, 3]);
            let error = x.cross_entropy(&Codes::from_vec(vec![0, 3], &[2]).unwrap()).unwrap_err().to_string();
            assert_eq!(error, "cross_entropy: target 3 at position 1 of [2] is not below 3");
            assert!(x.cross_entropy(&Codes::from_vec(vec![0; 3], &[3]).unwrap()).is_err());
            assert!(x.mse(&Tensor::zeros(&[3, 2])).is_err() && x.soft_cross_entropy(&Tensor::zeros(&[3])).is_err());
        });
    }
}
