//! The fourth pass: every model built once on a store of parameters that only counts. What is wrong is found before work is
//! wasted, and what a trial costs is known.

use crate::experiment::{Complaints, Diagnostic, Setup, Slot};
use crate::id::Id;
use crate::job::Call;
use crate::plan::components::Resolved;
use crate::plan::data::DataSet;
use crate::plan::drawing;
use crate::plan::dry::{
    Answer, Latents, Objectives, Opened, Priors, Problem, Quantizers, Sizes, dry_autoencoder, dry_objective_weights,
    dry_objectives, dry_prior_start, dry_priors, dry_quantizers, dry_tokenizer_start, open,
};
use crate::plan::memory::{self, Memory};
use crate::plan::setups::Combination;
use crate::plugins::Plugins;
use crate::settings::{Conditioning, Evaluation, MissingCaptions, MissingWeights};
use crate::stages::{TextSpace, Told, divides};
use crate::weights::WeightsFile;
use rqlab_sdk::contracts::{CaptionInfo, DatasetInfo, LevelInfo, NetworkRequest};
use std::collections::HashMap;
use std::hash::Hash;
use std::path::Path;
use std::sync::Arc;

/// What a trial's models are.
#[derive(Debug, Clone)]
pub struct Model {
    /// Parameters of the autoencoder.
    pub autoencoder: usize,
    /// Parameters of the quantizers: K x C for each codebook, whether an optimizer or averages move it.
    pub quantizer: usize,
    /// Numbers that the tokenizer keeps beside its parameters, such as the sums of codebooks that are averages.
    pub buffers: usize,
    /// Trained parameters of the objectives: critics.
    pub objectives: usize,
    /// Whether an objective measures with the classifier of the data set.
    pub classifier: bool,
    /// Trained parameters of the priors, if there are any.
    pub prior: Option<usize>,
    /// The tokens of one image at each level.
    pub levels: Vec<LevelInfo>,
    /// Whether some prior is fed with tokens that are made anew at each step.
    pub latents: bool,
    /// What they are trained and measured on.
    pub data: Arc<DataSet>,
    /// Fixed variants of an image that the data set's augmentation lists, 1 without any; none where it lists none.
    pub variants: Option<usize>,
    /// The captions that priors are told, if they are told some.
    pub text: Option<TextSpace>,
    /// What these captions name, of which samples are asked whether they obey.
    pub attributes: usize,
    /// Numbers that the quantizers make for an image in a step of training, beside latents.
    pub activations: usize,
    /// Logits that the priors make for an image in a step of training.
    pub logits: usize,
    /// What a trial of them takes of memory at least, as far as shapes tell.
    pub memory: Memory,
}

impl Model {
    /// Bits of an image when every code is stored with log2 K bits; none if some tokens are vectors.
    pub fn nominal_bits(&self) -> Option<f64> {
        self.levels.iter().map(LevelInfo::nominal_bits).sum()
    }
}

/// What building the models showed.
#[derive(Clone)]
pub(super) struct Measured {
    pub(super) model: Arc<Model>,
    /// The digest of its data.
    pub(super) digest: Id,
    /// What is not on this machine, and need not be for a plan: images of which the configuration says enough, and weights that
    /// objectives measure with.
    pub(super) absent: Vec<Diagnostic>,
}

/// A combination with its models.
pub(super) struct Modelled {
    pub(super) combination: Combination,
    pub(super) resolved: Resolved,
    pub(super) measured: Measured,
}

/// Builds the models of all combinations; one that cannot be is left out, with a complaint.
pub(super) fn build(
    resolved: Vec<(Combination, Resolved)>,
    plugins: &Plugins,
    complaints: &mut Complaints,
) -> Vec<Modelled> {
    let mut models = Models::new(plugins);
    let modelled = resolved.into_iter().filter_map(|(combination, resolved)| {
        let measured = complaints.take(models.build(&combination.setup, &resolved))?;
        Some(Modelled { combination, resolved, measured })
    });
    modelled.collect()
}

/// Whether the parts that a step is cut into are of one size.
fn parts(setup: &Setup, resolved: &Resolved) -> Result<(), Diagnostic> {
    let (tokenizer, prior) = (&resolved.tokenizer_training, &resolved.prior_training);
    let divides = |slot, batch, parts| {
        divides(batch, 1, parts)
            .map_err(|error| at(setup, slot, &Problem::field("gradient_accumulation", error.to_string())))
    };
    divides(Slot::TokenizerTraining, tokenizer.batch, tokenizer.gradient_accumulation)?;
    divides(Slot::PriorTraining, prior.batch, prior.gradient_accumulation)
}

/// Answers that were given before.
struct Known<K, V>(HashMap<K, Answer<V>>);

