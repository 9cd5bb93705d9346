//! What makes a crate a plugin: its declaration, and the handshake that is read before any of its code runs.

use crate::Result;
use crate::config::{Complaints, Config, ConfigError, Description, Scope};
use crate::contracts::{
    Autoencoder, AutoencoderContext, Dataset, DatasetContext, Objective, ObjectiveContext, Prior, PriorContext,
    Quantizer, QuantizerContext,
};
use std::fmt;

/// A digest of everything that plugin and SDK must agree on: sources, dependencies, features, profile, flags, compiler.
pub const SDK_HASH: &str = env!("RQLAB_SDK_HASH");
/// The compiler: release and commit.
pub const RUSTC: &str = env!("RQLAB_RUSTC");
/// The target triple.
pub const TARGET: &str = env!("RQLAB_TARGET");
/// The features that change the SDK: `cpu` or `cpu,cuda`.
pub const FEATURES: &str = if cfg!(feature = "cuda") { "cpu,cuda" } else { "cpu" };
/// What the handshake begins with.
pub const MAGIC: [u8; 8] = *b"RQLABPL1";
/// The link section that holds the handshake.
pub const SECTION: &str = ".rqlab";

/// What a component is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Labelled images.
    Dataset,
    /// Images to latents and back.
    Autoencoder,
    /// Latents to tokens and back.
    Quantizer,
    /// A model of tokens.
    Prior,
    /// What a tokenizer is trained for.
    Objective,
}

impl Kind {
    /// All of them, in the order in which they are listed.
    pub const ALL: [Self; 5] = [Self::Dataset, Self::Autoencoder, Self::Quantizer, Self::Prior, Self::Objective];
}

impl Kind {
    /// The word that experiment files and messages use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dataset => "dataset",
            Self::Autoencoder => "autoencoder",
            Self::Quantizer => "quantizer",
            Self::Prior => "prior",
            Self::Objective => "objective",
        }
    }
}

impl Kind {
    /// It with its article.
    pub fn with_article(self) -> String {
        let article = if matches!(self, Self::Autoencoder | Self::Objective) { "an" } else { "a" };
        format!("{article} {self}")
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a component is built from its configuration (the text of its call) and its surroundings.
#[derive(Clone, Copy)]
pub enum Build {
    /// Opens a data set.
    Dataset(fn(&str, &DatasetContext) -> Result<Box<dyn Dataset>>),
    /// Builds an autoencoder.
    Autoencoder(fn(&str, &AutoencoderContext) -> Result<Box<dyn Autoencoder>>),
    /// Builds a quantizer.
    Quantizer(fn(&str, &QuantizerContext) -> Result<Box<dyn Quantizer>>),
    /// Builds a prior.
    Prior(fn(&str, &PriorContext) -> Result<Box<dyn Prior>>),
    /// Builds an objective.
    Objective(fn(&str, &ObjectiveContext) -> Result<Box<dyn Objective>>),
}

impl Build {
    /// What it builds.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Dataset(_) => Kind::Dataset,
            Self::Autoencoder(_) => Kind::Autoencoder,
            Self::Quantizer(_) => Kind::Quantizer,
            Self::Prior(_) => Kind::Prior,
            Self::Objective(_) => Kind::Objective,
        }
    }
}

/// One component that a plugin provides.
#[derive(Clone, Copy)]
pub struct Component {
    /// The name that experiment files call it by.
    pub name: &'static str,
    /// Its documentation and fields.
    pub describe: fn() -> Description,
    /// Checks the text of a call and fills in the defaults.
    pub resolve: fn(&str) -> Result<String, Complaints>,
    /// Of the text of a call, the part that determines results of that scope: [`Config::identity`].
    pub identity: fn(&str, Scope) -> Result<String, ConfigError>,
    /// Builds it.
    pub build: Build,
}

impl Component {
    /// A component whose configuration is a `C`.
    pub fn new<C: Config>(name: &'static str, build: Build) -> Self {
        Self {
            name,
            describe: C::describe,
            resolve: |text| Ok(C::read(text)?.resolved()?),
            identity: |text, scope| C::parse(text)?.identity(scope),
            build,
        }
    }
}

/// Gathers the components of a plugin while it registers.
#[derive(Default)]
pub struct Registry {
    /// What was registered, in order.
    pub components: Vec<Component>,
}

impl Registry {
    /// Adds a component.
    pub fn add(&mut self, component: Component) {
        self.components.push(component);
    }
}

/// The function that a plugin exports.
pub type Register = fn(&mut Registry);

/// What a plugin's file says of itself, in the link section [`SECTION`]. The runner reads it from the file before it
/// loads the library, so that a plugin of another build is refused with the reason, before any of its code runs.
/// Texts are UTF-8, padded with zeros.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Handshake {
    magic: [u8; 8],
    size: u32,
    reserved: u32,
    sdk_hash: [u8; 64],
    rustc: [u8; 96],
    target: [u8; 64],
    features: [u8; 64],
    plugin: [u8; 64],
    symbol: [u8; 96],
}

impl Handshake {
    /// The handshake of a plugin built against this SDK. `symbol` is the name of its [`Register`] function.
    pub const fn new(plugin: &str, symbol: &str) -> Self {
        Self {
            magic: MAGIC,
            size: size_of::<Self>() as u32,
            reserved: 0,
            sdk_hash: padded(SDK_HASH),
            rustc: padded(RUSTC),
            target: padded(TARGET),
            features: padded(FEATURES),
            plugin: padded(plugin),
            symbol: padded(symbol),
        }
    }

