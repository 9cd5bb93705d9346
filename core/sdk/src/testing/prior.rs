//! What a prior promises.

mod case;
#[cfg(test)]
mod tests;

pub use case::PriorCase;

use super::{Broken, Check, Snapshot, broken, close, ensure, finite, gradients, settle, terms};
use crate::Result;
use crate::contracts::{
    Guidance, GuidanceSchedule, Mode, Prior, PriorContext, SampleRequest, Targets, TokenBatch, Tokens,
};
use crate::nn::CodeSteps;
use crate::tensor::{Codes, Rng, Tape, Tensor, no_grad};
use case::IMAGES;

/// Samples whose frequencies are compared with the likelihood.
const SAMPLES: usize = 4096;

/// Checks a prior:
/// - its loss, likelihood, bound and samples have the promised shapes;
/// - the loss is the mean of the likelihood, where there is one, and the probabilities of all maps of codes sum to 1 (those
///   of a prior that sees what it predicts do not);
/// - samples come as often as the likelihood says, with cache and without the same;
/// - equal streams give equal samples, guidance of scale 1 gives what no guidance gives, and guidance of a prior that has
///   nothing to compare with is refused;
/// - under the null condition all conditions are alike;
/// - images of a batch do not see each other, and evaluation changes nothing;
/// - gradients are those of finite differences.
///
/// `build` is called several times, with and without a null condition.
///
/// # Panics
/// If a promise does not hold; the message names all that do not.
#[track_caller]
pub fn prior<P: Prior>(case: &PriorCase, build: impl Fn(&PriorContext) -> Result<P>) {
    settle("prior", &promises(case, &build));
}

/// Checks a prior of codes: what [`prior`] checks, and that the codes predicted one by one have the likelihood that is
/// computed of whole maps, with cache and without. As they are predicted from earlier codes alone, the likelihood then sees
/// no later ones either.
///
/// # Panics
/// If a promise does not hold; the message names all that do not.
#[track_caller]
pub fn code_prior<P: Prior + CodeSteps>(case: &PriorCase, build: impl Fn(&PriorContext) -> Result<P>) {
    let mut found = promises(case, &build);
    found.extend(broken([
        ("causality", steps(case, &build, true)),
        ("causality without cache", steps(case, &build, false)),
    ]));
    settle("prior", &found);
}

fn promises<P: Prior>(case: &PriorCase, build: &impl Fn(&PriorContext) -> Result<P>) -> Vec<(&'static str, String)> {
    let built = || build(&case.context(true));
    broken([
        ("likelihood", likelihood(case, built)),
        ("bound", bound(case, built)),
        ("normalisation", normalisation(case, built)),
        ("frequencies", frequencies(case, built)),
        ("samples", samples(case, built)),
        ("cache", same_samples(case, built, |request| request.cache = false)),
        (
            "guidance of scale 1",
            same_samples(case, built, |request| {
                request.guidance = Guidance { scale: 1.0, schedule: GuidanceSchedule::Linear };
            }),
        ),
        ("guidance without null condition", unguided(case, build)),
        ("null condition", null_condition(case, built)),
        ("independence", independence(case, built)),
        ("evaluation", evaluation(case, build)),
        ("gradients", gradient(case, build)),
    ])
}

/// The likelihood of a batch, checked for its shape.
fn nats<P: Prior>(prior: &P, case: &PriorCase, batch: &TokenBatch) -> Check<Option<Tensor>> {
    let Some(nats) = prior.likelihood(batch)? else { return Ok(None) };
    let wanted = [batch.tokens.images(), case.own()?.depth().max(1)];
    ensure(nats.shape() == wanted, || format!("the likelihood has shape {:?}, not {wanted:?}", nats.shape()))?;
    ensure(nats.as_slice().iter().all(|x| x.is_finite()), || "the likelihood is not finite".to_owned())?;
    Ok(Some(nats))
}

