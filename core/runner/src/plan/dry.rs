//! Components built on a store of parameters that only counts: what they are told, what is wrong with that, and how large they are.

use crate::job::Call;
use crate::plugins::Plugins;
use crate::stages::start::{self, Frozen};
use crate::stages::{Tokenizer, Told, level_scope, of_level};
use crate::weights::WeightsFile;
use rqlab_sdk::Error;
use rqlab_sdk::config::ConfigError;
use rqlab_sdk::contracts::{
    AutoencoderContext, CaptionInfo, Components, DatasetContext, DatasetInfo, LevelInfo, MapShape, Network,
    NetworkRequest, ObjectiveContext, PriorContext, QuantizerContext, Split, TokenRequest, Weight,
};
use rqlab_sdk::params::Params;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

pub(super) type Answer<T> = Result<T, Problem>;

/// What is wrong with what a slot holds, kept without its origin: equal calls may be written in several places.
#[derive(Clone)]
pub(super) struct Problem {
    /// The call that it is about, of a list; none if it is about the whole slot.
    pub(super) item: Option<usize>,
    pub(super) error: ConfigError,
    /// Whether it is that a file is not on this machine.
    pub(super) is_lack: bool,
}

impl Problem {
    /// About the whole slot.
    pub(super) fn whole(message: String) -> Self {
        Self { item: None, error: ConfigError::whole(message), is_lack: false }
    }

    /// About a field of the slot's one call.
    pub(super) fn field(field: &str, message: String) -> Self {
        Self { item: Some(0), error: ConfigError::field(field, message), is_lack: false }
    }

    /// The same about another call of the list.
    pub(super) fn of_item(self, item: usize) -> Self {
        Self { item: self.item.map(|_| item), ..self }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let is_lack = matches!(&error, Error::File { source, .. } if source.kind() == ErrorKind::NotFound);
        let error = match error {
            Error::Config(error) => error,
            // Where the data are is what most of its errors are about.
            error @ (Error::Data(_) | Error::File { .. }) => ConfigError::field("path", error.to_string()),
            other => ConfigError::whole(other.to_string()),
        };
        Self { item: Some(0), error, is_lack }
    }
}

/// What is known of an opened data set.
#[derive(Clone)]
pub(super) struct Opened {
    /// What it is.
    pub(super) info: Arc<DatasetInfo>,
    /// Why its images cannot be read, if they are not there.
    pub(super) absent: Option<String>,
    /// How many variants of an image it lists.
    pub(super) variants: Option<usize>,
    /// What captions it has.
    pub(super) captions: Option<CaptionInfo>,
}

/// How many numbers the parameters of a part have, and its buffers.
pub(super) type Sizes = (usize, usize);

/// What was learnt of the quantizers.
#[derive(Clone)]
pub(super) struct Quantizers {
    /// The tokens of each level.
    pub(super) levels: Vec<LevelInfo>,
    /// Of all.
    pub(super) sizes: Sizes,
    /// Numbers that a step of training makes for an image, beside latents.
    pub(super) activations: usize,
}

/// What was learnt of priors.
#[derive(Clone, Copy)]
pub(super) struct Priors {
    /// Parameters that they train.
    pub(super) count: usize,
    /// Whether some want to be fed with tokens that are made anew at each step.
    pub(super) latents: bool,
    /// Whether a condition changes what all of them draw.
    pub(super) guidable: bool,
    /// Whether all of them draw codes.
    pub(super) draws_codes: bool,
    /// Logits of an image over the codes of a level, where that is drawn as codes; the most of a level.
    pub(super) logits: usize,
}

pub(super) fn open(plugins: &Plugins, call: &Call, base: &Path) -> Answer<Opened> {
    let data =
        plugins.dataset(call, &DatasetContext { base: base.to_owned(), progress: plugins.progress().clone() })?;
    let info = data.info().clone();
    for split in [Split::Train, Split::Test] {
        if info.len(split) == 0 {
            let message = format!("there are no {} images", split.name());
            return Err(Error::Unsupported(message).into());
        }
    }
    let variants = data.variants().or(info.summary.augmentation.is_empty().then_some(1));
    let (absent, captions) = (data.absent().map(str::to_owned), data.caption_info().cloned());
    Ok(Opened { info: Arc::new(info), absent, variants, captions })
}

