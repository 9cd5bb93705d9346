//! Models put together from plugins, fresh or from a finished stage.

use super::conditions::Conditions;
use super::training::batches::chunks;
use super::{EncodeTokens, TrainPrior, TrainTokenizer};
use crate::id::Id;
use crate::job::{Call, Job};
use crate::plugins::Plugins;
use crate::store::Store;
use rqlab_reports::Index;
use rqlab_sdk::contracts::{
    Autoencoder, AutoencoderContext, Components, Condition, Dataset, DatasetContext, Guidance, LevelInfo, MapShape,
    Mode, Prior, PriorContext, Quantized, Quantizer, QuantizerContext, SampleRequest, Tokens,
};
use rqlab_sdk::params::Params;
use rqlab_sdk::tensor::ops::sampling::Draw;
use rqlab_sdk::tensor::{Rng, Tensor, no_grad};
use rqlab_sdk::{Error, Result};

/// An autoencoder with a quantizer at each of its levels.
pub struct Tokenizer {
    /// The autoencoder.
    pub autoencoder: Box<dyn Autoencoder>,
    /// The quantizer of each level.
    pub quantizers: Vec<Box<dyn Quantizer>>,
    /// Where its parameters live.
    pub params: Params,
    image: MapShape,
    /// Codes per position of each level; 0 of vectors. To ask a quantizer for its level makes tables of its codes.
    depths: Vec<usize>,
}

/// Opens a data set.
///
/// # Errors
/// Those of the plugin.
pub fn open_dataset(plugins: &Plugins, call: &Call, job: &Job) -> Result<Box<dyn Dataset>> {
    plugins.dataset(call, &DatasetContext::new(job.base.to_path_buf()))
}

/// The call for a level, of a list with one per level or one for all.
pub fn of_level(calls: &[Call], level: usize) -> Result<&Call> {
    let call = if let [one] = calls { Some(one) } else { calls.get(level) };
    call.ok_or_else(|| {
        Error::Unsupported(format!("there is no component for level {} among {}", level + 1, calls.len()))
    })
}

/// Where a level's part of a model keeps its parameters: `quantizer`, or `quantizer.1` of the second of several levels.
pub fn level_scope(part: &str, level: usize, levels: usize) -> String {
    if levels == 1 { part.to_owned() } else { format!("{part}.{level}") }
}

impl Tokenizer {
    /// Builds a tokenizer for images of a shape, with a quantizer per level or one for all.
    ///
    /// # Errors
    /// Those of the plugins; a list of quantizers whose length is not that of the levels.
    pub fn build(
        plugins: &Plugins,
        autoencoder: &Call,
        quantizers: &[Call],
        image: [usize; 3],
        params: Params,
    ) -> Result<Self> {
        let [height, width, channels] = image;
        let image = MapShape { height, width, channels };
        let context = AutoencoderContext { image, params: params.scope("autoencoder"), components: Components::none() };
        let autoencoder = plugins.autoencoder(autoencoder, &context)?;
        let levels = autoencoder.levels();
        if quantizers.len() != 1 && quantizers.len() != levels.len() {
            let message = format!("{} quantizers for {} levels", quantizers.len(), levels.len());
            return Err(Error::Unsupported(message));
        }
        let quantizer = |(level, &latents): (usize, &MapShape)| {
            let params = params.scope(level_scope("quantizer", level, levels.len()));
            let context = QuantizerContext { latents, params, components: Components::none() };
            plugins.quantizer(of_level(quantizers, level)?, &context)
        };
        let quantizers: Vec<_> = levels.iter().enumerate().map(quantizer).collect::<Result<_>>()?;
        let depths = quantizers.iter().map(|quantizer| quantizer.level().depth()).collect();
        Ok(Self { autoencoder, quantizers, params, image, depths })
    }

    /// The shape of the images.
    pub fn image(&self) -> MapShape {
        self.image
    }

