//! What a quantizer promises.

use super::{Check, Snapshot, broken, close, ensure, finite, random, settle, terms};
use crate::Result;
use crate::contracts::{
    Components, MapShape, Quantized, Quantizer, QuantizerContext, Targets, TokenRequest, TokenSpace, Tokens,
};
use crate::params::Params;
use crate::tensor::{Rng, Tape, Tensor};

/// Images in a batch.
const IMAGES: usize = 3;

/// Checks a quantizer of latents of that shape:
/// - its level fits its tokens, codes lie within their codebooks, and a plan can be made of it without numbers;
/// - evaluation changes nothing, and an image's tokens do not depend on the others of its batch;
/// - the latents of its tokens are the quantized latents, and codes can be embedded from their first depths;
/// - gradients pass to the latents;
/// - equal streams give equal training.
///
/// `build` is called several times. A quantizer that holds another gets [`Components::none`]; one that needs more builds its
/// own context from the one that it is given.
///
/// # Panics
/// If a promise does not hold; the message names all that do not.
#[track_caller]
pub fn quantizer<Q: Quantizer>(latents: MapShape, build: impl Fn(&QuantizerContext) -> Result<Q>) {
    settle("quantizer", &promises(latents, &build));
}

fn promises<Q: Quantizer>(
    latents: MapShape,
    build: &impl Fn(&QuantizerContext) -> Result<Q>,
) -> Vec<(&'static str, String)> {
    let x = random(&[IMAGES, latents.height, latents.width, latents.channels], "latents");
    broken([
        ("level", level(latents, &x, build)),
        ("plan", plan(latents, build)),
        ("numbers", numbers(latents, &x, build)),
        ("evaluation", evaluation(latents, &x, build)),
        ("independence", independence(latents, &x, build)),
        ("embedding", embedding(latents, &x, build)),
        ("partial depths", partial_depths(latents, &x, build)),
        ("gradients", gradient(latents, &x, build)),
        ("training", training(latents, &x, build)),
    ])
}

fn context(latents: MapShape, params: Params) -> QuantizerContext {
    QuantizerContext { latents, params, components: Components::none() }
}

fn built<Q: Quantizer>(latents: MapShape, build: impl Fn(&QuantizerContext) -> Result<Q>) -> Result<Q> {
    build(&context(latents, Params::new(1)))
}

fn level<Q: Quantizer>(latents: MapShape, x: &Tensor, build: impl Fn(&QuantizerContext) -> Result<Q>) -> Check {
    let quantizer = built(latents, build)?;
    let level = quantizer.level();
    let Quantized { latents: quantized, tokens, .. } = quantizer.quantize(x)?;
    ensure(level.channels == quantized.last_dim(), || {
        format!("the level says {} channels, and quantized latents have {}", level.channels, quantized.last_dim())
    })?;
    let wanted = level.token_shape(IMAGES);
    ensure(tokens.shape() == wanted, || {
        format!("tokens have shape {:?}, and the level says {wanted:?}", tokens.shape())
    })?;
    match (&level.space, &tokens) {
        (TokenSpace::Vectors { .. }, Tokens::Vectors(_)) => Ok(()),
        (TokenSpace::Codes(space), Tokens::Codes(codes)) => {
            for (n, &code) in codes.as_slice().iter().enumerate() {
                let size = space.sizes[n % space.sizes.len()];
                ensure((code as usize) < size, || format!("code {code} of a codebook of {size}"))?;
            }
            let tables = &space.tables;
            ensure(tables.is_empty() || tables.len() == space.sizes.len(), || {
                format!("{} codebooks for depth {}", tables.len(), space.sizes.len())
            })?;
            for (table, &size) in tables.iter().zip(&space.sizes) {
                ensure(table.shape() == [size, level.channels] && !table.wants_grad(), || {
                    format!(
                        "a codebook must be [{size}, {}] without gradient, found {:?}",
                        level.channels,
                        table.shape()
                    )
                })?;
            }
            Ok(())
        }
        _ => ensure(false, || "the level says codes and the tokens are vectors, or the other way round".to_owned()),
    }
}