impl<K: Eq + Hash, V: Clone> Known<K, V> {
    fn get(&mut self, key: K, make: impl FnOnce(&K) -> Answer<V>) -> Answer<V> {
        if let Some(answer) = self.0.get(&key) {
            return answer.clone();
        }
        let answer = make(&key);
        self.0.insert(key, answer.clone());
        answer
    }
}

/// What priors are built from: their calls, the quantizers' calls, the latents, and what they are told.
type PriorKey = (Arc<[Call]>, Arc<[Call]>, Vec<Latents>, Told);

/// What objectives are told: their calls, the image, and the steps over which their weights may move.
type ObjectivesKey = (Arc<[Call]>, [usize; 3], u64);

/// What a tokenizer is that starts from a file or leaves parameters as they are: its calls, the image, the file, the names.
type StartKey = (Call, Arc<[Call]>, [usize; 3], Option<WeightsFile>, Vec<String>);

/// Builds models, each part once for all combinations that have it in common.
struct Models<'a> {
    plugins: &'a Plugins,
    data: Known<(Call, Arc<Path>), Opened>,
    autoencoders: Known<(Call, [usize; 3]), (Vec<Latents>, Sizes)>,
    quantizers: Known<(Arc<[Call]>, Vec<Latents>), Quantizers>,
    objectives: Known<ObjectivesKey, Objectives>,
    priors: Known<PriorKey, Priors>,
    weights: Known<WeightsFile, ()>,
    objective_weights: Known<(Call, [usize; 3], WeightsFile), ()>,
    tokenizer_starts: Known<StartKey, ()>,
}

impl<'a> Models<'a> {
    fn new(plugins: &'a Plugins) -> Self {
        Self {
            plugins,
            data: Known(HashMap::new()),
            autoencoders: Known(HashMap::new()),
            quantizers: Known(HashMap::new()),
            objectives: Known(HashMap::new()),
            priors: Known(HashMap::new()),
            weights: Known(HashMap::new()),
            objective_weights: Known(HashMap::new()),
            tokenizer_starts: Known(HashMap::new()),
        }
    }

    /// Builds a combination's models.
    fn build(&mut self, setup: &Setup, resolved: &Resolved) -> Result<Measured, Diagnostic> {
        let plugins = self.plugins;
        let Opened { info, absent, variants, captions } = self
            .data
            .get((resolved.data.clone(), resolved.base.clone()), |(call, base)| open(plugins, call, base))
            .map_err(|problem| at(setup, Slot::Data, &problem))?;
        let (latents, (autoencoder, kept)) = self
            .autoencoders
            .get((resolved.autoencoder.clone(), info.image), |(call, image)| dry_autoencoder(plugins, call, *image))
            .map_err(|problem| at(setup, Slot::Autoencoder, &problem))?;
        let Quantizers { levels, sizes: (quantizer, kept_by_quantizer), activations } = self
            .quantizers
            .get((resolved.quantizers.clone(), latents.clone()), |(calls, latents)| {
                dry_quantizers(plugins, calls, latents)
            })
            .map_err(|problem| at(setup, Slot::Quantizer, &problem))?;
        if resolved.tokenizer_training.quantize_after > 0 && latents.iter().any(|level| level.encoded != level.decoded)
        {
            let message = "until the quantizer's turn comes latents pass as they are, and this decoder does not read as many \
                           channels as are encoded: leave `quantize_after` at 0";
            return Err(at(setup, Slot::TokenizerTraining, &Problem::field("quantize_after", message.to_owned())));
        }
        let objectives = self
            .objectives
            .get(
                (resolved.objectives.clone(), info.image, resolved.tokenizer_training.steps),
                |(calls, image, steps)| dry_objectives(plugins, calls, *image, *steps),
            )
            .map_err(|problem| at(setup, Slot::Objective, &problem))?;
        let (classifier, absent_weights) = self.networks(setup, resolved, &objectives, &info)?;
        let classes = info.classes.len();
        let text = if resolved.priors.is_empty() { None } else { text(setup, resolved, captions.as_ref())? };
        let told = Told::of(&resolved.prior_training, classes, text);
        let prior = match resolved.priors.is_empty() {
            true => None,
            false => {
                let key = (resolved.priors.clone(), resolved.quantizers.clone(), latents, told);
                let answer = self.priors.get(key, |(calls, _, _, told)| dry_priors(plugins, calls, &levels, *told));
                Some(answer.map_err(|problem| at(setup, Slot::Prior, &problem))?)
            }
        };
        parts(setup, resolved)?;
        self.starts(setup, resolved, info.image, &levels, told)?;
        self.weights(setup, resolved)?;
        drawing::guidance(setup, resolved, told, prior.is_none_or(|priors| priors.guidable))?;
        drawing::tuning(setup, resolved, classes, info.test)?;
        drawing::cuts(setup, resolved, prior.is_none_or(|priors| priors.draws_codes))?;
        if let Some(probe) = &resolved.probe
            && levels.iter().all(|level| level.code_space().is_some())
        {
            let told = Told { space: Told::classes(classes), null: false };
            dry_priors(plugins, std::slice::from_ref(probe), &levels, told).map_err(|problem| {
                at(setup, Slot::Evaluation, &Problem::field("probe_steps", problem.error.message))
            })?;
        }
        if !resolved.evaluation.all.perturbation.is_empty() && classes < 2 {
            let message = "the distance of perturbed codes is taken on features of a classifier, which needs images of two classes or more";
            return Err(at(setup, Slot::Evaluation, &Problem::field("perturbation", message.to_owned())));
        }
        drawing::samples(setup, resolved, &info.classes, absent.is_some())?;
        let data = DataSet { name: data_name(setup, &resolved.data), info: info.clone() };
        let mut model = Model {
            autoencoder,
            quantizer,
            buffers: kept + kept_by_quantizer,
            objectives: objectives.count,
            classifier,
            prior: prior.map(|priors| priors.count),
            latents: prior.is_some_and(|priors| priors.latents),
            levels,
            data: Arc::new(data),
            variants,
            text,
            attributes: captions.filter(|_| text.is_some()).map_or(0, |captions| captions.attributes.len()),
            activations,
            logits: prior.map_or(0, |priors| priors.logits),
            memory: Memory::default(),
        };
        model.memory =
            Memory::least(&model, &resolved.tokenizer_training, &resolved.prior_training, &resolved.evaluation.all);
        let least = model.memory.bytes(1);
        if least > memory::TOO_MUCH {
            let message = format!(
                "training takes at least {:.1e} GiB of memory, which no machine has: make the models, the codebooks, the batch or \
                 the images smaller",
                least / f64::from(1 << 30)
            );
            return Err(setup.complaint(Slot::Autoencoder, &message));
        }
        let images = absent.map(|message| at(setup, Slot::Data, &Problem::field("path", message)));
        Ok(Measured {
            digest: info.digest.as_str().into(),
            model: Arc::new(model),
            absent: images.into_iter().chain(absent_weights).collect(),
        })
    }