/// The latents of a level: what its quantizer is built for, and what the decoder reads in their place.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Latents {
    pub(super) encoded: MapShape,
    pub(super) decoded: MapShape,
}

pub(super) fn dry_autoencoder(plugins: &Plugins, call: &Call, image: [usize; 3]) -> Answer<(Vec<Latents>, Sizes)> {
    let params = Params::dry();
    let context =
        AutoencoderContext { image: shape(image), params: params.scope("autoencoder"), components: Components::none() };
    let built = plugins.autoencoder(call, &context)?;
    let levels = built.levels().into_iter().zip(built.decoder_levels());
    let levels = levels.map(|(encoded, decoded)| Latents { encoded, decoded }).collect();
    Ok((levels, (params.count(), params.buffers())))
}

fn shape([height, width, channels]: [usize; 3]) -> MapShape {
    MapShape { height, width, channels }
}

pub(super) fn dry_quantizers(plugins: &Plugins, calls: &[Call], latents: &[Latents]) -> Answer<Quantizers> {
    one_per_level("quantizer", calls, latents.len())?;
    let (params, mut activations) = (Params::dry(), 0);
    let level = |(level, latents_of): (usize, &Latents)| {
        let params = params.scope(level_scope("quantizer", level, latents.len()));
        let context = QuantizerContext { latents: latents_of.encoded, params, components: Components::none() };
        let call = of_level(calls, level)?;
        let built = plugins.quantizer(call, &context).map_err(|error| Problem::from(error).of_item(level))?;
        activations += built.activations();
        let built = built.level();
        decodable(&call.name, latents_of, &built).map_err(|problem| problem.of_item(level))?;
        Ok(built)
    };
    let levels = latents.iter().enumerate().map(level).collect::<Answer<_>>()?;
    Ok(Quantizers { levels, sizes: (params.count(), params.buffers()), activations })
}

/// Whether the decoder reads what a quantizer makes of the latents.
fn decodable(quantizer: &str, latents: &Latents, made: &LevelInfo) -> Answer<()> {
    let (encoded, decoded) = (latents.encoded.channels, latents.decoded.channels);
    if made.channels == decoded {
        return Ok(());
    }
    let remedy = if encoded == decoded {
        "let the autoencoder encode twice as many channels as it decodes (`double_z: true`), or take a quantizer that keeps \
         their number"
    } else {
        "take a quantizer that makes one channel of two, a mean and a log-variance, such as `kl`, or let the autoencoder encode \
         as many channels as it decodes (`double_z: false`)"
    };
    let message = format!(
        "`{quantizer}` makes {} channels of the {encoded} that are encoded, and the decoder reads {decoded}: {remedy}",
        made.channels
    );
    Err(Problem { item: Some(0), error: ConfigError::whole(message), is_lack: false })
}

/// A list of components has one for each level; a single one is for all.
fn one_per_level(what: &str, calls: &[Call], levels: usize) -> Answer<()> {
    if calls.len() == 1 || calls.len() == levels {
        return Ok(());
    }
    let them = if levels == 1 { "one level" } else { &format!("{levels} levels") };
    let message = format!(
        "there are {} {what}s, and the autoencoder has {them}: give one per level, or one for all",
        calls.len()
    );
    Err(Problem::whole(message))
}

/// What was learnt of objectives.
#[derive(Clone)]
pub(super) struct Objectives {
    /// Parameters that critics train.
    pub(super) count: usize,
    /// The networks that they measure with, and which of them does.
    pub(super) networks: Vec<(usize, NetworkRequest)>,
}

pub(super) fn dry_objectives(plugins: &Plugins, calls: &[Call], image: [usize; 3], steps: u64) -> Answer<Objectives> {
    let params = Params::dry();
    // Weights may move: all of a training is silent if its beginning, its middle and its end are.
    let looked_at = [0, steps / 2, steps.saturating_sub(1)];
    let mut silent = steps > 0;
    let mut networks = Vec::new();
    for (i, call) in calls.iter().enumerate() {
        let params = params.scope("objective").scope(i);
        let context = ObjectiveContext::new(shape(image), params);
        let objective = plugins.objective(call, &context).map_err(|error| Problem::from(error).of_item(i))?;
        networks.extend(objective.network().map(|network| (i, network)));
        silent &= looked_at.iter().all(|&step| objective.weight(step) == Weight::Fixed(0.0));
    }
    if silent {
        return Err(Problem::whole("all objectives have the weight 0: nothing would train the decoder".to_owned()));
    }
    Ok(Objectives { count: params.count(), networks })
}

