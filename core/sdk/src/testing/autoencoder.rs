//! What an autoencoder promises.

use super::{Check, Snapshot, broken, close, ensure, gradients, random, random_images, settle};
use crate::Result;
use crate::contracts::{Autoencoder, AutoencoderContext, Components, MapShape, Mode};
use crate::params::Params;
use crate::tensor::{Tape, Tensor, no_grad};

/// Images in a batch.
const IMAGES: usize = 2;

/// Checks an autoencoder of images of that shape:
/// - the bottleneck is called once per level, in order, with the shapes that `levels` promises; what it gives the decoder has
///   as many channels as `decoder_levels` says, here the first ones;
/// - reconstructions have the shape of the images, and decoding what was encoded gives them;
/// - every level counts, the last layer is a trained parameter that gets a gradient, and a plan can be made;
/// - images of a batch do not see each other, and evaluation changes nothing;
/// - gradients are those of finite differences.
///
/// # Panics
/// If a promise does not hold; the message names all that do not.
#[track_caller]
pub fn autoencoder<A: Autoencoder>(image: MapShape, build: impl Fn(&AutoencoderContext) -> Result<A>) {
    settle("autoencoder", &promises(image, &build));
}

fn promises<A: Autoencoder>(
    image: MapShape,
    build: &impl Fn(&AutoencoderContext) -> Result<A>,
) -> Vec<(&'static str, String)> {
    let images = random_images(&[IMAGES, image.height, image.width, image.channels], "images");
    broken([
        ("levels", levels(image, &images, build)),
        ("plan", plan(image, build)),
        ("decoding", decoding(image, &images, build)),
        ("every level", every_level(image, &images, build)),
        ("last layer", last_layer(image, &images, build)),
        ("evaluation", evaluation(image, &images, build)),
        ("independence", independence(image, &images, build)),
        ("gradients", gradient(image, &images, build)),
    ])
}

fn context(image: MapShape, params: Params) -> AutoencoderContext {
    AutoencoderContext { image, params, components: Components::none() }
}

fn built<A: Autoencoder>(image: MapShape, build: impl Fn(&AutoencoderContext) -> Result<A>) -> Result<A> {
    build(&context(image, Params::new(1)))
}

/// A bottleneck that leaves as many channels as the decoder reads, and changes nothing else.
fn narrow(model: &impl Autoencoder) -> impl FnMut(usize, &Tensor) -> Result<Tensor> {
    let levels = model.decoder_levels();
    move |level, latents| Ok(latents.slice(3, 0..levels[level].channels)?)
}

/// The reconstruction where the bottleneck changes nothing.
fn reconstruct(model: &impl Autoencoder, images: &Tensor) -> Result<Tensor> {
    model.forward(images, &mut narrow(model), &Mode::Eval)
}

/// The latents of every level where the bottleneck changes nothing.
fn latents(model: &impl Autoencoder, images: &Tensor) -> Result<Vec<Tensor>> {
    model.quantized_levels(images, &mut narrow(model), &Mode::Eval)
}

fn levels<A: Autoencoder>(image: MapShape, images: &Tensor, build: impl Fn(&AutoencoderContext) -> Result<A>) -> Check {
    let model = built(image, build)?;
    let shape = |level: MapShape| vec![IMAGES, level.height, level.width, level.channels];
    let promised: Vec<_> = model.levels().into_iter().map(shape).enumerate().collect();
    let (mut calls, mut narrowed) = (Vec::new(), narrow(&model));
    let mut bottleneck = |level: usize, latents: &Tensor| {
        calls.push((level, latents.shape().to_vec()));
        narrowed(level, latents)
    };
    model.encode(images, &mut bottleneck, &Mode::Eval)?;
    ensure(calls == promised, || format!("the bottleneck is called with {calls:?}, and `levels` promises {promised:?}"))
}

fn plan<A: Autoencoder>(image: MapShape, build: impl Fn(&AutoencoderContext) -> Result<A>) -> Check {
    let (dry, full) = (Params::dry(), Params::new(1));
    let (a, b) = (build(&context(image, dry.clone()))?.levels(), build(&context(image, full.clone()))?.levels());
    ensure(a == b, || "an autoencoder without numbers has other levels".to_owned())?;
    ensure(dry.count() == full.count(), || format!("{} parameters in a plan, {} in fact", dry.count(), full.count()))
}

