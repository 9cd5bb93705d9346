//! What a job does. A file or folder per stage, on models that plugins build.
//!
//! A stage reads the results of the stages that it stands on, works, and leaves `result.safetensors` and its readings.
//! Training checkpoints as it goes, and goes on from the last checkpoint; the result is the same as without a break.
//!
//! To add a stage: a file with a struct that says what is to be done and implements [`Stage`], a line in `KINDS`, and the
//! place in `plan/jobs.rs` that asks for it.

mod attributes;
mod captions;
mod classifier;
mod code_norms;
mod conditions;
mod distances;
mod features;
mod generation;
mod model;
mod per_image;
mod perturbation;
mod prior;
mod protocol;
mod reconstruction;
mod reference;
mod subset;
mod token_file;
mod tokenizer;
mod tokens;
mod training;
mod training_images;

pub use attributes::TrainAttributes;
pub use captions::{Captioned, EncodeCaptions, TextSpace};
pub use classifier::TrainClassifier;
pub use conditions::{Conditions, Told, Unread};
pub(crate) use features::{DENSITY_NEIGHBOURS, NEIGHBOURS};
pub use generation::MeasurePrior;
pub use model::{Sampler, Tokenizer, level_scope, load_prior, load_tokenizer, of_level, open_dataset};
pub use perturbation::MeasurePerturbation;
pub use prior::TrainPrior;
pub use protocol::{DescribeForProtocol, MeasureByProtocol, MeasureSamplesByProtocol};
pub use reconstruction::MeasureTokenizer;
pub use reference::DescribeReference;
pub(crate) use subset::shown;
pub use tokenizer::TrainTokenizer;
pub use tokens::{EncodeTokens, Variants};
pub(crate) use training::{start, together::divides};
pub use training_images::DescribeTraining;

use crate::job::{Call, Job};
use crate::jobs::Reporter;
use crate::plugins::Plugins;
use crate::settings::Precision;
use crate::store::{Damage, Done, StageDir, Store};
use rqlab_sdk::checkpoint::Checkpoint;
use rqlab_sdk::plugin::SDK_HASH;
use rqlab_sdk::tensor::ranks::Communicator;
use rqlab_sdk::{Error, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use std::any::Any;
use std::fmt::Debug;
use std::io::ErrorKind;
use std::rc::Rc;
use std::sync::Arc;
use training::together::agree;

/// One stage's work, and what follows from it.
pub trait Stage: Any + Debug + Send + Sync {
    /// The name in progress bars, logs and directories.
    fn name(&self) -> &'static str;

    /// Raised whenever a change of the stage's own code changes its results, so that results of before are not taken for
    /// those of now. (Plugins and the libraries below them count by their digests.)
    fn revision(&self) -> u32;

    /// The ids of the stages that must be done before, whose results count for its own.
    fn needs(&self) -> Vec<&str> {
        vec![]
    }

    /// The components that it builds itself.
    fn calls(&self) -> Vec<&Call> {
        vec![]
    }

    /// The rest of what determines its result: seeds, and settings but those that are local.
    ///
    /// # Errors
    /// A setting that cannot be written as text.
    fn identity(&self) -> Result<Value>;

    /// How numbers are multiplied.
    fn precision(&self) -> Precision;

    /// Images of a training step, and the parts that they are cut into, if several ranks can share the work.
    fn batch(&self) -> Option<(usize, usize)> {
        None
    }

    /// Units of work, in steps times batch or images: what its time is about proportional to.
    fn work(&self) -> f64;

    /// Whether it needs the machine to itself, because it measures speed.
    fn exclusive(&self) -> bool {
        false
    }

    /// Does it.
    ///
    /// # Errors
    /// Whatever it could not do.
    fn run(&self, cx: &mut Context<'_>) -> Result<Done>;

    /// Adds what its result has to show to a report: pictures, and readings that are not in `done`.
    ///
    /// # Errors
    /// A result that is damaged.
    fn report(&self, dir: &StageDir, classes: &[String], out: &mut rqlab_reports::Trial) -> Result<()> {
        let _ = (dir, classes, out);
        Ok(())
    }

    /// Itself as it stands in `job.json`.
    ///
    /// # Errors
    /// A value that JSON cannot write.
    fn describe(&self) -> Result<Value>;
}

/// A stage by name, and how it is read back.
type Kind = (&'static str, fn(Value) -> Result<AnyStage, serde_json::Error>);

/// All stages.
const KINDS: &[Kind] = &[
    (TrainClassifier::NAME, read::<TrainClassifier>),
    (TrainAttributes::NAME, read::<TrainAttributes>),
    (DescribeReference::NAME, read::<DescribeReference>),
    (DescribeTraining::NAME, read::<DescribeTraining>),
    (TrainTokenizer::NAME, read::<TrainTokenizer>),
    (EncodeTokens::NAME, read::<EncodeTokens>),
    (EncodeCaptions::NAME, read::<EncodeCaptions>),
    (TrainPrior::NAME, read::<TrainPrior>),
    (MeasureTokenizer::NAME, read::<MeasureTokenizer>),
    (MeasureByProtocol::NAME, read::<MeasureByProtocol>),
    (MeasurePerturbation::NAME, read::<MeasurePerturbation>),
    (TrainPrior::PROBE, read::<TrainPrior>),
    (MeasurePrior::PROBE, read::<MeasurePrior>),
    (MeasurePrior::NAME, read::<MeasurePrior>),
    (DescribeForProtocol::NAME, read::<DescribeForProtocol>),
    (MeasureSamplesByProtocol::NAME, read::<MeasureSamplesByProtocol>),
];

/// The names of all stages, in an order in which they can follow each other.
pub fn names() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|(name, _)| *name)
}

fn read<S: Stage + DeserializeOwned>(value: Value) -> Result<AnyStage, serde_json::Error> {
    Ok(AnyStage::new(serde_json::from_value::<S>(value)?))
}

/// Any of the stages. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AnyStage(Arc<dyn Stage>);

impl AnyStage {
    /// Holds a stage.
    pub fn new(stage: impl Stage) -> Self {
        Self(Arc::new(stage))
    }

    /// The stage, if it is of this type.
    pub fn is<S: Stage>(&self) -> Option<&S> {
        let any: &dyn Any = &*self.0;
        any.downcast_ref()
    }
}

impl std::ops::Deref for AnyStage {
    type Target = dyn Stage;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl PartialEq for AnyStage {
    fn eq(&self, other: &Self) -> bool {
        let described = |stage: &Self| stage.describe().ok();
        self.name() == other.name() && described(self) == described(other)
    }
}

impl Serialize for AnyStage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let work = self.describe().map_err(serde::ser::Error::custom)?;
        serde_json::json!({ "name": self.name(), "revision": self.revision(), "work": work }).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for AnyStage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Written {
            name: String,
            work: Value,
        }
        let Written { name, work } = Written::deserialize(deserializer)?;
        let kind = KINDS.iter().find(|(known, _)| *known == name);
        let (_, read) = kind.ok_or_else(|| serde::de::Error::custom(format!("there is no stage `{name}`")))?;
        read(work).map_err(serde::de::Error::custom)
    }
}

