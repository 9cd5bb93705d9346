//! What a tokenizer is trained for: the weighted sum of its objectives, with one backward pass through the autoencoder.

use super::means::LateMean;
use super::{Critic, Recipe};
use crate::job::Call;
use crate::plugins::Plugins;
use rqlab_reports::Reading;
use rqlab_sdk::Result;
use rqlab_sdk::contracts::{
    Autoencoder, Components, Loss, MapShape, Objective, ObjectiveContext, Reconstruction, Weight,
};
use rqlab_sdk::params::Params;
use rqlab_sdk::tensor::{Rng, Tape, Tensor, Var, no_grad};
use std::collections::BTreeMap;

/// Added to the norm that an adaptive weight divides by, as in the published code of Esser et al. 2021 (the paper says 1e-6).
const ADAPTIVE_EPS: f32 = 1e-4;

/// Where the parameters of objectives stand among a tokenizer's.
pub(in crate::stages) const SCOPE: &str = "objective";

/// The objectives of a tokenizer.
pub(in crate::stages) struct Objectives {
    list: Vec<Entry>,
    /// What the curves show, since their last point.
    terms: BTreeMap<String, LateMean>,
}

struct Entry {
    name: String,
    scope: String,
    objective: Box<dyn Objective>,
    /// Its trained parameters: those of a critic.
    critic: Vec<(String, Var)>,
}

impl Objectives {
    /// Builds them, each on a scope of its own in `params`.
    ///
    /// # Errors
    /// Those of the plugins.
    pub(in crate::stages) fn build(
        plugins: &Plugins,
        calls: &[Call],
        image: MapShape,
        params: &Params,
    ) -> Result<Self> {
        let entry = |(i, call): (usize, &Call)| {
            let scope = format!("{SCOPE}.{i}");
            let params = params.scope(&scope);
            let context = ObjectiveContext { image, params: params.clone(), components: Components::none() };
            let objective = plugins.objective(call, &context)?;
            Ok(Entry { name: call.name.clone(), scope, objective, critic: params.trained() })
        };
        Ok(Self { list: calls.iter().enumerate().map(entry).collect::<Result<_>>()?, terms: BTreeMap::new() })
    }

    /// The critics among them, in their order, and how each is trained where the tokenizer is trained by `recipe`.
    pub(in crate::stages) fn critics(&self, recipe: &Recipe) -> Vec<Critic> {
        let critics = self.list.iter().filter(|entry| !entry.critic.is_empty());
        let critic = |entry: &Entry| {
            let own = entry.objective.critic_training();
            let recipe = Recipe {
                lr: own.lr.unwrap_or(recipe.lr),
                betas: own.betas.unwrap_or(recipe.betas),
                ema_decay: None,
                ..recipe.clone()
            };
            Critic { scope: entry.scope.clone(), parameters: entry.critic.clone(), recipe }
        };
        critics.map(critic).collect()
    }

    /// The weighted sum (rank 0) of all objectives at the reconstruction that the autoencoder's last layer makes of
    /// `features`, recorded so that one backward pass gives its gradients; and the reconstruction, without a gradient.
    ///
    /// # Errors
    /// Those of the objectives.
    pub(in crate::stages) fn loss(
        &mut self,
        autoencoder: &dyn Autoencoder,
        features: &Tensor,
        images: &Tensor,
        step: u64,
        rng: &Rng,
    ) -> Result<(Tensor, Tensor)> {
        let output = autoencoder.decode_output(features)?;
        let weights: Vec<Weight> = self.list.iter().map(|entry| entry.objective.weight(step)).collect();
        let adaptive = weights.iter().any(|weight| matches!(weight, Weight::Adaptive { .. }));
        let loss = if adaptive {
            self.adaptive(autoencoder, features, &output, images, &weights, step, rng)?
        } else {
            let mut total: Option<Tensor> = None;
            for (i, weight) in weights.iter().enumerate() {
                let Weight::Fixed(weight) = *weight else { continue };
                if weight != 0.0 {
                    let own = self.evaluate(i, images, &output, step, rng)?;
                    total = Some(plus(total, &scaled(&own, weight)?)?);
                }
            }
            total.map_or_else(|| nothing(&output), Ok)?
        };
        Ok((loss, output.detach()))
    }