fn likelihood<P: Prior>(case: &PriorCase, build: impl Fn() -> Result<P>) -> Check {
    let (prior, batch) = (build()?, case.batch()?);
    // While recording, as in training: a term that is not detached shows then.
    let tape = Tape::start()?;
    let loss = prior.loss(&batch, &Mode::Eval)?;
    drop(tape);
    let mean = finite("the loss", &loss.loss)?;
    terms(&loss.terms, 1)?;
    let (Some(nats), Some(_)) = (nats(&prior, case, &batch)?, case.own()?.code_space()) else { return Ok(()) };
    let codes = (batch.tokens.codes()?.len() / batch.tokens.images()) as f64;
    let wanted = nats.as_slice().iter().map(|&x| f64::from(x)).sum::<f64>() / IMAGES as f64 / codes;
    ensure((mean - wanted).abs() <= 1e-4 * wanted.abs().max(1.0), || {
        format!("the loss is {mean} nats per code, and the likelihood says {wanted}")
    })
}

fn bound<P: Prior>(case: &PriorCase, build: impl Fn() -> Result<P>) -> Check {
    let (prior, batch) = (build()?, case.batch()?);
    let again = || prior.bound(&batch, &Rng::new(7, "bound", 0));
    let Some(bound) = again()? else { return Ok(()) };
    let nats = bound.nats();
    ensure(nats.shape() == [IMAGES, 1], || format!("the bound has shape {:?}, not [{IMAGES}, 1]", nats.shape()))?;
    ensure(nats.as_slice().iter().all(|x| x.is_finite()), || "the bound is not finite".to_owned())?;
    ensure(Some(nats.to_vec()) == again()?.map(|again| again.nats().to_vec()), || {
        "equal streams give different bounds".to_owned()
    })
}

/// The probability of every map of codes under the n-th condition.
fn probabilities<P: Prior>(prior: &P, case: &PriorCase, n: usize) -> Check<Option<Vec<f64>>> {
    let every = case.every_map(n)?;
    let Some(nats) = nats(prior, case, &every)? else { return Ok(None) };
    let depth = nats.last_dim();
    let of_map = |nats: &[f32]| (-nats.iter().map(|&x| f64::from(x)).sum::<f64>()).exp();
    Ok(Some(nats.as_slice().chunks(depth).map(of_map).collect()))
}

fn normalisation<P: Prior>(case: &PriorCase, build: impl Fn() -> Result<P>) -> Check {
    if case.own()?.code_space().is_none() {
        return Ok(());
    }
    let prior = build()?;
    for n in 0..2 {
        let Some(all) = probabilities(&prior, case, n)? else { return Ok(()) };
        let sum: f64 = all.iter().sum();
        ensure((sum - 1.0).abs() <= 1e-4, || {
            format!(
                "the probabilities of all maps of codes sum to {sum}, not 1: does a prediction see what it predicts?"
            )
        })?;
    }
    Ok(())
}

