//! The weighted sum of objectives, with one backward pass through the autoencoder.

use crate::Result;
use crate::contracts::{Autoencoder, Weight};
use crate::tensor::ranks::Step;
use crate::tensor::{Tape, Tensor, no_grad};

/// Added to the norm that an adaptive weight divides by, as in the published code of Esser et al. 2021 (the paper says 1e-6).
const ADAPTIVE_EPS: f32 = 1e-4;

/// What [`weighted_sum`] gives.
#[derive(Debug, Clone)]
pub struct WeightedSum {
    /// The sum (rank 0), recorded so that one backward pass gives its gradients.
    pub loss: Tensor,
    /// What the autoencoder's last layer made, without a gradient.
    pub output: Tensor,
    /// The weight (rank 0) of each objective whose weight is adaptive; none for others.
    pub adaptive: Vec<Option<Tensor>>,
}

/// The sum of objectives at the output that the autoencoder's last layer makes of `features`, each with its weight.
/// `evaluate` gives the loss of the one of an index at an output; those of the fixed weight 0 are not evaluated.
///
/// Where a weight is adaptive, every objective is evaluated once on the output as a leaf, and its gradient there serves twice:
/// for the norm at the last layer, and, combined with the others, as the seed of the pass through the autoencoder.
///
/// # Errors
/// Those of the objectives and of the last layer.
pub fn weighted_sum(
    autoencoder: &dyn Autoencoder,
    features: &Tensor,
    weights: &[Weight],
    mut evaluate: impl FnMut(usize, &Tensor) -> Result<Tensor>,
) -> Result<WeightedSum> {
    let output = autoencoder.decode_output(features)?;
    let mut adaptive = vec![None; weights.len()];
    let loss = if weights.iter().any(|weight| matches!(weight, Weight::Adaptive { .. })) {
        by_gradients(autoencoder, features, &output, weights, &mut evaluate, &mut adaptive)?
    } else {
        let mut total: Option<Tensor> = None;
        for (i, weight) in weights.iter().enumerate() {
            let Weight::Fixed(weight) = *weight else { continue };
            if weight != 0.0 {
                total = Some(plus(total, &scaled(&evaluate(i, &output)?, weight)?)?);
            }
        }
        total.map_or_else(|| nothing(&output), Ok)?
    };
    Ok(WeightedSum { loss, output: output.detach(), adaptive })
}

/// The sum where some weights depend on gradients.
fn by_gradients(
    autoencoder: &dyn Autoencoder,
    features: &Tensor,
    output: &Tensor,
    weights: &[Weight],
    evaluate: &mut dyn FnMut(usize, &Tensor) -> Result<Tensor>,
    adaptive: &mut [Option<Tensor>],
) -> Result<Tensor> {
    let mut value = Tensor::scalar(0.0).to_device(output.device())?;
    let mut fixed: Option<Tensor> = None;
    let mut waiting = Vec::new();
    for (i, weight) in weights.iter().enumerate() {
        if *weight == Weight::Fixed(0.0) {
            continue;
        }
        let (own, gradient) = no_grad(|| -> Result<_> {
            let leaf = output.detach().leaf();
            let tape = Tape::start()?;
            let own = evaluate(i, &leaf)?;
            let gradient = tape.backward(&own)?.take(&leaf);
            Ok((own.detach(), gradient))
        })?;
        let Some(gradient) = gradient else { continue };
        match *weight {
            Weight::Fixed(weight) => {
                value = value.add(&scaled(&own, weight)?)?;
                fixed = Some(plus(fixed, &scaled(&gradient, weight)?)?);
            }
            Weight::Adaptive { scale, limit } => waiting.push((i, own, gradient, scale, limit)),
        }
    }
    let mut seed = fixed.clone();
    for (i, own, gradient, scale, limit) in waiting {
        let weight = no_grad(|| -> Result<Tensor> {
            let norm = |seed: &Tensor| norm_at_last_layer(autoencoder, features, seed);
            let own = norm(&gradient)?.add_scalar(ADAPTIVE_EPS)?;
            let others = match &fixed {
                Some(seed) => norm(seed)?,
                None => nothing(output)?,
            };
            Ok(others.div(&own)?.clamp(0.0, limit)?.mul_scalar(scale)?)
        })?;
        value = value.add(&own.mul(&weight)?)?;
        seed = Some(plus(seed, &gradient.mul(&weight)?)?);
        adaptive[i] = Some(weight);
    }
    // The gradient of this sum in the output is the seed itself, and its value is put right after it.
    let seed = match seed {
        Some(seed) => seed,
        None => return nothing(output),
    };
    let carrier = output.mul(&seed)?.sum_all()?;
    Ok(carrier.add(&value.sub(&carrier.detach())?)?)
}

