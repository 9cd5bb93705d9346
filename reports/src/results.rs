//! What an experiment found: the one value that a report is made from.
//!
//! The runner fills these types; nothing here knows tensors, plugins or files. Everything that has an order on the
//! page has it here too (axes, trials, provenance, curves), so that equal results make equal bytes.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::measure::{Index, Quantity, Reading};
use crate::origin::{Environment, Origin};
use crate::setup::{Fact, LeftOut, Sizes};

/// An experiment with all its trials, finished or not.
#[derive(Clone, Debug, Default)]
pub struct Results {
    /// Name of the experiment: the stem of its file.
    pub name: String,
    /// The question in one sentence, with its question mark.
    pub question: String,
    /// What the experiment's file says of itself: no result of these trials.
    pub file: FileNote,
    /// What the command line changed of the file's settings, such as `quantizer.codebook=512`; empty if nothing.
    pub changed: Vec<String>,
    /// The command that repeats the whole experiment.
    pub command: String,
    /// The folder in which that command, and those of the trials, are to be given.
    pub folder: Option<String>,
    /// When the results were made, as text to show; `None` leaves the page free of dates.
    pub created: Option<String>,
    /// What concerns the whole, such as the commit of the experiment's folder; where trials were computed is told by
    /// [`Trial::origins`].
    pub provenance: Vec<Provenance>,
    /// The program and machine that rendered the report, which need not be those that computed the trials.
    pub rendered: Option<Environment>,
    /// What was varied, in the order of the experiment file.
    pub axes: Vec<Axis>,
    /// The paths of settings that the named cases of the axis `case` are made of.
    pub case_paths: Vec<String>,
    /// What the matrix, the effects and the default comparisons look at; without one, the PSNR.
    pub headline: Option<Quantity>,
    /// What the default comparisons look at beside the headline.
    pub judged_also: Vec<Quantity>,
    /// What the experiment asks to be judged; if empty, the report compares the first value of each axis with its last.
    pub comparisons: Vec<Comparison>,
    /// Every trial of the plan, in its order, also those that failed or never ran.
    pub trials: Vec<Trial>,
    /// Definitions of measures that [`crate::measure`] does not know, or that this experiment defines otherwise.
    pub definitions: Vec<Definition>,
}

/// The comment at the head of an experiment's file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileNote {
    /// The file, as it was named.
    pub path: String,
    /// What is asked, and why; paragraphs are set apart by an empty line.
    pub about: String,
    /// What came of an earlier run, as the file tells it.
    pub finding: Option<String>,
    /// As of when the file says so, such as `2026-11-28`.
    pub date: Option<String>,
}

/// One line of the provenance table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Provenance {
    /// What is stated, such as `git commit`.
    pub key: String,
    /// One or more values, such as a line for each plugin.
    pub values: Vec<String>,
}

/// One thing that was varied.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Axis {
    /// Path in the experiment file, such as `quantizer.depth`; the key in [`Trial::axes`] and the column in the tables.
    pub path: String,
    /// Short label for headings and charts, such as `depth`; if empty, the last part of the path.
    pub label: String,
    /// Its values in the order of the experiment file.
    pub values: Vec<Value>,
}

/// The value of an axis: a number, or text for anything else (a flag, a name, a component as it was written).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// A number; shown without a fraction if it has none.
    Number(f64),
    /// Text, shown as it is.
    Text(String),
}

/// A comparison to be judged: along `axis` from one value to another, on one measure.
///
/// Trials are paired by their seed and by every axis that is neither `axis` nor in `fixed`; the effect is the mean of
/// the paired differences.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// What is compared; `None` means the headline.
    pub metric: Option<Quantity>,
    /// Path of the axis that changes.
    pub axis: String,
    /// Value of the axis before.
    pub from: Value,
    /// Value of the axis after.
    pub to: Value,
    /// Axes that are held at one value, by path; the others are averaged over.
    pub fixed: BTreeMap<String, Value>,
}

