//! The commands about plugins.

use clap::{Subcommand, ValueEnum};
use rqlab_sdk::plugin::Kind;
use std::path::PathBuf;

/// What to do with plugins.
#[derive(Debug, Subcommand)]
pub enum PluginsCommand {
    /// Lists all components, and the plugins that were refused with the reason.
    List,
    /// The same as `rqlab describe`.
    #[command(after_help = "Example:\n  rqlab plugins describe rq")]
    Describe {
        /// The component's name, as experiments call it.
        name: String,
    },
    /// Loads a plugin's file; started for each one that was not seen before.
    #[command(hide = true)]
    Probe {
        /// The file.
        file: PathBuf,
    },
    /// Makes a new plugin: a small crate that builds and works, to be changed.
    #[command(after_help = "\
Example:
  rqlab plugins new round --kind quantizer
  rqlab plugins build round
  rqlab describe round")]
    New {
        /// The component's name: small letters, digits and underscores.
        name: String,
        /// What it is.
        #[arg(long)]
        kind: KindArg,
        /// Directory to make it in [default: ./NAME].
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Builds a plugin against this very rqlab, and puts it where rqlab finds it.
    Build {
        /// The plugin's crate.
        #[arg(default_value = ".")]
        dir: PathBuf,
        /// Directory for the library [default: plugins/ beside the rqlab executable, which is always searched].
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
        /// Runs the plugin's own tests first.
        #[arg(long)]
        test: bool,
    },
}

/// A kind of component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KindArg {
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

impl From<KindArg> for Kind {
    fn from(kind: KindArg) -> Self {
        match kind {
            KindArg::Dataset => Self::Dataset,
            KindArg::Autoencoder => Self::Autoencoder,
            KindArg::Quantizer => Self::Quantizer,
            KindArg::Prior => Self::Prior,
            KindArg::Objective => Self::Objective,
        }
    }
}