/// Pearson's chi-squared test over the maps that are expected at least five times, at five standard deviations.
fn frequencies<P: Prior>(case: &PriorCase, build: impl Fn() -> Result<P>) -> Check {
    if case.own()?.code_space().is_none() {
        return Ok(());
    }
    let prior = build()?;
    let Some(all) = probabilities(&prior, case, 0)? else { return Ok(()) };
    let rows = vec![0; SAMPLES];
    let above = case.above(1)?.iter().map(|level| level.rows(&rows)).collect::<Result<_>>()?;
    let request = SampleRequest { above, ..SampleRequest::new(case.conditions(1, 0)?.rows(&rows)?) };
    let drawn = prior.sample(&request, &Rng::new(7, "frequencies", 0))?;
    let level = case.own()?;
    let radices: Vec<usize> = (0..level.positions()).flat_map(|_| level.sizes().iter().copied()).collect();
    let mut counts = vec![0usize; all.len()];
    for codes in drawn.codes()?.as_slice().chunks(radices.len()) {
        let map = codes.iter().zip(&radices).rev().fold(0, |map, (&code, &size)| map * size + code as usize);
        *counts.get_mut(map).ok_or_else(|| Broken("a code lies beyond its codebook".to_owned()))? += 1;
    }
    let (mut statistic, mut cells, mut rest) = (0.0, 0.0f64, (0.0, 0.0));
    let cell = |count: f64, expected: f64| (count - expected).powi(2) / expected;
    for (&count, &probability) in counts.iter().zip(&all) {
        let expected = probability * SAMPLES as f64;
        if expected >= 5.0 {
            statistic += cell(count as f64, expected);
            cells += 1.0;
        } else {
            rest = (rest.0 + count as f64, rest.1 + expected);
        }
    }
    if rest.1 >= 5.0 {
        statistic += cell(rest.0, rest.1);
        cells += 1.0;
    }
    let freedom = (cells - 1.0).max(1.0);
    ensure(statistic <= freedom + 5.0 * (2.0 * freedom).sqrt(), || {
        format!(
            "maps of codes are not drawn as often as the likelihood says: chi-squared {statistic:.0} over {freedom} degrees of freedom"
        )
    })
}

fn samples<P: Prior>(case: &PriorCase, build: impl Fn() -> Result<P>) -> Check {
    let (prior, request) = (build()?, case.request()?);
    let tokens = prior.sample(&request, &Rng::new(7, "sample", 0))?;
    let wanted = case.own()?.token_shape(IMAGES);
    ensure(tokens.shape() == wanted, || format!("samples have shape {:?}, not {wanted:?}", tokens.shape()))?;
    if let Tokens::Vectors(vectors) = &tokens {
        ensure(vectors.as_slice().iter().all(|x| x.is_finite()), || "sampled vectors are not finite".to_owned())?;
    }
    let again = prior.sample(&request, &Rng::new(7, "sample", 0))?;
    ensure(equal(&tokens, &again), || "equal streams give different samples".to_owned())?;
    let mut others = (1..6).map(|step| prior.sample(&request, &Rng::new(7, "sample", step)));
    let differs = others.try_fold(false, |differs, other| other.map(|other| differs || !equal(&tokens, &other)))?;
    ensure(differs, || "six streams of random numbers give the same samples".to_owned())
}

fn equal(a: &Tokens, b: &Tokens) -> bool {
    match (a, b) {
        (Tokens::Codes(a), Tokens::Codes(b)) => a == b,
        (Tokens::Vectors(a), Tokens::Vectors(b)) => close("samples", a, b, 1e-4).is_ok(),
        _ => false,
    }
}

fn same_samples<P: Prior>(
    case: &PriorCase,
    build: impl Fn() -> Result<P>,
    change: impl Fn(&mut SampleRequest),
) -> Check {
    let prior = build()?;
    let mut request = case.request()?;
    for step in 0..3 {
        let rng = Rng::new(7, "same", step);
        let before = prior.sample(&request, &rng)?;
        let mut changed = request.clone();
        change(&mut changed);
        let after = prior.sample(&changed, &rng)?;
        ensure(equal(&before, &after), || "the samples are not those of a plain request".to_owned())?;
        request.condition = case.conditions(IMAGES, step as usize + 1)?;
    }
    Ok(())
}

fn unguided<P: Prior>(case: &PriorCase, build: &impl Fn(&PriorContext) -> Result<P>) -> Check {
    let prior = build(&case.context(false))?;
    let guidance = Guidance { scale: 2.0, schedule: GuidanceSchedule::Constant };
    let sampled = prior.sample(&SampleRequest { guidance, ..case.request()? }, &Rng::new(7, "guided", 0));
    ensure(sampled.is_err(), || "a prior that never saw the null condition is guided without an error".to_owned())
}

