//! What a tokenizer is trained for: its objectives, their critics, and what their curves show.

use super::means::LateMean;
use super::{Critic, Recipe};
use crate::job::Call;
use crate::plugins::Plugins;
use rqlab_reports::Reading;
use rqlab_sdk::Result;
use rqlab_sdk::contracts::{
    Autoencoder, Loss, MapShape, Network, NetworkRequest, Objective, ObjectiveContext, Reconstruction, Weight,
};
use rqlab_sdk::optim::{WeightedSum, weighted_sum};
use rqlab_sdk::params::Params;
use rqlab_sdk::tensor::{Rng, Tensor, Var};
use std::collections::BTreeMap;

/// Where the parameters of objectives stand among a tokenizer's.
pub(in crate::stages) const SCOPE: &str = "objective";

/// The objectives of a tokenizer.
pub(in crate::stages) struct Objectives {
    list: Vec<Entry>,
    /// What the curves show, since their last point.
    terms: BTreeMap<String, LateMean>,
    /// The losses of the last step, unweighted.
    losses: Vec<(String, Tensor)>,
}

struct Entry {
    name: String,
    scope: String,
    objective: Box<dyn Objective>,
    /// Its trained parameters: those of a critic.
    critic: Vec<(String, Var)>,
}

impl Objectives {
    /// Builds them, each on a scope of its own in `params`; `network` gives those that they measure with.
    ///
    /// # Errors
    /// Those of the plugins and of `network`.
    pub(in crate::stages) fn build(
        plugins: &Plugins,
        calls: &[Call],
        image: MapShape,
        params: &Params,
        network: impl Fn(NetworkRequest) -> Result<Network>,
    ) -> Result<Self> {
        let entry = |(i, call): (usize, &Call)| {
            let scope = format!("{SCOPE}.{i}");
            let params = params.scope(&scope);
            // What it asks for is known once it is built.
            let asked = plugins.objective(call, &ObjectiveContext::new(image, Params::dry()))?.network();
            let network = asked.map(&network).transpose()?;
            let context = ObjectiveContext { network, ..ObjectiveContext::new(image, params.clone()) };
            let objective = plugins.objective(call, &context)?;
            Ok(Entry { name: call.name.clone(), scope, objective, critic: params.trained() })
        };
        let list = calls.iter().enumerate().map(entry).collect::<Result<_>>()?;
        Ok(Self { list, terms: BTreeMap::new(), losses: Vec::new() })
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
            Critic { name: entry.name.clone(), scope: entry.scope.clone(), parameters: entry.critic.clone(), recipe }
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
        self.losses.clear();
        let weights: Vec<Weight> = self.list.iter().map(|entry| entry.objective.weight(step)).collect();
        let evaluate = |i: usize, output: &Tensor| self.evaluate(i, images, output, step, rng);
        let WeightedSum { loss, output, adaptive } = weighted_sum(autoencoder, features, &weights, evaluate)?;
        for (i, weight) in adaptive.iter().enumerate() {
            if let Some(weight) = weight {
                self.keep(format!("{}_weight", self.list[i].name), weight);
            }
        }
        Ok((loss, output))
    }

    fn evaluate(&mut self, i: usize, images: &Tensor, output: &Tensor, step: u64, rng: &Rng) -> Result<Tensor> {
        let entry = &mut self.list[i];
        let rng = rng.part("objective", i as u64);
        let frozen: Vec<Var> = entry.critic.iter().map(|(_, var)| var.clone()).collect();
        let Loss { loss, terms } =
            Var::frozen(&frozen, || entry.objective.loss(&Reconstruction { images, output, step, rng: &rng }))?;
        terms.iter().for_each(|(name, value)| self.keep((*name).to_owned(), value));
        self.losses.push((self.list[i].name.clone(), loss.detach()));
        Ok(loss)
    }

    /// The objectives whose losses at the last step were no finite numbers.
    pub(in crate::stages) fn not_finite(&self) -> Vec<String> {
        let finite = |loss: &Tensor| loss.item().is_ok_and(f32::is_finite);
        self.losses.iter().filter(|(_, loss)| !finite(loss)).map(|(name, _)| name.clone()).collect()
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

    /// Adds what [`Objectives::pending`] gave.
    pub(in crate::stages) fn absorb(&mut self, pending: BTreeMap<String, LateMean>) {
        pending.into_iter().for_each(|(name, mean)| self.terms.entry(name).or_default().absorb(&mean));
    }

    /// Forgets what their terms were.
    pub(in crate::stages) fn forget(&mut self) {
        self.terms.clear();
    }

    /// What their terms were since the last call, on average.
    pub(in crate::stages) fn observe(&mut self) -> Vec<Reading> {
        self.terms.iter_mut().flat_map(|(name, mean)| mean.take(name, &[])).collect()
    }
}