    /// The sum where some weights depend on gradients. Every objective sees the output as a leaf, so that its own networks
    /// are gone through once forward and once backward; the autoencoder's last layer alone is gone through once more for
    /// each side of the ratio.
    fn adaptive(
        &mut self,
        autoencoder: &dyn Autoencoder,
        features: &Tensor,
        output: &Tensor,
        images: &Tensor,
        weights: &[Weight],
        step: u64,
        rng: &Rng,
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
                let own = self.evaluate(i, images, &leaf, step, rng)?;
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
            self.keep(format!("{}_weight", self.list[i].name), &weight);
            value = value.add(&own.mul(&weight)?)?;
            seed = Some(plus(seed, &gradient.mul(&weight)?)?);
        }
        // The gradient of this sum in the output is the seed itself, and its value is put right after it.
        let seed = match seed {
            Some(seed) => seed,
            None => return nothing(output),
        };
        let carrier = output.mul(&seed)?.sum_all()?;
        Ok(carrier.add(&value.sub(&carrier.detach())?)?)
    }

    fn evaluate(&mut self, i: usize, images: &Tensor, output: &Tensor, step: u64, rng: &Rng) -> Result<Tensor> {
        let entry = &mut self.list[i];
        let rng = rng.part("objective", i as u64);
        let frozen: Vec<Var> = entry.critic.iter().map(|(_, var)| var.clone()).collect();
        let Loss { loss, terms } =
            Var::frozen(&frozen, || entry.objective.loss(&Reconstruction { images, output, step, rng: &rng }))?;
        terms.iter().for_each(|(name, value)| self.keep((*name).to_owned(), value));
        Ok(loss)
    }

    /// The loss of the n-th critic on a reconstruction that has no gradient.
    ///
    /// # Errors
    /// Those of the objective.
    pub(in crate::stages) fn critic(
        &mut self,
        n: usize,
        images: &Tensor,
        output: &Tensor,
        step: u64,
        rng: &Rng,
    ) -> Result<Option<Tensor>> {
        let mut critics = self.list.iter_mut().enumerate().filter(|(_, entry)| !entry.critic.is_empty());
        let Some((i, entry)) = critics.nth(n) else { return Ok(None) };
        let rng = rng.part("critic", i as u64);
        let Some(Loss { loss, terms }) = entry.objective.critic(&Reconstruction { images, output, step, rng: &rng })?
        else {
            return Ok(None);
        };
        terms.iter().for_each(|(name, value)| self.keep((*name).to_owned(), value));
        Ok(Some(loss))
    }

    fn keep(&mut self, name: String, value: &Tensor) {
        self.terms.entry(name).or_default().add(value);
    }

    /// What their terms were since the last call of [`Objectives::observe`], as a checkpoint keeps it.
    pub(in crate::stages) fn pending(&mut self) -> BTreeMap<&str, &LateMean> {
        self.terms.iter_mut().map(|(name, mean)| (name.as_str(), mean.pending())).collect()
    }

    /// Goes on from what [`Objectives::pending`] gave.
    pub(in crate::stages) fn resume(&mut self, pending: BTreeMap<String, LateMean>) {
        self.terms = pending;
    }

    /// What their terms were since the last call, on average.
    pub(in crate::stages) fn observe(&mut self) -> Vec<Reading> {
        self.terms.iter_mut().flat_map(|(name, mean)| mean.take(name, &[])).collect()
    }
}