    /// Encodes images without any change of state: what each level's quantizer made of its latents, with the latents.
    ///
    /// # Errors
    /// Those of the plugins.
    pub fn encode(&self, images: &Tensor) -> Result<Vec<(Tensor, Quantized)>> {
        let mut levels = Vec::new();
        let mut bottleneck = |level: usize, latents: &Tensor| {
            let quantized = self.quantizers[level].quantize(latents)?;
            let out = quantized.latents.clone();
            levels.push((latents.detach(), quantized));
            Ok(out)
        };
        self.autoencoder.encode(images, &mut bottleneck, &Mode::Eval)?;
        Ok(levels)
    }

    /// Images, not clamped, from the tokens of every level; of codes from their first `depth` depths, if some are named.
    ///
    /// # Errors
    /// Those of the plugins.
    pub fn decode(&self, tokens: &[Tokens], depth: Option<usize>) -> Result<Tensor> {
        let mut latents = Vec::with_capacity(tokens.len());
        for ((quantizer, &own), tokens) in self.quantizers.iter().zip(&self.depths).zip(tokens) {
            latents.push(quantizer.embed(tokens, depth.map(|depth| depth.min(own)).filter(|_| own > 0))?);
        }
        self.autoencoder.decode(&latents)
    }

    /// The levels, with their codebooks as they are now.
    pub fn levels(&self) -> Vec<LevelInfo> {
        self.quantizers.iter().map(|quantizer| quantizer.level()).collect()
    }

    /// Where the quantizer of each level keeps its parameters.
    pub fn scopes(&self) -> Vec<String> {
        let levels = self.quantizers.len();
        (0..levels).map(|level| level_scope("quantizer", level, levels)).collect()
    }

    /// The index that readings of a level carry: none where there is one level.
    pub fn index(&self, level: usize) -> Vec<Index> {
        if self.quantizers.len() > 1 { vec![Index::Level(level + 1)] } else { vec![] }
    }

    /// The most codes per position of any level; 0 if all tokens are vectors.
    pub fn depth(&self) -> usize {
        self.depths.iter().copied().max().unwrap_or(0)
    }
}

/// The trained tokenizer of a finished stage, with its data set.
///
/// # Errors
/// A missing or damaged checkpoint, a plugin that is gone or was changed.
pub fn load_tokenizer(plugins: &Plugins, store: &Store, id: &str) -> Result<(Box<dyn Dataset>, Tokenizer)> {
    let dir = store.stage(id);
    let job = dir.job()?;
    let Some(stage) = job.stage.is::<TrainTokenizer>() else {
        return Err(Error::Data(format!("stage {id} is a {}, not a tokenizer", job.stage.name())));
    };
    let dataset = open_dataset(plugins, &stage.data, &job)?;
    let tokenizer =
        Tokenizer::build(plugins, &stage.autoencoder, &stage.quantizers, dataset.info().image, Params::new(0))?;
    tokenizer.params.load(&dir.load_result()?.tensors)?;
    Ok((dataset, tokenizer))
}

/// A prior of one level of a trained tokenizer, called so, with fresh parameters in `params`.
pub(super) fn build_prior(
    plugins: &Plugins,
    stage: &TrainPrior,
    call: &Call,
    levels: Vec<LevelInfo>,
    classes: usize,
    params: &Params,
) -> Result<Box<dyn Prior>> {
    let told = stage.told(classes);
    let context = PriorContext {
        levels,
        level: stage.level,
        condition: told.space,
        null_condition: told.null,
        params: params.scope("prior"),
        components: Components::none(),
    };
    plugins.prior(call, &context)
}

/// A trained prior, and what its vectors were multiplied with to have unit variance (1 for codes).
pub(super) struct LoadedPrior {
    pub(super) prior: Box<dyn Prior>,
    pub(super) scale: f32,
}

/// The trained prior of a finished stage, on its tokenizer, called as then, or so; and what it is told.
///
/// # Errors
/// As for [`load_tokenizer`].
fn load_level(
    plugins: &Plugins,
    store: &Store,
    (id, call): (&str, Option<&Call>),
    tokenizer: &Tokenizer,
    classes: usize,
) -> Result<(LoadedPrior, Conditions)> {
    let dir = store.stage(id);
    let job = dir.job()?;
    let Some(stage) = job.stage.is::<TrainPrior>() else {
        return Err(Error::Data(format!("stage {id} is a {}, not a prior", job.stage.name())));
    };
    let params = Params::new(0);
    let prior = build_prior(plugins, stage, call.unwrap_or(&stage.prior), tokenizer.levels(), classes, &params)?;
    params.load(&dir.load_result()?.tensors)?;
    let scale = EncodeTokens::scale(&store.stage(&stage.tokens), stage.level)?;
    Ok((LoadedPrior { prior, scale }, Conditions::of(store, stage, classes)?))
}