/// How far a trial came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// All its stages finished.
    Done,
    /// A stage failed; [`Trial::error`] says why.
    Failed,
    /// Not run yet, or interrupted.
    #[default]
    Missing,
}

/// One combination of axis values and a seed.
#[derive(Clone, Debug, Default)]
pub struct Trial {
    /// Short hash that names the trial, eight hexadecimal digits.
    pub id: String,
    /// Readable name, such as `depth=4 codebook=256 seed=0`.
    pub name: String,
    /// Axis path to value; an axis that does not apply is left out.
    pub axes: BTreeMap<String, Value>,
    /// Seed of the trial.
    pub seed: Option<u64>,
    /// How far it came.
    pub status: Status,
    /// One-line error of a failed trial.
    pub error: Option<String>,
    /// The last lines of a failed trial's log.
    pub log_tail: String,
    /// The command that repeats this trial alone.
    pub command: String,
    /// The resolved configuration, as RON text.
    pub config: String,
    /// What it was set to, in the order to show.
    pub setup: Vec<Fact>,
    /// How large things were: what the page's warnings look at.
    pub sizes: Sizes,
    /// Measures that it cannot have.
    pub left_out: Vec<LeftOut>,
    /// Digest of the resolved configuration without the seed: trials that have it in common are repetitions of one another. Empty
    /// where it is not known, and then the axes' values stand for it.
    pub configuration: String,
    /// Every resolved setting by its path, such as `tokenizer_training.lr`: what else differs between two trials.
    pub settings: BTreeMap<String, String>,
    /// Digests of the parts that measures depend on, by name: `dataset`, `classifier`, `tokenizer`. Trials whose digests
    /// are equal share the part; verdicts say where a measure is compared between trials that do not share what it needs.
    pub parts: BTreeMap<String, String>,
    /// Where each stage was computed; a stage whose origin was not recorded is left out.
    pub origins: Vec<Origin>,
    /// What was measured, each quantity once; [`crate::measure()`] tells what the names mean.
    pub readings: Vec<Reading>,
    /// Measures of each test image by plain name, such as `psnr`, in the order of the images, which is the same in all trials
    /// that have the part `test images` in common.
    pub per_image: BTreeMap<String, Vec<f64>>,
    /// What was recorded during training, in the order to show.
    pub curves: Vec<Curve>,
    /// Reconstructions of test images. Every trial shows the same images in the same order.
    pub examples: Vec<Example>,
    /// Images drawn from the prior, in the order to show.
    pub samples: Vec<Sample>,
    /// The drawn images that come nearest to a training image, the nearest first.
    pub copies: Vec<SampleAndTraining>,
}

/// One quantity over the steps of one stage.
///
/// What has a depth and belongs to the codebook is drawn with its health; all else is drawn with the training curves, also
/// measures that the registry does not know.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// `tokenizer`, `prior`, or another stage's name.
    pub stage: String,
    /// Plain name of the measure.
    pub measure: String,
    /// Its indices, ascending.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub at: Vec<Index>,
    /// Training steps, ascending.
    pub steps: Vec<u64>,
    /// One value per step.
    pub values: Vec<f64>,
}

/// A test image and what the tokenizer makes of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Example {
    /// Names the image, the same in all trials, such as `test 17, moons`.
    pub label: String,
    /// The image itself.
    pub original: Image,
    /// Decoded from the first code alone, from the first two, …, from all: one for each depth, or only the last.
    pub reconstructions: Vec<Image>,
    /// The codes of each level; empty for a continuous bottleneck.
    pub codes: Vec<CodeMap>,
}

/// The codes of one image at one level.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CodeMap {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Codes per position.
    pub depth: usize,
    /// Row-major `[height, width, depth]`.
    pub codes: Vec<u32>,
}

/// An image drawn from the prior.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// The class it was drawn for, or empty. Samples of one label stand together.
    pub label: String,
    /// The caption it was drawn for, or empty.
    pub caption: String,
    /// The decoded image.
    pub image: Image,
}

