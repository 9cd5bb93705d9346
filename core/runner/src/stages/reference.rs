//! What the classifier sees in the test images: trials of one data set share it.

use super::features::{Described, FeatureNet};
use super::subset::test_images;
use super::{Context, Stage, as_json, open_dataset};
use crate::id::Id;
use crate::job::Call;
use crate::settings::Precision;
use crate::store::{Done, StageDir};
use rqlab_sdk::Result;
use rqlab_sdk::contracts::Split;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Describes test images by the classifier's features: the reference of all distances to them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DescribeReference {
    /// The data set.
    pub data: Call,
    /// The classifier's job.
    pub classifier: Id,
    /// How many test images, of all classes; all of them if there are fewer.
    pub images: usize,
    /// That of the evaluation.
    pub precision: Precision,
}

impl DescribeReference {
    /// See [`Stage::name`].
    pub const NAME: &str = "reference";

    /// The description that a finished stage left.
    ///
    /// # Errors
    /// A result that is missing or damaged.
    pub(super) fn load(dir: &StageDir) -> Result<Described> {
        Described::load(dir)
    }
}

impl Stage for DescribeReference {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn revision(&self) -> u32 {
        2
    }

    fn needs(&self) -> Vec<&str> {
        vec![&self.classifier]
    }

    fn calls(&self) -> Vec<&Call> {
        vec![&self.data]
    }

    fn identity(&self) -> Result<Value> {
        Ok(json!({ "data": [self.data.name, self.data.trained], "images": self.images }))
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    fn work(&self) -> f64 {
        self.images as f64
    }

    fn run(&self, cx: &mut Context<'_>) -> Result<Done> {
        let dataset = open_dataset(cx.plugins, &self.data, cx.job)?;
        let info = dataset.info();
        let net = FeatureNet::load(cx.store, &self.classifier, info.image[2], info.classes.len())?;
        let chosen = test_images(dataset.as_ref(), self.images)?;
        let mut described = Described::new(info.classes.len());
        cx.each_batch(dataset.as_ref(), (Split::Test, &chosen), "", |_, images| {
            described.extend(&net.describe(&images.pixels)?);
            Ok(())
        })?;
        described.save(&cx.dir().result())?;
        Ok(Done::default())
    }

    fn describe(&self) -> Result<Value> {
        as_json(self)
    }
}
