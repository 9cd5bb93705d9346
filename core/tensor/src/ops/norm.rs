//! Normalisation.

use super::on_cpu;
use crate::cpu::norm::group::{Maps, group_norm, group_norm_backward};
use crate::cpu::norm::layer::{RowNorm, layer_norm, layer_norm_backward};
use crate::tape::{GradKey, record};
use crate::{Error, Result, Tensor};

impl Tensor {
    /// Layer norm over the innermost axis: `[.., C]`, weight and bias `[C]` (Ba et al., "Layer normalization", 2016).
    ///
    /// # Errors
    /// [`Error::Shape`] unless weight and bias have shape `[C]`.
    pub fn layer_norm(&self, weight: &Tensor, bias: &Tensor, eps: f32) -> Result<Tensor> {
        self.norm_of_rows("layer_norm", weight, bias, RowNorm { eps, centred: true })
    }

    /// `x / sqrt(mean x^2 + eps)` times a weight `[C]`, over the innermost axis (Zhang and Sennrich, "Root mean square layer
    /// normalization", NeurIPS 2019).
    ///
    /// # Errors
    /// [`Error::Shape`] unless the weight has shape `[C]`.
    pub fn rms_norm(&self, weight: &Tensor, eps: f32) -> Result<Tensor> {
        let none = Tensor::zeros(weight.shape()).to_device(weight.device())?;
        self.norm_of_rows("rms_norm", weight, &none, RowNorm { eps, centred: false })
    }

    fn norm_of_rows(&self, op: &'static str, weight: &Tensor, bias: &Tensor, norm: RowNorm) -> Result<Tensor> {
        check_parameters(op, self, weight, bias)?;
        return_from_gpu!(crate::cuda::norm::layer_norm(op, self, weight, bias, norm));
        on_cpu(op, [self, weight, bias])?;
        let (data, moments) = layer_norm(self.as_slice(), weight.as_slice(), bias.as_slice(), norm);
        let keys = [self.tracked(), weight.tracked(), bias.tracked()];
        let key = keys.iter().any(Option::is_some).then(GradKey::new);
        let out = Tensor::output(data, self.shape(), key.clone());
        if let Some(key) = key {
            let (x, weight) = (self.detach(), weight.detach());
            record(&key, move |mut grad, flow| {
                let [x_key, weight_key, bias_key] = keys;
                let (x, weight) = (x.as_slice(), weight.as_slice());
                // The other way around a block has mostly brought its gradient by now.
                let target = x_key.as_ref().map_or(Ok(None), |key| flow.started(key))?;
                let started = target.is_some();
                let mut sums = layer_norm_backward(&mut grad, x, &moments, weight, norm.centred, target);
                let bias_sums = sums.split_off(weight.len());
                let x_key = x_key.filter(|_| !started);
                for (key, grad) in [(x_key, grad), (weight_key, sums), (bias_key, bias_sums)] {
                    if let Some(key) = key {
                        flow.add(&key, grad)?;
                    }
                }
                Ok(())
            });
        }
        Ok(out)
    }

    /// Group norm of a map [B, .., C], over all positions and the C / groups channels of a group, with the biased
    /// variance; weight and bias `[C]` (Wu and He, "Group normalization", ECCV 2018).
    ///
    /// # Errors
    /// [`Error::Shape`] unless weight and bias have shape `[C]` and `groups` divides C.
    pub fn group_norm(&self, groups: usize, weight: &Tensor, bias: &Tensor, eps: f32) -> Result<Tensor> {
        Ok(self.group_norm_then("group_norm", groups, weight, bias, eps, false)?.0)
    }

    /// [`group_norm`](Self::group_norm) followed by [`silu`](Self::silu), in one pass: the GroupNorm and swish of the
    /// residual block.
    ///
    /// # Errors
    /// As of `group_norm`.
    pub fn group_norm_silu(&self, groups: usize, weight: &Tensor, bias: &Tensor, eps: f32) -> Result<Tensor> {
        Ok(self.group_norm_then("group_norm_silu", groups, weight, bias, eps, true)?.0)
    }

