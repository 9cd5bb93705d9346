//! A prior that keeps the contract, and one that breaks each promise.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use crate::contracts::PriorLoss;
use crate::nn::sample_codes;
use crate::params::Init;
use crate::tensor::Var;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Flaw {
    None,
    /// The first code of each map is predicted from itself.
    SeesItself,
    /// The first code of each map is predicted from the last.
    SeesTheFuture,
    /// The loss is a sum instead of a mean.
    Sum,
    /// Without cache all is uniform.
    OtherWithoutCache,
    /// Guidance of any kind changes the samples.
    GuidedAtOne,
    /// Guidance without a null condition passes unnoticed.
    GuidedWithoutNull,
    /// The null condition has a row for each class.
    NullByClass,
    /// The likelihood of an image depends on how many others there are.
    SeesTheBatch,
    /// Every evaluation moves a parameter.
    Moves,
    /// The gradient is half of what it should be.
    HalfGradient,
    /// Samples are uniform, whatever the model says.
    UniformSamples,
    /// Samples know no randomness.
    Frozen,
}

/// Logits of each code by class, position and depth, whatever the other codes are.
struct Table {
    level: LevelInfo,
    null: bool,
    flaw: Flaw,
    /// `[classes + 1, T, D, K]`.
    logits: Var,
}

const CLASSES: usize = 3;

impl Table {
    fn new(cx: &PriorContext, flaw: Flaw) -> Result<Self> {
        let level = cx.own()?.clone();
        let rows = (2 * CLASSES) * level.positions() * level.depth();
        let logits = cx.params.parameter("logits", &[rows, level.sizes()[0]], Init::Normal(1.0))?;
        Ok(Self { level, null: cx.null_condition, flaw, logits })
    }

    /// Logits `[B, K]` of the n-th code of each image.
    fn at(&self, n: usize, condition: &Condition) -> Result<Tensor> {
        let Given::Classes(classes) = &condition.given else {
            return Err(Error::Unsupported("classes were expected".to_owned()));
        };
        let row = |(&class, &present): (&u32, &u32)| {
            let class = class as usize;
            let row = match (present, self.flaw) {
                (0, Flaw::NullByClass) => CLASSES + class,
                (0, _) => CLASSES,
                _ => class,
            };
            (row * self.level.positions() * self.level.depth() + n) as u32
        };
        let rows = classes.as_slice().iter().zip(condition.present.as_slice()).map(row).collect();
        Ok(self.logits.get().embedding(&Codes::from_vec(rows, &[classes.len()])?)?)
    }

    /// Cross entropies `[B, T D]`.
    fn losses(&self, batch: &TokenBatch) -> Result<Tensor> {
        let codes = batch.tokens.codes()?;
        let length = self.level.positions() * self.level.depth();
        let flat = codes.reshape(&[batch.tokens.images(), length])?;
        let losses = (0..length).map(|n| -> Result<Tensor> {
            let mut logits = self.at(n, &batch.condition)?;
            if matches!(self.flaw, Flaw::SeesItself | Flaw::SeesTheFuture) && n == 0 {
                let seen = flat.column(if self.flaw == Flaw::SeesItself { 0 } else { length - 1 })?;
                logits = logits.mul(&self.logits.get().embedding(&seen)?)?;
            }
            if self.flaw == Flaw::SeesTheBatch {
                logits = logits.mul_scalar(1.0 + batch.tokens.images() as f32)?;
            }
            Ok(logits.cross_entropy(&flat.column(n)?)?)
        });
        let losses = losses.collect::<Result<Vec<_>>>()?;
        Ok(Tensor::stack(&losses.iter().collect::<Vec<_>>(), 1)?)
    }
}

impl Prior for Table {
    fn loss(&self, batch: &TokenBatch, _: &Mode) -> Result<PriorLoss> {
        if self.flaw == Flaw::Moves {
            self.logits.set(&self.logits.get().add_scalar(1.0)?.mul_scalar(1.1)?)?;
        }
        let mut loss = self.losses(batch)?.mean_all()?;
        if self.flaw == Flaw::HalfGradient {
            loss = loss.add(&loss.detach())?.mul_scalar(0.5)?;
        }
        if self.flaw == Flaw::Sum {
            loss = loss.mul_scalar(8.0)?;
        }
        Ok(PriorLoss { loss, terms: vec![] })
    }

