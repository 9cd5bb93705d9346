//! Labelled images.

use crate::tensor::{Codes, Rng, Tensor};
use crate::{Error, Result};

/// A part of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Split {
    /// What models are trained on.
    Train,
    /// What they are measured on; never trained on.
    Test,
}

impl Split {
    /// The name in messages and file names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Test => "test",
        }
    }
}

/// What a data set is, known before any image is decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetInfo {
    /// Height, width and channels of every image.
    pub image: [usize; 3],
    /// The names of the classes; empty if images carry no label.
    pub classes: Vec<String>,
    /// Images in the training split.
    pub train: usize,
    /// Images in the test split.
    pub test: usize,
    /// A digest of everything that determines the pixels and labels (bytes of files, or generator and its parameters):
    /// two data sets with equal digests are the same.
    pub digest: String,
}

impl DatasetInfo {
    /// How many images `split` has.
    pub fn len(&self, split: Split) -> usize {
        match split {
            Split::Train => self.train,
            Split::Test => self.test,
        }
    }

    /// Whether there is no image at all.
    pub fn is_empty(&self) -> bool {
        self.train + self.test == 0
    }
}

/// A batch of images and their labels.
#[derive(Debug, Clone)]
pub struct Images {
    /// Pixels `[B, H, W, C]` in [-1, 1].
    pub pixels: Tensor,
    /// Class of each image `[B]`; zeros where the set has no classes.
    pub labels: Codes,
}

/// What the runner tells a data set when it opens it.
#[derive(Debug, Clone)]
pub struct DatasetContext {
    /// Directory that relative paths of the configuration are taken from: that of the experiment file.
    pub base: std::path::PathBuf,
}

/// Labelled images of one size. Opening it (its constructor) checks that the data are there; decoding happens in
/// [`Dataset::batch`], in parallel, in bounded memory.
pub trait Dataset: Send + Sync {
    /// What the set is.
    fn info(&self) -> &DatasetInfo;

    /// Why no image can be read, where [`Dataset::info`] is only what the configuration promises of images that are not
    /// on this machine: enough to plan with, not to work with.
    fn absent(&self) -> Option<&str> {
        None
    }

    /// The images `indices` of `split`, in that order. With `augment`, random augmentation that the configuration asks
    /// for (flips, crops) is drawn from it, by position in the batch; without, the same index gives the same pixels.
    ///
    /// # Errors
    /// [`crate::Error::Data`] names the file and row that cannot be decoded.
    fn batch(&self, split: Split, indices: &[usize], augment: Option<&Rng>) -> Result<Images>;

    /// The classes `[N]` of the images `indices` of `split`, as [`Dataset::batch`] gives them. A set that keeps its labels
    /// apart from its images answers without decoding one; by default images are decoded, a few at a time.
    ///
    /// # Errors
    /// Those of [`Dataset::batch`].
    fn labels(&self, split: Split, indices: &[usize]) -> Result<Codes> {
        let mut labels = Vec::with_capacity(indices.len());
        for some in indices.chunks(64) {
            labels.extend_from_slice(self.batch(split, some, None)?.labels.as_slice());
        }
        Ok(Codes::from_vec(labels, &[indices.len()])?)
    }

    /// How many fixed variants its augmentation makes of an image, where they can be listed: 1 without augmentation, 2 of
    /// an image and its mirror image, 10 of the crops at the middle and the four corners, each with its mirror image. `None`,
    /// the default, of augmentation that [`Dataset::batch`] only draws at random.
    fn variants(&self) -> Option<usize> {
        None
    }

    /// The images `indices` of `split`, each as its variant `variant`, which is below [`Dataset::variants`]. Variant 0 is
    /// the image as [`Dataset::batch`] gives it without augmentation.
    ///
    /// # Errors
    /// Those of [`Dataset::batch`]; [`crate::Error::Data`] for a variant that there is not.
    fn variant(&self, split: Split, indices: &[usize], variant: usize) -> Result<Images> {
        match variant {
            0 => self.batch(split, indices, None),
            _ => Err(Error::Data(format!("variant {variant} of images was asked for, of which the set lists none"))),
        }
    }
}
