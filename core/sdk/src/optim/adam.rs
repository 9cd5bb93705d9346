//! Adam and AdamW.

use crate::params::{Init, Params};
use crate::tensor::ops::optim::{AdamSlot, AdamStep, Squares, adam_all};
use crate::tensor::{Gradients, Tensor, Var};
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The constants of Adam; `Default` has the usual ones and no weight decay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamSettings {
    /// Decay of the average gradient and of the average squared gradient.
    pub betas: [f64; 2],
    /// Added to the root of the average square.
    pub eps: f64,
    /// Decoupled weight decay, which makes it AdamW; 0 for Adam.
    pub weight_decay: f64,
}

impl Default for AdamSettings {
    fn default() -> Self {
        Self { betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.0 }
    }
}

#[derive(Debug)]
struct Slot {
    name: Arc<str>,
    parameter: Var,
    m: Var,
    v: Var,
    decays: bool,
}

/// Adam (Kingma and Ba, ICLR 2015), or AdamW (Loshchilov and Hutter, ICLR 2019) with a weight decay, over a fixed list of
/// parameters.
#[derive(Debug)]
pub struct Adam {
    settings: AdamSettings,
    slots: Vec<Slot>,
    state: Params,
    /// The steps taken as a checkpoint has them; brought up to date when one is loaded.
    saved: Var,
    steps: u64,
}

/// The steps taken are saved as two numbers, so that they stay exact in f32: units of 2^24, and the rest.
const STEP_UNIT: u64 = 1 << 24;

/// Their name.
const STEPS: &str = "adam.steps";

impl Adam {
    /// An optimizer of `parameters`, as [`Params::trained`] lists them, that has taken no step.
    ///
    /// # Errors
    /// Two parameters of one name.
    pub fn new(parameters: Vec<(String, Var)>, settings: AdamSettings) -> Result<Self> {
        let state = Params::new(0);
        let saved = state.buffer(STEPS, &[2], Init::ZEROS)?;
        let (m, v) = (state.scope("adam.m"), state.scope("adam.v"));
        let slot = |(name, parameter): (String, Var)| {
            let shape = parameter.get().shape().to_vec();
            let (m, v) = (m.buffer(&name, &shape, Init::ZEROS)?, v.buffer(&name, &shape, Init::ZEROS)?);
            Ok(Slot { name: name.into(), parameter, m, v, decays: true })
        };
        let slots = parameters.into_iter().map(slot).collect::<Result<_>>()?;
        Ok(Self { settings, slots, state, saved, steps: 0 })
    }

    /// The same without weight decay of the parameters, by name and shape, that `exempt` picks.
    #[must_use]
    pub fn without_decay(mut self, exempt: impl Fn(&str, &[usize]) -> bool) -> Self {
        for slot in &mut self.slots {
            slot.decays = !exempt(&slot.name, slot.parameter.get().shape());
        }
        self
    }

    /// How many steps it has taken, those among them that changed nothing.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Its parameters, in their order.
    pub fn parameters(&self) -> Vec<Var> {
        self.slots.iter().map(|slot| slot.parameter.clone()).collect()
    }

    /// One step with the gradients of its parameters, which it moves out of `gradients`: see [`Adam::step_with`].
    ///
    /// # Errors
    /// A device that fails.
    pub fn step(&mut self, gradients: &mut Gradients, lr: f64, clip: Option<f32>) -> Result<GradientNorm> {
        let taken = self.slots.iter().map(|slot| gradients.take(&slot.parameter.get())).collect();
        self.step_with(taken, lr, clip)
    }

    /// One step with a gradient for each of its parameters. With `clip`, all are scaled so that their norm over all parameters is
    /// at most that. A parameter without a gradient stays as it is. Returns the norm before clipping, which nobody has read yet:
    /// where it is not finite, no parameter has changed.
    ///
    /// # Errors
    /// A device that fails.
    pub fn step_with(&mut self, gradients: Vec<Option<Tensor>>, lr: f64, clip: Option<f32>) -> Result<GradientNorm> {
        let taken: Vec<_> =
            self.slots.iter().zip(gradients).filter_map(|(slot, gradient)| Some((slot, gradient?))).collect();
        let step = self.steps + 1;
        let squares = Squares::of(&taken.iter().map(|(_, gradient)| gradient).collect::<Vec<_>>())?;
        let scale = squares.clip_factor(clip.unwrap_or(f32::INFINITY))?;
        let AdamSettings { betas: [beta1, beta2], eps, weight_decay } = self.settings;
        for decays in [true, false] {
            let weight_decay = if decays { weight_decay } else { 0.0 };
            let how = AdamStep { lr, beta1, beta2, eps, weight_decay, l2: 0.0, step };
            let slots: Vec<AdamSlot<'_>> = taken
                .iter()
                .filter(|(slot, _)| slot.decays == decays)
                .map(|(slot, grad)| AdamSlot { param: &slot.parameter, grad, m: &slot.m, v: &slot.v })
                .collect();
            if !slots.is_empty() {
                adam_all(&slots, &scale, &how)?;
            }
        }
        self.steps = step;
        Ok(GradientNorm { squares, names: taken.iter().map(|(slot, _)| slot.name.clone()).collect(), step })
    }

