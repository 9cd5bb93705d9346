//! Trains an autoencoder and its quantizers.

use super::features::FeatureNet;
use super::training::batches::{Order, training_images};
use super::training::means::{LateMean, UNREAD};
use super::training::objectives::{Objectives, SCOPE};
use super::training::start::{self, Frozen};
use super::training::{At, Recipe, Task, train};
use super::{Context, Stage, Tokenizer, as_json, from_json, open_dataset};
use crate::id::Id;
use crate::job::Call;
use crate::settings::{Precision, TokenizerTraining};
use crate::store::Done;
use crate::weights::WeightsFile;
use rqlab_reports::{Index, Reading};
use rqlab_sdk::config::{Config, Scope};
use rqlab_sdk::contracts::{DatasetInfo, Images, LevelInfo, Mode, Network, NetworkRequest, Quantized, Tokens};
use rqlab_sdk::metrics::{CodeCounts, perplexity, usage};
use rqlab_sdk::params::Params;
use rqlab_sdk::tensor::ranks::Step;
use rqlab_sdk::tensor::{Codes, Tensor, Var};
use rqlab_sdk::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Trains an autoencoder with a quantizer at each level, for a list of objectives.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TrainTokenizer {
    /// The data set.
    pub data: Call,
    /// The autoencoder.
    pub autoencoder: Call,
    /// The quantizer of each level, or one for all of them.
    pub quantizers: Vec<Call>,
    /// What it is trained for.
    pub objectives: Vec<Call>,
    /// The classifier of the data set, where an objective measures with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classifier: Option<Id>,
    /// How.
    pub training: TokenizerTraining,
    /// What it starts from, in place of the seed's initial values.
    #[serde(default)]
    pub from: Option<WeightsFile>,
    /// Of initial values, batches and augmentation.
    pub seed: u64,
}

impl TrainTokenizer {
    /// See [`Stage::name`].
    pub const NAME: &str = "tokenizer";
}

impl Stage for TrainTokenizer {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn revision(&self) -> u32 {
        2
    }

    fn needs(&self) -> Vec<&str> {
        self.classifier.as_deref().into_iter().collect()
    }

    fn calls(&self) -> Vec<&Call> {
        [&self.data, &self.autoencoder].into_iter().chain(&self.quantizers).chain(&self.objectives).collect()
    }

    fn identity(&self) -> Result<Value> {
        let trained =
            |calls: &[Call]| calls.iter().map(|call| (call.name.clone(), call.trained.clone())).collect::<Vec<_>>();
        Ok(json!({
            "data": trained(std::slice::from_ref(&self.data)),
            "autoencoder": trained(std::slice::from_ref(&self.autoencoder)),
            "quantizers": trained(&self.quantizers),
            "objectives": trained(&self.objectives),
            "training": self.training.identity(Scope::Training)?,
            "from": self.from.as_ref().map(|file| &file.digest),
            "seed": self.seed,
        }))
    }

    fn precision(&self) -> Precision {
        self.training.precision
    }

    fn batch(&self) -> Option<(usize, usize)> {
        Some((self.training.batch, self.training.gradient_accumulation))
    }

    fn work(&self) -> f64 {
        self.training.steps as f64 * self.training.batch as f64
    }

    fn run(&self, cx: &mut Context<'_>) -> Result<Done> {
        let dataset = open_dataset(cx.plugins, &self.data, cx.job)?;
        let info = dataset.info();
        if info.train == 0 {
            return Err(Error::Data("the data set has no training images".to_owned()));
        }
        cx.agree(&info.digest)?;
        let (training, seed) = (&self.training, self.seed);
        let params = Params::new(seed);
        let model = Tokenizer::build(cx.plugins, &self.autoencoder, &self.quantizers, info.image, params.clone())?;
        if let Some(file) = &self.from {
            start::load(file, &params)?;
        }
        let scopes = model.scopes();
        let frozen = Frozen::new(&params, &training.freeze, &scopes)?;
        let parameters: Vec<_> = params.trained().into_iter().filter(|(name, _)| !frozen.has(name)).collect();
        let (count, buffers) = (params.count(), params.buffers());
        let networks = |request| self.network(cx, info, request);
        let objectives = Objectives::build(cx.plugins, &self.objectives, model.image(), &params, networks)?;
        let recipe = Recipe::from(training);
        let critics = objectives.critics(&recipe);
        let order = Order::new(seed, info.train, training.batch);
        let mut task = Training {
            health: Health::new(&model)?,
            held: scopes.iter().map(|scope| frozen.holds(scope)).collect(),
            frozen: frozen.vars,
            model,
            objectives,
            training: training.clone(),
            seed,
            output: None,
        };
        let trained = train(
            cx,
            &params,
            parameters,
            critics,
            &recipe,
            |at| training_images(dataset.as_ref(), &order, seed, training.augment, at),
            &mut task,
        )?;
        // Critics are of no use once training is over.
        let own = || params.state().into_iter().filter(|(name, _)| !is_critics(name)).collect();
        trained.save(own, &cx.dir().result())?;
        Ok(Done {
            readings: vec![
                Reading::new("tokenizer_parameters", [], count as f64),
                Reading::new("tokenizer_buffers", [], buffers as f64),
            ],
            timings: vec![Reading::new("tokenizer_seconds", [], trained.seconds)],
            curves: trained.curves,
            seconds: trained.earlier,
            ..Done::default()
        })
    }