/// The norm of the gradient at the last layer's weight that `seed`, a gradient at the output, causes; in a training step of several
/// ranks, that of all of them.
fn norm_at_last_layer(autoencoder: &dyn Autoencoder, features: &Tensor, seed: &Tensor) -> Result<Tensor> {
    let weight = autoencoder.last_layer().get();
    let features = features.detach();
    let tape = Tape::start()?;
    let loss = autoencoder.decode_output(&features)?.mul(seed)?.sum_all()?;
    let gradient = tape.backward(&loss)?.take(&weight);
    match gradient {
        Some(gradient) => Ok(Step::current().mean(&gradient)?.square()?.sum_all()?.sqrt()?),
        None => nothing(seed),
    }
}

/// Zero, where `like` is.
fn nothing(like: &Tensor) -> Result<Tensor> {
    Ok(like.sum_all()?.mul_scalar(0.0)?)
}

fn scaled(x: &Tensor, weight: f32) -> Result<Tensor> {
    if weight == 1.0 { Ok(x.clone()) } else { Ok(x.mul_scalar(weight)?) }
}

fn plus(sum: Option<Tensor>, term: &Tensor) -> Result<Tensor> {
    match sum {
        None => Ok(term.clone()),
        Some(sum) => Ok(sum.add(term)?),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::config::Config;
    use crate::contracts::{AutoencoderContext, Components, MapShape, Mode};
    use crate::params::Params;
    use crate::tensor::Rng;
    use crate::testing::toys::{ToyTwoLevels, ToyTwoLevelsConfig};

    const IMAGE: MapShape = MapShape { height: 4, width: 4, channels: 3 };

    fn numbers(purpose: &str) -> Tensor {
        let shape = [2, IMAGE.height, IMAGE.width, IMAGE.channels];
        Tensor::from_vec(Rng::new(3, purpose, 0).normal(shape.iter().product()), &shape).unwrap()
    }

    /// The loss, and its gradient in the last layer's weight, by one backward pass through the autoencoder. Each objective is
    /// the mean of the output times fixed numbers.
    fn measured(model: &ToyTwoLevels, list: &[(&Tensor, Weight)]) -> (f32, Vec<f32>) {
        let images = numbers("images");
        let tape = Tape::start().unwrap();
        let levels = model.quantized_levels(&images, &mut |_, latents| Ok(latents.clone()), &Mode::Eval).unwrap();
        let features = model.decode_features(&levels, &Mode::Eval).unwrap();
        let weights: Vec<Weight> = list.iter().map(|(_, weight)| *weight).collect();
        let evaluate = |i: usize, output: &Tensor| Ok(output.mul(list[i].0)?.mean_all()?);
        let sum = weighted_sum(model, &features, &weights, evaluate).unwrap();
        for (weight, found) in weights.iter().zip(&sum.adaptive) {
            assert_eq!(matches!(weight, Weight::Adaptive { .. }), found.is_some());
        }
        let gradient = tape.backward(&sum.loss).unwrap().take(&model.last_layer().get()).unwrap();
        (sum.loss.item().unwrap(), gradient.to_vec())
    }

    fn norm(gradient: &[f32]) -> f32 {
        gradient.iter().map(|x| x * x).sum::<f32>().sqrt()
    }

    /// Esser et al. 2021, equation 7: the ratio of the gradients' norms at the last layer, limited and then scaled; and the
    /// gradient is that of the weighted sum with the weight as a constant.
    #[test]
    fn an_adaptive_weight_is_the_ratio_of_gradients_at_the_last_layer() {
        let components = Components::none();
        let context = AutoencoderContext { image: IMAGE, params: Params::new(1), components };
        let model = ToyTwoLevels::new(ToyTwoLevelsConfig::parse("toy").unwrap(), &context).unwrap();
        let (a, b) = (numbers("a"), numbers("b"));
        let (value_a, gradient_a) = measured(&model, &[(&a, Weight::Fixed(2.0))]);
        let (value_b, gradient_b) = measured(&model, &[(&b, Weight::Fixed(1.0))]);
        let ratio = norm(&gradient_a) / (norm(&gradient_b) + ADAPTIVE_EPS);
        for limit in [1e4, 0.5 * ratio] {
            let weight = 0.75 * ratio.min(limit);
            let adaptive = Weight::Adaptive { scale: 0.75, limit };
            let (value, gradient) = measured(&model, &[(&a, Weight::Fixed(2.0)), (&b, adaptive)]);
            let wanted = value_a + weight * value_b;
            assert!((value - wanted).abs() < 1e-4 * (1.0 + wanted.abs()), "{value}, wanted {wanted}");
            for ((found, a), b) in gradient.iter().zip(&gradient_a).zip(&gradient_b) {
                let wanted = a + weight * b;
                assert!((found - wanted).abs() < 1e-4 * (1.0 + wanted.abs()), "{found}, wanted {wanted}");
            }
        }
    }
}
