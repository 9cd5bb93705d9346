//! Softmax over the innermost axis.

use super::on_cpu;
use crate::cpu::loops::rows;
use crate::tape::{GradKey, record};
use crate::{Result, Tensor};

impl Tensor {
    /// `e^x / sum e^x` over the innermost axis.
    pub fn softmax(&self) -> Result<Tensor> {
        return_from_gpu!(crate::cuda::loops::rows::softmax("softmax", self));
        on_cpu("softmax", [self])?;
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
        return_from_gpu!(crate::cuda::loops::rows::softmax("log_softmax", self));
        on_cpu("log_softmax", [self])?;
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first failure")]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, check_gradients, on_every_device, random};

    #[test]
    fn rows_equal_the_definition_in_f64() {
        on_every_device(|| {
            for shape in [&[1][..], &[3, 1], &[2, 5], &[4, 3, 17], &[300, 67], &[2, 20_003]] {
                let x = random(shape, 1).mul_scalar(5.0).unwrap();
                let (mut soft, mut logs) = (Vec::new(), Vec::new());
                for row in x.as_slice().chunks(x.last_dim()) {
                    let log = row.iter().map(|&x| f64::from(x).exp()).sum::<f64>().ln();
                    logs.extend(row.iter().map(|&x| (f64::from(x) - log) as f32));
                    soft.extend(row.iter().map(|&x| (f64::from(x) - log).exp() as f32));
                }
                assert_close(x.softmax().unwrap().as_slice(), &soft, 1e-6);
                assert_close(x.log_softmax().unwrap().as_slice(), &logs, 1e-6);
            }
        });
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        on_every_device(|| {
            for shape in [&[4][..], &[3, 5], &[2, 3, 19]] {
                check_gradients(&[random(shape, 2)], |t| t[0].softmax(), 1e-3);
                check_gradients(&[random(shape, 3)], |t| t[0].log_softmax(), 1e-3);
            }
        });
    }

    #[test]
    fn excluded_and_huge_entries_are_fine() {
        on_every_device(|| {
            let x = Tensor::from_vec(vec![1000.0, f32::NEG_INFINITY, 1000.0], &[3]).unwrap();
            assert_eq!(x.softmax().unwrap().to_vec(), [0.5, 0.0, 0.5]);
            assert_eq!(x.log_softmax().unwrap().as_slice()[1], f32::NEG_INFINITY);
            let bad = Tensor::from_vec(vec![1.0, f32::NAN], &[2]).unwrap();
            assert!(bad.softmax().unwrap().as_slice().iter().all(|x| x.is_nan()));
        });
    }
}
