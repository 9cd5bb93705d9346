//! Builds every model once on a store of parameters that only counts: what is wrong is found before work is wasted,
//! and what a trial costs is known.

use crate::job::Call;
use crate::plan::Resolved;
use crate::plugins::Plugins;
use crate::spec::component::{Setup, Slot};
use crate::spec::diagnostic::Diagnostic;
use rqlab_sdk::Error;
use rqlab_sdk::contracts::{
    AutoencoderContext, CodeShape, DatasetContext, DatasetInfo, MapShape, PriorContext, PriorLevel, QuantizerContext,
    Split,
};
use rqlab_sdk::params::Params;
use std::path::PathBuf;

/// What a trial's models are.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// Trained numbers of the autoencoder.
    pub autoencoder: usize,
    /// Numbers of the quantizer: trained ones and codebooks that move without an optimizer.
    pub quantizer: usize,
    /// Trained numbers of the prior, if there is one.
    pub prior: Option<usize>,
    /// The codes of one image at each level.
    pub codes: Vec<CodeShape>,
    /// The names of the classes; empty if images carry no label.
    pub classes: Vec<String>,
}

impl Model {
    /// Bits of an image when every code is stored with log2 K bits.
    pub fn nominal_bits(&self) -> f64 {
        self.codes.iter().map(CodeShape::nominal_bits).sum()
    }
}

/// What building the models showed.
#[derive(Clone)]
pub(super) struct Measured {
    pub(super) model: Model,
    pub(super) data_digest: String,
    /// Why the images cannot be read, if this is known only from what the configuration promises.
    pub(super) absent: Option<Diagnostic>,
}

type Answer<T> = Result<T, Problem>;

/// An error of a constructor, kept without its origin: equal calls may be written in several places.
#[derive(Clone)]
struct Problem {
    field: Option<String>,
    message: String,
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Config(error) => Self { message: error.message.clone(), field: error.field },
            // Where the data are is what most of its errors are about.
            Error::Data(message) => Self { field: Some("path".to_owned()), message },
            error @ Error::File { .. } => Self { field: Some("path".to_owned()), message: error.to_string() },
            other => Self { field: None, message: other.to_string() },
        }
    }
}

/// Answers that were given before.
struct Known<K, V>(Vec<(K, Answer<V>)>);

impl<K: PartialEq, V: Clone> Known<K, V> {
    fn get(&mut self, key: K, make: impl FnOnce(&K) -> Answer<V>) -> Answer<V> {
        if let Some((_, answer)) = self.0.iter().find(|(known, _)| *known == key) {
            return answer.clone();
        }
        let answer = make(&key);
        self.0.push((key, answer.clone()));
        answer
    }
}

/// The codes of each level, whether the depths of one share a codebook, and the numbers of all of them.
type Levels = (Vec<CodeShape>, bool, usize);