    /// Reads a handshake from the bytes of a section. `None` if they are not one.
    pub fn read(bytes: &[u8]) -> Option<Fields> {
        let mut rest = bytes.get(..size_of::<Self>())?;
        let mut next = |len: usize| {
            let (field, tail) = rest.split_at(len);
            rest = tail;
            field
        };
        let text = |field: &[u8]| {
            let end = field.iter().position(|&b| b == 0).unwrap_or(field.len());
            String::from_utf8_lossy(&field[..end]).into_owned()
        };
        if next(8) != MAGIC || next(4) != (size_of::<Self>() as u32).to_ne_bytes() {
            return None;
        }
        next(4);
        Some(Fields {
            sdk_hash: text(next(64)),
            rustc: text(next(96)),
            target: text(next(64)),
            features: text(next(64)),
            plugin: text(next(64)),
            symbol: text(next(96)),
        })
    }
}

/// A handshake as read from a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields {
    /// [`SDK_HASH`] of the SDK that it was built against.
    pub sdk_hash: String,
    /// [`RUSTC`] of that build.
    pub rustc: String,
    /// [`TARGET`] of that build.
    pub target: String,
    /// [`FEATURES`] of that build.
    pub features: String,
    /// The plugin's name: its package.
    pub plugin: String,
    /// The symbol of its [`Register`] function.
    pub symbol: String,
}

impl Fields {
    /// Why a plugin of this handshake cannot be loaded by this process; `None` if it can.
    pub fn refusal(&self) -> Option<String> {
        let differs = |what: &str, theirs: &str, ours: &str| {
            format!("it was built {what} {theirs}, and this rqlab {what} {ours}")
        };
        if self.rustc != RUSTC {
            Some(differs("by", &self.rustc, RUSTC))
        } else if self.target != TARGET {
            Some(differs("for", &self.target, TARGET))
        } else if self.features != FEATURES {
            Some(differs("with the features", &self.features, FEATURES))
        } else if self.sdk_hash != SDK_HASH {
            let short = |hash: &str| hash.chars().take(12).collect::<String>();
            Some(differs("against the SDK build", &short(&self.sdk_hash), &short(SDK_HASH)))
        } else {
            None
        }
    }
}

/// `text` in a field of `N` bytes, cut if it is longer.
const fn padded<const N: usize>(text: &str) -> [u8; N] {
    let bytes = text.as_bytes();
    let mut field = [0; N];
    let mut i = 0;
    while i < bytes.len() && i < N {
        field[i] = bytes[i];
        i += 1;
    }
    field
}

/// Makes a crate a plugin. One line a component: its kind, the name that experiment files call it by, its configuration,
/// and its constructor `fn(Config, &Context) -> Result<Component>`.
///
/// ```ignore
/// declare_plugin! {
///     quantizer "rq": RqConfig => Rq::new;
/// }
/// ```
#[macro_export]
macro_rules! declare_plugin {
    ($($kind:ident $name:literal : $Config:ty => $new:expr);+ $(;)?) => {
        const _: () = {
            const SYMBOL: &str = concat!("rqlab_register_", env!("CARGO_PKG_NAME"));

            #[used]
            // SAFETY: the section is read from the file as bytes; nothing else uses its name.
            #[allow(unsafe_code)]
            #[cfg_attr(not(target_os = "macos"), unsafe(link_section = ".rqlab"))]
            #[cfg_attr(target_os = "macos", unsafe(link_section = "__DATA,.rqlab"))]
            static HANDSHAKE: $crate::plugin::Handshake =
                $crate::plugin::Handshake::new(env!("CARGO_PKG_NAME"), SYMBOL);

            // SAFETY: the name contains the package's, which is unique in a process that loads plugins.
            #[allow(unsafe_code)]
            #[unsafe(export_name = concat!("rqlab_register_", env!("CARGO_PKG_NAME")))]
            fn register(registry: &mut $crate::plugin::Registry) {
                $( registry.add($crate::plugin::Component::new::<$Config>(
                    $name,
                    $crate::component_build!($kind, $Config, $new),
                )); )+
            }
        };
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! component_build {
    (dataset, $Config:ty, $new:expr) => {
        $crate::plugin::Build::Dataset(|text, cx| {
            Ok(Box::new($new(<$Config as $crate::config::Config>::parse(text)?, cx)?))
        })
    };
    (autoencoder, $Config:ty, $new:expr) => {
        $crate::plugin::Build::Autoencoder(|text, cx| {
            Ok(Box::new($new(<$Config as $crate::config::Config>::parse(text)?, cx)?))
        })
    };
    (quantizer, $Config:ty, $new:expr) => {
        $crate::plugin::Build::Quantizer(|text, cx| {
            Ok(Box::new($new(<$Config as $crate::config::Config>::parse(text)?, cx)?))
        })
    };
    (prior, $Config:ty, $new:expr) => {
        $crate::plugin::Build::Prior(|text, cx| {
            Ok(Box::new($new(<$Config as $crate::config::Config>::parse(text)?, cx)?))
        })
    };
    (objective, $Config:ty, $new:expr) => {
        $crate::plugin::Build::Objective(|text, cx| {
            Ok(Box::new($new(<$Config as $crate::config::Config>::parse(text)?, cx)?))
        })
    };
}
