//! Trains the small classifier whose features quality is measured on.

use super::features::FeatureNet;
use super::subset::subset;
use super::training::batches::{Order, training_images};
use super::training::{At, Recipe, Task, train};
use super::{Context, Stage, as_json, open_dataset};
use crate::job::Call;
use crate::settings::{Precision, Schedule};
use crate::store::Done;
use rqlab_reports::Reading;
use rqlab_sdk::Result;
use rqlab_sdk::contracts::{Images, Split};
use rqlab_sdk::networks::LabClassifier;
use rqlab_sdk::params::Params;
use rqlab_sdk::tensor::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// One classifier per data set: its seed is no part of an experiment, or trials of different seeds could not be compared.
pub(super) const SEED: u64 = 0;
/// Images per step.
pub(super) const BATCH: usize = 64;
/// Test images that its accuracy is measured on.
pub(super) const TEST: usize = 1000;

/// Trains the classifier of a data set.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TrainClassifier {
    /// The data set.
    pub data: Call,
    /// Training steps.
    pub steps: u64,
    /// That of the evaluation.
    pub precision: Precision,
}

impl TrainClassifier {
    /// See [`Stage::name`].
    pub const NAME: &str = "classifier";
}

impl Stage for TrainClassifier {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn revision(&self) -> u32 {
        2
    }

    fn calls(&self) -> Vec<&Call> {
        vec![&self.data]
    }

    fn identity(&self) -> Result<Value> {
        Ok(json!({ "data": [self.data.name, self.data.trained], "steps": self.steps }))
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    fn work(&self) -> f64 {
        self.steps as f64 * BATCH as f64
    }

    fn run(&self, cx: &mut Context<'_>) -> Result<Done> {
        let dataset = open_dataset(cx.plugins, &self.data, cx.job)?;
        let info = dataset.info();
        let params = Params::new(SEED);
        let mut net = FeatureNet(LabClassifier::new(&params, info.image[2], info.classes.len())?);
        let order = Order::new(SEED, info.train, BATCH);
        let trained = train(
            cx,
            &params,
            params.trained(),
            vec![],
            &recipe(self.steps),
            |at| training_images(dataset.as_ref(), &order, SEED, true, at),
            &mut net,
        )?;
        trained.save(|| params.state(), &cx.dir().result())?;

        let (mut right, mut seen) = (0.0, 0);
        for indices in subset(info.test, TEST).chunks(100) {
            let batch = dataset.batch(Split::Test, indices, None)?;
            right += net.describe(&batch.pixels)?.accuracy(batch.labels.as_slice()) * indices.len() as f64;
            seen += indices.len();
        }
        Ok(Done {
            readings: vec![Reading::new("classifier_accuracy", [], right / seen.max(1) as f64)],
            curves: trained.curves,
            seconds: trained.earlier,
            ..Done::default()
        })
    }

    fn describe(&self) -> Result<Value> {
        as_json(self)
    }
}

/// How the laboratory's classifiers are trained, of classes and of what captions name.
pub(super) fn recipe(steps: u64) -> Recipe {
    Recipe {
        steps,
        batch: BATCH,
        parts: 1,
        lr: 3e-3,
        warmup: 20,
        schedule: Schedule::Cosine,
        final_lr_ratio: 0.0,
        betas: [0.9, 0.99],
        weight_decay: 1e-2,
        max_grad_norm: Some(1.0),
        ema_decay: None,
        checkpoint: 200,
        log: 20,
    }
}

impl Task for FeatureNet {
    type Batch = Images;

    fn loss(&mut self, _: At, batch: &Images) -> Result<Tensor> {
        let (_, logits) = self.0.forward(&batch.pixels)?;
        Ok(logits.cross_entropy(&batch.labels)?.mean_all()?)
    }
}