fn plan<Q: Quantizer>(latents: MapShape, build: impl Fn(&QuantizerContext) -> Result<Q>) -> Check {
    let (dry, full) = (Params::dry(), Params::new(1));
    let (level, real) =
        (build(&context(latents, dry.clone()))?.level(), build(&context(latents, full.clone()))?.level());
    ensure(level.token_shape(1) == real.token_shape(1) && level.sizes() == real.sizes(), || {
        "a quantizer without numbers has another level".to_owned()
    })?;
    ensure(level.code_space().is_none_or(|space| space.tables.is_empty()), || {
        "a quantizer without numbers has codebooks: leave `tables` empty where `params.is_dry()`".to_owned()
    })?;
    ensure(dry.count() == full.count(), || format!("{} parameters in a plan, {} in fact", dry.count(), full.count()))
}

fn numbers<Q: Quantizer>(latents: MapShape, x: &Tensor, build: impl Fn(&QuantizerContext) -> Result<Q>) -> Check {
    let mut quantizer = built(latents, build)?;
    let MapShape { height, width, channels } = quantizer.level().latents();
    let (depth, wanted) = (quantizer.level().depth(), [IMAGES, height, width, channels]);
    let sound = |quantized: &Quantized| -> Check {
        finite("the loss", &quantized.loss)?;
        terms(&quantized.terms, 0)?;
        terms(&quantized.events, 0)?;
        ensure(quantized.latents.shape() == wanted, || {
            format!("quantized latents have shape {:?}, not {wanted:?}", quantized.latents.shape())
        })?;
        let energies = quantized.residual_energy.len();
        ensure(energies == 0 || energies == depth.max(1), || {
            format!("{energies} residual energies for depth {depth}")
        })?;
        match (&quantized.bits, depth) {
            (Some(bits), 0) => finite("the rate in bits", bits).map(|_| ()),
            (Some(_), _) => {
                ensure(false, || "the rate of codes follows from their number: leave `bits` out".to_owned())
            }
            (None, _) => Ok(()),
        }
    };
    // While recording, as in training: a term that is not detached shows then.
    let tape = Tape::start()?;
    let evaluated = quantizer.quantize(&x.leaf())?;
    drop(tape);
    sound(&evaluated)?;
    ensure(evaluated.events.is_empty(), || "events are for training alone".to_owned())?;
    sound(&quantizer.quantize_train(x, &Rng::new(7, "step", 0))?)
}

/// Equal tokens: codes to the last bit, vectors to rounding.
fn equal(what: &str, a: &Tokens, b: &Tokens) -> Check {
    match (a, b) {
        (Tokens::Codes(a), Tokens::Codes(b)) => ensure(a == b, || format!("{what} are other codes")),
        (Tokens::Vectors(a), Tokens::Vectors(b)) => close(what, a, b, 1e-5),
        _ => ensure(false, || format!("{what} are of another kind")),
    }
}

fn evaluation<Q: Quantizer>(latents: MapShape, x: &Tensor, build: impl Fn(&QuantizerContext) -> Result<Q>) -> Check {
    let cx = context(latents, Params::new(1));
    let quantizer = build(&cx)?;
    let before = Snapshot::of(&cx.params);
    let first = quantizer.quantize(x)?;
    let (tokens, targets) = quantizer.tokens(x, &TokenRequest::default(), &Rng::new(7, "tokens", 0))?;
    quantizer.embed(&tokens, None)?;
    before.unchanged(&cx.params, "evaluation")?;
    equal("tokens without a special request", &tokens, &first.tokens)?;
    ensure(matches!(targets, Targets::Hard), || "soft targets that nobody asked for".to_owned())?;
    equal("the tokens of a second evaluation", &quantizer.quantize(x)?.tokens, &first.tokens)
}

fn independence<Q: Quantizer>(latents: MapShape, x: &Tensor, build: impl Fn(&QuantizerContext) -> Result<Q>) -> Check {
    let quantizer = built(latents, build)?;
    let together = quantizer.quantize(x)?.tokens;
    let alone = quantizer.quantize(&x.slice(0, 1..2)?)?.tokens;
    equal("the tokens of an image alone", &alone, &together.rows(&[1])?)
}