/// Itself as JSON, for [`Stage::describe`].
fn as_json<S: Serialize>(stage: &S) -> Result<Value> {
    serde_json::to_value(stage).map_err(|e| Error::Data(format!("a stage cannot be written as JSON: {e}")))
}

/// Reads what [`as_json`] gave.
fn from_json<T: DeserializeOwned>(value: Value) -> Result<T> {
    serde_json::from_value(value).map_err(|e| Error::Checkpoint(format!("a checkpoint is not understood: {e}")))
}

/// What a stage works with.
pub struct Context<'a> {
    store: &'a Store,
    job: &'a Job,
    plugins: &'a Plugins,
    reporter: &'a mut Reporter,
    ranks: Rc<dyn Communicator>,
}

impl Context<'_> {
    /// That all ranks are about to do the same: run this program, with these plugins, on these data.
    fn agree(&self, data: &str) -> Result<()> {
        let plugins: Vec<_> = self.job.stage.calls().iter().flat_map(|call| &call.plugins).collect();
        let here: Vec<_> = self.plugins.provided().iter().map(|provided| provided.origin.digest.clone()).collect();
        let facts = [
            ("programs", SDK_HASH.to_owned()),
            ("settings", self.job.id.to_string()),
            ("plugins", format!("{plugins:?} {here:?}")),
            ("data", data.to_owned()),
        ];
        agree(self.ranks.as_ref(), &facts)
    }

    fn dir(&self) -> StageDir {
        self.store.stage(&self.job.id)
    }

    /// The last checkpoint of this stage's training. One that is damaged, or of another stage, is set aside: there is none
    /// then.
    fn last_checkpoint(&mut self) -> Result<Option<Checkpoint>> {
        let (dir, path) = (self.dir(), self.dir().state());
        let found = match Checkpoint::load_sealed(&path) {
            Ok(state) if state.metadata.get(STAGE).is_some_and(|id| self.job.id == **id) => return Ok(Some(state)),
            Err(Error::File { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error @ Error::File { .. }) => return Err(error),
            Ok(_) => "it belongs to another stage",
            Err(_) => "its contents are not those that were written",
        };
        let aside = dir.set_aside(Damage { path, found: found.to_owned() })?;
        self.reporter.warn(&format!("{aside}: training starts from 0"));
        Ok(None)
    }

    /// Keeps a checkpoint of this stage's training.
    fn keep_checkpoint(&self, mut state: Checkpoint) -> Result<()> {
        state.metadata.insert(STAGE.to_owned(), self.job.id.to_string());
        state.sealed().save(&self.dir().state())
    }
}

/// The text of a checkpoint that names its stage.
const STAGE: &str = "stage";

/// Does a job, as one of `ranks`.
///
/// # Errors
/// Whatever its stage could not do.
pub fn run(
    store: &Store,
    job: &Job,
    plugins: &Plugins,
    reporter: &mut Reporter,
    ranks: Rc<dyn Communicator>,
) -> Result<Done> {
    job.stage.run(&mut Context { store, job, plugins, reporter, ranks })
}
