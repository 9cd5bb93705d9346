//! Measures the priors of a tokenizer: likelihood of test tokens, quality of samples, speed of sampling.

mod again;
mod copies;
mod how;
mod labels;
mod likelihood;
mod samples;
mod speed;
mod tuning;

use super::attributes::AttributeNet;
use super::distances::Values;
use super::features::{Described, FeatureNet};
use super::subset::subset;
use super::{Conditions, Context, DescribeReference, Stage, as_json, load_prior, load_tokenizer};
use crate::id::Id;
use crate::job::Call;
use crate::needs::enough;
use crate::pictures::{class, image};
use crate::settings::{Evaluation, Precision};
use crate::shared::Shared;
use crate::store::{Done, StageDir};
use crate::ui::in_line;
use copies::Copies;
use how::How;
use rqlab_reports::{Index, Reading, Sample};
use rqlab_sdk::checkpoint::Checkpoint;
use rqlab_sdk::config::Scope;
use rqlab_sdk::contracts::{Condition, Dataset, Split};
use rqlab_sdk::{Error, Result};
pub(super) use samples::tokens;
use samples::{CAPTIONS, Nets};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tuning::Parts;

/// The guidance scale that was chosen.
const TUNED: &str = "tuned_guidance";

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
    /// The job of the classifier of what captions name; none of priors that are told no captions, and of captions that name
    /// nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<Id>,
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

    /// The test images that a guidance scale is chosen on, and those that samples are compared with: all, if it is given.
    fn parts(&self, dataset: &dyn Dataset) -> Parts {
        let test = dataset.info().test;
        let images = subset(test, self.evaluation.images);
        match self.evaluation.tune_guidance.is_empty() {
            true => Parts { held: vec![], rest: images },
            false => Parts::of(&images, test),
        }
    }

    /// How samples are drawn, with a scale that was chosen if one is.
    fn how<'a>(&self, dataset: &'a dyn Dataset, conditions: &'a Conditions, tuned: Option<f32>) -> Result<How<'a>> {
        let mut how = How::of(&self.evaluation, dataset, conditions, &self.parts(dataset).rest)?;
        how.guidance.scale = tuned.unwrap_or(how.guidance.scale);
        Ok(how)
    }

    /// The guidance scale that was chosen, if one was to be, as the finished stage tells it.
    ///
    /// # Errors
    /// A result that cannot be read.
    pub(crate) fn tuned(&self, dir: &StageDir) -> Result<Option<f32>> {
        if self.evaluation.tune_guidance.is_empty() {
            return Ok(None);
        }
        let readings = dir.done()?.map(|done| done.readings).unwrap_or_default();
        Ok(readings.iter().find(|reading| reading.measure == TUNED).map(|reading| reading.value as f32))
    }

    /// The share of samples' captions that have a word which no training caption has.
    fn unread(&self, conditions: &Conditions, captions: &[String]) -> Result<Vec<Reading>> {
        let unread = captions.iter().map(|caption| conditions.unread(caption)).collect::<Result<Vec<_>>>()?;
        let unknown = unread.iter().filter(|unread| !unread.unknown.is_empty()).count();
        let share = unknown as f64 / unread.len().max(1) as f64;
        Ok(if unread.is_empty() { vec![] } else { vec![Reading::new("unknown_captions", [], share)] })
    }

    /// The conditions of `count` samples, of which classes have the shares that they have among those that are measured; in the
    /// classes' order.
    ///
    /// # Errors
    /// Those of the data set.
    pub(crate) fn conditions(&self, data: &dyn Dataset, conditions: &Conditions, count: usize) -> Result<Condition> {
        Ok(self.how(data, conditions, None)?.by_class(count)?.condition().clone())
    }
}

