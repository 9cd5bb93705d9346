//! Toy components: they count their parameters, and run nothing.

use rqlab::plugins::{Origin, Plugins};
use rqlab_sdk::config::{Config, ConfigError};
use rqlab_sdk::contracts::Bottleneck;
use rqlab_sdk::plugin::{Build, Component};
use rqlab_sdk::prelude::*;
use std::path::PathBuf;
use std::sync::Arc;

config! {
    /// Grey images.
    pub(crate) struct GreyConfig {
        /// Pixels along the side.
        size: usize = 16, in 1..=256;
        /// Classes.
        classes: usize = 2;
        /// Where it is said to be.
        path: String = "here".to_owned(), local;
        /// Memory for images.
        cache_mib: usize = 64, local;
        /// Images in the test split.
        test: usize = 10;
        /// Training images without a caption; none if no image has one.
        uncaptioned: Option<usize> = None;
    }
}

struct Grey(DatasetInfo, Option<CaptionInfo>);

impl Grey {
    fn new(config: GreyConfig, _: &DatasetContext) -> Result<Self> {
        if config.path == "nowhere" {
            return Err(Error::Data("nowhere: there is no such directory".to_owned()));
        }
        let captions = config.uncaptioned.map(|missing| CaptionInfo { missing: [missing, 0], attributes: vec![] });
        let info = DatasetInfo {
            image: [config.size, config.size, 3],
            classes: (0..config.classes).map(|class| class.to_string()).collect(),
            train: 100,
            test: config.test,
            digest: format!("grey {}", config.size),
            summary: Summary { per_class: vec![], splits: "as many as are asked for".to_owned(), ..Summary::default() },
        };
        Ok(Self(info, captions))
    }
}

impl Dataset for Grey {
    fn info(&self) -> &DatasetInfo {
        &self.0
    }
    fn caption_info(&self) -> Option<&CaptionInfo> {
        self.1.as_ref()
    }
    fn batch(&self, _: Split, _: &[usize], _: Option<&Rng>) -> Result<Images> {
        Err(Error::Unsupported("no images in a plan".to_owned()))
    }
}

config! {
    /// Halves an image.
    pub(crate) struct HalfConfig {
        /// Channels of the latents.
        width: usize = 8, in 1..;
        /// How often it is halved.
        halvings: usize = 2;
        /// Levels, each of half the size of the one before.
        levels: usize = 1, in 1..;
    }
}

struct Half(Vec<MapShape>, Var);

impl Half {
    fn new(config: HalfConfig, cx: &AutoencoderContext) -> Result<Self> {
        let by = 1 << (config.halvings + config.levels - 1);
        if !cx.image.height.is_multiple_of(by) {
            return Err(ConfigError::field("halvings", format!("{by} does not divide {}", cx.image.height)).into());
        }
        let weight = cx.params.parameter("weight", &[config.width, 3], Init::ZEROS)?;
        let level = |level: usize| MapShape {
            height: cx.image.height >> (config.halvings + level),
            width: cx.image.width >> (config.halvings + level),
            channels: config.width,
        };
        Ok(Self((0..config.levels).map(level).collect(), weight))
    }
}

impl Autoencoder for Half {
    fn levels(&self) -> Vec<MapShape> {
        self.0.clone()
    }
    fn encode(&self, _: &Tensor, _: &mut Bottleneck<'_>, _: &Mode) -> Result<()> {
        Ok(())
    }
    fn decode_features(&self, _: &[Tensor], _: &Mode) -> Result<Tensor> {
        nothing_runs()
    }
    fn decode_output(&self, _: &Tensor) -> Result<Tensor> {
        nothing_runs()
    }
    fn last_layer(&self) -> Var {
        self.1.clone()
    }
}

fn nothing_runs<T>() -> Result<T> {
    Err(Error::Unsupported("a plan runs nothing".to_owned()))
}

config! {
    /// Codes of some depth.
    pub(crate) struct DeepConfig {
        /// Codes per position.
        depth: usize = 4, in 1..=64;
        /// Codes in a codebook.
        codebook: usize = 256, in 2..;
        /// Whether the depths share one.
        shared: bool = true;
        /// Weight of the commitment loss.
        beta: f32 = 0.25, in 0.0..;
    }
}

config! {
    /// One code per position.
    pub(crate) struct FlatConfig {
        /// Codes in the codebook.
        codebook: usize, in 2..;
    }
}

config! {
    /// What another quantizer leaves, quantized by it again.
    pub(crate) struct ResidualConfig {
        /// The quantizer of each step.
        of: QuantizerCall;
        /// Steps.
        depth: usize = 2, in 1..=64;
        /// Steps between checks.
        check: usize = 100, local;
        /// Rounds of search when tokens are drawn.
        rounds: usize = 1, sampling;
    }
}

config! {
    /// Parts of the channels, each with a quantizer of its own.
    pub(crate) struct ProductConfig {
        /// The quantizers of the parts.
        parts: Vec<QuantizerCall> = vec![QuantizerCall::new("flat(codebook: 16)"), QuantizerCall::new("deep")];
        /// What comes after them; nothing if none.
        after: Option<QuantizerCall> = None;
    }
}

config! {
    /// Holds itself.
    pub(crate) struct EndlessConfig {
        /// Itself.
        of: QuantizerCall = QuantizerCall::new("endless");
    }
}

struct Codebooks(LevelInfo);