fn decoding<A: Autoencoder>(
    image: MapShape,
    images: &Tensor,
    build: impl Fn(&AutoencoderContext) -> Result<A>,
) -> Check {
    let model = built(image, build)?;
    let whole = reconstruct(&model, images)?;
    ensure(whole.shape() == images.shape(), || {
        format!("images {:?} are reconstructed with shape {:?}", images.shape(), whole.shape())
    })?;
    ensure(whole.as_slice().iter().all(|x| x.is_finite()), || "the reconstruction is not finite".to_owned())?;
    let levels = latents(&model, images)?;
    close("decoding what was encoded", &model.decode(&levels)?, &whole, 1e-5)?;
    ensure(model.decode(&levels[1..]).is_err(), || "latents of a level too few are decoded without an error".to_owned())
}

fn every_level<A: Autoencoder>(
    image: MapShape,
    images: &Tensor,
    build: impl Fn(&AutoencoderContext) -> Result<A>,
) -> Check {
    let model = built(image, build)?;
    let levels = latents(&model, images)?;
    let whole = model.decode(&levels)?;
    for level in 0..levels.len() {
        let mut other = levels.clone();
        other[level] = random(levels[level].shape(), "other latents");
        let same = close("", &model.decode(&other)?, &whole, 1e-6).is_ok();
        ensure(!same, || format!("the decoder does not read level {}", level + 1))?;
    }
    Ok(())
}

fn last_layer<A: Autoencoder>(
    image: MapShape,
    images: &Tensor,
    build: impl Fn(&AutoencoderContext) -> Result<A>,
) -> Check {
    let cx = context(image, Params::new(1));
    let model = build(&cx)?;
    let levels = latents(&model, images)?;
    let features = no_grad(|| model.decode_features(&levels, &Mode::Eval))?.detach();
    let tape = Tape::start()?;
    let output = model.decode_output(&features)?;
    ensure(output.wants_grad(), || "the last layer has no parameter: its output carries no gradient".to_owned())?;
    let loss = output.mul(&random(output.shape(), "projection"))?.sum_all()?;
    let gradient = tape.backward(&loss)?.take(&model.last_layer().get());
    ensure(gradient.is_some_and(|g| g.as_slice().iter().any(|g| *g != 0.0)), || {
        "`decode_output` sends no gradient to the weight that `last_layer` names".to_owned()
    })
}

fn evaluation<A: Autoencoder>(
    image: MapShape,
    images: &Tensor,
    build: impl Fn(&AutoencoderContext) -> Result<A>,
) -> Check {
    let cx = context(image, Params::new(1));
    let model = build(&cx)?;
    let before = Snapshot::of(&cx.params);
    let first = reconstruct(&model, images)?;
    before.unchanged(&cx.params, "evaluation")?;
    close("a second evaluation", &reconstruct(&model, images)?, &first, 0.0)
}

fn independence<A: Autoencoder>(
    image: MapShape,
    images: &Tensor,
    build: impl Fn(&AutoencoderContext) -> Result<A>,
) -> Check {
    let model = built(image, build)?;
    let (alone, together) = (reconstruct(&model, &images.slice(0, 1..2)?)?, reconstruct(&model, images)?);
    close("the reconstruction of an image alone", &alone, &together.slice(0, 1..2)?, 1e-4)
}

