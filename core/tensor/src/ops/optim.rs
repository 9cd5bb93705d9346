//! Fused optimizer steps over variables, in place: all threads of the CPU, or one launch on a GPU.

use crate::cpu::loops::reduce;
use crate::cpu::optim;
use crate::{Error, Result, Tensor, Var};
use rayon::prelude::*;

/// What one step of Adam or AdamW does; `Default` has the usual constants and no decay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamStep {
    /// The learning rate of this step.
    pub lr: f64,
    /// Decay of the average gradient.
    pub beta1: f64,
    /// Decay of the average squared gradient.
    pub beta2: f64,
    /// Added to the root of the corrected average square.
    pub eps: f64,
    /// Decoupled decay: the parameter is multiplied by `1 - lr * weight_decay` first (AdamW).
    pub weight_decay: f64,
    /// Coupled decay: `l2 * parameter` is added to the gradient (Adam).
    pub l2: f64,
    /// Which step this is, from 1, for the bias correction.
    pub step: u64,
}

impl Default for AdamStep {
    fn default() -> Self {
        Self { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, l2: 0.0, step: 1 }
    }
}

/// One step of Adam (Kingma and Ba, ICLR 2015) or AdamW (Loshchilov and Hutter, ICLR 2019) on `param`, given its
/// gradient times `grad_scale` and the averages `m` and `v`, buffers of the parameter's shape that start at zero.
///
/// # Errors
/// [`Error::Shape`] if the sizes differ or `step` is 0.
pub fn adam(param: &Var, grad: &Tensor, m: &Var, v: &Var, grad_scale: f32, how: &AdamStep) -> Result<()> {
    let grad_scale = Tensor::scalar(grad_scale).to_device(grad.device())?;
    adam_all(&[AdamSlot { param, grad, m, v }], &grad_scale, how)
}

impl AdamStep {
    fn constants(&self) -> Result<optim::Adam> {
        if self.step == 0 {
            return Err(Error::shape("adam", "steps count from 1, found step 0"));
        }
        let power = self.step as f64;
        let (correction1, correction2) = (1.0 - self.beta1.powf(power), 1.0 - self.beta2.powf(power));
        Ok(optim::Adam {
            l2: self.l2 as f32,
            keep: (1.0 - self.lr * self.weight_decay) as f32,
            beta1: self.beta1 as f32,
            rest1: (1.0 - self.beta1) as f32,
            beta2: self.beta2 as f32,
            rest2: (1.0 - self.beta2) as f32,
            step_size: (self.lr / correction1) as f32,
            root_scale: (1.0 / correction2.sqrt()) as f32,
            eps: self.eps as f32,
        })
    }
}

/// What [`adam_all`] steps: a parameter, its gradient, and its averages.
#[derive(Debug, Clone, Copy)]
pub struct AdamSlot<'a> {
    /// The parameter.
    pub param: &'a Var,
    /// Its gradient.
    pub grad: &'a Tensor,
    /// The average gradient.
    pub m: &'a Var,
    /// The average squared gradient.
    pub v: &'a Var,
}

impl AdamSlot<'_> {
    /// Checks that all four have one size and are on one device.
    fn check(&self) -> Result<()> {
        let [param, m, v] = [self.param, self.m, self.v].map(Var::get);
        super::common_device("adam", [self.grad, &param, &m, &v])?;
        if [self.grad.len(), m.len(), v.len()] == [param.len(); 3] {
            return Ok(());
        }
        Err(Error::shape(
            "adam",
            format!(
                "a parameter of {} elements with a gradient of {} and averages of {} and {}",
                param.len(),
                self.grad.len(),
                m.len(),
                v.len()
            ),
        ))
    }
}

