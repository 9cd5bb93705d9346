//! A step of a tokenizer against a discriminator, and the features that quality is measured with.

use crate::models::{component, normal, pictures, tokenizer};
use crate::workloads::{BATCH, CLASSES, SIDE, TokenizerSizes};
use crate::{Prepared, Result};
use rqlab::plugins::Plugins;
use rqlab_sdk::contracts::{MapShape, Mode, ObjectiveContext, Reconstruction, Weight};
use rqlab_sdk::networks::directions;
use rqlab_sdk::optim::{Adam, AdamSettings, weighted_sum};
use rqlab_sdk::params::Params;
use rqlab_sdk::plugin::Kind;
use rqlab_sdk::tensor::ops::conv::Conv2d as Strides;
use rqlab_sdk::tensor::{Rng, Tape, Tensor, Var, no_grad};

/// Convolutions 3x3 with a padding of one pixel, each followed by ReLU: channels out and stride.
type Convolutions = &'static [(usize, usize)];

/// The fixed network that stands where LPIPS does.
pub(crate) const PERCEPTUAL: Convolutions = &[(32, 1), (64, 2), (128, 2), (128, 2)];
/// The classifier.
pub(crate) const FEATURES: Convolutions = &[(64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1)];

/// Weights of convolutions of pictures, without a gradient.
fn weights(convolutions: Convolutions) -> Result<Vec<(Tensor, Strides)>> {
    let mut inputs = 3;
    let layer = |(i, &(outputs, stride)): (usize, &(usize, usize))| {
        let weights = Rng::new(7, "convolution", i as u64).normal(outputs * inputs * 9);
        let weight = Tensor::from_vec(weights, &[outputs, inputs, 3, 3])?;
        let scale = (2.0 / (9 * inputs) as f32).sqrt();
        inputs = outputs;
        Ok((weight.mul_scalar(scale)?, Strides::new(stride, [1; 4])))
    };
    convolutions.iter().enumerate().map(layer).collect()
}

fn maps(layers: &[(Tensor, Strides)], images: &Tensor) -> Result<Vec<Tensor>> {
    let mut maps: Vec<Tensor> = Vec::new();
    for (weight, strides) in layers {
        maps.push(maps.last().unwrap_or(images).conv2d(weight, None, *strides)?.relu()?);
    }
    Ok(maps)
}

/// The mean squared difference of directions, summed over the maps.
fn perceptual(layers: &[(Tensor, Strides)], output: &Tensor, images: &Tensor) -> Result<Tensor> {
    let (seen, wanted) = (maps(layers, output)?, maps(layers, images)?);
    let mut sum: Option<Tensor> = None;
    for (seen, wanted) in seen.iter().zip(&wanted) {
        let term = directions(seen)?.mse(&directions(wanted)?)?;
        sum = Some(match sum {
            Some(sum) => sum.add(&term)?,
            None => term,
        });
    }
    Ok(sum.unwrap_or_else(|| Tensor::scalar(0.0)))
}

/// A step of both players: mean squared error, the fixed network's distance, the quantizer's loss, and the hinge loss with
/// an adaptive weight; then the discriminator's.
///
/// # Errors
/// A plugin that is missing.
pub(crate) fn step(sizes: &TokenizerSizes, batch: usize, plugins: &Plugins) -> Result<Prepared> {
    let (mut model, params) = tokenizer(&sizes.calls(batch), plugins)?;
    let own = Params::new(0);
    let call = "(n_layers: 2, width: 32, weight: 0.75, critic_weight: 0.75)";
    let call = component(plugins, Kind::Objective, "patch_gan", call.to_owned())?;
    let image = MapShape { height: SIDE, width: SIDE, channels: 3 };
    let mut gan = plugins.objective(&call, &ObjectiveContext::new(image, own.clone()))?;
    let adam =
        |params: &Params| Adam::new(params.trained(), AdamSettings { betas: [0.5, 0.9], ..AdamSettings::default() });
    let (mut optimizer, mut critics) = (adam(&params)?, adam(&own)?);
    let frozen: Vec<Var> = own.trained().into_iter().map(|(_, var)| var).collect();
    let (network, images) = (weights(PERCEPTUAL)?, pictures(batch, SIDE)?);
    let mut step = 0;
    Ok(Prepared::new(Some(params.count() + own.count()), move || {
        let rng = Rng::new(0, "step", step);
        let tape = Tape::start()?;
        let mut auxiliary = None;
        let mut bottleneck = |level: usize, latents: &Tensor| {
            let quantized = model.quantizers[level].quantize_train(latents, &rng)?;
            auxiliary = Some(quantized.loss);
            Ok(quantized.latents)
        };
        let (autoencoder, mode) = (model.autoencoder.as_ref(), Mode::Train(rng));
        let levels = autoencoder.quantized_levels(&images, &mut bottleneck, &mode)?;
        let features = autoencoder.decode_features(&levels, &mode)?;
        let weights = [Weight::Fixed(1.0), Weight::Fixed(1.0), gan.weight(step)];
        let sum = weighted_sum(autoencoder, &features, &weights, |i, output| match i {
            0 => Ok(output.mse(&images)?),
            1 => perceptual(&network, output, &images),
            _ => {
                let asked = Reconstruction { images: &images, output, step, rng: &rng };
                Ok(Var::frozen(&frozen, || gan.loss(&asked))?.loss)
            }
        })?;
        let loss = auxiliary.iter().try_fold(sum.loss, |loss, auxiliary| loss.add(auxiliary))?;
        optimizer.step(&mut tape.backward(&loss)?, 1e-4, None)?;
        let tape = Tape::start()?;
        if let Some(loss) = gan.critic(&Reconstruction { images: &images, output: &sum.output, step, rng: &rng })? {
            critics.step(&mut tape.backward(&loss.loss)?, 1e-4, None)?;
        }
        step += 1;
        Ok(())
    }))
}

/// Images through a classifier of six convolutions, forward only: the means over space of its last map, and its logits.
///
/// # Errors
/// None for sizes that are fixed.
pub(crate) fn features() -> Result<Prepared> {
    let (layers, images) = (weights(FEATURES)?, pictures(BATCH, SIDE)?);
    let biases: Vec<Tensor> = FEATURES.iter().map(|(outputs, _)| Tensor::zeros(&[*outputs])).collect();
    let head = normal(&[CLASSES, 256], "head")?;
    let bias = Tensor::zeros(&[CLASSES]);
    let parameters = layers.iter().map(|(weight, _)| weight.len()).chain(biases.iter().map(Tensor::len));
    let count = parameters.sum::<usize>() + head.len() + bias.len();
    Ok(Prepared::new(Some(count), move || {
        no_grad(|| {
            let mut x = images.clone();
            for ((weight, strides), bias) in layers.iter().zip(&biases) {
                x = x.conv2d(weight, Some(bias), *strides)?.relu()?;
            }
            x.mean(&[1, 2], false)?.linear(&head, Some(&bias))?;
            Ok(())
        })
    }))
}