impl Codebooks {
    fn of(sizes: Vec<usize>, cx: &QuantizerContext) -> Result<Self> {
        for (depth, &size) in sizes.iter().enumerate() {
            if size > 1 << 40 {
                return Err(ConfigError::field("codebook", format!("{size} codes are too many")).into());
            }
            if depth == 0 {
                cx.params.averaged("codebook", &[size, cx.latents.channels], Init::ZEROS)?;
            }
        }
        let MapShape { height, width, channels } = cx.latents;
        let space = TokenSpace::Codes(CodeSpace { sizes, tables: vec![], shared: true });
        Ok(Self(LevelInfo { height, width, channels, space, scales: None }))
    }
    fn deep(config: DeepConfig, cx: &QuantizerContext) -> Result<Self> {
        Self::of(vec![config.codebook; config.depth], cx)
    }
    fn flat(config: FlatConfig, cx: &QuantizerContext) -> Result<Self> {
        Self::of(vec![config.codebook], cx)
    }
    fn residual(config: ResidualConfig, cx: &QuantizerContext) -> Result<Self> {
        let params = cx.params.scope("of");
        let of = cx.components.quantizer(&config.of.0, &QuantizerContext { params, ..cx.clone() })?;
        Self::of(of.level().sizes().repeat(config.depth), cx)
    }
    fn product(config: ProductConfig, cx: &QuantizerContext) -> Result<Self> {
        let mut sizes = Vec::new();
        for (part, call) in config.parts.iter().chain(&config.after).enumerate() {
            let params = cx.params.scope("part").scope(part);
            sizes.extend(cx.components.quantizer(&call.0, &QuantizerContext { params, ..cx.clone() })?.level().sizes());
        }
        Self::of(sizes, cx)
    }
    fn endless(_: EndlessConfig, cx: &QuantizerContext) -> Result<Self> {
        Self::of(vec![2], cx)
    }
}

impl Quantizer for Codebooks {
    fn level(&self) -> LevelInfo {
        self.0.clone()
    }
    fn quantize(&self, _: &Tensor) -> Result<Quantized> {
        nothing_runs()
    }
    fn embed(&self, _: &Tokens, _: Option<usize>) -> Result<Tensor> {
        nothing_runs()
    }
}

config! {
    /// A distance.
    pub(crate) struct DistanceConfig {}
}

config! {
    /// A critic.
    pub(crate) struct CriticConfig {
        /// The step at which it begins.
        start: u64 = 0;
        /// Channels.
        width: usize = 4, in 1..;
    }
}

struct Distance;

impl Distance {
    fn new(_: DistanceConfig, _: &ObjectiveContext) -> Result<Self> {
        Ok(Self)
    }
    fn critic(config: CriticConfig, cx: &ObjectiveContext) -> Result<Self> {
        cx.params.parameter("weight", &[config.width, 3], Init::ZEROS)?;
        Ok(Self)
    }
}

impl Objective for Distance {
    fn loss(&mut self, _: &Reconstruction<'_>) -> Result<Loss> {
        nothing_runs()
    }
}

config! {
    /// Guesses.
    pub(crate) struct GuessConfig {
        /// Size of the guess.
        width: usize = 32, in 1..;
        /// Heads; must divide the width.
        heads: usize = 4, in 1..;
        /// Whether it panics.
        panic: bool = false;
    }
}

struct Guess;

impl Guess {
    fn new(config: GuessConfig, cx: &PriorContext) -> Result<Self> {
        assert!(!config.panic, "as it was told to");
        if !config.width.is_multiple_of(config.heads) {
            return Err(
                ConfigError::field("heads", format!("{} heads do not divide {}", config.heads, config.width)).into()
            );
        }
        cx.params.parameter("weight", &[1 << 20, 1 << 20, config.width], Init::ZEROS)?;
        Ok(Self)
    }
}

impl Prior for Guess {
    fn loss(&self, _: &TokenBatch, _: &Mode) -> Result<PriorLoss> {
        nothing_runs()
    }
    fn likelihood(&self, _: &TokenBatch) -> Result<Option<Tensor>> {
        Ok(None)
    }
    fn sample(&self, _: &SampleRequest, _: &Rng) -> Result<Tokens> {
        nothing_runs()
    }
}

macro_rules! components {
    ($plugins:ident, $origin:ident: $($kind:ident $name:literal $Config:ident $new:expr;)+) => { $(
        let build = Build::$kind(|text, cx| Ok(Box::new($new($Config::parse(text)?, cx)?)));
        $plugins.add(Component::new::<$Config>($name, build), &$origin);
    )+ };
}

/// The toy components, from a plugin with that digest.
pub(crate) fn plugins(digest: &str) -> Plugins {
    let origin = Arc::new(Origin { plugin: "toys".into(), path: PathBuf::from("libtoys.so"), digest: digest.into() });
    let mut plugins = Plugins::default();
    components! { plugins, origin:
        Dataset "grey" GreyConfig Grey::new;
        Autoencoder "half" HalfConfig Half::new;
        Quantizer "deep" DeepConfig Codebooks::deep;
        Quantizer "flat" FlatConfig Codebooks::flat;
        Quantizer "residual" ResidualConfig Codebooks::residual;
        Quantizer "product" ProductConfig Codebooks::product;
        Quantizer "endless" EndlessConfig Codebooks::endless;
        Prior "guess" GuessConfig Guess::new;
        Prior "dream" GuessConfig Guess::new;
        Objective "mse" DistanceConfig Distance::new;
        Objective "l1" DistanceConfig Distance::new;
        Objective "patch_gan" CriticConfig Distance::critic;
    }
    plugins
}