pub(super) struct Builder<'a> {
    plugins: &'a Plugins,
    data: Known<(Call, PathBuf), (DatasetInfo, Option<String>)>,
    autoencoders: Known<(Call, [usize; 3]), (Vec<MapShape>, usize)>,
    quantizers: Known<(Call, Vec<MapShape>), Levels>,
    priors: Known<(Call, CodeShape, usize, bool, usize), usize>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(plugins: &'a Plugins) -> Self {
        Self {
            plugins,
            data: Known(vec![]),
            autoencoders: Known(vec![]),
            quantizers: Known(vec![]),
            priors: Known(vec![]),
        }
    }

    /// Builds a combination's models.
    pub(super) fn build(&mut self, setup: &Setup, resolved: &Resolved) -> Result<Measured, Diagnostic> {
        let plugins = self.plugins;
        let (info, absent) = self
            .data
            .get((resolved.data.clone(), resolved.base.clone()), |(call, base)| open(plugins, call, base.clone()))
            .map_err(|problem| at(setup, Slot::Data, &problem))?;
        let (levels, autoencoder) = self
            .autoencoders
            .get((resolved.autoencoder.clone(), info.image), |(call, image)| encode(plugins, call, *image))
            .map_err(|problem| at(setup, Slot::Autoencoder, &problem))?;
        let (codes, shared, quantizer) = self
            .quantizers
            .get((resolved.quantizer.clone(), levels.clone()), |(call, levels)| quantize(plugins, call, levels))
            .map_err(|problem| at(setup, Slot::Quantizer, &problem))?;
        let prior = match &resolved.prior {
            None => None,
            Some(call) => {
                let (Some(level), Some(shape), 1) = (codes.first(), levels.first(), levels.len()) else {
                    let message =
                        format!("a prior models one level of codes, and this autoencoder has {}", levels.len());
                    return Err(at(setup, Slot::Prior, &Problem { field: None, message }));
                };
                let key = (call.clone(), level.clone(), shape.channels, shared, info.classes.len());
                Some(self.priors.get(key, |key| model(plugins, key)).map_err(|p| at(setup, Slot::Prior, &p))?)
            }
        };
        Ok(Measured {
            model: Model { autoencoder, quantizer, prior, codes, classes: info.classes },
            data_digest: info.digest,
            absent: absent.map(|message| at(setup, Slot::Data, &Problem { field: Some("path".to_owned()), message })),
        })
    }
}

fn at(setup: &Setup, slot: Slot, problem: &Problem) -> Diagnostic {
    match setup.get(slot) {
        Some(component) => {
            let field = problem.field.as_deref().filter(|f| *f != "path" || component.field("path").is_some());
            component.complaint(field, &problem.message)
        }
        None => Diagnostic::error(problem.message.clone()),
    }
}

fn open(plugins: &Plugins, call: &Call, base: PathBuf) -> Answer<(DatasetInfo, Option<String>)> {
    let data = plugins.dataset(call, &DatasetContext { base })?;
    let info = data.info().clone();
    for split in [Split::Train, Split::Test] {
        if info.len(split) == 0 {
            return Err(Problem { field: None, message: format!("there are no {} images", split.name()) });
        }
    }
    Ok((info, data.absent().map(str::to_owned)))
}

fn encode(plugins: &Plugins, call: &Call, [height, width, channels]: [usize; 3]) -> Answer<(Vec<MapShape>, usize)> {
    let params = Params::dry();
    let image = MapShape { height, width, channels };
    let built = plugins.autoencoder(call, &AutoencoderContext { image, params: params.scope("autoencoder") })?;
    Ok((built.levels(), params.count()))
}

fn quantize(plugins: &Plugins, call: &Call, levels: &[MapShape]) -> Answer<Levels> {
    let params = Params::dry();
    let (mut codes, mut shared) = (Vec::new(), false);
    for (level, &latents) in levels.iter().enumerate() {
        let params = params.scope(quantizer_scope(level, levels.len()));
        let built = plugins.quantizer(call, &QuantizerContext { latents, params })?;
        codes.push(built.code_shape());
        shared = built.shares_codebook();
    }
    Ok((codes, shared, params.entries().iter().map(|(_, e)| e.shape.iter().product::<usize>()).sum()))
}

/// Where a level's quantizer keeps its parameters.
pub fn quantizer_scope(level: usize, levels: usize) -> String {
    if levels == 1 { "quantizer".to_owned() } else { format!("quantizer.{level}") }
}

fn model(
    plugins: &Plugins,
    (call, codes, channels, shared, classes): &(Call, CodeShape, usize, bool, usize),
) -> Answer<usize> {
    if codes.codebooks.is_empty() {
        let message = "the quantizer is continuous, and a prior models codes".to_owned();
        return Err(Problem { field: None, message });
    }
    let params = Params::dry();
    let level = PriorLevel { codes: codes.clone(), channels: *channels, codebooks: vec![], shared: *shared };
    let context = PriorContext { level, upper: None, classes: *classes, params: params.scope("prior") };
    plugins.prior(call, &context)?;
    Ok(params.count())
}