    /// Whether the networks that objectives measure with can be had: whether the classifier of the data set is among them, and
    /// which files are not there.
    fn networks(
        &mut self,
        setup: &Setup,
        resolved: &Resolved,
        objectives: &Objectives,
        info: &DatasetInfo,
    ) -> Result<(bool, Vec<Diagnostic>), Diagnostic> {
        let plugins = self.plugins;
        let (mut classifier, mut absent) = (false, Vec::new());
        for (item, network) in &objectives.networks {
            let complain = |problem: Problem| at(setup, Slot::Objective, &Problem { item: Some(*item), ..problem });
            match network {
                NetworkRequest::Classifier if info.classes.len() < 2 => {
                    let message =
                        "the laboratory's own classifier is trained on labels, and these images have no two classes";
                    return Err(complain(Problem::whole(message.to_owned())));
                }
                NetworkRequest::Classifier => classifier = true,
                NetworkRequest::Weights { path, digest } => {
                    let file = WeightsFile { path: resolved.base.join(path), digest: digest.clone() };
                    if !file.path.exists() {
                        let message =
                            format!("{} is not there; docs/weights.md tells how to make the file", file.path.display());
                        absent.push(complain(Problem::field("weights", message)));
                        continue;
                    }
                    let key = (resolved.objectives[*item].clone(), info.image, file);
                    let answer = self
                        .objective_weights
                        .get(key, |(call, image, file)| dry_objective_weights(plugins, call, *image, file));
                    answer.map_err(|problem| complain(Problem::field("weights", problem.error.message)))?;
                }
            }
        }
        Ok((classifier, absent))
    }

    /// Whether what training starts from fits, and what it is to leave as it is exists.
    fn starts(
        &mut self,
        setup: &Setup,
        resolved: &Resolved,
        image: [usize; 3],
        levels: &[LevelInfo],
        told: Told,
    ) -> Result<(), Diagnostic> {
        let plugins = self.plugins;
        let training = &resolved.tokenizer_training;
        if resolved.tokenizer_from.is_some() || !training.freeze.is_empty() {
            let key = (
                resolved.autoencoder.clone(),
                resolved.quantizers.clone(),
                image,
                resolved.tokenizer_from.clone(),
                training.freeze.clone(),
            );
            let answer = self.tokenizer_starts.get(key, |(autoencoder, quantizers, image, from, freeze)| {
                dry_tokenizer_start(plugins, autoencoder, quantizers, *image, from.as_ref(), freeze)
            });
            answer.map_err(|problem| at(setup, Slot::TokenizerTraining, &problem))?;
        }
        let training = &resolved.prior_training;
        if (!resolved.prior_from.is_empty() || !training.freeze.is_empty()) && !resolved.priors.is_empty() {
            let (from, freeze) = (&resolved.prior_from, &training.freeze);
            dry_prior_start(plugins, &resolved.priors, levels, told, from, freeze)
                .map_err(|problem| at(setup, Slot::PriorTraining, &problem))?;
        }
        Ok(())
    }