/// The trained priors of all levels, which together sample images' tokens.
pub struct Sampler {
    levels: Vec<LoadedPrior>,
    conditions: Conditions,
}

/// The trained priors of finished stages, one per level, on their tokenizer; called so to be drawn from, or as they were trained
/// if there are no calls.
///
/// # Errors
/// As for [`load_tokenizer`].
pub fn load_prior(
    plugins: &Plugins,
    store: &Store,
    (ids, calls): (&[Id], &[Call]),
    tokenizer: &Tokenizer,
    classes: usize,
) -> Result<Sampler> {
    let (mut levels, mut conditions) = (Vec::new(), None);
    for (level, id) in ids.iter().enumerate() {
        let call = if calls.is_empty() { None } else { Some(of_level(calls, level)?) };
        let (prior, told) = load_level(plugins, store, (id, call), tokenizer, classes)?;
        levels.push(prior);
        conditions.get_or_insert(told);
    }
    let conditions = conditions.ok_or_else(|| Error::Unsupported("there are no priors to sample from".to_owned()))?;
    Ok(Sampler { levels, conditions })
}

impl Sampler {
    /// The priors, from the first level to the last, each with the scale of its vectors.
    pub(super) fn levels(&self) -> &[LoadedPrior] {
        &self.levels
    }

    /// What they are told of images.
    pub fn conditions(&self) -> &Conditions {
        &self.conditions
    }

    /// The tokens of every level of an image under each condition, the first level first, the others given those before.
    ///
    /// # Errors
    /// Those of the priors.
    pub fn sample(
        &self,
        condition: &Condition,
        draw: &[Draw],
        guidance: Guidance,
        cache: bool,
        rng: &Rng,
    ) -> Result<Vec<Tokens>> {
        // What a prior is given of the levels above is scaled as in its training; what is decoded is not.
        let (mut scaled, mut tokens): (Vec<Tokens>, Vec<Tokens>) = (Vec::new(), Vec::new());
        for (level, LoadedPrior { prior, scale }) in self.levels.iter().enumerate() {
            let request = SampleRequest {
                condition: condition.clone(),
                above: scaled.clone(),
                draw: draw.to_vec(),
                guidance,
                cache,
            };
            let rng = if level == 0 { *rng } else { rng.part("level", level as u64) };
            let own = no_grad(|| prior.sample(&request, &rng))?;
            tokens.push(multiplied(&own, 1.0 / scale)?);
            scaled.push(own);
        }
        Ok(tokens)
    }
}

/// Vectors times a factor; codes as they are.
pub(super) fn multiplied(tokens: &Tokens, factor: f32) -> Result<Tokens> {
    Ok(match tokens {
        Tokens::Vectors(vectors) if factor != 1.0 => Tokens::Vectors(vectors.mul_scalar(factor)?),
        other => other.clone(),
    })
}

/// Images `[N, H, W, C]` of tokens, clamped to [-1, 1], a batch at a time: `see` is handed each batch with its first row.
pub(super) fn decode_in_batches(
    model: &Tokenizer,
    tokens: &[Tokens],
    batch: usize,
    mut see: impl FnMut(usize, &Tensor) -> Result<()>,
) -> Result<()> {
    let count = tokens.first().map_or(0, Tokens::images);
    for range in chunks(count, batch) {
        let rows: Vec<usize> = range.clone().collect();
        let part = tokens.iter().map(|level| level.rows(&rows)).collect::<Result<Vec<_>>>()?;
        let images = no_grad(|| model.decode(&part, None)?.clamp(-1.0, 1.0).map_err(Error::from))?;
        see(range.start, &images)?;
    }
    Ok(())
}
