//! Labelled images.

use crate::tensor::{Codes, Rng, Tensor};
use crate::{Error, Result};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

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
    /// What was found and what is made of it.
    pub summary: Summary,
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

/// What was found where a data set lies, and what is made of it: what a plan and a report tell of the data. Texts are parts
/// of a sentence, without a capital or a full stop.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Training and test images of each class, in the order of [`DatasetInfo::classes`]. Empty if images carry no label, or
    /// if the images are not there to be counted.
    pub per_class: Vec<[usize; 2]>,
    /// The sizes that the images have before they are scaled and cut; none if nobody looked.
    pub sizes: Option<Sizes>,
    /// What lies there and is not used, by reason.
    pub left_out: Vec<LeftOut>,
    /// How the splits are made: "the folders `train` and `val`".
    pub splits: String,
    /// What is done to every image: "the shorter side scaled to 64 pixels, the middle square kept".
    pub preparation: Vec<String>,
    /// What is drawn anew whenever a training image is used: "mirrored at random".
    pub augmentation: Vec<String>,
    /// What else a user should know: "the folder `test` is not used".
    pub notes: Vec<String>,
}

/// The smallest and the largest sides that were met, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Of heights.
    pub height: [usize; 2],
    /// Of widths.
    pub width: [usize; 2],
}

impl Sizes {
    /// The range of one size.
    pub fn of([height, width]: [usize; 2]) -> Self {
        Self { height: [height; 2], width: [width; 2] }
    }

    /// The range that holds both.
    pub fn with(self, other: Self) -> Self {
        let join = |a: [usize; 2], b: [usize; 2]| [a[0].min(b[0]), a[1].max(b[1])];
        Self { height: join(self.height, other.height), width: join(self.width, other.width) }
    }
}

/// Files or rows that are not used, for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// What one of them is: "file", "row".
    pub unit: String,
    /// Why, behind a number: "damaged", ".svg".
    pub reason: String,
    /// How many.
    pub count: usize,
    /// Where one of them lies.
    pub example: String,
}

/// What a data set has of captions: a text for each image, which priors may be conditioned on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CaptionInfo {
    /// Training and test images that have none.
    pub missing: [usize; 2],
    /// What captions name, of which samples are asked whether they obey it; empty where captions are free text.
    pub attributes: Vec<Attribute>,
}

impl CaptionInfo {
    /// How many images of `split` have no caption.
    pub fn missing(&self, split: Split) -> usize {
        self.missing[usize::from(split == Split::Test)]
    }
}

/// Something that every caption names, such as a shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// Its name.
    pub name: String,
    /// What it can be.
    pub values: Vec<String>,
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
    pub base: PathBuf,
    /// Who is told how far it is, where opening takes long.
    pub progress: Progress,
}

impl DatasetContext {
    /// With relative paths from `base`, and nobody to be told of progress.
    pub fn new(base: impl Into<PathBuf>) -> Self {
        Self { base: base.into(), progress: Progress::default() }
    }
}

/// What is done, how much of it, and of how much.
type Tell = dyn Fn(&str, usize, usize) + Send + Sync;

/// Who is told how far a long task is; nobody by default.
#[derive(Clone, Default)]
pub struct Progress(Option<Arc<Tell>>);

impl Progress {
    /// With someone who is told what is done, how much of it, and of how much.
    pub fn new(tell: impl Fn(&str, usize, usize) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(tell)))
    }

    /// Tells that `done` of `all` is done of the task `what`: "looking at the images". May be called from any thread.
    pub fn tell(&self, what: &str, done: usize, all: usize) {
        if let Some(tell) = &self.0 {
            tell(what, done, all);
        }
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "told" } else { "told to nobody" })
    }
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

    /// The order in which an epoch of training goes through the training images, each of which it holds once, where the set
    /// asks for one of its own: shard by shard, say, for storage that is slow in random order. It follows from `rng`, the
    /// stream of that epoch, alone. By default every order is as probable as any.
    fn epoch_order(&self, rng: &Rng) -> Option<Vec<usize>> {
        let _ = rng;
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

    /// What captions its images have; none, the default, where they have none.
    fn caption_info(&self) -> Option<&CaptionInfo> {
        None
    }

    /// The captions of the images `indices` of `split`, in that order; empty texts where an image has none.
    ///
    /// # Errors
    /// [`crate::Error::Data`] of a set without captions, or of one that cannot be read.
    fn captions(&self, split: Split, indices: &[usize]) -> Result<Vec<String>> {
        let _ = (split, indices);
        Err(Error::Data("the images of this data set have no captions".to_owned()))
    }

    /// What the captions of the images `indices` of `split` name, `[N, A]`: for each of [`CaptionInfo::attributes`] the place
    /// of its value.
    ///
    /// # Errors
    /// Those of [`Dataset::captions`].
    fn attributes(&self, split: Split, indices: &[usize]) -> Result<Codes> {
        let _ = split;
        Ok(Codes::from_vec(vec![], &[indices.len(), 0])?)
    }

    /// How many fixed variants its augmentation makes of an image, where they can be listed: 1 without augmentation, 2 of
    /// an image and its mirror image, 10 of the crops at the middle and the four corners, each with its mirror image. `None`,
    /// the default, of augmentation that [`Dataset::batch`] only draws at random; [`Summary::augmentation`] tells then whether
    /// there is any.
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