    /// Moments and steps by name: `adam.m.NAME`, `adam.v.NAME`, `adam.steps`.
    pub fn state(&self) -> BTreeMap<String, Tensor> {
        let steps = vec![(self.steps / STEP_UNIT) as f32, (self.steps % STEP_UNIT) as f32];
        let mut state = self.state.state();
        state.extend(Tensor::from_vec(steps, &[2]).ok().map(|steps| (STEPS.to_owned(), steps)));
        state
    }

    /// Goes on from a saved state; other names in it are ignored.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] names what is missing or has another shape; nothing is changed then.
    pub fn load(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        self.state.load(state)?;
        if let [units, rest] = self.saved.get().as_slice() {
            self.steps = *units as u64 * STEP_UNIT + *rest as u64;
        }
        Ok(())
    }
}

/// The Euclidean norm of all gradients of a step together, left on their device until it is asked for.
#[derive(Debug)]
pub struct GradientNorm {
    squares: Squares,
    names: Vec<Arc<str>>,
    step: u64,
}

impl GradientNorm {
    /// The norm. The host waits for a GPU to come as far as the step.
    ///
    /// # Errors
    /// [`Error::Diverged`] names the first parameter whose gradient is not finite.
    pub fn read(&self) -> Result<f64> {
        let squares = self.squares.to_vec()?;
        if let Some((name, _)) = self.names.iter().zip(&squares).find(|(_, squares)| !squares.is_finite()) {
            return Err(Error::Diverged(format!(
                "training diverged: the gradient of `{name}` is not finite at optimizer step {}; \
                 lower the learning rate, lengthen the warm-up or clip gradients more",
                self.step
            )));
        }
        Ok(squares.iter().sum::<f64>().sqrt())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::tensor::Tape;

    /// Two parameters, and the gradients of `sum(w * at)` for both.
    struct Toy {
        params: Params,
        adam: Adam,
    }

    impl Toy {
        fn new(settings: AdamSettings) -> Self {
            let params = Params::new(3);
            params.parameter("a", &[3], Init::Normal(1.0)).unwrap();
            params.parameter("b", &[2, 2], Init::Normal(1.0)).unwrap();
            let adam = Adam::new(params.trained(), settings).unwrap();
            Self { params, adam }
        }

        /// Takes a step with `gradient(i)` as the gradient of element `i`, counted over both.
        fn step(&mut self, gradient: impl Fn(usize) -> f32, clip: Option<f32>) -> Result<f64> {
            let tape = Tape::start().unwrap();
            let mut first = 0;
            let mut loss = Tensor::scalar(0.0);
            for (_, var) in self.params.trained() {
                let w = var.get();
                let wanted = (first..first + w.len()).map(&gradient).collect();
                first += w.len();
                let wanted = Tensor::from_vec(wanted, w.shape()).unwrap();
                loss = loss.add(&w.mul(&wanted).unwrap().sum_all().unwrap()).unwrap();
            }
            let mut gradients = tape.backward(&loss).unwrap();
            self.adam.step(&mut gradients, 0.01, clip)?.read()
        }

        fn values(&self) -> Vec<f32> {
            self.params.trained().iter().flat_map(|(_, var)| var.get().to_vec()).collect()
        }
    }

    /// The first step is the learning rate against the gradient's sign, whatever its size.
    #[test]
    fn the_first_step_has_the_length_of_the_learning_rate() {
        let mut toy = Toy::new(AdamSettings::default());
        let before = toy.values();
        toy.step(|i| if i % 2 == 0 { 3.0 } else { -0.02 }, None).unwrap();
        for (i, (was, is)) in before.iter().zip(toy.values()).enumerate() {
            let moved = if i % 2 == 0 { -0.01 } else { 0.01 };
            assert!((is - was - moved).abs() < 1e-6, "{was} {is}");
        }
    }

    /// Against Algorithm 2 of Loshchilov and Hutter, in f64.
    #[test]
    fn many_steps_follow_the_published_algorithm() {
        let settings = AdamSettings { betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.1 };
        let mut toy = Toy::new(settings);
        let gradient = |step: usize, i: usize| ((step * 7 + i * 3) as f32 * 0.7).sin();
        let mut wanted: Vec<[f64; 3]> = toy.values().iter().map(|&w| [f64::from(w), 0.0, 0.0]).collect();
        for step in 1..=20 {
            toy.step(|i| gradient(step, i), None).unwrap();
            for (i, [w, m, v]) in wanted.iter_mut().enumerate() {
                let g = f64::from(gradient(step, i));
                *m = 0.9 * *m + 0.1 * g;
                *v = 0.95 * *v + 0.05 * g * g;
                let (mean, square) = (*m / (1.0 - 0.9f64.powi(step as i32)), *v / (1.0 - 0.95f64.powi(step as i32)));
                *w -= 0.01 * (mean / (square.sqrt() + 1e-8) + 0.1 * *w);
            }
        }
        for (got, [w, ..]) in toy.values().iter().zip(&wanted) {
            assert!((f64::from(*got) - w).abs() < 1e-5, "{got} {w}");
        }
        assert_eq!(toy.adam.steps(), 20);
    }

    #[test]
    fn clipping_scales_all_gradients_by_the_same_number() {
        let moments = |size: f32, clip| {
            let mut toy = Toy::new(AdamSettings::default());
            let norm = toy.step(|i| size * (i as f32 - 3.0), clip).unwrap();
            (norm, toy.adam.state()["adam.m.b"].to_vec())
        };
        // Seven gradients -3..=3: the sum of squares is 28.
        let (norm, free) = moments(1.0, None);
        assert!((norm - 28f64.sqrt()).abs() < 1e-6);
        let (norm, clipped) = moments(10.0, Some(28f32.sqrt()));
        assert!((norm - 10.0 * 28f64.sqrt()).abs() < 1e-5);
        for (a, b) in free.iter().zip(&clipped) {
            assert!((a - b).abs() < 1e-6, "{free:?} {clipped:?}");
        }
        // A norm below the limit is left alone.
        assert_eq!(moments(1.0, Some(100.0)).1, free);
    }

    #[test]
    fn a_gradient_that_is_not_finite_is_named_and_changes_nothing() {
        let mut toy = Toy::new(AdamSettings::default());
        toy.step(|_| 1.0, None).unwrap();
        let before = (toy.values(), toy.adam.state()["adam.m.a"].to_vec());
        for (step, bad) in [(2, f32::NAN), (3, f32::INFINITY)] {
            let error = toy.step(|i| if i == 4 { bad } else { 1.0 }, Some(1.0)).unwrap_err();
            assert!(matches!(error, Error::Diverged(_)));
            assert!(
                error.to_string().contains("`b`") && error.to_string().contains(&format!("step {step}")),
                "{error}"
            );
        }
        assert_eq!(before, (toy.values(), toy.adam.state()["adam.m.a"].to_vec()));
        // They count: the host may not know yet that nothing was changed.
        assert_eq!(toy.adam.steps(), 3);
    }

    #[test]
    fn a_restored_optimizer_goes_on_bit_for_bit() {
        let settings = AdamSettings { weight_decay: 0.01, ..AdamSettings::default() };
        let gradient = |step: usize| move |i: usize| ((step + 2 * i) as f32).cos();
        let mut whole = Toy::new(settings);
        let mut first = Toy::new(settings);
        for step in 0..5 {
            whole.step(gradient(step), Some(1.0)).unwrap();
            first.step(gradient(step), Some(1.0)).unwrap();
        }
        let mut second = Toy::new(settings);
        second.params.load(&first.params.state()).unwrap();
        second.adam.load(&first.adam.state()).unwrap();
        drop(first);
        for step in 5..9 {
            whole.step(gradient(step), Some(1.0)).unwrap();
            second.step(gradient(step), Some(1.0)).unwrap();
        }
        assert_eq!(whole.values(), second.values());
        assert_eq!(second.adam.steps(), 9);
    }

    #[test]
    fn many_steps_are_counted_exactly() {
        let mut toy = Toy::new(AdamSettings::default());
        let mut state = toy.adam.state();
        state.insert("adam.steps".to_owned(), Tensor::from_vec(vec![2.0, (STEP_UNIT - 1) as f32], &[2]).unwrap());
        toy.adam.load(&state).unwrap();
        assert_eq!(toy.adam.steps(), 3 * STEP_UNIT - 1);
        toy.step(|_| 1.0, None).unwrap();
        assert_eq!(toy.adam.state()["adam.steps"].to_vec(), [3.0, 0.0]);
    }

    #[test]
    fn a_parameter_without_gradient_stays() {
        let mut toy = Toy::new(AdamSettings { weight_decay: 0.5, ..AdamSettings::default() });
        let before = toy.values();
        let tape = Tape::start().unwrap();
        let loss = toy.params.trained()[0].1.get().square().unwrap().sum_all().unwrap();
        toy.adam.step(&mut tape.backward(&loss).unwrap(), 0.1, None).unwrap();
        let after = toy.values();
        assert_ne!(before[..3], after[..3]);
        assert_eq!(before[3..], after[3..]);
    }
}