    /// Batch norm of a map `[B, .., C]` by its own statistics, over all positions of all images, with the biased variance;
    /// weight and bias `[C]` (Ioffe and Szegedy, "Batch normalization", ICML 2015). Beside it mean and biased variance of
    /// each channel, `[C]`, without a gradient.
    ///
    /// # Errors
    /// [`Error::Shape`] unless weight and bias have shape `[C]` and there is a position.
    pub fn batch_norm(&self, weight: &Tensor, bias: &Tensor, eps: f32) -> Result<(Tensor, [Tensor; 2])> {
        check_parameters("batch_norm", self, weight, bias)?;
        if self.is_empty() {
            return Err(Error::shape("batch_norm", format!("{:?} has no statistics", self.shape())));
        }
        // One map whose groups are channels.
        let channels = self.last_dim();
        let all = self.reshape(&[1, self.len() / channels, channels])?;
        let (out, moments) = all.group_norm_then("batch_norm", channels, weight, bias, eps, false)?;
        let of = |i: usize| moments.slice(1, i..i + 1)?.reshape(&[channels]);
        let (mean, scale) = (of(0)?, of(1)?);
        let variance = scale.div(&scale.square()?.mul(&scale)?)?.add_scalar(-eps)?.clamp(0.0, f32::MAX)?;
        Ok((out.reshape(self.shape())?, [mean, variance]))
    }

    /// Beside the norm each group's mean and reciprocal standard deviation: `[B groups, 2]`.
    fn group_norm_then(
        &self,
        op: &'static str,
        groups: usize,
        weight: &Tensor,
        bias: &Tensor,
        eps: f32,
        silu: bool,
    ) -> Result<(Tensor, Tensor)> {
        super::common_device(op, [self, weight, bias])?;
        check_parameters(op, self, weight, bias)?;
        let channels = self.last_dim();
        if self.rank() < 2 || groups == 0 || !channels.is_multiple_of(groups) {
            return Err(Error::shape(
                op,
                format!("wanted [B, .., C] with C a multiple of {groups} groups, found {:?}", self.shape()),
            ));
        }
        let positions = self.shape()[1..self.rank() - 1].iter().product();
        let maps = Maps { positions, channels, groups, eps, silu };
        if self.is_empty() {
            return Ok((self.detach(), Tensor::zeros(&[0, 2])));
        }
        return_from_gpu!(crate::cuda::norm::group_norm(op, self, weight, bias, maps));
        on_cpu(op, [self, weight, bias])?;
        let (data, moments) = group_norm(self.as_slice(), weight.as_slice(), bias.as_slice(), maps);
        let moments =
            Tensor::output(moments.into_flattened(), &[self.len() / (positions * channels) * groups, 2], None);
        let keys = [self.tracked(), weight.tracked(), bias.tracked()];
        let key = keys.iter().any(Option::is_some).then(GradKey::new);
        let out = Tensor::output(data, self.shape(), key.clone());
        if let Some(key) = key {
            let (x, weight, bias, moments) = (self.detach(), weight.detach(), bias.detach(), moments.clone());
            record(&key, move |mut grad, flow| {
                let (weight, bias, moments) = (weight.as_slice(), bias.as_slice(), moments.as_slice().as_chunks().0);
                let mut sums = group_norm_backward(&mut grad, x.as_slice(), moments, weight, bias, maps);
                let bias_sums = sums.split_off(channels);
                let [x_key, weight_key, bias_key] = keys;
                for (key, grad) in [(x_key, grad), (weight_key, sums), (bias_key, bias_sums)] {
                    if let Some(key) = key {
                        flow.add(&key, grad)?;
                    }
                }
                Ok(())
            });
        }
        Ok((out, moments))
    }
}