/// The norm of the gradient at the last layer's weight that `seed`, a gradient at the output, causes.
fn norm_at_last_layer(autoencoder: &dyn Autoencoder, features: &Tensor, seed: &Tensor) -> Result<Tensor> {
    let weight = autoencoder.last_layer().get();
    let features = features.detach();
    let tape = Tape::start()?;
    let loss = autoencoder.decode_output(&features)?.mul(seed)?.sum_all()?;
    let gradient = tape.backward(&loss)?.take(&weight);
    match gradient {
        Some(gradient) => Ok(gradient.square()?.sum_all()?.sqrt()?),
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
    use rqlab_sdk::config::Config;
    use rqlab_sdk::contracts::{AutoencoderContext, Mode};
    use rqlab_sdk::testing::toys::{ToyTwoLevels, ToyTwoLevelsConfig};

    const IMAGE: MapShape = MapShape { height: 4, width: 4, channels: 3 };

    /// The mean of the output times fixed numbers: its gradient in the output is those numbers over their count.
    struct Linear(Tensor, Weight);

    impl Objective for Linear {
        fn loss(&mut self, r: &Reconstruction<'_>) -> Result<Loss> {
            Ok(Loss { loss: r.output.mul(&self.0)?.mean_all()?, terms: vec![] })
        }

        fn weight(&self, _: u64) -> Weight {
            self.1
        }
    }

    fn numbers(purpose: &str) -> Tensor {
        let shape = [2, IMAGE.height, IMAGE.width, IMAGE.channels];
        Tensor::from_vec(Rng::new(3, purpose, 0).normal(shape.iter().product()), &shape).unwrap()
    }

    fn objectives(list: Vec<Linear>) -> Objectives {
        let entry = |(i, objective): (usize, Linear)| Entry {
            name: format!("linear_{i}"),
            scope: format!("{SCOPE}.{i}"),
            objective: Box::new(objective),
            critic: vec![],
        };
        Objectives { list: list.into_iter().enumerate().map(entry).collect(), terms: BTreeMap::new() }
    }

    /// The loss, and its gradient in the last layer's weight, by one backward pass through the autoencoder.
    fn measured(model: &ToyTwoLevels, list: Vec<Linear>) -> (f32, Vec<f32>) {
        let images = numbers("images");
        let rng = Rng::new(0, "test", 0);
        let tape = Tape::start().unwrap();
        let levels = model.quantized_levels(&images, &mut |_, latents| Ok(latents.clone()), &Mode::Eval).unwrap();
        let features = model.decode_features(&levels, &Mode::Eval).unwrap();
        let (loss, _) = objectives(list).loss(model, &features, &images, 0, &rng).unwrap();
        let gradient = tape.backward(&loss).unwrap().take(&model.last_layer().get()).unwrap();
        (loss.item().unwrap(), gradient.to_vec())
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
        let fixed = |weight: f32| Linear(a.clone(), Weight::Fixed(weight));
        let (value_a, gradient_a) = measured(&model, vec![fixed(2.0)]);
        let (value_b, gradient_b) = measured(&model, vec![Linear(b.clone(), Weight::Fixed(1.0))]);
        let ratio = norm(&gradient_a) / (norm(&gradient_b) + ADAPTIVE_EPS);
        for limit in [1e4, 0.5 * ratio] {
            let weight = 0.75 * ratio.min(limit);
            let adaptive = Linear(b.clone(), Weight::Adaptive { scale: 0.75, limit });
            let (value, gradient) = measured(&model, vec![fixed(2.0), adaptive]);
            let wanted = value_a + weight * value_b;
            assert!((value - wanted).abs() < 1e-4 * (1.0 + wanted.abs()), "{value}, wanted {wanted}");
            for ((found, a), b) in gradient.iter().zip(&gradient_a).zip(&gradient_b) {
                let wanted = a + weight * b;
                assert!((found - wanted).abs() < 1e-4 * (1.0 + wanted.abs()), "{found}, wanted {wanted}");
            }
        }
    }
}