    fn describe(&self) -> Result<Value> {
        as_json(self)
    }
}

impl TrainTokenizer {
    /// A network that an objective measures with.
    fn network(&self, cx: &Context<'_>, info: &DatasetInfo, request: NetworkRequest) -> Result<Network> {
        match (request, &self.classifier) {
            (NetworkRequest::Weights { path, digest }, _) => {
                Ok(Network::Weights(WeightsFile { path: cx.job.base.join(path), digest }.load()?))
            }
            (NetworkRequest::Classifier, Some(id)) => {
                let net = FeatureNet::load(cx.store, id, info.image[2], info.classes.len())?;
                Ok(Network::Classifier(net.0))
            }
            (NetworkRequest::Classifier, None) => {
                Err(Error::Unsupported("an objective measures with the classifier, which was not planned".to_owned()))
            }
        }
    }
}

/// Whether a name in a tokenizer's state belongs to an objective.
fn is_critics(name: &str) -> bool {
    name.strip_prefix(SCOPE).is_some_and(|rest| rest.starts_with('.'))
}

struct Training {
    model: Tokenizer,
    objectives: Objectives,
    health: Health,
    training: TokenizerTraining,
    seed: u64,
    /// The last reconstruction, for the critics.
    output: Option<Tensor>,
    /// Parameters that stay as they are.
    frozen: Vec<Var>,
    /// Whether each level's quantizer does, whose codebook may follow its vectors without an optimizer.
    held: Vec<bool>,
}

impl Training {
    /// The loss, with all variables as they are found.
    fn recorded(&mut self, at: At, batch: &Images) -> Result<Tensor> {
        let (step, rng) = (at.step, at.rng(self.seed, "tokenizer"));
        let (quantizers, health, held) = (&mut self.model.quantizers, &mut self.health, &self.held);
        let mut added: Vec<Tensor> = Vec::new();
        let passes = step < self.training.quantize_after;
        let mut bottleneck = |level: usize, latents: &Tensor| {
            if passes {
                return Ok(latents.clone());
            }
            let quantized = match held[level] {
                true => quantizers[level].quantize(latents)?,
                false => quantizers[level].quantize_train(latents, &rng.part("quantizer", level as u64))?,
            };
            health.see(level, latents, &quantized)?;
            added.push(quantized.loss);
            Ok(quantized.latents)
        };
        let (autoencoder, mode) = (self.model.autoencoder.as_ref(), Mode::Train(rng));
        let levels = autoencoder.quantized_levels(&batch.pixels, &mut bottleneck, &mode)?;
        let features = autoencoder.decode_features(&levels, &mode)?;
        let (distance, output) = self.objectives.loss(autoencoder, &features, &batch.pixels, step, &rng)?;
        self.output = Some(output);
        added.iter().try_fold(distance, |total, term| Ok(total.add(term)?))
    }
}

impl Task for Training {
    type Batch = Images;

    fn loss(&mut self, at: At, batch: &Images) -> Result<Tensor> {
        let frozen = self.frozen.clone();
        Var::frozen(&frozen, || self.recorded(at, batch))
    }

    fn critic(&mut self, critic: usize, at: At, batch: &Images) -> Result<Option<Tensor>> {
        let rng = at.rng(self.seed, "critic");
        match &self.output {
            Some(output) => self.objectives.critic(critic, &batch.pixels, output, at.step, &rng),
            None => Ok(None),
        }
    }

    fn not_finite(&self) -> Vec<String> {
        self.objectives.not_finite()
    }

    fn observe(&mut self) -> Result<Vec<Reading>> {
        let mut points = self.objectives.observe();
        points.extend(self.health.take()?);
        Ok(points)
    }

    fn pending(&mut self) -> Result<Value> {
        as_json(&(self.objectives.pending(), self.health.pending()?))
    }

