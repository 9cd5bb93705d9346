//! Measures the priors of a tokenizer: likelihood of test tokens, quality of samples, speed of sampling.

mod again;
mod copies;
mod labels;
mod likelihood;
mod samples;
mod speed;

use super::distances::Values;
use super::features::{Described, FeatureNet};
use super::subset::subset;
use super::{Context, DescribeReference, Stage, as_json, load_prior, load_tokenizer};
use crate::id::Id;
use crate::job::Call;
use crate::needs::enough;
use crate::pictures::{class, image};
use crate::settings::{Evaluation, Precision};
use crate::shared::Shared;
use crate::store::{Done, StageDir};
use copies::Copies;
use labels::Mixture;
use rqlab_reports::{Index, Reading, Sample};
use rqlab_sdk::Result;
use rqlab_sdk::checkpoint::Checkpoint;
use rqlab_sdk::config::Scope;
use rqlab_sdk::contracts::Dataset;
use rqlab_sdk::tensor::ops::sampling::Draw;
use samples::How;
pub(super) use samples::tokens;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Measures the priors of all levels together.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MeasurePrior {
    /// The tokenizer's job.
    pub tokenizer: Id,
    /// The priors' jobs, one per level.
    pub priors: Vec<Id>,
    /// The priors as they are drawn from, one per level or one for all; those of their jobs if there are none. Their settings of
    /// sampling are in no id of what was trained.
    #[serde(default)]
    pub calls: Vec<Call>,
    /// The jobs of the classifier and of its reference; none for data without classes.
    pub features: Option<[Id; 2]>,
    /// The job that described training images; none if samples are not compared with them.
    #[serde(default)]
    pub training: Option<Id>,
    /// What is measured.
    pub evaluation: Shared<Evaluation>,
    /// Whether the priors are the lab's own probe of the tokenizer, not the experiment's.
    #[serde(default)]
    pub probe: bool,
}

impl MeasurePrior {
    /// See [`Stage::name`].
    pub const NAME: &str = "generation";
    /// Its name for a probe.
    pub const PROBE: &str = "probe";

    /// The jobs of the priors, and how they are drawn from.
    pub fn levels(&self) -> (&[Id], &[Call]) {
        (&self.priors, &self.calls)
    }

    /// Which classes samples are drawn of.
    fn mixture(&self, dataset: &dyn Dataset) -> Result<Mixture> {
        let images = subset(dataset.info().test, self.evaluation.images);
        Mixture::of(&self.evaluation.labels, dataset, &images)
    }

    /// How samples are drawn.
    fn how(&self, dataset: &dyn Dataset) -> Result<How> {
        let Evaluation { temperature, top_k, top_p, .. } = *self.evaluation;
        Ok(How {
            count: self.evaluation.samples,
            classes: dataset.info().classes.len(),
            draw: vec![Draw { temperature, top_k, top_p }],
            guidance: self.evaluation.guidance(),
            keep: self.evaluation.pictures,
            mixture: self.mixture(dataset)?,
        })
    }

    /// Labels of `count` samples, of which classes have the shares that they have among those that are measured; in the
    /// classes' order.
    ///
    /// # Errors
    /// Those of the data set.
    pub(crate) fn labels(&self, dataset: &dyn Dataset, count: usize) -> Result<Vec<u32>> {
        let mut labels = self.mixture(dataset)?.labels(count);
        labels.sort_unstable();
        Ok(labels)
    }
}

