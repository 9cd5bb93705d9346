//! A line per job, where no terminal shows bars.

use super::{Event, Sink, failed, short, warned};
use crate::id::Id;
use crate::jobs::Outcome;
use crate::ui::say;
use std::collections::HashMap;

/// Lines on standard error.
#[derive(Debug, Default)]
pub struct Lines {
    ended: usize,
    jobs: usize,
    owners: HashMap<Id, String>,
}

impl Lines {
    /// Lines that say whose each job is.
    pub fn of(owners: HashMap<Id, String>) -> Self {
        Self { owners, ..Self::default() }
    }

    /// What there is to say of an event.
    fn line(&mut self, event: &Event<'_>) -> Option<String> {
        match *event {
            Event::Planned { jobs, waiting } => {
                self.jobs = waiting.len();
                let cached = jobs - waiting.len();
                (cached > 0 && self.jobs > 0).then(|| format!("{cached} of {jobs} jobs were done before"))
            }
            Event::Warned { job, warning } => Some(warned(job, warning)),
            Event::Interrupted { job, cause } => {
                Some(format!("{} {} was ended from outside ({cause}); it goes on", job.stage.name(), short(job)))
            }
            Event::Ended { job, outcome, seconds } => {
                self.ended += 1;
                match outcome {
                    Outcome::Failed(error) => Some(failed(job, error)),
                    Outcome::Done => {
                        let name = job.stage.name();
                        let of = self.owners.get(&job.id).map(|of| format!(", {of}")).unwrap_or_default();
                        Some(format!("{}/{} {name} {} {seconds:.1} s{of}", self.ended, self.jobs, short(job)))
                    }
                    Outcome::Cached | Outcome::Blocked(_) => None,
                }
            }
            Event::Started { .. } | Event::Progress { .. } | Event::Finished { .. } => None,
        }
    }
}

impl Sink for Lines {
    fn event(&mut self, event: &Event<'_>) {
        if let Some(line) = self.line(event) {
            say(line);
        }
    }
}
