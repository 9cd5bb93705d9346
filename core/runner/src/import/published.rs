//! A published file as the systems see it: one set of weights by their names in the model, and the configuration beside it.

use super::yaml;
use rqlab_sdk::{Error, Result, files};
use rqlab_weights::{Checkpoint, TensorInfo, Value};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The longest configuration that is read, in bytes.
const LONGEST: u64 = 1 << 20;

/// What stands before the names of weights in published files, and before those of their averages.
const PLAIN: [&str; 4] = ["state_dict/", "model/", "", "ema/"];
const AVERAGED: [&str; 3] = ["state_dict_ema/", "model_ema/", "ema/"];

/// Names that configurations beside weights have.
const CONFIGURATIONS: [&str; 3] = ["config.yaml", "project.yaml", "config.json"];

/// Which of the weights of a file are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Weights {
    /// As the optimizer left them.
    Plain,
    /// Their exponential moving average.
    Ema,
}

/// One set of weights, and the configuration beside it.
pub(super) struct Published {
    pub(super) checkpoint: Checkpoint,
    tensors: BTreeMap<String, TensorInfo>,
    /// The configuration; null if there is none.
    config: Json,
    config_path: Option<PathBuf>,
    /// Sides of the images, if the user said.
    pub(super) size: Option<[usize; 2]>,
    path: PathBuf,
}

impl Published {
    /// Opens a file, and the configuration that is named or lies beside it.
    pub(super) fn open(path: &Path, weights: Weights, config: Option<&Path>, size: Option<[usize; 2]>) -> Result<Self> {
        let checkpoint = Checkpoint::open(path).map_err(|error| Error::Checkpoint(error.to_string()))?;
        let prefixes = if weights == Weights::Plain { &PLAIN[..] } else { &AVERAGED[..] };
        let sets = prefixes.iter().map(|prefix| under(&checkpoint, prefix));
        let tensors = sets.into_iter().find(|set| !set.is_empty()).ok_or_else(|| {
            let wanted = prefixes.join("`, `");
            let message = format!("{}: it has no weights of this kind: no tensors under `{wanted}`", path.display());
            Error::Checkpoint(match weights {
                Weights::Plain => message,
                Weights::Ema => format!("{message}; leave out `--weights ema`"),
            })
        })?;
        let beside = path.parent().unwrap_or(Path::new(""));
        let beside = CONFIGURATIONS.iter().map(|name| beside.join(name)).find(|path| path.is_file());
        let config_path = config.map(Path::to_owned).or(beside);
        let config = config_path.as_deref().map_or(Ok(Json::Null), read_config)?;
        Ok(Self { checkpoint, tensors, config, config_path, size, path: path.to_owned() })
    }

    /// A number that the file itself holds at a path, such as an argument of the training script.
    pub(super) fn stored_number(&self, path: &str) -> Option<f64> {
        match self.checkpoint.value(path)? {
            Value::Float(number) => Some(*number),
            Value::Int(number) => Some(*number as f64),
            _ => None,
        }
    }

    /// Whether the file holds averages of these weights, too.
    pub(super) fn has_averages(&self) -> bool {
        AVERAGED.iter().any(|prefix| !under(&self.checkpoint, prefix).is_empty())
    }

