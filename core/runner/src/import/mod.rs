//! Published checkpoints as tokenizers and priors of ours: what `rqlab import` makes, and `rqlab export` writes back.
//!
//! A file is read without running anything that it holds ([`rqlab_weights`]), recognised by its names, and expressed by
//! components (`systems`). Every parameter of these is found by name and shape among the published ones, and all that does not
//! fit is listed (`names`). What comes of it is a safetensors file with our names, which experiments start from (`from` in
//! `tokenizer_training` and `prior_training`), and beside it an experiment to be based on.

mod expression;
mod names;
mod published;
mod systems;
mod yaml;

use crate::job::Call;
use crate::plan::resolve_call;
use crate::plugins::Plugins;
use crate::stages::Tokenizer;
pub use expression::Expression;
use names::Shapes;
use published::Published;
pub use published::Weights;
use rqlab_sdk::checkpoint::Checkpoint;
use rqlab_sdk::contracts::{Components, LevelInfo, PriorContext};
use rqlab_sdk::params::Params;
use rqlab_sdk::plugin::Kind;
use rqlab_sdk::tensor::Tensor;
use rqlab_sdk::{Error, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use systems::{Facts, Parts, System};

/// What to import, and how.
#[derive(Debug, Clone)]
pub struct Request {
    /// The published file.
    pub file: PathBuf,
    /// Its configuration, if it is not beside it.
    pub config: Option<PathBuf>,
    /// Which of its weights.
    pub weights: Weights,
    /// The system, if it is not to be recognised.
    pub system: Option<String>,
    /// Height and width of the images, where the file does not say or other ones are wanted.
    pub size: Option<[usize; 2]>,
    /// The components that express it, if no configuration is to say.
    pub trial: Option<Expression>,
}

/// What was imported.
#[derive(Debug)]
pub struct Imported {
    /// The name of the system.
    pub system: &'static str,
    /// What it is.
    pub about: &'static str,
    /// The components, by the names of their fields in an experiment.
    pub components: Vec<(&'static str, String)>,
    /// Height, width and channels of the images; none of a prior.
    pub image: Option<[usize; 3]>,
    /// The weights with our names, and how they came about.
    pub checkpoint: Checkpoint,
    /// Whether the file holds averages of the weights that were taken.
    pub has_averages: bool,
}

impl Imported {
    /// How many numbers it has.
    pub fn numbers(&self) -> usize {
        self.checkpoint.tensors.values().map(Tensor::len).sum()
    }

    /// The text of an experiment that starts from it: a `base` for others.
    pub fn experiment(&self, file: &str) -> String {
        let components = self.components.iter().map(|(slot, call)| format!("    {slot}: {call},\n"));
        let training = if self.image.is_some() { "tokenizer_training" } else { "prior_training" };
        // Only a prior that is trained on dropped conditions has a null condition.
        let null = self.checkpoint.metadata.get("null_condition").is_some_and(|null| null == "true");
        let null = if null { ", condition_dropout: 0.1" } else { "" };
        let source = self.checkpoint.metadata.get("source").map_or("", String::as_str);
        let images = self.image.map_or(String::new(), |[height, width, channels]| {
            format!("// Its images have {height} x {width} pixels of {channels} channels: `data` must give such.\n")
        });
        format!(
            "// Imported from {source}: {}.\n// A base for experiments: `base: \"{}.ron\"`. With 0 steps the weights stay as \
             they are.\n{images}(\n{}    {training}: (from: {file:?}, steps: 0{null}),\n)\n",
            self.about,
            file.trim_end_matches(".safetensors"),
            components.collect::<String>(),
        )
    }
}

fn system(name: &str) -> Result<&'static System> {
    systems::ALL.iter().find(|system| system.name == name).ok_or_else(|| {
        let known: Vec<&str> = systems::ALL.iter().map(|system| system.name).collect();
        Error::Unsupported(format!("there is no system `{name}`; known are {}", known.join(", ")))
    })
}

/// Reads a published file.
///
/// # Errors
/// A file that is damaged, hostile, or of no known system; names and shapes that do not fit, all of them.
pub fn import(request: &Request, plugins: &Plugins) -> Result<Imported> {
    let mut published = Published::open(&request.file, request.weights, request.config.as_deref(), request.size)?;
    let system = match &request.system {
        Some(name) => system(name)?,
        None => systems::ALL.iter().find(|system| (system.recognises)(&published)).ok_or_else(|| {
            let known = systems::ALL.iter().map(|system| {
                let needs = system.configuration.map_or(String::new(), |name| format!(", with its {name}"));
                format!("  {}: {}{needs}", system.name, system.about)
            });
            let known: Vec<String> = known.collect();
            published.wrong(format!("it is of no system that is known by its names:\n{}", known.join("\n")))
        })?,
    };
    (system.prepare)(&mut published);
    let mut metadata =
        BTreeMap::from([("system".to_owned(), system.name.to_owned()), ("source".to_owned(), source(&request.file))]);
    let parts = match &request.trial {
        Some(trial) => trial.parts(system, plugins)?,
        None => (system.read)(&published)?,
    };
    let (components, image, ours, depth) = match parts {
        Parts::Tokenizer { image, autoencoder, quantizer } => {
            let components = vec![("autoencoder", autoencoder), ("quantizer", quantizer)];
            metadata.insert("image".to_owned(), format!("{} {} {}", image[0], image[1], image[2]));
            let model = tokenizer(plugins, &components, image, Params::dry())?;
            (components, Some(image), shapes(&model.params), model.depth())
        }
        Parts::Prior { prior, levels, condition, null } => {
            let params = Params::dry();
            let (level, depth) = (levels.len().saturating_sub(1), levels.last().map_or(0, LevelInfo::depth));
            let context = PriorContext {
                levels,
                level,
                condition,
                null_condition: null,
                params: params.scope("prior"),
                components: Components::none(),
            };
            plugins.prior(&resolve_call(plugins, Kind::Prior, &prior)?, &context)?;
            metadata.insert("null_condition".to_owned(), null.to_string());
            (vec![("prior", prior)], None, shapes(&params), depth)
        }
    };
    let facts = Facts::of(&ours, depth);
    let tensors = names::take(&published, &ours, |name| (system.rule)(name, &facts), system.unused)?;
    metadata.extend(components.iter().map(|(slot, call)| ((*slot).to_owned(), call.clone())));
    let checkpoint = Checkpoint { tensors, metadata, ..Checkpoint::default() }.sealed();
    let has_averages = request.weights == Weights::Plain && published.has_averages();
    Ok(Imported { system: system.name, about: system.about, components, image, checkpoint, has_averages })
}

fn source(file: &Path) -> String {
    file.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn shapes(params: &Params) -> Shapes {
    params.entries().into_iter().map(|(name, entry)| (name, entry.shape)).collect()
}

/// The tokenizer that components make, on parameters of `params`.
fn tokenizer(plugins: &Plugins, components: &[(&str, String)], image: [usize; 3], params: Params) -> Result<Tokenizer> {
    let (mut autoencoder, mut quantizers): (Vec<Call>, Vec<Call>) = (Vec::new(), Vec::new());
    for (slot, call) in components {
        match *slot {
            "autoencoder" => autoencoder.push(resolve_call(plugins, Kind::Autoencoder, call)?),
            _ => quantizers.push(resolve_call(plugins, Kind::Quantizer, call)?),
        }
    }
    let [autoencoder] = &autoencoder[..] else {
        return Err(Error::Checkpoint("an imported tokenizer names no autoencoder".to_owned()));
    };
    Tokenizer::build(plugins, autoencoder, &quantizers, image, params)
}

/// A tokenizer with the weights of an imported file, and its identity.
///
/// # Errors
/// A file that was not made by [`import`], or is damaged.
pub fn open_tokenizer(plugins: &Plugins, file: &Path) -> Result<Tokenizer> {
    tokenizer_of(plugins, file, &Checkpoint::load_sealed(file)?)
}

/// What an imported file is of.
///
/// # Errors
/// As for [`open_tokenizer`].
pub fn made(plugins: &Plugins, file: &Path, checkpoint: &Checkpoint) -> Result<Made> {
    let call = |slot: &str| {
        let text = checkpoint.metadata.get(slot)?;
        let (name, settings) = text.split_at(text.find('(').unwrap_or(text.len()));
        Some((name.to_owned(), settings.to_owned()))
    };
    let components = ["autoencoder", "quantizer", "prior"].into_iter().filter_map(call).collect();
    if checkpoint.metadata.contains_key("prior") {
        return Ok(Made { components, ..Made::default() });
    }
    let model = tokenizer_of(plugins, file, checkpoint)?;
    let channels = checkpoint.metadata.get("image").and_then(|sides| sides.rsplit(' ').next()?.parse().ok());
    Ok(Made { components, depth: model.depth(), channels })
}

fn tokenizer_of(plugins: &Plugins, file: &Path, checkpoint: &Checkpoint) -> Result<Tokenizer> {
    let text = |name: &str| checkpoint.metadata.get(name).cloned();
    let lacks = || {
        let message = "it holds no tokenizer; `rqlab import` makes such files";
        Error::Checkpoint(format!("{}: {message}", file.display()))
    };
    let (autoencoder, quantizer) = (text("autoencoder").ok_or_else(lacks)?, text("quantizer").ok_or_else(lacks)?);
    let sides: Vec<usize> = text("image").ok_or_else(lacks)?.split(' ').filter_map(|side| side.parse().ok()).collect();
    let image = <[usize; 3]>::try_from(sides).map_err(|_| lacks())?;
    let components = [("autoencoder", autoencoder), ("quantizer", quantizer)];
    let model = tokenizer(plugins, &components, image, Params::new(0))?;
    model.params.load(&checkpoint.tensors)?;
    Ok(model)
}

/// What a state is of that is to be exported.
#[derive(Debug, Default)]
pub struct Made {
    /// The autoencoder and the quantizers, or the prior: name, and settings in brackets.
    pub components: Vec<(String, String)>,
    /// Codes per position.
    pub depth: usize,
    /// Channels of the images, of a tokenizer.
    pub channels: Option<usize>,
}

impl Made {
    /// That a file of a system can hold it.
    fn fits(&self, system: &System, state: &BTreeMap<String, Tensor>) -> Result<()> {
        let quoted = |names: &[&str]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" and ");
        let mut names: Vec<&str> = self.components.iter().map(|(name, _)| name.as_str()).collect();
        names.dedup();
        if names != system.made_of {
            let (theirs, ours) = (quoted(system.made_of), quoted(&names));
            let message = format!("{} ({}) is made of {theirs}, and this of {ours}", system.name, system.about);
            return Err(Error::Unsupported(message));
        }
        let read = state.get("autoencoder.encoder.conv_in.weight").map(|weight| weight.shape()[1]);
        match (read, self.channels) {
            (Some(read), Some(channels)) if read != channels => Err(Error::Unsupported(format!(
                "the encoder reads patches, {read} numbers for images of {channels} channels: published code reads pixels"
            ))),
            _ => Ok(()),
        }
    }
}

/// A tokenizer's or prior's state under the names of a published system. What made it stands in the file's metadata.
///
/// # Errors
/// A system that is not known, or is made of other components; parameters that have no name there.
pub fn export(state: &BTreeMap<String, Tensor>, made: &Made, system_name: &str) -> Result<Checkpoint> {
    let system = system(system_name)?;
    made.fits(system, state)?;
    let ours = state.iter().map(|(name, tensor)| (name.clone(), tensor.shape().to_vec())).collect();
    let facts = Facts::of(&ours, made.depth);
    let tensors = names::give(state, |name| (system.rule)(name, &facts))?;
    let made_by = made.components.iter().map(|(name, settings)| format!("{name}{settings}")).collect::<Vec<_>>();
    let metadata = [("made_by".to_owned(), made_by.join(", "))].into();
    Ok(Checkpoint { tensors, metadata, ..Checkpoint::default() })
}
