//! What an objective promises.

use super::{Check, Snapshot, broken, close, ensure, finite, gradients, random_images, settle, terms};
use crate::Result;
use crate::contracts::{Loss, MapShape, Objective, ObjectiveContext, Reconstruction, Weight};
use crate::optim::{Adam, AdamSettings};
use crate::params::Params;
use crate::tensor::{Rng, Tape, Tensor, Var};

/// A step at which whatever starts late has started.
const LATE: u64 = 1 << 30;

/// Steps of training after which a critic's loss must have fallen.
const STEPS: usize = 20;

/// Checks an objective on images of that shape:
/// - its loss and terms are finite numbers, and equal for equal images and streams;
/// - its gradient at the output is that of finite differences, and the loss changes no parameter (but perhaps buffers, such as
///   the running statistics of a batch norm);
/// - its weight is a number at every step;
/// - what has trained parameters is a critic, whose gradients are those of finite differences and whose loss falls when it
///   is trained; what has none is no critic.
///
/// # Panics
/// If a promise does not hold; the message names all that do not.
#[track_caller]
pub fn objective<O: Objective>(image: MapShape, build: impl Fn(&ObjectiveContext) -> Result<O>) {
    settle("objective", &promises(image, &build));
}

fn promises<O: Objective>(
    image: MapShape,
    build: &impl Fn(&ObjectiveContext) -> Result<O>,
) -> Vec<(&'static str, String)> {
    broken([
        ("numbers", numbers(image, build)),
        ("gradients", gradient(image, build)),
        ("constancy", constancy(image, build)),
        ("weight", weight(image, build)),
        ("critic", critic(image, build)),
        ("critic's gradients", critic_gradient(image, build)),
        ("critic's training", critic_training(image, build)),
    ])
}

/// An objective, its parameters, and what it is asked about.
struct Bench<O> {
    objective: O,
    params: Params,
    images: Tensor,
    output: Tensor,
    rng: Rng,
}

impl<O: Objective> Bench<O> {
    fn new(image: MapShape, build: impl Fn(&ObjectiveContext) -> Result<O>) -> Result<Self> {
        let shape = [2, image.height, image.width, image.channels];
        let params = Params::new(1);
        let objective = build(&ObjectiveContext::new(image, params.clone()))?;
        let (images, output) = (random_images(&shape, "images"), random_images(&shape, "output"));
        Ok(Self { objective, params, images, output, rng: Rng::new(7, "objective", 0) })
    }

    /// The loss of an output as the trainer asks for it: parameters of a critic are constants.
    fn loss(&mut self, output: &Tensor) -> Result<Loss> {
        let frozen: Vec<Var> = self.params.trained().into_iter().map(|(_, var)| var).collect();
        let asked = Reconstruction { images: &self.images, output, step: LATE, rng: &self.rng };
        Var::frozen(&frozen, || self.objective.loss(&asked))
    }

    fn critic(&mut self) -> Result<Option<Loss>> {
        let asked = Reconstruction { images: &self.images, output: &self.output, step: LATE, rng: &self.rng };
        self.objective.critic(&asked)
    }
}

fn numbers<O: Objective>(image: MapShape, build: impl Fn(&ObjectiveContext) -> Result<O>) -> Check {
    let mut bench = Bench::new(image, build)?;
    let output = bench.output.clone();
    // While recording, as in training: a term that is not detached shows then.
    let tape = Tape::start()?;
    let loss = bench.loss(&output.leaf())?;
    drop(tape);
    finite("the loss", &loss.loss)?;
    terms(&loss.terms, 0)?;
    close("a second loss of the same images", &bench.loss(&output)?.loss, &loss.loss, 0.0)
}

fn gradient<O: Objective>(image: MapShape, build: impl Fn(&ObjectiveContext) -> Result<O>) -> Check {
    let mut bench = Bench::new(image, build)?;
    let output = bench.output.clone();
    gradients::input("the output", &output, |output| Ok(bench.loss(output)?.loss))
}

fn constancy<O: Objective>(image: MapShape, build: impl Fn(&ObjectiveContext) -> Result<O>) -> Check {
    let mut bench = Bench::new(image, build)?;
    let before = Snapshot::of_trained(&bench.params);
    let output = bench.output.leaf();
    let tape = Tape::start()?;
    let loss = bench.loss(&output)?.loss;
    tape.backward(&loss)?;
    before.unchanged(&bench.params, "the loss")
}

fn weight<O: Objective>(image: MapShape, build: impl Fn(&ObjectiveContext) -> Result<O>) -> Check {
    let bench = Bench::new(image, build)?;
    for step in [0, 1, 1000, LATE] {
        let weight = bench.objective.weight(step);
        let sound = match weight {
            Weight::Fixed(weight) => weight.is_finite(),
            Weight::Adaptive { scale, limit } => scale.is_finite() && limit.is_finite() && limit > 0.0,
        };
        ensure(sound, || format!("at step {step} it has the weight {weight:?}"))?;
    }
    Ok(())
}

fn critic<O: Objective>(image: MapShape, build: impl Fn(&ObjectiveContext) -> Result<O>) -> Check {
    let mut bench = Bench::new(image, build)?;
    let trained = bench.params.count();
    let tape = Tape::start()?;
    let loss = bench.critic()?;
    drop(tape);
    match loss {
        None => {
            ensure(trained == 0, || format!("{trained} numbers are trained, and there is no critic's loss for them"))
        }
        Some(loss) => {
            ensure(trained > 0, || "a critic without trained parameters cannot learn".to_owned())?;
            finite("the critic's loss", &loss.loss)?;
            terms(&loss.terms, 0)
        }
    }
}

