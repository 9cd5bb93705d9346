//! Trains a prior on the tokens of a frozen tokenizer.

mod feed;
mod validation;

use super::captions::Captioned;
use super::conditions::{Conditions, Told};
use super::model::build_prior;
use super::training::batches::Order;
use super::training::means::LateMean;
use super::training::start::{self, Frozen};
use super::training::{At, Recipe, Task, train};
use super::{Context, EncodeTokens, Stage, Tokenizer, as_json, from_json, load_tokenizer};
use crate::id::Id;
use crate::job::Call;
use crate::settings::{Augmentation, Precision, PriorTraining};
use crate::store::Done;
use crate::weights::WeightsFile;
use feed::{Feed, Read, Source};
use rqlab_reports::{Index, Reading};
use rqlab_sdk::Result;
use rqlab_sdk::config::{Config, Scope};
use rqlab_sdk::contracts::{Mode, Prior};
use rqlab_sdk::params::Params;
use rqlab_sdk::tensor::{Tensor, Var, no_grad};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use validation::Validation;

/// The curve of the loss on test images.
const VALIDATION: &str = "validation_loss";

/// Trains the prior of one level, given the tokens of those above.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TrainPrior {
    /// The tokenizer's job.
    pub tokenizer: Id,
    /// The job that encoded the images.
    pub tokens: Id,
    /// The level, from 0.
    pub level: usize,
    /// The prior.
    pub prior: Call,
    /// How.
    pub training: PriorTraining,
    /// What it starts from, in place of the seed's initial values.
    #[serde(default)]
    pub from: Option<WeightsFile>,
    /// The captions that it is told, if it is told some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub captions: Option<Captioned>,
    /// Of initial values, batches and draws.
    pub seed: u64,
    /// Whether it is the lab's own probe of the tokenizer, not the experiment's prior.
    #[serde(default)]
    pub probe: bool,
}

impl TrainPrior {
    /// See [`Stage::name`].
    pub const NAME: &str = "prior";
    /// Its name as a probe.
    pub const PROBE: &str = "probe prior";

    /// What it is told of images of so many classes.
    pub fn told(&self, classes: usize) -> Told {
        Told::of(&self.training, classes, self.captions.as_ref().map(|captions| captions.text))
    }

    /// Whether images are augmented and encoded at each step.
    fn on_the_way(&self) -> bool {
        self.training.augmentation == Augmentation::OnTheWay
    }
}

impl Stage for TrainPrior {
    fn name(&self) -> &'static str {
        if self.probe { Self::PROBE } else { Self::NAME }
    }

    fn revision(&self) -> u32 {
        2
    }

    fn needs(&self) -> Vec<&str> {
        let captions = self.captions.as_ref().map(|captions| &*captions.job);
        [&*self.tokenizer, &*self.tokens].into_iter().chain(captions).collect()
    }

    fn calls(&self) -> Vec<&Call> {
        vec![&self.prior]
    }

    fn identity(&self) -> Result<Value> {
        Ok(json!({
            "level": self.level,
            "prior": [self.prior.name, self.prior.trained],
            "training": self.training.identity(Scope::Training)?,
            "from": self.from.as_ref().map(|file| &file.digest),
            "seed": self.seed,
        }))
    }

    fn precision(&self) -> Precision {
        self.training.precision
    }

    fn batch(&self) -> Option<(usize, usize)> {
        Some((self.training.batch, self.training.gradient_accumulation))
    }

    fn work(&self) -> f64 {
        self.training.steps as f64 * self.training.batch as f64
    }

    fn run(&self, cx: &mut Context<'_>) -> Result<Done> {
        let (dataset, model) = load_tokenizer(cx.plugins, cx.store, &self.tokenizer)?;
        cx.agree(&dataset.info().digest)?;
        let classes = dataset.info().classes.len();
        let params = Params::new(self.seed);
        let levels = model.levels();
        let prior = build_prior(cx.plugins, self, &self.prior, levels.clone(), classes, &params)?;
        if let Some(file) = &self.from {
            start::load(file, &params)?;
        }
        let frozen = Frozen::new(&params, &self.training.freeze, &[])?;
        let parameters: Vec<_> = params.trained().into_iter().filter(|(name, _)| !frozen.has(name)).collect();
        let conditions = Conditions::of(cx.store, self, classes)?;
        let source = Source::open(cx, self, &levels, prior.wants(), dataset.as_ref(), &conditions)?;
        let tokens = cx.store.stage(&self.tokens);
        let scales = (0..=self.level).map(|level| EncodeTokens::scale(&tokens, level)).collect::<Result<_>>()?;
        let feed = Feed { wants: prior.wants(), scales };
        let training = &self.training;
        let test = (dataset.as_ref(), &conditions);
        let validation = Validation::new(&feed, &model, test, training.validation, training.batch)?;
        let at = model.index(self.level);
        let order = Order::new(self.seed, source.images(), training.batch);
        let batch = |at: At| source.read(&order.at(at), &at.rng(self.seed, "augment"));
        let (terms, model) = (BTreeMap::new(), &model);
        let mut task = Training {
            stage: self,
            model,
            prior,
            feed,
            validation,
            terms,
            at: at.clone(),
            frozen: frozen.vars,
            done: 0,
        };
        let trained = train(cx, &params, parameters, vec![], &Recipe::from(&self.training), batch, &mut task)?;
        trained.save(|| params.state(), &cx.dir().result())?;
        Ok(Done {
            readings: [
                ("prior_parameters", Some(params.count() as u64)),
                ("best_validation_step", best_step(&trained.curves)),
            ]
            .into_iter()
            .filter_map(|(measure, value)| Some(Reading::new(measure, at.clone(), value? as f64)))
            .collect(),
            timings: vec![Reading::new("prior_seconds", at.clone(), trained.seconds)],
            // The curves of several levels stand beside each other.
            curves: trained.curves.into_iter().map(|curve| curve_at(curve, &at)).collect(),
            seconds: trained.earlier,
            ..Done::default()
        })
    }

    fn describe(&self) -> Result<Value> {
        as_json(self)
    }
}

