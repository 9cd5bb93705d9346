//! A laboratory of toy components, and how experiments on them are planned.

#![allow(dead_code, reason = "each test binary uses a part of this")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use proptest::test_runner::{Config as ProptestConfig, RngSeed};
use rqlab::experiment::{self, Invalid};
use rqlab::job::Trial;
use rqlab::plan::{self, Plan};
use rqlab::plugins::{Origin, Plugins};
use rqlab_sdk::config::{Config, ConfigError};
use rqlab_sdk::contracts::Bottleneck;
use rqlab_sdk::plugin::{Build, Component};
use rqlab_sdk::prelude::*;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

config! {
    /// Grey images.
    pub(crate) struct GreyConfig {
        /// Pixels along the side.
        size: usize = 16, in 1..=256;
        /// Classes.
        classes: usize = 2;
        /// Where it is said to be.
        path: String = "here".to_owned();
        /// Images in the test split.
        test: usize = 10;
    }
}

struct Grey(DatasetInfo);

impl Grey {
    fn new(config: GreyConfig, _: &DatasetContext) -> Result<Self> {
        if config.path == "nowhere" {
            return Err(Error::Data("nowhere: there is no such directory".to_owned()));
        }
        Ok(Self(DatasetInfo {
            image: [config.size, config.size, 3],
            classes: (0..config.classes).map(|class| class.to_string()).collect(),
            train: 100,
            test: config.test,
            digest: format!("grey {}", config.size),
        }))
    }
}

impl Dataset for Grey {
    fn info(&self) -> &DatasetInfo {
        &self.0
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
    }
}

struct Half(MapShape, Var);

impl Half {
    fn new(config: HalfConfig, cx: &AutoencoderContext) -> Result<Self> {
        let by = 1 << config.halvings;
        if !cx.image.height.is_multiple_of(by) {
            return Err(ConfigError::field("halvings", format!("{by} does not divide {}", cx.image.height)).into());
        }
        let weight = cx.params.parameter("weight", &[config.width, 3], Init::ZEROS)?;
        let latents = MapShape { height: cx.image.height / by, width: cx.image.width / by, channels: config.width };
        Ok(Self(latents, weight))
    }
}

impl Autoencoder for Half {
    fn levels(&self) -> Vec<MapShape> {
        vec![self.0]
    }
    fn encode(&self, _: &Tensor, _: &mut Bottleneck<'_>, _: &Mode) -> Result<()> {
        Ok(())
    }
    fn decode_features(&self, _: &[Tensor], _: &Mode) -> Result<Tensor> {
        Err(Error::Unsupported("a plan runs nothing".to_owned()))
    }
    fn decode_output(&self, _: &Tensor) -> Result<Tensor> {
        Err(Error::Unsupported("a plan runs nothing".to_owned()))
    }
    fn last_layer(&self) -> Var {
        self.1.clone()
    }
}