/// The loss of the critic, of an objective that has one.
fn critic_loss<O: Objective>(bench: &mut Bench<O>) -> Result<Tensor> {
    let missing = || crate::Error::Unsupported("the critic rests".to_owned());
    Ok(bench.critic()?.ok_or_else(missing)?.loss)
}

fn critic_gradient<O: Objective>(image: MapShape, build: impl Fn(&ObjectiveContext) -> Result<O>) -> Check {
    let mut bench = Bench::new(image, build)?;
    if bench.critic()?.is_none() {
        return Ok(());
    }
    let params = bench.params.clone();
    gradients::parameters(&params, || critic_loss(&mut bench))
}

fn critic_training<O: Objective>(image: MapShape, build: impl Fn(&ObjectiveContext) -> Result<O>) -> Check {
    let mut bench = Bench::new(image, build)?;
    let Some(first) = bench.critic()? else { return Ok(()) };
    let mut adam = Adam::new(bench.params.trained(), AdamSettings::default())?;
    for _ in 0..STEPS {
        let tape = Tape::start()?;
        let loss = critic_loss(&mut bench)?;
        adam.step(&mut tape.backward(&loss)?, 1e-3, None)?;
    }
    let (before, after) = (first.loss.item()?, critic_loss(&mut bench)?.item()?);
    ensure(after < before, || format!("{STEPS} steps of Adam take the critic's loss from {before} to {after}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::nn::Linear;
    use std::cell::Cell;

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Flaw {
        None,
        /// Another loss each time.
        Fickle,
        /// A term with a gradient.
        Gradients,
        /// The loss counts its output as a constant in part.
        HalfGradient,
        /// The loss moves the critic.
        Moves,
        /// A weight that is not a number.
        NoWeight,
        /// A critic that is never trained.
        NoCritic,
        /// The critic's loss is not what its gradient says.
        CriticHalfGradient,
        /// The critic climbs.
        CriticClimbs,
    }

    struct Toy {
        critic: Linear,
        flaw: Flaw,
        calls: Cell<f32>,
    }

    impl Toy {
        fn new(cx: &ObjectiveContext, flaw: Flaw) -> Result<Self> {
            let critic = Linear::new(&cx.params.scope("critic"), cx.image.channels, 1, true)?;
            Ok(Self { critic, flaw, calls: Cell::new(0.0) })
        }

        fn score(&self, images: &Tensor) -> Result<Tensor> {
            Ok(self.critic.forward(images)?.tanh()?.mean_all()?)
        }
    }

    impl Objective for Toy {
        fn loss(&mut self, r: &Reconstruction<'_>) -> Result<Loss> {
            let mut loss = self.score(r.output)?.neg()?.add(&r.output.mse(r.images)?)?;
            self.calls.set(self.calls.get() + 1.0);
            match self.flaw {
                Flaw::Fickle => loss = loss.add_scalar(self.calls.get())?,
                Flaw::HalfGradient => loss = loss.add(&loss.detach())?.mul_scalar(0.5)?,
                Flaw::Moves => self.critic.weight.set(&self.critic.weight.get().mul_scalar(1.1)?)?,
                _ => {}
            }
            let score = if self.flaw == Flaw::Gradients { loss.clone() } else { loss.detach() };
            Ok(Loss { terms: vec![("score", score)], loss })
        }

        fn weight(&self, _: u64) -> Weight {
            Weight::Fixed(if self.flaw == Flaw::NoWeight { f32::NAN } else { 0.5 })
        }

        fn critic(&mut self, r: &Reconstruction<'_>) -> Result<Option<Loss>> {
            if self.flaw == Flaw::NoCritic {
                return Ok(None);
            }
            let loss = self.score(r.output)?.sub(&self.score(r.images)?)?;
            let loss = match self.flaw {
                Flaw::CriticHalfGradient => loss.add(&loss.detach())?.mul_scalar(0.5)?,
                // The value of the loss, and the gradient of its negative.
                Flaw::CriticClimbs => loss.neg()?.straight_through(&loss)?,
                _ => loss,
            };
            Ok(Some(Loss { loss, terms: vec![] }))
        }
    }

    const IMAGE: MapShape = MapShape { height: 4, width: 3, channels: 3 };

    #[test]
    fn a_sound_objective_passes() {
        objective(IMAGE, |cx| Toy::new(cx, Flaw::None));
    }

    #[test]
    fn every_flaw_is_found() {
        for (flaw, promise) in [
            (Flaw::Fickle, "numbers"),
            (Flaw::Gradients, "numbers"),
            (Flaw::HalfGradient, "gradients"),
            (Flaw::Moves, "constancy"),
            (Flaw::NoWeight, "weight"),
            (Flaw::NoCritic, "critic"),
            (Flaw::CriticHalfGradient, "critic's gradients"),
            (Flaw::CriticClimbs, "critic's training"),
        ] {
            let found = promises(IMAGE, &|cx: &ObjectiveContext| Toy::new(cx, flaw));
            assert!(found.iter().any(|(name, _)| *name == promise), "{flaw:?}: {found:?}");
        }
    }
}