/// Weight and bias of a normalisation are `[C]`, and C is not zero.
fn check_parameters(op: &'static str, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<()> {
    let channels = x.last_dim();
    if x.rank() == 0 || channels == 0 || weight.shape() != [channels] || bias.shape() != [channels] {
        return Err(Error::shape(
            op,
            format!(
                "wanted [.., C] with weight and bias [C], found {:?}, {:?} and {:?}",
                x.shape(),
                weight.shape(),
                bias.shape()
            ),
        ));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first failure")]
mod tests {
    use super::*;
    use crate::Tape;
    use crate::ops::testing::{agrees_with_the_cpu, assert_close, check_gradients, on_every_device, random};

    /// Normalises the elements that share `unit(i)`, in f64, then applies weight and bias by channel.
    fn twin(x: &Tensor, unit: impl Fn(usize) -> usize, weight: &Tensor, bias: &Tensor, eps: f64) -> Vec<f32> {
        let units = (0..x.len()).map(&unit).max().unwrap() + 1;
        let (mut n, mut mean, mut variance) = (vec![0.0; units], vec![0.0; units], vec![0.0; units]);
        for (i, &x) in x.as_slice().iter().enumerate() {
            n[unit(i)] += 1.0;
            mean[unit(i)] += f64::from(x);
        }
        mean.iter_mut().zip(&n).for_each(|(m, n)| *m /= n);
        for (i, &x) in x.as_slice().iter().enumerate() {
            variance[unit(i)] += (f64::from(x) - mean[unit(i)]).powi(2) / n[unit(i)];
        }
        let c = weight.len();
        let normal = |i: usize| (f64::from(x.as_slice()[i]) - mean[unit(i)]) / (variance[unit(i)] + eps).sqrt();
        (0..x.len())
            .map(|i| (normal(i) * f64::from(weight.as_slice()[i % c]) + f64::from(bias.as_slice()[i % c])) as f32)
            .collect()
    }

    fn silu(x: &f32) -> f32 {
        x / (1.0 + (-x).exp())
    }

    #[test]
    fn layer_norm_equals_its_definition() {
        on_every_device(|| {
            for shape in [&[1, 1][..], &[3, 2], &[5, 16], &[2, 3, 37], &[700, 100], &[3, 20_011]] {
                let c = shape[shape.len() - 1];
                let (x, weight, bias) = (random(shape, 1).add_scalar(30.0).unwrap(), random(&[c], 2), random(&[c], 3));
                let got = x.layer_norm(&weight, &bias, 1e-5).unwrap();
                assert_close(got.as_slice(), &twin(&x, |i| i / c, &weight, &bias, 1e-5), 1e-5);
            }
        });
    }

    /// Shapes of maps with their number of groups.
    const MAPS: [(&[usize], usize); 12] = [
        (&[1, 1], 1),
        (&[2, 3, 4], 2),
        (&[3, 2, 3, 5], 5),
        (&[2, 5, 7, 24], 3),
        (&[1, 19, 17, 3], 1),
        (&[2, 8, 8, 128], 8),
        (&[5, 300, 48], 4),
        (&[1, 90, 91, 32], 8),
        (&[2, 70, 70, 36], 4),
        (&[2, 3, 301], 7),
        (&[1, 5, 1040], 8),
        (&[600, 2, 4], 2),
    ];

    #[test]
    fn group_norm_equals_its_definition() {
        on_every_device(|| {
            for (shape, groups) in MAPS {
                let c = shape[shape.len() - 1];
                let size: usize = shape[1..].iter().product();
                let unit = |i: usize| i / size * groups + i % c / (c / groups);
                // A mean of ten deviations: squares alone would lose two digits of the variance.
                let (x, weight, bias) = (random(shape, 4).add_scalar(10.0).unwrap(), random(&[c], 5), random(&[c], 6));
                let wanted = twin(&x, unit, &weight, &bias, 1e-6);
                assert_close(x.group_norm(groups, &weight, &bias, 1e-6).unwrap().as_slice(), &wanted, 1e-5);
                let wanted: Vec<f32> = wanted.iter().map(silu).collect();
                assert_close(x.group_norm_silu(groups, &weight, &bias, 1e-6).unwrap().as_slice(), &wanted, 1e-5);
            }
        });
    }

    #[test]
    fn batch_norm_equals_its_definition_and_tells_its_statistics() {
        on_every_device(|| {
            for shape in [&[1, 1][..], &[2, 3, 4], &[3, 2, 3, 5], &[2, 5, 7, 24], &[5, 30, 30, 36], &[70, 9]] {
                let c = shape[shape.len() - 1];
                let (x, weight, bias) = (random(shape, 4).add_scalar(3.0).unwrap(), random(&[c], 5), random(&[c], 6));
                let (out, [mean, variance]) = x.batch_norm(&weight, &bias, 1e-5).unwrap();
                assert_eq!(out.shape(), shape);
                assert_close(out.as_slice(), &twin(&x, |i| i % c, &weight, &bias, 1e-5), 1e-5);
                let n = (x.len() / c) as f64;
                let column = |k: usize| x.as_slice().iter().skip(k).step_by(c).map(|&x| f64::from(x));
                let means: Vec<f64> = (0..c).map(|k| column(k).sum::<f64>() / n).collect();
                let spread = |k: usize| column(k).map(|x| (x - means[k]).powi(2)).sum::<f64>() / n;
                assert_close(mean.as_slice(), &means.iter().map(|&m| m as f32).collect::<Vec<_>>(), 1e-6);
                assert_close(variance.as_slice(), &(0..c).map(|k| spread(k) as f32).collect::<Vec<_>>(), 1e-6);
            }
            let none = Tensor::zeros(&[3]);
            assert!(Tensor::zeros(&[0, 2, 3]).batch_norm(&none, &none, 1e-5).is_err());
        });
    }

    #[test]
    fn batch_norm_gradients_agree_with_finite_differences() {
        on_every_device(|| {
            for shape in [&[3, 5][..], &[2, 3, 3, 8], &[20, 13, 13, 7]] {
                let c = shape[shape.len() - 1];
                let operands = [random(shape, 10), random(&[c], 11), random(&[c], 12)];
                check_gradients(&operands, |t| Ok(t[0].batch_norm(&t[1], &t[2], 1e-5)?.0), 3e-3);
            }
        });
    }

    #[test]
    fn a_group_far_from_its_first_value_keeps_the_digits_of_its_variance() {
        for (shape, groups) in [([1, 400, 16], 2), ([2, 12_000, 20], 4)] {
            let c = shape[2];
            // One value among zeros: its square is the group's size times the variance.
            let x: Vec<f32> = (0..shape.iter().product())
                .map(|i| if i / c % shape[1] == 0 && i % 2 == 0 { 1000.3 } else { 0.0 })
                .collect();
            let (x, weight, bias) = (Tensor::from_vec(x, &shape).unwrap(), random(&[c], 5), random(&[c], 6));
            let unit = |i: usize| i / (shape[1] * c) * groups + i % c / (c / groups);
            let wanted = twin(&x, unit, &weight, &bias, 1e-6);
            assert_close(x.group_norm(groups, &weight, &bias, 1e-6).unwrap().as_slice(), &wanted, 1e-6);
        }
    }

    #[test]
    fn rms_norm_is_around_zero() {
        on_every_device(|| {
            for shape in [&[3, 5][..], &[2, 3, 16], &[130, 150], &[9, 700], &[7, 1500]] {
                let c = shape[shape.len() - 1];
                let (x, weight) = (random(shape, 7).add_scalar(0.5).unwrap(), random(&[c], 8));
                let root = x.square().unwrap().mean(&[shape.len() - 1], true).unwrap();
                let root = root.add_scalar(1e-5).unwrap().sqrt().unwrap();
                let wanted = x.div(&root).unwrap().mul(&weight).unwrap();
                assert_close(x.rms_norm(&weight, 1e-5).unwrap().as_slice(), wanted.as_slice(), 1e-6);
                if x.len() < 100 {
                    check_gradients(&[x, weight], |t| t[0].add(&t[0].rms_norm(&t[1], 1e-5)?), 3e-3);
                } else {
                    agrees_with_the_cpu(&[x, weight], |t| t[0].rms_norm(&t[1], 1e-5));
                }
            }
        });
    }

    #[test]
    fn layer_norm_gradients_agree_with_finite_differences() {
        on_every_device(|| {
            for shape in [&[3, 5][..], &[2, 3, 16], &[4, 37], &[130, 150]] {
                let c = shape[shape.len() - 1];
                let operands = [random(shape, 7), random(&[c], 8), random(&[c], 9)];
                check_gradients(&operands, |t| t[0].layer_norm(&t[1], &t[2], 1e-5), 3e-3);
                // A second way to the input adds to the gradient.
                check_gradients(&operands, |t| t[0].add(&t[0].layer_norm(&t[1], &t[2], 1e-5)?), 3e-3);
            }
        });
    }

    #[test]
    fn long_rows_are_normalised_as_on_the_cpu() {
        on_every_device(|| {
            for shape in [[150, 700], [70, 1500]] {
                let operands = [random(&shape, 7), random(&shape[1..], 8), random(&shape[1..], 9)];
                agrees_with_the_cpu(&operands, |t| t[0].layer_norm(&t[1], &t[2], 1e-5));
            }
        });
    }

    #[test]
    fn group_norm_gradients_agree_with_finite_differences() {
        on_every_device(|| {
            for (shape, groups) in MAPS.into_iter().filter(|(shape, _)| shape.len() > 2) {
                let c = shape[shape.len() - 1];
                let operands = [random(shape, 10), random(&[c], 11), random(&[c], 12)];
                check_gradients(&operands, |t| t[0].group_norm(groups, &t[1], &t[2], 1e-6), 3e-3);
                check_gradients(&operands, |t| t[0].group_norm_silu(groups, &t[1], &t[2], 1e-6), 3e-3);
            }
        });
    }

    #[test]
    fn a_skip_connection_adds_its_gradient() {
        on_every_device(|| {
            let operands = [random(&[2, 3, 3, 8], 13), random(&[8], 14), random(&[8], 15)];
            check_gradients(&operands, |t| t[0].group_norm_silu(2, &t[1], &t[2], 1e-6)?.add(&t[0]), 3e-3);
            check_gradients(&operands, |t| t[0].layer_norm(&t[1], &t[2], 1e-5)?.add(&t[0]), 3e-3);
        });
    }

    #[test]
    fn the_fused_form_has_the_gradients_of_the_two_steps() {
        on_every_device(|| {
            let operands = [random(&[3, 9, 7, 20], 16), random(&[20], 17), random(&[20], 18)];
            let gradients = |fused: bool| {
                let leaves: Vec<Tensor> = operands.iter().map(Tensor::leaf).collect();
                let tape = Tape::start().unwrap();
                let y = if fused {
                    leaves[0].group_norm_silu(4, &leaves[1], &leaves[2], 1e-6).unwrap()
                } else {
                    leaves[0].group_norm(4, &leaves[1], &leaves[2], 1e-6).unwrap().silu().unwrap()
                };
                let mut found = tape.backward(&y.square().unwrap().sum_all().unwrap()).unwrap();
                leaves.iter().map(|leaf| found.take(leaf).unwrap()).collect::<Vec<_>>()
            };
            for (fused, plain) in gradients(true).iter().zip(gradients(false)) {
                assert_close(fused.as_slice(), plain.as_slice(), 1e-5);
            }
        });
    }

    #[test]
    fn misfits_are_errors() {
        on_every_device(|| {
            let (x, six, four) = (Tensor::zeros(&[2, 5, 6]), Tensor::zeros(&[6]), Tensor::zeros(&[4]));
            assert!(x.layer_norm(&six, &four, 1e-5).is_err() && x.group_norm(4, &six, &six, 1e-6).is_err());
            assert!(x.group_norm(0, &six, &six, 1e-6).is_err() && six.group_norm(2, &six, &six, 1e-6).is_err());
        });
    }
}