impl Stage for MeasurePrior {
    fn name(&self) -> &'static str {
        if self.probe { Self::PROBE } else { Self::NAME }
    }

    fn revision(&self) -> u32 {
        4
    }

    fn needs(&self) -> Vec<&str> {
        let features = self.features.iter().flatten().chain(&self.training);
        std::iter::once(&self.tokenizer).chain(&self.priors).chain(features).map(|id| &**id).collect()
    }

    fn identity(&self) -> Result<Value> {
        let evaluation = self.evaluation.identity(Scope::Sampling)?;
        // What the priors are is in the ids of their jobs, but for their settings of sampling.
        if self.calls.iter().all(|call| call.sampled == call.trained) {
            return Ok(json!(evaluation));
        }
        Ok(json!([evaluation, self.calls.iter().map(|call| &call.sampled).collect::<Vec<_>>()]))
    }

    fn precision(&self) -> Precision {
        self.evaluation.precision
    }

    fn work(&self) -> f64 {
        self.evaluation.samples as f64 * self.evaluation.sampling_seeds.len() as f64
    }

    fn exclusive(&self) -> bool {
        !self.evaluation.speed.is_empty()
    }

    fn run(&self, cx: &mut Context<'_>) -> Result<Done> {
        let (dataset, model) = load_tokenizer(cx.plugins, cx.store, &self.tokenizer)?;
        let info = dataset.info().clone();
        let classes = info.classes.len();
        let sampler = load_prior(cx.plugins, cx.store, self.levels(), &model, classes)?;
        let evaluation = &self.evaluation;

        let images = subset(info.test, evaluation.images);
        let test = likelihood::measure(cx, dataset.as_ref(), &model, &sampler, &images)?;
        let mut done = Done { readings: test.readings, ..Done::default() };

        let how = self.how(dataset.as_ref())?;
        if how.guidance.is_on() {
            done.readings.push(Reading::new("guidance", [], f64::from(how.guidance.scale)));
        }
        let (net, real) = match &self.features {
            Some([classifier, reference]) => (
                Some(FeatureNet::load(cx.store, classifier, info.image[2], classes)?),
                Some(DescribeReference::load(&cx.store.stage(reference))?),
            ),
            None => (None, None),
        };
        let copies = match &self.training {
            Some(training) if enough("near_training", images.len(), evaluation.samples) => {
                let (training, real) = (cx.store.stage(training), real.as_ref().map(Described::view).transpose()?);
                Some(Copies::new(training, dataset.as_ref(), &images, real)?)
            }
            _ => None,
        };
        let (mut draws, mut result) = (Vec::new(), Checkpoint::default());
        for (n, &seed) in evaluation.sampling_seeds.iter().enumerate() {
            let drawn = samples::draw(cx, &model, &sampler, &how, (n, seed), net.as_ref())?;
            let mut measured = Vec::new();
            if let (Some(net), Some(real)) = (&net, &real) {
                measured = drawn.described.of_samples(real)?;
                if let (Some(counts), true) = (&test.counts, enough("shuffled_frechet", real.images(), how.count)) {
                    let baseline = samples::shuffled(&model, counts, how.count, seed, net)?;
                    measured.push(("shuffled_frechet", baseline.frechet(real)?));
                }
            }
            let (near, nearest) = copies.as_ref().map(|copies| copies.of(&drawn)).transpose()?.unwrap_or_default();
            measured.extend(near);
            if n == 0 {
                drawn.shown.keep(&mut result)?;
                copies::keep(&nearest, dataset.as_ref(), |rows| drawn.decode(&model, rows), &mut result)?;
            }
            draws.push(measured);
        }
        result.save(&cx.dir().result())?;
        done.readings.extend(of_draws(&draws));
        done.timings = speed::measure(&model, &sampler, &how, &evaluation.speed)?;
        Ok(done)
    }

    fn report(&self, dir: &StageDir, classes: &[String], out: &mut rqlab_reports::Trial) -> Result<()> {
        if self.probe {
            return Ok(());
        }
        let kept = dir.load_result()?;
        copies::report(&kept, out)?;
        let Some(samples) = kept.tensors.get("samples") else { return Ok(()) };
        let labels = kept.codes.get("labels").map(|l| l.as_slice().to_vec()).unwrap_or_default();
        for n in 0..samples.shape()[0] {
            let label = labels.get(n).map_or(String::new(), |&label| class(classes, label));
            out.samples.push(Sample { label, image: image(samples, n)? });
        }
        Ok(())
    }

    fn describe(&self) -> Result<Value> {
        as_json(self)
    }
}

/// What each draw measured, if there are several, and the means over them.
pub(super) fn of_draws(draws: &[Values]) -> Vec<Reading> {
    let measures = draws.first().map(|first| first.iter().map(|(measure, _)| *measure)).into_iter().flatten();
    let mut readings = Vec::new();
    for (place, measure) in measures.enumerate() {
        let values: Vec<f64> = draws.iter().filter_map(|draw| Some(draw.get(place)?.1)).collect();
        readings.push(Reading::new(measure, [], values.iter().sum::<f64>() / values.len() as f64));
        if values.len() > 1 {
            let draw = |(n, value): (usize, &f64)| Reading::new(measure, [Index::Draw(n + 1)], *value);
            readings.extend(values.iter().enumerate().map(draw));
        }
    }
    readings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_draws_are_averaged_and_kept() {
        let draws = [vec![("precision", 0.5), ("recall", 0.25)], vec![("precision", 0.75), ("recall", 0.5)]];
        let expected = [
            Reading::new("precision", [], 0.625),
            Reading::new("precision", [Index::Draw(1)], 0.5),
            Reading::new("precision", [Index::Draw(2)], 0.75),
            Reading::new("recall", [], 0.375),
            Reading::new("recall", [Index::Draw(1)], 0.25),
            Reading::new("recall", [Index::Draw(2)], 0.5),
        ];
        assert_eq!(of_draws(&draws), expected);
        assert_eq!(of_draws(&draws[..1]), [Reading::new("precision", [], 0.5), Reading::new("recall", [], 0.25)]);
        assert_eq!(of_draws(&[]), []);
    }
}