/// [`adam`] of many parameters at once: most are too small to keep all of a device busy. `grad_scale`, of rank 0, is on their
/// device, such as [`Squares::clip_factor`] leaves it there; where it is NaN nothing is changed.
///
/// # Errors
/// As for [`adam`]; nothing is changed then.
pub fn adam_all(slots: &[AdamSlot<'_>], grad_scale: &Tensor, how: &AdamStep) -> Result<()> {
    let constants = how.constants()?;
    slots.iter().try_for_each(AdamSlot::check)?;
    super::common_device("adam", slots.iter().map(|slot| slot.grad).chain([grad_scale]))?;
    #[cfg(feature = "cuda")]
    if crate::cuda::optim::adam(slots, grad_scale, constants)? {
        return Ok(());
    }
    let scale = grad_scale.item()?;
    if scale.is_nan() {
        return Ok(());
    }
    slots.par_iter().with_max_len(1).for_each(|slot| {
        let grad = slot.grad.as_slice();
        slot.param.write(|p| slot.m.write(|m| slot.v.write(|v| optim::adam(constants, scale, p, grad, m, v))));
    });
    Ok(())
}

/// [`ema`] of many pairs (value, average) at once.
///
/// # Errors
/// As for [`ema`]; nothing is changed then.
pub fn ema_all(pairs: &[(Var, Var)], decay: f32) -> Result<()> {
    let pairs: Vec<(Tensor, &Var)> = pairs.iter().map(|(value, average)| (value.get(), average)).collect();
    averages(&pairs, decay)
}

/// `average = decay * average + (1 - decay) * param`.
///
/// # Errors
/// [`Error::Shape`] if the sizes differ.
pub fn ema(average: &Var, param: &Tensor, decay: f32) -> Result<()> {
    averages(&[(param.clone(), average)], decay)
}

fn averages(pairs: &[(Tensor, &Var)], decay: f32) -> Result<()> {
    for (value, average) in pairs {
        let average = average.get();
        super::common_device("ema", [value, &average])?;
        if average.len() != value.len() {
            return Err(Error::shape(
                "ema",
                format!("an average of {} elements and a value of {}", average.len(), value.len()),
            ));
        }
    }
    #[cfg(feature = "cuda")]
    if crate::cuda::optim::ema(pairs, decay)? {
        return Ok(());
    }
    pairs.par_iter().with_max_len(1).for_each(|(value, average)| {
        average.write(|average| optim::ema(average, value.as_slice(), decay, (1.0 - f64::from(decay)) as f32));
    });
    Ok(())
}

/// The sums of squares of tensors, each over all of its elements, in f64 and in a fixed order. From a GPU they are read only
/// when they are asked for.
#[derive(Debug)]
pub struct Squares(Sums);

enum Sums {
    Cpu(Vec<f64>),
    #[cfg(feature = "cuda")]
    Cuda(crate::cuda::optim::Squares),
}

impl std::fmt::Debug for Sums {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cpu(sums) => sums.fmt(f),
            #[cfg(feature = "cuda")]
            Self::Cuda(_) => f.write_str("sums on a GPU"),
        }
    }
}

impl Squares {
    /// Those of `tensors`, which are on one device.
    ///
    /// # Errors
    /// [`Error::Device`] if they are not, or if it fails.
    pub fn of(tensors: &[&Tensor]) -> Result<Self> {
        super::common_device("squares", tensors.iter().copied())?;
        #[cfg(feature = "cuda")]
        if let Some(sums) = crate::cuda::optim::Squares::of(tensors)? {
            return Ok(Self(Sums::Cuda(sums)));
        }
        Ok(Self(Sums::Cpu(tensors.par_iter().with_max_len(1).map(|t| reduce::sum_of_squares(t.as_slice())).collect())))
    }

    /// The sums, in the order of the tensors. The host waits for a GPU.
    ///
    /// # Errors
    /// [`Error::Device`] if they cannot be read any more.
    pub fn to_vec(&self) -> Result<Vec<f64>> {
        match &self.0 {
            Sums::Cpu(sums) => Ok(sums.clone()),
            #[cfg(feature = "cuda")]
            Sums::Cuda(sums) => sums.read(),
        }
    }