fn embedding<Q: Quantizer>(latents: MapShape, x: &Tensor, build: impl Fn(&QuantizerContext) -> Result<Q>) -> Check {
    let quantizer = built(latents, build)?;
    let quantized = quantizer.quantize(x)?;
    close("the latents of the tokens", &quantizer.embed(&quantized.tokens, None)?, &quantized.latents, 1e-5)
}

fn partial_depths<Q: Quantizer>(
    latents: MapShape,
    x: &Tensor,
    build: impl Fn(&QuantizerContext) -> Result<Q>,
) -> Check {
    let quantizer = built(latents, build)?;
    let quantized = quantizer.quantize(x)?;
    let depth = quantizer.level().depth();
    for d in 1..=depth {
        let embedded = quantizer.embed(&quantized.tokens, Some(d))?;
        ensure(embedded.shape() == quantized.latents.shape(), || {
            format!("latents of depth {d} have shape {:?}", embedded.shape())
        })?;
        if d == depth {
            close("the latents of all depths", &embedded, &quantizer.embed(&quantized.tokens, None)?, 0.0)?;
        }
    }
    let beyond = depth == 0 || quantizer.embed(&quantized.tokens, Some(depth + 1)).is_err();
    ensure(beyond, || format!("depth {} of {depth} is embedded without an error", depth + 1))
}

fn gradient<Q: Quantizer>(latents: MapShape, x: &Tensor, build: impl Fn(&QuantizerContext) -> Result<Q>) -> Check {
    let quantizer = built(latents, build)?;
    let leaf = x.leaf();
    let tape = Tape::start()?;
    let quantized = quantizer.quantize(&leaf)?;
    let projected = quantized.latents.mul(&random(quantized.latents.shape(), "projection"))?.sum_all()?;
    ensure(projected.wants_grad(), || "no gradient passes the bottleneck".to_owned())?;
    let gradient = tape.backward(&projected)?.take(&leaf).map(|g| g.to_vec()).unwrap_or_default();
    ensure(gradient.iter().any(|g| *g != 0.0), || "no gradient reaches the latents".to_owned())?;
    ensure(gradient.iter().all(|g| g.is_finite()), || "the gradient at the latents is not finite".to_owned())
}

