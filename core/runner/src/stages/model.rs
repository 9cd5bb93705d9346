//! Models put together from plugins, fresh or from a finished stage.

use crate::job::{Call, Job, Stage};
use crate::plugins::Plugins;
use crate::store::Store;
use rqlab_sdk::checkpoint::Checkpoint;
use rqlab_sdk::contracts::{
    Autoencoder, AutoencoderContext, CodeShape, Dataset, DatasetContext, MapShape, Mode, Prior, PriorContext,
    PriorLevel, Quantized, Quantizer, QuantizerContext,
};
use rqlab_sdk::params::Params;
use rqlab_sdk::tensor::{Codes, Tensor};
use rqlab_sdk::{Error, Result};

/// An autoencoder with a quantizer at each of its levels.
pub struct Tokenizer {
    /// The autoencoder.
    pub autoencoder: Box<dyn Autoencoder>,
    /// The quantizer of each level.
    pub quantizers: Vec<Box<dyn Quantizer>>,
    /// Where its parameters live.
    pub params: Params,
}

/// Opens a data set.
///
/// # Errors
/// Those of the plugin.
pub fn open_dataset(plugins: &Plugins, call: &Call, job: &Job) -> Result<Box<dyn Dataset>> {
    plugins.dataset(call, &DatasetContext { base: job.base.clone() })
}

impl Tokenizer {
    /// Builds a tokenizer for images of a shape.
    ///
    /// # Errors
    /// Those of the plugins.
    pub fn build(
        plugins: &Plugins,
        autoencoder: &Call,
        quantizer: &Call,
        image: [usize; 3],
        params: Params,
    ) -> Result<Self> {
        let [height, width, channels] = image;
        let context =
            AutoencoderContext { image: MapShape { height, width, channels }, params: params.scope("autoencoder") };
        let autoencoder = plugins.autoencoder(autoencoder, &context)?;
        let levels = autoencoder.levels();
        let several = levels.len() > 1;
        let quantizers = levels
            .into_iter()
            .enumerate()
            .map(|(level, latents)| {
                let scope = if several { format!("quantizer.{level}") } else { "quantizer".to_owned() };
                plugins.quantizer(quantizer, &QuantizerContext { latents, params: params.scope(scope) })
            })
            .collect::<Result<_>>()?;
        Ok(Self { autoencoder, quantizers, params })
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

    /// Images from the codes of every level, from their first `depth` depths.
    ///
    /// # Errors
    /// Those of the plugins.
    pub fn decode(&self, codes: &[Codes], depth: usize) -> Result<Tensor> {
        let latents = self
            .quantizers
            .iter()
            .zip(codes)
            .map(|(quantizer, codes)| quantizer.embed(codes, depth.min(quantizer.code_shape().depth())))
            .collect::<Result<Vec<_>>>()?;
        self.autoencoder.decode(&latents)
    }

    /// The shape of each level's codes.
    pub fn code_shapes(&self) -> Vec<CodeShape> {
        self.quantizers.iter().map(|quantizer| quantizer.code_shape()).collect()
    }

    /// What a prior over the only level is told of it.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if there are several levels, or no codes.
    pub fn prior_level(&self) -> Result<PriorLevel> {
        let [quantizer] = self.quantizers.as_slice() else {
            return Err(Error::Unsupported(format!(
                "a prior over {} levels needs one prior a level, which this version does not train",
                self.quantizers.len()
            )));
        };
        let codes = quantizer.code_shape();
        if codes.codebooks.is_empty() {
            return Err(Error::Unsupported("this quantizer makes no codes for a prior to model".to_owned()));
        }
        let channels = self.autoencoder.levels().first().map_or(0, |level| level.channels);
        Ok(PriorLevel { codes, channels, codebooks: quantizer.codebooks(), shared: quantizer.shares_codebook() })
    }
}

/// The trained tokenizer of a finished stage, with its data set.
///
/// # Errors
/// A missing or damaged checkpoint, a plugin that is gone or was changed.
pub fn load_tokenizer(plugins: &Plugins, store: &Store, id: &str) -> Result<(Box<dyn Dataset>, Tokenizer)> {
    let stage = store.stage(id);
    let job = stage.job()?;
    let Stage::Tokenizer { data, autoencoder, quantizer, .. } = &job.stage else {
        return Err(Error::Data(format!("stage {id} is a {}, not a tokenizer", job.stage.name())));
    };
    let dataset = open_dataset(plugins, data, &job)?;
    let tokenizer = Tokenizer::build(plugins, autoencoder, quantizer, dataset.info().image, Params::new(0))?;
    tokenizer.params.load(&Checkpoint::load(&stage.result())?.tensors)?;
    Ok((dataset, tokenizer))
}

/// A prior on a trained tokenizer, with fresh parameters in `params`.
pub(super) fn build_prior(
    plugins: &Plugins,
    call: &Call,
    tokenizer: &Tokenizer,
    classes: usize,
    params: &Params,
) -> Result<Box<dyn Prior>> {
    let context = PriorContext { level: tokenizer.prior_level()?, upper: None, classes, params: params.scope("prior") };
    plugins.prior(call, &context)
}

/// The trained prior of a finished stage, on its tokenizer.
///
/// # Errors
/// As for [`load_tokenizer`].
pub fn load_prior(
    plugins: &Plugins,
    store: &Store,
    id: &str,
    tokenizer: &Tokenizer,
    classes: usize,
) -> Result<Box<dyn Prior>> {
    let stage = store.stage(id);
    let job = stage.job()?;
    let Stage::Prior { prior: call, .. } = &job.stage else {
        return Err(Error::Data(format!("stage {id} is a {}, not a prior", job.stage.name())));
    };
    let params = Params::new(0);
    let prior = build_prior(plugins, call, tokenizer, classes, &params)?;
    params.load(&Checkpoint::load(&stage.result())?.tensors)?;
    Ok(prior)
}
