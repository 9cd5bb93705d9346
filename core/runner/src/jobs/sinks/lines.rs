//! A line per job, where no terminal shows bars.

use super::{Event, Owners, Sink, failed, waits, warned};
use crate::jobs::Outcome;
use crate::ui::say;

/// Lines on standard error.
#[derive(Debug, Default)]
pub struct Lines {
    ended: usize,
    jobs: usize,
    owners: Owners,
}

impl Lines {
    /// Lines that say whose each job is.
    pub fn of(owners: Owners) -> Self {
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
            Event::Warned { job, warning } => Some(warned(job, warning, &self.owners)),
            Event::Waiting { others } => Some(waits(others)),
            Event::Interrupted { job, cause } => {
                Some(format!("{} was ended from outside ({cause}); it goes on", self.owners.job(job)))
            }
            Event::Ended { job, outcome, seconds } => {
                self.ended += 1;
                match outcome {
                    Outcome::Failed(error) => Some(failed(job, error, &self.owners)),
                    Outcome::Done => {
                        Some(format!("{}/{} {}, {seconds:.1} s", self.ended, self.jobs, self.owners.job(job)))
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
