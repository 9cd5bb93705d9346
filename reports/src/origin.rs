//! Where a stage was computed.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

use crate::format;

/// The stage that speeds belong to where they were timed again; else it is the one that drew the samples.
pub const SPEED: &str = "speed";
/// The stage that draws samples.
const SAMPLES: &str = "generation";

/// What computed a stage: the program and the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Environment {
    /// The program with its version, such as `rqlab 0.1.0`.
    pub program: String,
    /// Its git commit, with a note if the sources had changed since; `None` outside a repository.
    pub commit: Option<String>,
    /// The compiler that built it.
    pub compiler: String,
    /// The target that it was built for, such as `x86_64-unknown-linux-gnu`.
    pub target: String,
    /// The processor's name and its number of cores.
    pub processor: String,
    /// The instructions that the kernels used, such as `AVX-512`.
    pub instructions: String,
    /// Where tensors were: `cpu`, or the GPU's name.
    pub device: String,
    /// What products were computed in: `f32`, `tf32` or `bf16`.
    pub precision: String,
    /// Threads that the stage had.
    pub threads: usize,
    /// Ranks that shared its work, if there were several; each had as many threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ranks: Option<usize>,
    /// What an earlier part of the work was computed by, where its numbers are rounded otherwise: [`Environment::arithmetic`].
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub earlier: BTreeSet<String>,
    /// The plugins that took part: name to digest.
    pub plugins: BTreeMap<String, String>,
}

/// One stage of a trial, and where it was computed.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Origin {
    /// Name of the stage, such as `tokenizer`.
    pub stage: String,
    /// Where it was computed.
    pub environment: Environment,
}

/// Where a trial's speeds were timed.
pub(crate) fn of_speeds(origins: &[Origin]) -> Option<&Environment> {
    let named = |name: &str| origins.iter().find(|origin| origin.stage == name);
    named(SPEED).or_else(|| named(SAMPLES)).map(|origin| &origin.environment)
}

impl Environment {
    /// What numbers are rounded by: device, instructions, precision, ranks. Kernels cut their work by size, so that threads do
    /// not matter.
    pub fn arithmetic(&self) -> String {
        let ranks = self.ranks.map_or(String::new(), |ranks| format!(", {ranks} ranks"));
        format!("{}, {}, {}{ranks}", self.device, self.instructions, self.precision)
    }

    /// Whether equal work gives equal bits on both.
    pub(crate) fn computes_as(&self, other: &Self) -> bool {
        self.arithmetic() == other.arithmetic() && self.earlier == other.earlier
    }

    /// The program with its commit, `rqlab 0.1.0 at 0123456789ab`.
    pub(crate) fn versioned(&self) -> String {
        match &self.commit {
            Some(commit) => format!("{} at {}", self.program, short_commit(commit)),
            None => self.program.clone(),
        }
    }
}

/// The first digits of a commit, and the note behind them if there is one.
fn short_commit(commit: &str) -> String {
    let digits = commit.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(commit.len());
    format!("{}{}", format::digest(&commit[..digits]), &commit[digits..])
}