    /// What all tensors are to be multiplied by, so that their norm together is at most `most`, as PyTorch's
    /// `clip_grad_norm_` has it: `min(1, most / (norm + 1e-6))`, of rank 0 and on their device; NaN if a sum is not finite.
    ///
    /// # Errors
    /// [`Error::Device`] if the device fails.
    pub fn clip_factor(&self, most: f32) -> Result<Tensor> {
        match &self.0 {
            Sums::Cpu(sums) => {
                let sum: f64 = sums.iter().sum();
                let factor = (f64::from(most) / (sum.sqrt() + 1e-6)).min(1.0) as f32;
                Ok(Tensor::output(vec![if sum.is_finite() { factor } else { f32::NAN }], &[], None))
            }
            #[cfg(feature = "cuda")]
            Sums::Cuda(sums) => sums.clip_factor(most),
        }
    }
}

/// The sum of squares of all elements, in f64 and in a fixed order; NaN if they cannot be read any more.
pub fn sum_of_squares(t: &Tensor) -> f64 {
    Squares::of(&[t])
        .and_then(|squares| squares.to_vec())
        .ok()
        .and_then(|sums| sums.first().copied())
        .unwrap_or(f64::NAN)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first failure")]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, on_every_device, random};

    /// The published update, literally, in f64; the state is (parameter, m, v).
    fn literal(state: &mut (f64, f64, f64), grad: f64, how: &AdamStep) {
        let (p, m, v) = state;
        *p -= how.lr * how.weight_decay * *p;
        let grad = grad + how.l2 * *p;
        *m = how.beta1 * *m + (1.0 - how.beta1) * grad;
        *v = how.beta2 * *v + (1.0 - how.beta2) * grad * grad;
        let m_hat = *m / (1.0 - how.beta1.powf(how.step as f64));
        let v_hat = *v / (1.0 - how.beta2.powf(how.step as f64));
        *p -= how.lr * m_hat / (v_hat.sqrt() + how.eps);
    }

    #[test]
    fn ten_steps_equal_the_literal_formulas() {
        on_every_device(|| {
            let plain = AdamStep { lr: 1e-2, beta2: 0.99, ..AdamStep::default() };
            for how in [plain, AdamStep { weight_decay: 0.1, ..plain }, AdamStep { l2: 0.05, eps: 1e-3, ..plain }] {
                for len in [1, 37, 40_003] {
                    let start = random(&[len], 1);
                    let param = Var::parameter(&start);
                    let (m, v) = (Var::buffer(&Tensor::zeros(&[len])), Var::buffer(&Tensor::zeros(&[len])));
                    let mut states: Vec<_> = start.as_slice().iter().map(|&p| (f64::from(p), 0.0, 0.0)).collect();
                    for step in 1..=10 {
                        let how = AdamStep { step, ..how };
                        let grad = random(&[len], 1 + step);
                        adam(&param, &grad, &m, &v, 0.5, &how).unwrap();
                        for (state, &g) in states.iter_mut().zip(grad.as_slice()) {
                            literal(state, 0.5 * f64::from(g), &how);
                        }
                    }
                    let column =
                        |f: fn(&(f64, f64, f64)) -> f64| states.iter().map(|s| f(s) as f32).collect::<Vec<_>>();
                    assert_close(param.get().as_slice(), &column(|s| s.0), 1e-6);
                    assert_close(m.get().as_slice(), &column(|s| s.1), 1e-6);
                    assert_close(v.get().as_slice(), &column(|s| s.2), 1e-6);
                }
            }
        });
    }

    #[test]
    fn the_first_step_is_the_learning_rate_in_the_direction_of_the_sign() {
        on_every_device(|| {
            let param = Var::parameter(&Tensor::zeros(&[3]));
            let (m, v) = (Var::buffer(&Tensor::zeros(&[3])), Var::buffer(&Tensor::zeros(&[3])));
            let grad = Tensor::from_vec(vec![1e-3, -5.0, 700.0], &[3]).unwrap();
            adam(&param, &grad, &m, &v, 1.0, &AdamStep { lr: 0.1, ..AdamStep::default() }).unwrap();
            assert_close(param.get().as_slice(), &[-0.1, 0.1, -0.1], 1e-5);
        });
    }

    #[test]
    fn an_average_approaches_a_constant_geometrically() {
        on_every_device(|| {
            let average = Var::buffer(&Tensor::zeros(&[70_001]));
            for _ in 0..3 {
                ema(&average, &Tensor::full(1.0, &[70_001]), 0.9).unwrap();
            }
            assert_close(average.get().as_slice(), &vec![1.0 - 0.9 * 0.9 * 0.9; 70_001], 1e-6);
        });
    }

    #[test]
    fn squares_sum_in_f64() {
        on_every_device(|| {
            assert_eq!(sum_of_squares(&Tensor::full(3.0, &[100_003])), 900_027.0);
            // In f32 the ones would vanish beside 2^26.
            let mut data = vec![1.0; 1001];
            data[0] = 8192.0;
            assert_eq!(sum_of_squares(&Tensor::from_vec(data, &[1001]).unwrap()), 67_108_864.0 + 1000.0);
        });
    }

    #[test]
    fn a_norm_above_the_limit_is_brought_to_it() {
        on_every_device(|| {
            // 3, 4 and 12 make 13, over two tensors and 70 empty ones, more than one launch takes.
            let (a, b) = (Tensor::from_vec(vec![3.0, 4.0], &[2]).unwrap(), Tensor::full(12.0, &[1]));
            let empty = Tensor::zeros(&[0]);
            let all: Vec<&Tensor> = [&a].into_iter().chain(std::iter::repeat_n(&empty, 70)).chain([&b]).collect();
            let squares = Squares::of(&all).unwrap();
            let sums = squares.to_vec().unwrap();
            assert_eq!((sums.len(), sums[0], sums[35], sums[71]), (72, 25.0, 0.0, 144.0));
            for (most, factor) in [(6.5, 0.5), (13.1, 1.0), (f32::INFINITY, 1.0)] {
                assert_close(squares.clip_factor(most).unwrap().as_slice(), &[factor], 1e-6);
            }
        });
    }

    #[test]
    fn gradients_that_are_not_finite_change_nothing() {
        on_every_device(|| {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let grads = [Tensor::full(1.0, &[5]), Tensor::from_vec(vec![1.0, bad, 1.0], &[3]).unwrap()];
                let vars = |len: usize| [0, 1, 2].map(|seed| Var::buffer(&random(&[len], seed)));
                let states = [vars(5), vars(3)];
                let before: Vec<_> = states.iter().flatten().map(|var| var.get().to_vec()).collect();
                let slots: Vec<_> =
                    states.iter().zip(&grads).map(|([param, m, v], grad)| AdamSlot { param, grad, m, v }).collect();
                let squares = Squares::of(&grads.iter().collect::<Vec<_>>()).unwrap();
                assert!(squares.to_vec().unwrap()[0].is_finite() && !squares.to_vec().unwrap()[1].is_finite());
                adam_all(&slots, &squares.clip_factor(1.0).unwrap(), &AdamStep::default()).unwrap();
                let after: Vec<_> = states.iter().flatten().map(|var| var.get().to_vec()).collect();
                assert_eq!(before, after);
            }
        });
    }

    #[test]
    fn misfits_are_errors() {
        on_every_device(|| {
            let (two, three) = (Var::buffer(&Tensor::zeros(&[2])), Var::buffer(&Tensor::zeros(&[3])));
            let how = AdamStep::default();
            let param = Var::parameter(&Tensor::zeros(&[2]));
            assert!(adam(&param, &Tensor::zeros(&[2]), &two, &three, 1.0, &how).is_err());
            assert!(ema(&two, &Tensor::zeros(&[3]), 0.9).is_err());
        });
    }
}