/// A drawn image and the training image that is nearest to it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SampleAndTraining {
    /// Which training image it is.
    pub label: String,
    /// The drawn image.
    pub sample: Image,
    /// The training image.
    pub training: Image,
}

/// A measure in words, for the list of definitions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Definition {
    /// Plain name of the measure.
    pub name: String,
    /// What it is, in a sentence or two.
    pub text: String,
}

/// An image of 8-bit RGB, row-major `[height, width, 3]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// `height * width * 3` bytes.
    pub rgb: Vec<u8>,
}

impl Image {
    /// Builds an image from its bytes.
    ///
    /// # Errors
    /// If the number of bytes is not `height * width * 3`.
    pub fn new(width: u32, height: u32, rgb: Vec<u8>) -> Result<Self> {
        let wanted = width as usize * height as usize * 3;
        if rgb.len() != wanted {
            return Err(Error::ImageSize { width, height, wanted, found: rgb.len() });
        }
        Ok(Self { width, height, rgb })
    }

    /// Decodes a PNG, JPEG or WebP file's bytes.
    ///
    /// # Errors
    /// If the bytes are not an image of these formats.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let image = image::load_from_memory(bytes).map_err(Error::Image)?.into_rgb8();
        let (width, height) = image.dimensions();
        Ok(Self { width, height, rgb: image.into_raw() })
    }

    /// Whether there are no pixels.
    pub fn is_empty(&self) -> bool {
        self.rgb.is_empty()
    }
}

impl Results {
    /// The trials that are done.
    pub fn done(&self) -> impl Iterator<Item = &Trial> {
        self.trials.iter().filter(|trial| trial.status == Status::Done)
    }

    /// How many trials have a status.
    pub fn count(&self, status: Status) -> usize {
        self.trials.iter().filter(|trial| trial.status == status).count()
    }

    /// The axis with this path.
    pub fn axis(&self, path: &str) -> Option<&Axis> {
        self.axes.iter().find(|axis| axis.path == path)
    }
}

impl Trial {
    /// The value of a quantity, if it was measured.
    pub fn value(&self, of: &Quantity) -> Option<f64> {
        self.readings.iter().find(|reading| of.is(&reading.measure, &reading.at)).map(|reading| reading.value)
    }
}

impl Curve {
    /// What is recorded.
    pub fn quantity(&self) -> Quantity {
        Quantity::new(self.measure.clone(), self.at.iter().cloned())
    }
}

impl Axis {
    /// The label, or the last part of the path.
    pub fn title(&self) -> &str {
        if self.label.is_empty() { self.path.rsplit('.').next().unwrap_or(&self.path) } else { &self.label }
    }

    /// Whether every value is a number.
    pub fn is_numeric(&self) -> bool {
        !self.values.is_empty() && self.values.iter().all(|value| value.number().is_some())
    }
}

impl Value {
    /// The number, if it is one.
    pub fn number(&self) -> Option<f64> {
        match self {
            Value::Number(number) => Some(*number),
            Value::Text(_) => None,
        }
    }

    /// A total order: numbers by size, then text by its letters.
    pub fn order(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Value::Number(a), Value::Number(b)) => a.total_cmp(b),
            (Value::Text(a), Value::Text(b)) => a.cmp(b),
            (Value::Number(_), Value::Text(_)) => Ordering::Less,
            (Value::Text(_), Value::Number(_)) => Ordering::Greater,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Number(number) => write!(f, "{number}"),
            Value::Text(text) => f.write_str(text),
        }
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Value::Number(number)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Value::Number(number as f64)
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Value::Text(flag.to_string())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::Text(text)
    }
}

impl Status {
    /// The word in the tables: `done`, `failed` or `missing`.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Done => "done",
            Status::Failed => "failed",
            Status::Missing => "missing",
        }
    }
}