    /// Whether the weights that measures look with are there, and are those that they are said to be.
    fn weights(&mut self, setup: &Setup, resolved: &Resolved) -> Result<(), Diagnostic> {
        let evaluation = &resolved.evaluation.all;
        let protocols = evaluation.published_protocols();
        let mut check = |setting: &str, given: bool| -> Answer<bool> {
            match evaluation.weights(setting, &resolved.base) {
                Some(file) => {
                    let answer = self.weights.get(file, |file| Ok(file.check_network(setting)?));
                    answer.map_err(|problem| Problem::field(setting, problem.error.to_string()))?;
                    Ok(true)
                }
                None if given => Err(Problem::field(
                    &format!("{setting}_digest"),
                    format!("the SHA-256 of `{setting}` is not given: docs/weights.md tells how it is found"),
                )),
                None => Ok(false),
            }
        };
        for protocol in &protocols {
            let setting = Evaluation::extractor_setting(*protocol);
            let given = check(setting, if setting == "dinov2" { evaluation.dinov2.is_some() } else { false });
            let given = given.map_err(|problem| at(setup, Slot::Evaluation, &problem))?;
            if !given && evaluation.missing_weights == MissingWeights::Refuse {
                let message = format!(
                    "the protocol `{}` looks with weights that `{setting}` must name: docs/weights.md tells where they are and \
                     how to convert them; with `missing_weights: leave_out` its distances are left out",
                    protocol.name()
                );
                return Err(at(setup, Slot::Evaluation, &Problem::field("protocols", message)));
            }
        }
        if evaluation.lpips.is_some() {
            if protocols.is_empty() {
                let message = "LPIPS is measured by published protocols, of which `protocols` names none".to_owned();
                return Err(at(setup, Slot::Evaluation, &Problem::field("lpips", message)));
            }
            check("lpips", true).map_err(|problem| at(setup, Slot::Evaluation, &problem))?;
        }
        Ok(())
    }
}

/// The captions that priors are told, if they are told some; images that have none, where they must.
fn text(setup: &Setup, resolved: &Resolved, captions: Option<&CaptionInfo>) -> Result<Option<TextSpace>, Diagnostic> {
    let training = &resolved.prior_training;
    if training.condition != Conditioning::Text {
        return Ok(None);
    }
    let refused = |field: &str, message: String| Err(at(setup, Slot::PriorTraining, &Problem::field(field, message)));
    let Some(captions) = captions else {
        let data = &resolved.data.name;
        let remedy = match data.as_str() {
            "folder" | "webdataset" => "set `captions: true` in it, to read the `.txt` beside each image",
            "parquet" => "set `caption_column` in it",
            _ => "take a data set that has some, such as `dead_leaves`",
        };
        return refused(
            "condition",
            format!("the images of `{data}` have no captions that a prior could be told: {remedy}"),
        );
    };
    let missing: usize = captions.missing.iter().sum();
    if missing > 0 && training.missing_captions == MissingCaptions::Refuse {
        let message = format!(
            "{} training and {} test images have no caption: add them, or let these images have the null condition \
             (`missing_captions: allow`)",
            captions.missing[0], captions.missing[1]
        );
        return refused("missing_captions", message);
    }
    let trained = training.text_vocabulary;
    let vocabulary = resolved.text_tokenizer.as_ref().map_or(trained, |(_, vocabulary)| *vocabulary);
    Ok(Some(TextSpace { vocabulary, missing: missing > 0 }))
}

/// A problem where it was written.
pub(super) fn at(setup: &Setup, slot: Slot, problem: &Problem) -> Diagnostic {
    let Some(call) = problem.item.and_then(|item| setup.item(slot, item)) else {
        return setup.complaint(slot, &problem.error.message);
    };
    let mut error = problem.error.clone();
    // Where no path is written, the call itself is what to point at.
    error.field = error.field.filter(|field| field != "path" || call.field("path").is_some());
    Diagnostic { is_lack: problem.is_lack, ..call.refusal(&error) }
}

/// What a plan and a report call a data set: its component, and the path that is written for it.
fn data_name(setup: &Setup, call: &Call) -> String {
    let path = setup.call(Slot::Data).and_then(|written| written.field("path"));
    path.map_or(call.name.clone(), |path| format!("{} {}", call.name, path.value.whole().text()))
}
