//! What other processes do in the same store: whose leases there are, and which of them are stale.

use super::{Event, Sink};
use crate::job::Job;
use crate::store::{Found, Holder, Leases, Watch};
use rqlab_sdk::Result;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How long one look serves at least.
const LOOK: Duration = Duration::from_millis(200);
/// The same for each lease that there is, so that a thousand processes do not read a thousand files each all the time.
const LOOK_FOR_EACH: Duration = Duration::from_millis(20);

/// The leases of others, as they were at the last look.
#[derive(Default)]
pub(super) struct Others {
    held: BTreeMap<String, Found>,
    watch: Watch,
    next: Option<Instant>,
}

impl Others {
    /// Looks again, if the last look is too long ago; breaks what is stale, and says so of the jobs of this run; removes what a
    /// killed process left that was about to take a lease. `own` are the tokens of this process. Says whether it looked.
    ///
    /// # Errors
    /// The leases cannot be read.
    pub(super) fn look(
        &mut self,
        leases: &Leases,
        own: &BTreeSet<&str>,
        waiting: &[&Job],
        now: Instant,
        sink: &mut dyn Sink,
    ) -> Result<bool> {
        if self.next.is_some_and(|next| now < next) {
            return Ok(false);
        }
        self.held.clear();
        for found in leases.all()? {
            if found.holder.as_ref().is_some_and(|holder| own.contains(holder.token.as_str())) {
                continue;
            }
            let Some(why) = self.watch.stale(&found, now) else {
                self.held.insert(found.id.clone(), found);
                continue;
            };
            if leases.break_stale(&found)?
                && let Some(job) = waiting.iter().find(|job| *job.id == *found.id)
            {
                let warning = format!("{} worked on it, and {why}: it goes on here", found.who());
                sink.event(&Event::Warned { job, warning: &warning });
            }
        }
        for left in leases.unfinished()? {
            if self.watch.stale(&left, now).is_some() {
                leases.break_stale(&left)?;
            }
        }
        self.next = Some(now + LOOK.max(LOOK_FOR_EACH * self.held.len().try_into().unwrap_or(u32::MAX)));
        Ok(true)
    }

    /// Who holds the lease of a job, as of the last look.
    pub(super) fn hold(&self, id: &str) -> bool {
        self.held.contains_key(id)
    }

    /// Notes a lease that was met between two looks.
    pub(super) fn met(&mut self, leases: &Leases, id: &str) {
        if let Ok(Some(found)) = leases.find(id) {
            self.held.insert(id.to_owned(), found);
        }
    }

    /// Whether work on this machine keeps a job from starting: any, if the job must be alone, else that which must be alone.
    pub(super) fn keep_from_starting(&self, exclusive: bool) -> bool {
        let holders = self.held.values().filter_map(|found| found.holder.as_ref());
        holders.filter(|holder: &&Holder| holder.is_near()).any(|holder| exclusive || holder.exclusive)
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.held.len()
    }

    /// Forgets when the last look was.
    pub(super) fn look_again(&mut self) {
        self.next = None;
    }
}