    fn absorb(&mut self, pending: Value) -> Result<()> {
        let (objectives, health) = from_json(pending)?;
        self.objectives.absorb(objectives);
        self.health.absorb(health)
    }

    fn forget(&mut self) {
        self.objectives.forget();
        self.health.forget();
    }
}

/// What the quantizers did since the last point of the curves.
struct Health(Vec<LevelHealth>);

struct LevelHealth {
    at: Vec<Index>,
    info: LevelInfo,
    /// Codes that are not counted yet.
    unread: Vec<Codes>,
    counts: Option<CodeCounts>,
    terms: BTreeMap<String, LateMean>,
}

/// What a level's codes and terms were since the last point, as a checkpoint keeps it.
type Pending = (Option<CodeCounts>, BTreeMap<String, LateMean>);
type Kept<'a> = (&'a Option<CodeCounts>, BTreeMap<&'a str, &'a LateMean>);

impl Health {
    fn new(model: &Tokenizer) -> Result<Self> {
        let levels = model.levels().into_iter().enumerate().map(|(level, info)| {
            let counts = info.code_space().map(|codes| CodeCounts::new(&codes.sizes)).transpose()?;
            Ok(LevelHealth { at: model.index(level), info, unread: Vec::new(), counts, terms: BTreeMap::new() })
        });
        Ok(Self(levels.collect::<Result<_>>()?))
    }

    fn see(&mut self, level: usize, latents: &Tensor, quantized: &Quantized) -> Result<()> {
        let level = &mut self.0[level];
        if let Tokens::Codes(codes) = &quantized.tokens {
            level.unread.push(codes.clone());
            if level.unread.len() >= UNREAD {
                level.count()?;
            }
        }
        if !quantized.residual_energy.is_empty() {
            // Latents of zeros have no energy to have a share of.
            let energy = latents.detach().square()?.mean_all()?.clamp(f32::MIN_POSITIVE, f32::MAX)?;
            let shares = quantized.residual_energy.div(&energy)?;
            level.terms.entry("residual_energy".to_owned()).or_default().add(&shares);
        }
        if let Some(bits) = &quantized.bits {
            level.terms.entry("kl_bits_per_image".to_owned()).or_default().add(bits);
        }
        // What happens to a codebook happens once in a step.
        let events = quantized.events.iter().filter(|_| Step::current().is_last());
        for (name, value) in quantized.terms.iter().chain(events) {
            level.terms.entry((*name).to_owned()).or_default().add(value);
        }
        Ok(())
    }

    fn pending(&mut self) -> Result<Vec<Kept<'_>>> {
        let levels = self.0.iter_mut().map(|level| {
            level.count()?;
            let terms = level.terms.iter_mut().map(|(name, mean)| (name.as_str(), mean.pending())).collect();
            Ok((&level.counts, terms))
        });
        levels.collect()
    }

    fn absorb(&mut self, pending: Vec<Pending>) -> Result<()> {
        for (level, (counts, terms)) in self.0.iter_mut().zip(pending) {
            level.count()?;
            if let (Some(own), Some(counts)) = (&mut level.counts, &counts) {
                own.merge(counts)?;
            }
            terms.into_iter().for_each(|(name, mean)| level.terms.entry(name).or_default().absorb(&mean));
        }
        Ok(())
    }

    fn forget(&mut self) {
        for level in &mut self.0 {
            level.unread.clear();
            level.terms.clear();
            // Sizes were in order when the counts were made.
            level.counts = level.counts.take().and_then(|_| CodeCounts::new(level.info.sizes()).ok());
        }
    }

    fn take(&mut self) -> Result<Vec<Reading>> {
        let mut points = Vec::new();
        for level in &mut self.0 {
            level.count()?;
            let at = level.at.clone();
            if let Some(counts) = &mut level.counts {
                for (depth, histogram) in counts.histograms().iter().enumerate() {
                    // Nothing is counted while latents pass unquantized.
                    if histogram.iter().any(|&hits| hits > 0) {
                        let at = || at.iter().cloned().chain([Index::Depth(depth + 1)]);
                        points.push(Reading::new("usage", at(), usage(histogram)));
                        points.push(Reading::new("perplexity", at(), perplexity(histogram)));
                    }
                }
                *counts = CodeCounts::new(level.info.sizes())?;
            }
            for (name, mean) in &mut level.terms {
                points.extend(mean.take(name, &at));
            }
        }
        Ok(points)
    }
}

impl LevelHealth {
    fn count(&mut self) -> Result<()> {
        let Some(counts) = &mut self.counts else { return Ok(()) };
        Ok(self.unread.drain(..).try_for_each(|codes| counts.push(codes.as_slice()))?)
    }
}
