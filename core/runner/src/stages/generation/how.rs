//! What samples are to show, and how they are drawn.

use super::labels::{Mixture, captioned};
use crate::settings::Evaluation;
use crate::stages::Conditions;
use rqlab_sdk::Result;
use rqlab_sdk::contracts::{Condition, Dataset, Guidance, Split};
use rqlab_sdk::tensor::Codes;
use rqlab_sdk::tensor::ops::sampling::Draw;
use std::ops::Range;

/// How samples are drawn that are compared with some test images.
pub(super) struct How<'a> {
    dataset: &'a dyn Dataset,
    conditions: &'a Conditions,
    /// The test images, whose captions the samples have, if they have some.
    images: Vec<usize>,
    mixture: Mixture,
    pub(super) draw: Vec<Draw>,
    pub(super) guidance: Guidance,
    /// Images of each class that the report shows.
    pub(super) keep: usize,
}

/// What samples are to show, one after the other.
pub(super) struct Asked {
    pub(super) labels: Vec<u32>,
    condition: Condition,
    /// The test images whose captions they have, and these; nothing where priors are told no captions.
    pub(super) images: Vec<usize>,
    pub(super) captions: Vec<String>,
}

impl<'a> How<'a> {
    /// As an evaluation has it, of samples that are compared with the test images `images`.
    ///
    /// # Errors
    /// A class that the data set has not, and those of the data set.
    pub(super) fn of(
        evaluation: &Evaluation,
        dataset: &'a dyn Dataset,
        conditions: &'a Conditions,
        images: &[usize],
    ) -> Result<Self> {
        let Evaluation { temperature, top_k, top_p, .. } = *evaluation;
        Ok(Self {
            dataset,
            conditions,
            images: images.to_vec(),
            mixture: Mixture::of(&evaluation.labels, dataset, images)?,
            draw: vec![Draw { temperature, top_k, top_p }],
            guidance: evaluation.guidance(),
            keep: evaluation.pictures,
        })
    }

    /// How many classes the data set has.
    pub(super) fn classes(&self) -> usize {
        self.dataset.info().classes.len()
    }

    /// What `count` samples are to show, in a fixed random order.
    ///
    /// # Errors
    /// Those of the data set; a class without a caption.
    pub(super) fn asked(&self, count: usize) -> Result<Asked> {
        self.of_labels(self.mixture.labels(count))
    }

    /// The same with classes in their order.
    ///
    /// # Errors
    /// As for [`How::asked`].
    pub(super) fn by_class(&self, count: usize) -> Result<Asked> {
        let mut labels = self.mixture.labels(count);
        labels.sort_unstable();
        self.of_labels(labels)
    }

    fn of_labels(&self, labels: Vec<u32>) -> Result<Asked> {
        let codes = Codes::from_vec(labels.clone(), &[labels.len()])?;
        if !self.conditions.are_captions() {
            let condition = Condition::of_labels(self.conditions.space(), &codes)?;
            return Ok(Asked { labels, condition, images: vec![], captions: vec![] });
        }
        let classes = self.dataset.labels(Split::Test, &self.images)?;
        let images = captioned(&labels, &self.images, classes.as_slice())?;
        let captions = self.dataset.captions(Split::Test, &images)?;
        Ok(Asked { labels, condition: self.conditions.of_texts(&captions)?, images, captions })
    }
}

impl Asked {
    /// The conditions of some of them.
    ///
    /// # Errors
    /// None in practice: they are there.
    pub(super) fn rows(&self, rows: Range<usize>) -> Result<Condition> {
        self.condition.rows(&rows.collect::<Vec<_>>())
    }

    /// The conditions of all.
    pub(super) fn condition(&self) -> &Condition {
        &self.condition
    }
}
