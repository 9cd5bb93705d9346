//! What training images look like, for the question whether samples are copies of them: the classifier's features and small
//! pictures, in files that are read a block at a time. Trials of one data set share them.

use super::features::FeatureNet;
use super::subset::subset;
use super::token_file::{TokenFile, Writer};
use super::{Context, Stage, as_json, open_dataset};
use crate::id::Id;
use crate::job::Call;
use crate::settings::Precision;
use crate::store::{Done, StageDir};
use rqlab_sdk::Result;
use rqlab_sdk::checkpoint::Checkpoint;
use rqlab_sdk::contracts::{Split, Tokens};
use rqlab_sdk::metrics::{Features, Nearest, nearest_neighbours};
use rqlab_sdk::resize::{Resize, Sampling};
use rqlab_sdk::tensor::{Codes, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Rows of a file that are in memory at once.
const BLOCK: usize = 4096;
/// Pixels of a side of a small picture.
const SIDE: usize = 8;
/// The name of the images' indices in the result.
const INDICES: &str = "indices";

/// How two images are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Likeness {
    /// By the classifier's features.
    Features,
    /// By their pixels, shrunk to 8 x 8.
    Pixels,
}

impl Likeness {
    fn file(self) -> &'static str {
        match self {
            Self::Features => "features.tokens",
            Self::Pixels => "pixels.tokens",
        }
    }
}

/// Describes the training images that priors learn from. On disk they take 256 bytes for features and as many for each channel of a
/// small picture.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DescribeTraining {
    /// The data set.
    pub data: Call,
    /// The classifier's job; none for data without classes, which are compared by their pixels alone.
    pub classifier: Option<Id>,
    /// How many training images, of all classes.
    pub images: usize,
    /// That of the evaluation.
    pub precision: Precision,
}

impl DescribeTraining {
    /// See [`Stage::name`].
    pub const NAME: &str = "training_images";

    /// The nearest training image of each row of `queries`, by its place among those described, a block of them at a time.
    ///
    /// # Errors
    /// A result that is missing or damaged; queries of another width.
    pub(super) fn nearest(dir: &StageDir, likeness: Likeness, queries: Features<'_>) -> Result<Vec<Nearest>> {
        let file = TokenFile::open(&dir.sound(likeness.file())?, u32::MAX)?;
        let mut nearest = vec![Nearest { row: 0, distance: f64::INFINITY }; queries.rows()];
        for first in (0..file.images()).step_by(BLOCK) {
            let rows: Vec<usize> = (first..file.images().min(first + BLOCK)).collect();
            let block = file.rows(&rows)?;
            let found = nearest_neighbours(queries, Features::new(block.vectors()?.as_slice(), queries.dim())?)?;
            for (nearest, found) in nearest.iter_mut().zip(found) {
                if found.distance < nearest.distance {
                    *nearest = Nearest { row: first + found.row, ..found };
                }
            }
        }
        Ok(nearest)
    }

    /// The indices in the training split of the images described.
    ///
    /// # Errors
    /// A result that is missing or damaged.
    pub(super) fn indices(dir: &StageDir) -> Result<Vec<usize>> {
        let kept = dir.load_result()?;
        let indices = kept.codes.get(INDICES).map(|codes| codes.as_slice().iter().map(|&i| i as usize).collect());
        Ok(indices.unwrap_or_default())
    }
}

/// Images `[B, H, W, C]` as small pictures, `[B, 8 8 C]`.
///
/// # Errors
/// Images without pixels.
pub(super) fn small(images: &Tensor) -> Result<Tensor> {
    let pixels = Resize::to([SIDE; 2], Sampling::Area).of(images)?;
    Ok(pixels.reshape(&[images.shape()[0], SIDE * SIDE * images.last_dim()])?)
}

impl Stage for DescribeTraining {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn revision(&self) -> u32 {
        1
    }

    fn needs(&self) -> Vec<&str> {
        self.classifier.iter().map(|id| &**id).collect()
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
        let net = match &self.classifier {
            Some(classifier) => Some(FeatureNet::load(cx.store, classifier, info.image[2], info.classes.len())?),
            None => None,
        };
        let dir = cx.dir();
        let mut pixels = Writer::new(&dir.file(Likeness::Pixels.file()))?;
        let mut features = match &net {
            Some(_) => Some(Writer::new(&dir.file(Likeness::Features.file()))?),
            None => None,
        };
        let chosen = subset(info.train, self.images);
        cx.each_batch(dataset.as_ref(), (Split::Train, &chosen), "", |_, images| {
            pixels.push(&row_of_vectors(&small(&images.pixels)?)?)?;
            if let (Some(net), Some(features)) = (&net, &mut features) {
                let described = net.describe(&images.pixels)?;
                let found = described.view()?;
                let found = Tensor::from_vec(found.values().to_vec(), &[found.rows(), found.dim()])?;
                features.push(&row_of_vectors(&found)?)?;
            }
            Ok(())
        })?;
        std::iter::once(pixels).chain(features).try_for_each(Writer::finish)?;
        let indices = Codes::from_vec(chosen.iter().map(|&i| i as u32).collect(), &[chosen.len()])?;
        let codes = BTreeMap::from([(INDICES.to_owned(), indices)]);
        Checkpoint { codes, ..Checkpoint::default() }.save(&dir.result())?;
        Ok(Done::default())
    }

    fn describe(&self) -> Result<Value> {
        as_json(self)
    }
}

/// Rows `[N, F]` as a file of tokens keeps them: one vector for each image.
fn row_of_vectors(rows: &Tensor) -> Result<Tokens> {
    Ok(Tokens::Vectors(rows.reshape(&[rows.shape()[0], 1, 1, rows.last_dim()])?))
}