    fn likelihood(&self, batch: &TokenBatch) -> Result<Option<Tensor>> {
        let (images, depth) = (batch.tokens.images(), self.level.depth());
        let losses = no_grad(|| self.losses(batch))?.reshape(&[images, self.level.positions(), depth])?;
        Ok(Some(losses.sum(&[1], false)?))
    }

    fn sample(&self, request: &SampleRequest, rng: &Rng) -> Result<Tokens> {
        if request.guidance.is_on() && !self.null && self.flaw != Flaw::GuidedWithoutNull {
            return Err(Error::Unsupported("there is no null condition".to_owned()));
        }
        let uniform = match self.flaw {
            Flaw::OtherWithoutCache => !request.cache,
            Flaw::GuidedAtOne => request.guidance.schedule != GuidanceSchedule::Constant,
            Flaw::UniformSamples => true,
            _ => false,
        };
        let rng = if self.flaw == Flaw::Frozen { Rng::new(0, "frozen", 0) } else { *rng };
        if uniform {
            return PriorCase::tokens(&self.level, request.images(), &format!("{:?}", rng.uniform(1)));
        }
        sample_codes(self, request, &rng)
    }
}

impl CodeSteps for Table {
    type State = (Condition, usize);

    fn level(&self) -> &LevelInfo {
        &self.level
    }

    fn condition(&self) -> ConditionSpace {
        ConditionSpace::Classes(CLASSES)
    }

    fn begin(&self, condition: &Condition, _: &[Tokens], _: bool) -> Result<Self::State> {
        Ok((condition.clone(), 0))
    }

    fn next(&self, (condition, n): &mut Self::State, _: Option<&Codes>) -> Result<Tensor> {
        *n += 1;
        self.at(*n - 1, condition)
    }
}

fn broken_by(flaw: Flaw) -> Vec<&'static str> {
    let case = PriorCase::codes(&[2, 2]);
    promises(&case, &|cx| Table::new(cx, flaw)).into_iter().map(|(promise, _)| promise).collect()
}

#[test]
fn a_sound_prior_passes() {
    code_prior(&PriorCase::codes(&[2, 2]), |cx| Table::new(cx, Flaw::None));
    code_prior(&PriorCase::codes(&[5]), |cx| Table::new(cx, Flaw::None));
}

#[test]
fn every_flaw_is_found() {
    for (flaw, promise) in [
        (Flaw::SeesItself, "normalisation"),
        (Flaw::SeesTheFuture, "frequencies"),
        (Flaw::Sum, "likelihood"),
        (Flaw::OtherWithoutCache, "cache"),
        (Flaw::GuidedAtOne, "guidance of scale 1"),
        (Flaw::GuidedWithoutNull, "guidance without null condition"),
        (Flaw::NullByClass, "null condition"),
        (Flaw::SeesTheBatch, "independence"),
        (Flaw::Moves, "evaluation"),
        (Flaw::HalfGradient, "gradients"),
        (Flaw::UniformSamples, "frequencies"),
        (Flaw::Frozen, "samples"),
    ] {
        let found = broken_by(flaw);
        assert!(found.contains(&promise), "{flaw:?}: {found:?}");
    }
}

#[test]
fn codes_that_are_predicted_from_later_ones_are_found() {
    let case = PriorCase::codes(&[2, 2]);
    for (flaw, sound) in [(Flaw::None, true), (Flaw::SeesTheFuture, false)] {
        assert_eq!(steps(&case, &|cx: &PriorContext| Table::new(cx, flaw), true).is_ok(), sound);
    }
}

#[test]
#[should_panic(expected = "the prior breaks its contract:\n- gradients")]
fn a_broken_promise_fails_the_test_by_name() {
    prior(&PriorCase::codes(&[2, 2]), |cx| Table::new(cx, Flaw::HalfGradient));
}