    /// The weights by their names in the model.
    pub(super) fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    /// Gives the weights other names.
    pub(super) fn rename(&mut self, name: impl Fn(&str) -> String) {
        let tensors = std::mem::take(&mut self.tensors).into_iter();
        self.tensors = tensors.map(|(old, tensor)| (name(&old), tensor)).collect();
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// A side of a tensor.
    pub(super) fn side(&self, name: &str, axis: usize) -> Result<usize> {
        let tensor = self.tensors.get(name).ok_or_else(|| self.wrong(format!("it has no `{name}`")))?;
        let side = tensor.shape.get(axis).and_then(|&side| usize::try_from(side).ok());
        side.ok_or_else(|| self.wrong(format!("`{name}` has the shape {:?}", tensor.shape)))
    }

    /// How many of `name(0)`, `name(1)`, .. there are without a gap.
    pub(super) fn count(&self, name: impl Fn(usize) -> String) -> usize {
        (0..).take_while(|&i| self.has(&name(i))).count()
    }

    /// The configuration's value at a path of keys between slashes; none if there is none, or null.
    pub(super) fn setting(&self, path: &str) -> Option<&Json> {
        let found = path.split('/').try_fold(&self.config, |value, key| value.get(key));
        found.filter(|value| !value.is_null())
    }

    pub(super) fn text(&self, path: &str) -> Option<&str> {
        self.setting(path).and_then(Json::as_str)
    }

    pub(super) fn flag(&self, path: &str, default: bool) -> bool {
        self.setting(path).and_then(Json::as_bool).unwrap_or(default)
    }

    pub(super) fn number(&self, path: &str) -> Option<f64> {
        self.setting(path).and_then(Json::as_f64)
    }

    /// A size of the configuration.
    pub(super) fn size_of(&self, path: &str) -> Result<usize> {
        let found = self.setting(path).and_then(Json::as_u64).and_then(|size| usize::try_from(size).ok());
        found.ok_or_else(|| self.lacks(path, "a size"))
    }

    /// A list of sizes of the configuration; one size is a list of one.
    pub(super) fn sizes_of(&self, path: &str) -> Result<Vec<usize>> {
        let size = |value: &Json| value.as_u64().and_then(|size| usize::try_from(size).ok());
        let found = match self.setting(path) {
            Some(Json::Array(list)) => list.iter().map(size).collect(),
            Some(one) => size(one).map(|size| vec![size]),
            None => None,
        };
        found.ok_or_else(|| self.lacks(path, "a list of sizes"))
    }

    fn lacks(&self, path: &str, what: &str) -> Error {
        let path = path.replace('/', ".");
        match &self.config_path {
            Some(config) => Error::Checkpoint(format!("{}: `{path}` is not {what}", config.display())),
            None => self.wrong(format!(
                "its configuration, with `{path}`, is needed, and is not beside it ({}); name it with --config",
                CONFIGURATIONS.join(", ")
            )),
        }
    }

    /// That the configuration has a value which is not supported.
    pub(super) fn unsupported(&self, path: &str, why: &str) -> Error {
        let value = self.setting(path).map_or_else(|| "absent".to_owned(), Json::to_string);
        Error::Unsupported(format!("{}: `{}` is {value}: {why}", self.path.display(), path.replace('/', ".")))
    }

    pub(super) fn wrong(&self, what: String) -> Error {
        Error::Checkpoint(format!("{}: {what}", self.path.display()))
    }
}

/// The tensors whose paths are a prefix and one name, by this name, without what wrappers of modules put before all of them.
fn under(checkpoint: &Checkpoint, prefix: &str) -> BTreeMap<String, TensorInfo> {
    let own = checkpoint.values().iter().filter_map(|(path, value)| match value {
        Value::Tensor(tensor) => {
            path.strip_prefix(prefix).filter(|name| !name.contains('/')).map(|name| (name, tensor))
        }
        _ => None,
    });
    let own: Vec<(&str, &TensorInfo)> = own.collect();
    let mut names: Vec<&str> = own.iter().map(|(name, _)| *name).collect();
    for wrapper in ["module.", "_orig_mod.", "module."] {
        if names.iter().all(|name| name.starts_with(wrapper)) {
            names.iter_mut().for_each(|name| *name = &name[wrapper.len()..]);
        }
    }
    names.into_iter().map(str::to_owned).zip(own.into_iter().map(|(_, tensor)| tensor.clone())).collect()
}

fn read_config(path: &Path) -> Result<Json> {
    let bytes = files::read(path, LONGEST)?;
    let text = String::from_utf8(bytes).map_err(|_| Error::Data(format!("{}: it is not UTF-8", path.display())))?;
    let read = match path.extension().is_some_and(|end| end == "json") {
        true => serde_json::from_str(&text).map_err(|error| error.to_string()),
        false => yaml::parse(&text),
    };
    read.map_err(|error| Error::Data(format!("{}: {error}", path.display())))
}