fn gradient<A: Autoencoder>(
    image: MapShape,
    images: &Tensor,
    build: impl Fn(&AutoencoderContext) -> Result<A>,
) -> Check {
    let cx = context(image, Params::new(1));
    let model = build(&cx)?;
    gradients::parameters(&cx.params, || Ok(reconstruct(&model, images)?.mse(images)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::Error;
    use crate::contracts::Bottleneck;
    use crate::nn::Linear;
    use crate::tensor::Var;

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Flaw {
        None,
        /// The level promises another height.
        OtherLevel,
        /// A parameter more in a plan.
        OtherPlan,
        /// Decoding adds something that reconstruction does not.
        OtherDecoding,
        /// The decoder ignores its latents.
        Deaf,
        /// The last layer is another one.
        OtherLastLayer,
        /// Evaluation moves a weight.
        Moves,
        /// Images are centred over the batch.
        SeesOthers,
        /// Half the gradient is missing.
        HalfGradient,
    }

    /// A linear map per pixel, and one back.
    struct Toy {
        image: MapShape,
        encoder: Linear,
        decoder: Linear,
        flaw: Flaw,
    }

    impl Toy {
        fn new(cx: &AutoencoderContext, flaw: Flaw) -> Result<Self> {
            if flaw == Flaw::OtherPlan && cx.params.is_dry() {
                cx.params.parameter("more", &[1], crate::params::Init::ZEROS)?;
            }
            let linear = |name: &str, inputs, outputs| Linear::new(&cx.params.scope(name), inputs, outputs, true);
            let channels = cx.image.channels;
            Ok(Self {
                image: cx.image,
                encoder: linear("encoder", channels, 5)?,
                decoder: linear("decoder", 5, channels)?,
                flaw,
            })
        }
    }

    impl Autoencoder for Toy {
        fn levels(&self) -> Vec<MapShape> {
            let height = self.image.height + usize::from(self.flaw == Flaw::OtherLevel);
            vec![MapShape { height, channels: 5, ..self.image }]
        }

        fn encode(&self, images: &Tensor, bottleneck: &mut Bottleneck<'_>, _: &Mode) -> Result<()> {
            let mut images = images.clone();
            if self.flaw == Flaw::SeesOthers {
                images = images.sub(&images.mean(&[0], true)?)?;
            }
            if self.flaw == Flaw::Moves {
                self.encoder.weight.set(&self.encoder.weight.get().mul_scalar(1.1)?)?;
            }
            bottleneck(0, &self.encoder.forward(&images)?).map(|_| ())
        }

        fn decode_features(&self, levels: &[Tensor], _: &Mode) -> Result<Tensor> {
            match levels {
                [latents] if self.flaw == Flaw::Deaf => Ok(Tensor::full(1.0, latents.shape())),
                [latents] => Ok(latents.clone()),
                _ => Err(Error::Unsupported("one level was expected".to_owned())),
            }
        }

        fn decode_output(&self, features: &Tensor) -> Result<Tensor> {
            let output = self.decoder.forward(features)?;
            if self.flaw == Flaw::HalfGradient {
                return Ok(output.add(&output.detach())?.mul_scalar(0.5)?);
            }
            Ok(output)
        }

        fn last_layer(&self) -> Var {
            if self.flaw == Flaw::OtherLastLayer { self.encoder.weight.clone() } else { self.decoder.weight.clone() }
        }

        fn decode(&self, levels: &[Tensor]) -> Result<Tensor> {
            let output = self.decode_output(&self.decode_features(levels, &Mode::Eval)?)?;
            if self.flaw == Flaw::OtherDecoding { Ok(output.add_scalar(0.1)?) } else { Ok(output) }
        }
    }

    const IMAGE: MapShape = MapShape { height: 4, width: 3, channels: 3 };

    #[test]
    fn a_sound_autoencoder_passes() {
        autoencoder(IMAGE, |cx| Toy::new(cx, Flaw::None));
    }

    #[test]
    fn every_flaw_is_found() {
        for (flaw, promise) in [
            (Flaw::OtherLevel, "levels"),
            (Flaw::OtherPlan, "plan"),
            (Flaw::OtherDecoding, "decoding"),
            (Flaw::Deaf, "every level"),
            (Flaw::OtherLastLayer, "last layer"),
            (Flaw::Moves, "evaluation"),
            (Flaw::SeesOthers, "independence"),
            (Flaw::HalfGradient, "gradients"),
        ] {
            let found = promises(IMAGE, &|cx: &AutoencoderContext| Toy::new(cx, flaw));
            assert!(found.iter().any(|(name, _)| *name == promise), "{flaw:?}: {found:?}");
        }
    }
}