/// A curve with the index of its level, if it has none yet.
fn curve_at(mut curve: rqlab_reports::Curve, level: &[Index]) -> rqlab_reports::Curve {
    let missing: Vec<Index> = level.iter().filter(|index| !curve.at.contains(index)).cloned().collect();
    curve.at.splice(0..0, missing);
    curve
}

struct Training<'a> {
    stage: &'a TrainPrior,
    model: &'a Tokenizer,
    prior: Box<dyn Prior>,
    feed: Feed,
    validation: Validation,
    terms: BTreeMap<String, LateMean>,
    at: Vec<Index>,
    /// Parameters that stay as they are.
    frozen: Vec<Var>,
    /// Steps that are done.
    done: u64,
}

impl Task for Training<'_> {
    type Batch = Read;

    fn loss(&mut self, at: At, read: &Read) -> Result<Tensor> {
        let (step, rng) = (at.step, at.rng(self.stage.seed, "prior"));
        let dropout = self.stage.training.condition_dropout;
        let batch = no_grad(|| match read {
            Read::Kept(condition, given) => self.feed.batch(self.model, condition, given, dropout, &rng),
            Read::Images(condition, images) => {
                let given = self.feed.encode(self.model, images)?;
                self.feed.batch(self.model, condition, &given, dropout, &rng)
            }
        })?;
        self.prior.begin_step(step, self.stage.training.steps);
        let loss = Var::frozen(&self.frozen, || self.prior.loss(&batch, &Mode::Train(rng)))?;
        for (name, value) in &loss.terms {
            self.terms.entry((*name).to_owned()).or_default().add(value);
        }
        self.done = step + 1;
        Ok(loss.loss)
    }

    fn decays(&self, name: &str, shape: &[usize]) -> bool {
        self.prior.decays(name, shape)
    }

    fn observe(&mut self) -> Result<Vec<Reading>> {
        let mut points: Vec<Reading> =
            self.terms.iter_mut().flat_map(|(name, mean)| mean.take(name, &self.at)).collect();
        let PriorTraining { log, steps, .. } = self.stage.training;
        let last = self.done.saturating_sub(1) / log * log;
        if self.validation.due(last, self.done, steps) {
            let loss = self.validation.loss(&self.feed, self.model, self.prior.as_ref())?;
            points.push(Reading::new(VALIDATION, self.at.clone(), loss));
        }
        Ok(points)
    }

    fn pending(&mut self) -> Result<Value> {
        let terms: BTreeMap<&str, &LateMean> =
            self.terms.iter_mut().map(|(name, mean)| (name.as_str(), mean.pending())).collect();
        as_json(&terms)
    }

    fn absorb(&mut self, pending: Value) -> Result<()> {
        let terms: BTreeMap<String, LateMean> = from_json(pending)?;
        terms.into_iter().for_each(|(name, mean)| self.terms.entry(name).or_default().absorb(&mean));
        Ok(())
    }

    fn forget(&mut self) {
        self.terms.clear();
    }
}

/// The step of the lowest point of the curve of validation.
fn best_step(curves: &[rqlab_reports::Curve]) -> Option<u64> {
    let curve = curves.iter().find(|curve| curve.measure == VALIDATION)?;
    let points = curve.steps.iter().zip(&curve.values).filter(|(_, value)| value.is_finite());
    points.min_by(|a, b| a.1.total_cmp(b.1)).map(|(step, _)| *step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_step_is_that_of_the_lowest_point() {
        let curve = |measure: &str, values: Vec<f64>| rqlab_reports::Curve {
            stage: "prior".to_owned(),
            measure: measure.to_owned(),
            at: vec![],
            steps: vec![20, 40, 60],
            values,
        };
        let curves = [curve("loss", vec![3.0, 2.0, 1.0]), curve(VALIDATION, vec![3.0, 2.5, f64::NAN])];
        assert_eq!(best_step(&curves), Some(40));
        assert_eq!(best_step(&curves[..1]), None);
    }
}