fn null_condition<P: Prior>(case: &PriorCase, build: impl Fn() -> Result<P>) -> Check {
    let prior = build()?;
    let under = |first: usize| -> Check<f64> {
        let batch = TokenBatch { condition: case.conditions(IMAGES, first)?.null()?, ..case.batch()? };
        finite("the loss", &prior.loss(&batch, &Mode::Eval)?.loss)
    };
    let (a, b) = (under(0)?, under(1)?);
    ensure((a - b).abs() <= 1e-6 * a.abs().max(1.0), || {
        format!("under the null condition the loss still depends on the condition: {a} and {b}")
    })
}

fn independence<P: Prior>(case: &PriorCase, build: impl Fn() -> Result<P>) -> Check {
    let (prior, batch) = (build()?, case.batch()?);
    let Some(together) = nats(&prior, case, &batch)? else { return Ok(()) };
    let one = TokenBatch {
        tokens: batch.tokens.rows(&[1])?,
        targets: Targets::Hard,
        condition: batch.condition.rows(&[1])?,
        above: batch.above.iter().map(|level| level.rows(&[1])).collect::<Result<_>>()?,
    };
    let Some(alone) = nats(&prior, case, &one)? else { return Ok(()) };
    close("the likelihood of an image alone", &alone, &together.slice(0, 1..2)?, 1e-4)
}

fn evaluation<P: Prior>(case: &PriorCase, build: &impl Fn(&PriorContext) -> Result<P>) -> Check {
    let cx = case.context(true);
    let (prior, batch) = (build(&cx)?, case.batch()?);
    let before = Snapshot::of(&cx.params);
    let first = prior.loss(&batch, &Mode::Eval)?.loss;
    prior.likelihood(&batch)?;
    prior.sample(&case.request()?, &Rng::new(7, "sample", 0))?;
    before.unchanged(&cx.params, "evaluation or sampling")?;
    close("a second evaluation", &prior.loss(&batch, &Mode::Eval)?.loss, &first, 0.0)
}

fn gradient<P: Prior>(case: &PriorCase, build: &impl Fn(&PriorContext) -> Result<P>) -> Check {
    let cx = case.context(true);
    let (prior, batch) = (build(&cx)?, case.batch()?);
    gradients::parameters(&cx.params, || Ok(prior.loss(&batch, &Mode::Eval)?.loss))
}

fn steps<P: Prior + CodeSteps>(case: &PriorCase, build: &impl Fn(&PriorContext) -> Result<P>, cache: bool) -> Check {
    let (prior, batch) = (build(&case.context(true))?, case.batch()?);
    let Some(whole) = nats(&prior, case, &batch)? else { return Ok(()) };
    let (depth, codes) = (case.own()?.depth(), batch.tokens.codes()?);
    let length = codes.len() / IMAGES;
    // The place among the codes of a map of the n-th that is predicted.
    let place = |n: usize| match prior.order().and_then(|order| order.get(n / depth)) {
        Some(&position) => position as usize * depth + n % depth,
        None => n,
    };
    let mut sums = vec![0.0f64; IMAGES * depth];
    no_grad(|| -> Check {
        let mut state = prior.begin(&batch.condition, &batch.above, cache)?;
        let mut last = None;
        for n in 0..length {
            let logits = prior.next(&mut state, last.as_ref())?;
            let next = (0..IMAGES).map(|image| codes.as_slice()[image * length + place(n)]).collect();
            let next = Codes::from_vec(next, &[IMAGES])?;
            let losses = logits.reshape(&[IMAGES, logits.last_dim()])?.cross_entropy(&next)?;
            losses.as_slice().iter().enumerate().for_each(|(i, &x)| sums[i * depth + n % depth] += f64::from(x));
            last = Some(next);
        }
        Ok(())
    })?;
    let sums = Tensor::from_vec(sums.into_iter().map(|x| x as f32).collect(), &[IMAGES, depth])?;
    close("the likelihood of codes predicted one by one", &sums, &whole, 1e-4)
}
