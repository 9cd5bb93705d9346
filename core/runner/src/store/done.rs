//! What a stage that ended leaves: what it found, or why it could not.

use rqlab_reports::{Curve, Environment, Reading};
use serde::{Deserialize, Serialize};

/// What a finished stage leaves for the report.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// What was measured: equal from run to run.
    pub readings: Vec<Reading>,
    /// What was measured of the machine (seconds, memory, images per second): not equal from run to run.
    pub timings: Vec<Reading>,
    /// Training curves.
    pub curves: Vec<Curve>,
    /// Seconds of work, over all the processes that it took.
    pub seconds: f64,
    /// Where it was computed; none of a stage that did not say.
    pub environment: Option<Environment>,
    /// When and where its speeds were timed again, if they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remeasured: Option<Remeasured>,
}

/// A later timing, in the place of that of the stage's own run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remeasured {
    /// When, in UTC: `2026-11-28T05:35:48Z`.
    pub when: String,
    /// Where.
    pub environment: Environment,
}

impl Done {
    /// Puts `speeds` in the place of those that it has.
    pub fn remeasure(&mut self, speeds: Vec<Reading>, again: Remeasured) {
        self.timings.retain(|old| !speeds.iter().any(|new| new.measure == old.measure));
        self.timings.extend(speeds);
        self.remeasured = Some(again);
    }
}

/// Why a stage could not be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// The error.
    pub error: String,
    /// Whether it is another stage's, which this one needs, so that this one was not tried.
    #[serde(default)]
    pub untried: bool,
}
