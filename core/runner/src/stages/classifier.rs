//! Trains the small classifier whose features quality is measured on.

use super::data::{Order, chunks, training_images};
use super::features::FeatureNet;
use super::train::{Recipe, Task, train};
use super::{Context, open_dataset};
use crate::job::Call;
use crate::settings::Schedule;
use crate::store::Done;
use rqlab_sdk::Result;
use rqlab_sdk::contracts::{Images, Split};
use rqlab_sdk::params::Params;
use rqlab_sdk::tensor::Tensor;
use std::collections::BTreeMap;

/// One classifier a data set: its seed is no part of an experiment, or trials of different seeds could not be compared.
const SEED: u64 = 0;
const BATCH: usize = 64;
/// Test images that its accuracy is measured on.
const TEST: usize = 1000;

pub(super) fn run(cx: &mut Context<'_>, data: &Call, steps: u64) -> Result<Done> {
    let dataset = open_dataset(cx.plugins, data, cx.job)?;
    let info = dataset.info();
    let params = Params::new(SEED);
    let net = FeatureNet::new(&params, info.image[2], info.classes.len())?;
    let recipe = Recipe {
        steps,
        lr: 3e-3,
        warmup: 20,
        schedule: Schedule::Cosine,
        final_lr: 0.0,
        betas: [0.9, 0.99],
        weight_decay: 1e-2,
        clip: Some(1.0),
        average: None,
        checkpoint: 200,
        log: 20,
    };
    let order = Order::new(SEED, info.train, BATCH);
    let mut task = ClassifierTask { net };
    let trained =
        train(cx, &params, &recipe, |step| training_images(dataset.as_ref(), &order, SEED, true, step), &mut task)?;
    trained.save(&params, &cx.dir().result())?;

    let (mut right, mut seen) = (0.0, 0);
    for range in chunks(TEST.min(info.test), 100) {
        let batch = dataset.batch(Split::Test, &range.clone().collect::<Vec<_>>(), None)?;
        right += task.net.describe(&batch.pixels)?.accuracy(batch.labels.as_slice()) * range.len() as f64;
        seen += range.len();
    }
    Ok(Done {
        measures: BTreeMap::from([("classifier_accuracy".to_owned(), right / seen.max(1) as f64)]),
        curves: trained.curves,
        seconds: trained.earlier,
        ..Done::default()
    })
}

struct ClassifierTask {
    net: FeatureNet,
}

impl Task for ClassifierTask {
    type Batch = Images;

    fn loss(&mut self, _step: u64, batch: Images) -> Result<Tensor> {
        let (_, logits) = self.net.forward(&batch.pixels)?;
        Ok(logits.cross_entropy(&batch.labels)?.mean_all()?)
    }

    fn observe(&mut self) -> Result<Vec<(String, f64)>> {
        Ok(Vec::new())
    }
}