/// Whether a file holds the network that an objective measures with.
pub(super) fn dry_objective_weights(
    plugins: &Plugins,
    call: &Call,
    image: [usize; 3],
    file: &WeightsFile,
) -> Answer<()> {
    let network = Some(Network::Weights(file.load()?));
    plugins.objective(call, &ObjectiveContext { network, ..ObjectiveContext::new(shape(image), Params::dry()) })?;
    Ok(())
}

/// Whether a tokenizer's file fits it, and the parameters that it is to leave as they are exist.
pub(super) fn dry_tokenizer_start(
    plugins: &Plugins,
    autoencoder: &Call,
    quantizers: &[Call],
    image: [usize; 3],
    from: Option<&WeightsFile>,
    freeze: &[String],
) -> Answer<()> {
    let model = Tokenizer::build(plugins, autoencoder, quantizers, image, Params::dry())?;
    fitting(&model.params, &model.scopes(), from, freeze)
}

/// The same of a prior.
pub(super) fn dry_prior_start(
    plugins: &Plugins,
    calls: &[Call],
    levels: &[LevelInfo],
    told: Told,
    from: &[WeightsFile],
    freeze: &[String],
) -> Answer<()> {
    if !from.is_empty() && from.len() != levels.len() {
        let message = format!(
            "there are {} levels with a prior each, and {} to start them from; name a file for each, the coarsest level first",
            levels.len(),
            if from.len() == 1 { "one file".to_owned() } else { format!("{} files", from.len()) }
        );
        return Err(Problem::field("from", message));
    }
    let fits = |null_condition: bool| -> Answer<()> {
        for level in 0..levels.len() {
            let params = Params::dry();
            let context = PriorContext {
                levels: levels.to_vec(),
                level,
                condition: told.space,
                null_condition,
                params: params.scope("prior"),
                components: Components::none(),
            };
            plugins.prior(of_level(calls, level)?, &context)?;
            fitting(&params, &[], from.get(level), freeze)?;
        }
        Ok(())
    };
    fits(told.null).map_err(|problem| {
        if fits(!told.null).is_err() {
            return problem;
        }
        let message = if told.null {
            "these weights have no null condition, which a prior learns where conditions are dropped: set \
             `condition_dropout: 0.0`; it cannot be guided then"
        } else {
            "these weights have a null condition, which a prior learns where conditions are dropped: set \
             `condition_dropout: 0.1`"
        };
        Problem::field("from", message.to_owned())
    })
}

fn fitting(params: &Params, scopes: &[String], from: Option<&WeightsFile>, freeze: &[String]) -> Answer<()> {
    if let Some(file) = from {
        start::check(file, params).map_err(|error| Problem::field("from", error.to_string()))?;
    }
    let frozen = Frozen::new(params, freeze, scopes);
    frozen.map(|_| ()).map_err(|error| Problem::field("freeze", error.to_string()))
}

pub(super) fn dry_priors(plugins: &Plugins, calls: &[Call], levels: &[LevelInfo], told: Told) -> Answer<Priors> {
    one_per_level("prior", calls, levels.len())?;
    let mut all = Priors { count: 0, latents: false, guidable: true, draws_codes: true, logits: 0 };
    for level in 0..levels.len() {
        let params = Params::dry();
        let context = PriorContext {
            levels: levels.to_vec(),
            level,
            condition: told.space,
            null_condition: told.null,
            params: params.scope("prior"),
            components: Components::none(),
        };
        let built = plugins.prior(of_level(calls, level)?, &context);
        let prior = built.map_err(|error| Problem::from(error).of_item(level))?;
        all.latents |= prior.wants() != TokenRequest::default();
        all.guidable &= prior.can_be_guided();
        all.draws_codes &= prior.draws_codes();
        if prior.draws_codes() {
            let of_level = levels[level].positions() * levels[level].sizes().iter().sum::<usize>();
            all.logits = all.logits.max(of_level);
        }
        all.count += params.count();
    }
    Ok(all)
}