fn training<Q: Quantizer>(latents: MapShape, x: &Tensor, build: impl Fn(&QuantizerContext) -> Result<Q>) -> Check {
    let run = || -> Check<(Snapshot, Tokens)> {
        let cx = context(latents, Params::new(1));
        let mut quantizer = build(&cx)?;
        for step in 0..3 {
            quantizer.quantize_train(x, &Rng::new(7, "step", step))?;
        }
        Ok((Snapshot::of(&cx.params), quantizer.quantize(x)?.tokens))
    };
    let ((state, tokens), (again, same)) = (run()?, run()?);
    ensure(state == again, || "equal streams of random numbers train different codebooks".to_owned())?;
    equal("the tokens after equal training", &tokens, &same)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::Error;
    use crate::contracts::{CodeSpace, LevelInfo};
    use crate::params::Init;
    use crate::tensor::ops::nearest::nearest;
    use crate::tensor::{Codes, Var};
    use std::cell::Cell;

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Flaw {
        None,
        /// The level promises half the codes.
        SmallLevel,
        /// Codebooks in a plan.
        TablesInPlan,
        /// A term with a gradient.
        Gradients,
        /// Evaluation moves the codebook.
        Moves,
        /// The codes of an image follow from the mean of the batch.
        SeesOthers,
        /// Tokens mean other latents than those that the decoder was trained on.
        OtherLatents,
        /// Any depth is embedded.
        AnyDepth,
        /// The bottleneck lets no gradient through.
        Opaque,
        /// Training draws from a generator of its own.
        OwnRandomness,
    }

    struct Toy {
        codebook: Var,
        latents: MapShape,
        flaw: Flaw,
        dry: bool,
    }

    thread_local! { static DRAWS: Cell<u64> = const { Cell::new(0) }; }

    impl Toy {
        fn new(cx: &QuantizerContext, flaw: Flaw) -> Result<Self> {
            let codebook = cx.params.buffer("codebook", &[6, cx.latents.channels], Init::Normal(1.0))?;
            Ok(Self { codebook, latents: cx.latents, flaw, dry: cx.params.is_dry() })
        }
    }

    impl Quantizer for Toy {
        fn level(&self) -> LevelInfo {
            let MapShape { height, width, channels } = self.latents;
            let size = if self.flaw == Flaw::SmallLevel { 3 } else { 6 };
            let tables = if self.dry && self.flaw != Flaw::TablesInPlan { vec![] } else { vec![self.codebook.get()] };
            let space = CodeSpace { sizes: vec![size], tables, shared: false };
            LevelInfo { height, width, channels, space: TokenSpace::Codes(space), scales: None }
        }

        fn quantize(&self, x: &Tensor) -> Result<Quantized> {
            if self.flaw == Flaw::Moves {
                self.codebook.set(&self.codebook.get().mul_scalar(1.1)?)?;
            }
            let mut seen = x.detach();
            if self.flaw == Flaw::SeesOthers {
                seen = seen.sub(&seen.mean(&[0], true)?)?;
            }
            let codes = nearest(&seen, &self.codebook.get())?;
            let value = self.codebook.get().embedding(&codes)?;
            let loss = x.mse(&value)?;
            let energy = loss.detach();
            let opaque = self.flaw == Flaw::Opaque;
            let term = if self.flaw == Flaw::Gradients { loss.clone() } else { energy.clone() };
            Ok(Quantized {
                latents: if opaque { value } else { x.straight_through(&value)? },
                tokens: Tokens::Codes(Codes::stack(&[codes])?),
                loss,
                terms: vec![("commitment", term)],
                bits: None,
                residual_energy: energy.reshape(&[1])?,
                events: vec![],
            })
        }

        fn quantize_train(&mut self, x: &Tensor, rng: &Rng) -> Result<Quantized> {
            let step = DRAWS.with(|draws| draws.replace(draws.get() + 1));
            let own = Rng::new(step, "own", 0);
            let rng = if self.flaw == Flaw::OwnRandomness { &own } else { rng };
            self.codebook.set(&self.codebook.get().add_scalar(rng.uniform(1)[0])?)?;
            self.quantize(x)
        }

        fn embed(&self, tokens: &Tokens, depth: Option<usize>) -> Result<Tensor> {
            if depth.is_some_and(|depth| depth != 1) && self.flaw != Flaw::AnyDepth {
                return Err(Error::Unsupported("there is one depth".to_owned()));
            }
            let scale = if self.flaw == Flaw::OtherLatents { 1.01 } else { 1.0 };
            Ok(self.codebook.get().embedding(&tokens.codes()?.column(0)?)?.mul_scalar(scale)?)
        }
    }

    const LATENTS: MapShape = MapShape { height: 3, width: 4, channels: 5 };

    #[test]
    fn a_sound_quantizer_passes() {
        quantizer(LATENTS, |cx| Toy::new(cx, Flaw::None));
    }

    #[test]
    fn every_flaw_is_found() {
        for (flaw, promise) in [
            (Flaw::SmallLevel, "level"),
            (Flaw::TablesInPlan, "plan"),
            (Flaw::Gradients, "numbers"),
            (Flaw::Moves, "evaluation"),
            (Flaw::SeesOthers, "independence"),
            (Flaw::OtherLatents, "embedding"),
            (Flaw::AnyDepth, "partial depths"),
            (Flaw::Opaque, "gradients"),
            (Flaw::OwnRandomness, "training"),
        ] {
            let found = promises(LATENTS, &|cx: &QuantizerContext| Toy::new(cx, flaw));
            assert!(found.iter().any(|(name, _)| *name == promise), "{flaw:?}: {found:?}");
        }
    }
}