config! {
    /// Codes of some depth.
    pub(crate) struct DeepConfig {
        /// Codes a position.
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
    /// One code a position.
    pub(crate) struct FlatConfig {
        /// Codes in the codebook.
        codebook: usize, in 2..;
    }
}

struct Codebooks(MapShape, Vec<usize>);

impl Codebooks {
    fn deep(config: DeepConfig, cx: &QuantizerContext) -> Result<Self> {
        cx.params.buffer("codebook", &[config.codebook, cx.latents.channels], Init::ZEROS)?;
        Ok(Self(cx.latents, vec![config.codebook; config.depth]))
    }
    fn flat(config: FlatConfig, cx: &QuantizerContext) -> Result<Self> {
        Self::deep(DeepConfig::parse(&format!("(depth: 1, codebook: {})", config.codebook))?, cx)
    }
}

impl Quantizer for Codebooks {
    fn level(&self) -> LevelInfo {
        let MapShape { height, width, channels } = self.0;
        let codes = CodeSpace { sizes: self.1.clone(), tables: vec![], shared: true };
        LevelInfo { height, width, channels, space: TokenSpace::Codes(codes) }
    }
    fn quantize(&self, _: &Tensor) -> Result<Quantized> {
        Err(Error::Unsupported("a plan runs nothing".to_owned()))
    }
    fn embed(&self, _: &Tokens, _: Option<usize>) -> Result<Tensor> {
        Err(Error::Unsupported("a plan runs nothing".to_owned()))
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
        Err(Error::Unsupported("a plan runs nothing".to_owned()))
    }
    fn likelihood(&self, _: &TokenBatch) -> Result<Option<Tensor>> {
        Ok(None)
    }
    fn sample(&self, _: &SampleRequest, _: &Rng) -> Result<Tokens> {
        Err(Error::Unsupported("a plan runs nothing".to_owned()))
    }
}

config! {
    /// Squared error.
    pub(crate) struct MseConfig {
        /// Weight of the loss.
        weight: f32 = 1.0, in 0.0..;
    }
}

struct Mse;

impl Objective for Mse {
    fn loss(&mut self, _: &Reconstruction<'_>) -> Result<Loss> {
        Err(Error::Unsupported("a plan runs nothing".to_owned()))
    }
}

/// The toy components, from a plugin with that digest.
pub(crate) fn plugins(digest: &str) -> Plugins {
    let origin = Arc::new(Origin { plugin: "toys".into(), path: PathBuf::from("libtoys.so"), digest: digest.into() });
    let mut plugins = Plugins::default();
    let grey = Build::Dataset(|text, cx| Ok(Box::new(Grey::new(GreyConfig::parse(text)?, cx)?)));
    let half = Build::Autoencoder(|text, cx| Ok(Box::new(Half::new(HalfConfig::parse(text)?, cx)?)));
    let deep = Build::Quantizer(|text, cx| Ok(Box::new(Codebooks::deep(DeepConfig::parse(text)?, cx)?)));
    let flat = Build::Quantizer(|text, cx| Ok(Box::new(Codebooks::flat(FlatConfig::parse(text)?, cx)?)));
    let guess = Build::Prior(|text, cx| Ok(Box::new(Guess::new(GuessConfig::parse(text)?, cx)?)));
    let mse = Build::Objective(|text, _| MseConfig::parse(text).map(|_| Box::new(Mse) as _).map_err(Error::from));
    plugins.add(Component::new::<MseConfig>("mse", mse), &origin);
    plugins.add(Component::new::<GreyConfig>("grey", grey), &origin);
    plugins.add(Component::new::<HalfConfig>("half", half), &origin);
    plugins.add(Component::new::<DeepConfig>("deep", deep), &origin);
    plugins.add(Component::new::<FlatConfig>("flat", flat), &origin);
    plugins.add(Component::new::<GuessConfig>("guess", guess), &origin);
    plugins.add(Component::new::<GuessConfig>("dream", guess), &origin);
    plugins
}

/// A folder with experiment files.
pub(crate) struct Lab(pub(crate) tempfile::TempDir);

impl Lab {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Writes a file.
    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// Plans a file, with `--set` and `--seeds`.
    pub(crate) fn plan(&self, path: &Path, set: &[&str], seeds: Option<&[u64]>) -> Result<Plan, Invalid> {
        let set: Vec<String> = set.iter().map(|s| (*s).to_owned()).collect();
        let (document, mut warnings) = experiment::read(path, &set, seeds)?;
        let mut plan = plan::plan(&document, &plugins("a"))?;
        warnings.append(&mut plan.warnings);
        plan.warnings = warnings;
        Ok(plan)
    }

    /// The complaints about a file, with the folder's name left out.
    pub(crate) fn complaints(&self, path: &Path, set: &[&str]) -> String {
        let text = match self.plan(path, set, None) {
            Err(invalid) => invalid.to_string(),
            Ok(plan) => {
                let texts: Vec<String> = plan.warnings.iter().map(|warning| warning.render(false)).collect();
                texts.join("\n\n")
            }
        };
        let dir = self.0.path().display().to_string();
        let text = text.replace(&format!("{dir}/"), "").replace(&dir, "");
        text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
    }
}

/// An experiment on the toys with more lines: those replace its own of the same name.
pub(crate) fn experiment(more: &str) -> String {
    let mut text = "(\n".to_owned();
    for line in ["data: grey", "autoencoder: half", "quantizer: deep"] {
        let name = line.split(':').next().unwrap();
        if !more.contains(&format!("{name}: ")) {
            text += &format!("    {line},\n");
        }
    }
    format!("{text}{more}\n)\n")
}

/// Plans an experiment on the toys.
pub(crate) fn plan_of(more: &str) -> Plan {
    plan_with(more, &[])
}

/// Plans an experiment on the toys, with `--set`.
pub(crate) fn plan_with(more: &str, set: &[&str]) -> Plan {
    let lab = Lab::new();
    let path = lab.write("x.ron", experiment(more));
    lab.plan(&path, set, None).unwrap_or_else(|invalid| panic!("{invalid}"))
}

/// The trials as text: `depth=1 codebook=64 seed=0`, in order.
pub(crate) fn listed(plan: &Plan) -> Vec<String> {
    let axes: Vec<&str> = plan.experiment.axes.iter().map(|axis| axis.path.as_str()).collect();
    let row = |trial: &Trial| {
        let mut parts: Vec<String> =
            axes.iter().map(|path| format!("{}={}", path.rsplit('.').next().unwrap(), trial.axes[*path])).collect();
        parts.push(format!("seed={}", trial.seed));
        parts.join(" ")
    };
    plan.trials.iter().map(row).collect()
}

/// How properties are tested: on the same cases every time, unless the variables of proptest say otherwise.
pub(crate) fn properties() -> ProptestConfig {
    let usual = ProptestConfig::default();
    let rng_seed = if usual.rng_seed == RngSeed::Random { RngSeed::Fixed(0) } else { usual.rng_seed };
    ProptestConfig { failure_persistence: None, rng_seed, ..usual }
}
