//! The places of an experiment that components and settings go into.

use rqlab_sdk::plugin::Kind;
use std::fmt;

/// A place of an experiment that a component or a group of settings goes into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// The data set.
    Data,
    /// The autoencoder.
    Autoencoder,
    /// The quantizer: one for every level of the autoencoder, or a list with one per level.
    Quantizer,
    /// The prior: as for quantizers; may be empty.
    Prior,
    /// What the tokenizer is trained for: one objective or a list of them.
    Objective,
    /// How the tokenizer is trained.
    TokenizerTraining,
    /// How the prior is trained.
    PriorTraining,
    /// What is measured.
    Evaluation,
}

impl Slot {
    /// All of them, in the order in which an experiment is written.
    pub const ALL: [Self; 8] = [
        Self::Data,
        Self::Autoencoder,
        Self::Quantizer,
        Self::Prior,
        Self::Objective,
        Self::TokenizerTraining,
        Self::PriorTraining,
        Self::Evaluation,
    ];

    /// The field of an experiment file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Autoencoder => "autoencoder",
            Self::Quantizer => "quantizer",
            Self::Prior => "prior",
            Self::Objective => "objective",
            Self::TokenizerTraining => "tokenizer_training",
            Self::PriorTraining => "prior_training",
            Self::Evaluation => "evaluation",
        }
    }

    /// The slot of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|slot| slot.name() == name)
    }

    /// What plugins provide for it; none for settings.
    pub fn kind(self) -> Option<Kind> {
        match self {
            Self::Data => Some(Kind::Dataset),
            Self::Autoencoder => Some(Kind::Autoencoder),
            Self::Quantizer => Some(Kind::Quantizer),
            Self::Prior => Some(Kind::Prior),
            Self::Objective => Some(Kind::Objective),
            Self::TokenizerTraining | Self::PriorTraining | Self::Evaluation => None,
        }
    }

    /// The slot of a kind of component.
    pub fn of(kind: Kind) -> Self {
        match kind {
            Kind::Dataset => Self::Data,
            Kind::Autoencoder => Self::Autoencoder,
            Kind::Quantizer => Self::Quantizer,
            Kind::Prior => Self::Prior,
            Kind::Objective => Self::Objective,
        }
    }

    /// Whether it may hold a list of calls: one per level, or several objectives.
    pub fn takes_list(self) -> bool {
        matches!(self, Self::Quantizer | Self::Prior | Self::Objective)
    }

    /// What it holds if an experiment says nothing.
    pub fn default(self) -> Option<&'static str> {
        (self == Self::Objective).then_some("mse()")
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
