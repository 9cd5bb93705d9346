//! Measures samples by a published protocol: the very samples that the lab's own measures are of, decoded from the tokens that were
//! kept of them.

use super::look::{Network, of_model};
use super::pin;
use super::reference::{DescribeForProtocol, Reference, add};
use super::rules::Rules;
use crate::id::Id;
use crate::needs::enough;
use crate::settings::Precision;
use crate::stages::distances::{Values, frechet_infinite, kernel};
use crate::stages::generation::{as_readings, of_draws, tokens};
use crate::stages::model::decode_in_batches;
use crate::stages::subset::BATCH;
use crate::stages::training::batches::chunks;
use crate::stages::{Context, Stage, as_json, load_tokenizer};
use crate::store::{Done, StageDir};
use crate::weights::WeightsFile;
use rqlab_reports::{Index, Protocol, Reading, Trial};
use rqlab_sdk::Result;
use rqlab_sdk::checkpoint::Checkpoint;
use rqlab_sdk::metrics::{Features, Moments, frechet_distance, inception_score, prdc};
use rqlab_sdk::tensor::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Measures samples by a protocol.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MeasureSamplesByProtocol {
    /// The tokenizer's job.
    pub tokenizer: Id,
    /// The job that drew the samples.
    pub generation: Id,
    /// The job that described training images by the same protocol.
    pub reference: Id,
    /// Whose practice is followed.
    pub protocol: Protocol,
    /// The weights of the network that it looks with.
    pub extractor: WeightsFile,
    /// How many samples there are of each draw, and how many draws.
    pub samples: [usize; 2],
    /// That of the evaluation.
    pub precision: Precision,
}

impl MeasureSamplesByProtocol {
    /// See [`Stage::name`].
    pub const NAME: &str = "protocol_samples";
}

impl Stage for MeasureSamplesByProtocol {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn revision(&self) -> u32 {
        1
    }

    fn needs(&self) -> Vec<&str> {
        vec![&self.tokenizer, &self.generation, &self.reference]
    }

    fn identity(&self) -> Result<Value> {
        Ok(json!({ "protocol": self.protocol, "weights": self.extractor.digest }))
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    fn work(&self) -> f64 {
        10.0 * self.samples.iter().product::<usize>() as f64
    }

    fn run(&self, cx: &mut Context<'_>) -> Result<Done> {
        let (_, model) = load_tokenizer(cx.plugins, cx.store, &self.tokenizer)?;
        let network = Network::load(self.protocol, &self.extractor)?;
        let reference = DescribeForProtocol::load(&cx.store.stage(&self.reference))?;
        let generation = cx.store.stage(&self.generation);
        let mut draws = Vec::new();
        let mut count = 0;
        for draw in 0..self.samples[1] {
            let files = tokens(&generation, draw, &model)?;
            count = files.first().map_or(0, |file| file.images());
            let mut found = Found::default();
            for range in chunks(count, BATCH) {
                let rows: Vec<usize> = range.clone().collect();
                let drawn = files.iter().map(|file| file.rows(&rows)).collect::<Result<Vec<_>>>()?;
                decode_in_batches(&model, &drawn, BATCH, |_, images| {
                    found.see(&network, &of_model(self.protocol, images)?)
                })?;
                cx.reporter.step(range.end as u64, count as u64, || self.protocol.name().to_owned());
            }
            draws.push(as_readings(found.measured(self.protocol, &reference)?));
        }
        let at = |reading: Reading| {
            Reading::new(reading.measure, reading.at.into_iter().chain([Index::Protocol(self.protocol)]), reading.value)
        };
        let mut readings: Vec<Reading> = of_draws(&draws).into_iter().map(at).collect();
        readings.push(at(Reading::new("protocol_samples", [], count as f64)));
        readings.push(at(Reading::new("protocol_references", [], reference.images as f64)));
        // Nothing but the readings is worth keeping.
        Checkpoint::default().save(&cx.dir().result())?;
        Ok(Done { readings, ..Done::default() })
    }

    fn report(&self, _: &StageDir, _: &[String], out: &mut Trial) -> Result<()> {
        pin(out, self.protocol, "samples", &[Some(&self.extractor)]);
        Ok(())
    }

    fn describe(&self) -> Result<Value> {
        as_json(self)
    }
}

/// What a network saw in the samples of one draw: 8 KiB of features for each, of Inception.
#[derive(Default)]
struct Found {
    features: Vec<f32>,
    width: usize,
    spatial: Option<Moments>,
    probabilities: Vec<f32>,
    classes: usize,
}

impl Found {
    fn see(&mut self, network: &Network, pictures: &Tensor) -> Result<()> {
        let seen = network.see(pictures)?;
        self.width = seen.features.last_dim();
        self.features.extend_from_slice(seen.features.as_slice());
        seen.spatial.iter().try_for_each(|features| add(&mut self.spatial, features))?;
        if let Some(probabilities) = seen.probabilities {
            self.classes = probabilities.last_dim();
            self.probabilities.extend_from_slice(probabilities.as_slice());
        }
        Ok(())
    }

    /// The measures that there are images enough for.
    fn measured(&self, protocol: Protocol, reference: &Reference) -> Result<Values> {
        let rules = Rules::of(protocol);
        let (real, samples) = (&reference.features, Features::new(&self.features, self.width.max(1))?);
        let real = Features::new(real.as_slice(), real.last_dim())?;
        let enough = |measure| enough(measure, real.rows(), samples.rows());
        let [frechet, infinite, kernel_distance] = match protocol {
            Protocol::Dgm => ["sample_fd_dinov2", "sample_fd_dinov2_infinite", "sample_kd_dinov2"],
            _ => ["gfid", "gfid_infinite", "gkid"],
        };
        let mut found = Vec::new();
        if enough("sample_frechet") {
            found.push((frechet, frechet_distance(&reference.pool, &Moments::of(samples).gaussian()?)?));
            found.push((kernel_distance, kernel(real, samples)?));
        }
        if enough("sample_frechet_infinite") {
            found.push((infinite, frechet_infinite(&reference.pool, samples)?));
        }
        if let (true, Some(real), Some(samples)) = (rules.spatial, &reference.spatial, &self.spatial)
            && samples.count() > 1
        {
            found.push(("sfid", frechet_distance(real, &samples.gaussian()?)?));
        }
        if let (Some(splits), true) = (rules.splits, self.classes > 0 && enough("inception_score")) {
            let runs = splits.runs(samples.rows());
            let rows = |run: &std::ops::Range<usize>| run.start * self.classes..run.end * self.classes;
            let score = |run| Ok(inception_score(&self.probabilities[rows(run)], self.classes, 1)?.mean);
            let scores = runs.iter().map(score).collect::<Result<Vec<f64>>>()?;
            found.push(("inception_score", scores.iter().sum::<f64>() / scores.len() as f64));
        }
        if let Some(neighbours) = rules.neighbours.filter(|_| enough("density")) {
            // What was drawn first is a random choice: labels come in a random order.
            let rows = neighbours.samples.min(samples.rows());
            let few = Features::new(&self.features[..rows * self.width], self.width)?;
            let measured = prdc(real, few, neighbours.k, neighbours.ball)?;
            found.extend([("precision", measured.precision), ("recall", measured.recall)]);
            found.extend([("density", measured.density), ("coverage", measured.coverage)]);
        }
        Ok(found)
    }
}