impl Stage for MeasurePrior {
    fn name(&self) -> &'static str {
        if self.probe { Self::PROBE } else { Self::NAME }
    }

    fn revision(&self) -> u32 {
        5
    }

    fn needs(&self) -> Vec<&str> {
        let features = self.features.iter().flatten().chain(&self.attributes).chain(&self.training);
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
        let (evaluation, conditions) = (&self.evaluation, sampler.conditions());

        let images = subset(info.test, evaluation.images);
        let test = likelihood::measure(cx, dataset.as_ref(), &model, &sampler, &images)?;
        let mut done = Done { readings: test.readings, ..Done::default() };

        let (net, real) = match &self.features {
            Some([classifier, reference]) => (
                Some(FeatureNet::load(cx.store, classifier, info.image[2], classes)?),
                Some(DescribeReference::load(&cx.store.stage(reference))?),
            ),
            None => (None, None),
        };
        let mut how = self.how(dataset.as_ref(), conditions, None)?;
        let Parts { held, rest } = self.parts(dataset.as_ref());
        if let (Some(net), Some(real), false) = (&net, &real, held.is_empty()) {
            let mut tuned = How::of(evaluation, dataset.as_ref(), conditions, &held)?;
            let (many, real) =
                ((evaluation.samples, &*evaluation.tune_guidance), real.rows(&Parts::places(&images, &held)));
            let distances = tuning::distances(cx, (&model, &sampler), &mut tuned, many, (net, &real))?;
            done.readings.extend(tuning::readings(&distances));
            how.guidance.scale = tuning::best(&distances).unwrap_or(how.guidance.scale);
        }
        if how.guidance.is_on() || !held.is_empty() {
            let measure = if held.is_empty() { "guidance" } else { TUNED };
            done.readings.push(Reading::new(measure, [], f64::from(how.guidance.scale)));
        }
        let real = real.map(|real| if held.is_empty() { real } else { real.rows(&Parts::places(&images, &rest)) });
        let images = rest;
        let obeyed = match &self.attributes {
            Some(attributes) => {
                let net = AttributeNet::load(cx.store, attributes, dataset.as_ref())?;
                let real = net.of_test(cx, dataset.as_ref(), &images)?;
                done.readings.extend(net.of_real(&real));
                Some((net, real))
            }
            None => None,
        };
        let asked = how.asked(evaluation.samples)?;
        done.readings.extend(self.unread(conditions, &asked.captions)?);
        let nets = Nets { classes: net.as_ref(), attributes: obeyed.as_ref().map(|(net, _)| net) };
        let copies = match &self.training {
            Some(training) if enough("near_training", images.len(), evaluation.samples) => {
                let (training, real) = (cx.store.stage(training), real.as_ref().map(Described::view).transpose()?);
                Some(Copies::new(training, dataset.as_ref(), &images, real)?)
            }
            _ => None,
        };
        let (mut draws, mut result) = (Vec::<Vec<Reading>>::new(), Checkpoint::default());
        for (n, &seed) in evaluation.sampling_seeds.iter().enumerate() {
            let drawn = samples::draw(cx, &model, &sampler, (&how, &asked), (n, seed), nets)?;
            let (mut measured, mut obedience) = (Vec::new(), Vec::new());
            if let (Some(net), Some(real)) = (&net, &real) {
                measured = drawn.described.of_samples(real)?;
                if let (Some(counts), true) = (&test.counts, enough("shuffled_frechet", real.images(), drawn.count)) {
                    let baseline = samples::shuffled(&model, counts, drawn.count, seed, net)?;
                    measured.push(("shuffled_frechet", baseline.frechet(real)?));
                }
            }
            if let Some((net, real)) = &obeyed {
                let named = dataset.attributes(Split::Test, &asked.images)?;
                obedience = net.of_samples(&drawn.seen, &named, real)?;
            }
            let (near, nearest) = copies.as_ref().map(|copies| copies.of(&drawn)).transpose()?.unwrap_or_default();
            measured.extend(near);
            if n == 0 {
                drawn.shown.keep(&mut result)?;
                copies::keep(&nearest, dataset.as_ref(), |rows| drawn.decode(&model, rows), &mut result)?;
            }
            draws.push(as_readings(measured).into_iter().chain(obedience).collect());
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
        if !self.evaluation.tune_guidance.is_empty() {
            // Samples are compared with half of the images that the reference describes.
            out.parts.entry("reference".to_owned()).and_modify(|reference| reference.push_str(" half"));
        }
        let kept = dir.load_result()?;
        copies::report(&kept, out)?;
        let Some(samples) = kept.tensors.get("samples") else { return Ok(()) };
        let labels = kept.codes.get("labels").map(|l| l.as_slice().to_vec()).unwrap_or_default();
        let captions: Vec<String> = match kept.metadata.get(CAPTIONS) {
            Some(list) => {
                serde_json::from_str(list).map_err(|error| Error::Checkpoint(format!("captions: {error}")))?
            }
            None => vec![],
        };
        for n in 0..samples.shape()[0] {
            let label = labels.get(n).map_or(String::new(), |&label| class(classes, label));
            let caption = captions.get(n).map_or(String::new(), |caption| in_line(caption).into_owned());
            out.samples.push(Sample { label, caption, image: image(samples, n)? });
        }
        Ok(())
    }

    fn describe(&self) -> Result<Value> {
        as_json(self)
    }
}

/// What each draw measured, if there are several, and the means over them.
pub(super) fn of_draws(draws: &[Vec<Reading>]) -> Vec<Reading> {
    let mut readings = Vec::new();
    for (place, first) in draws.first().into_iter().flatten().enumerate() {
        let values: Vec<f64> = draws.iter().filter_map(|draw| Some(draw.get(place)?.value)).collect();
        readings.push(Reading { value: values.iter().sum::<f64>() / values.len() as f64, ..first.clone() });
        if values.len() > 1 {
            let at = |n: usize| first.at.iter().cloned().chain([Index::Draw(n + 1)]);
            let draw = |(n, value): (usize, &f64)| Reading::new(first.measure.as_str(), at(n), *value);
            readings.extend(values.iter().enumerate().map(draw));
        }
    }
    readings
}

/// Values of measures that are taken once in a draw.
pub(super) fn as_readings(values: Values) -> Vec<Reading> {
    values.into_iter().map(|(measure, value)| Reading::new(measure, [], value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_draws_are_averaged_and_kept() {
        let draws = [vec![("precision", 0.5), ("recall", 0.25)], vec![("precision", 0.75), ("recall", 0.5)]];
        let draws = draws.map(as_readings);
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
