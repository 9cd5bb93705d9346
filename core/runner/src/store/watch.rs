//! Which leases are stale: what one process has seen of those of others.
//!
//! Of a holder whose processes this machine knows, the machine is asked. Of another one, the counter is looked at: it is gone when
//! that stood still for [`SILENCE`] under the observer's eyes. No two machines' clocks are compared, and no clock that is set
//! moves it.

use super::lease::Found;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long the counter of a holder that nobody can ask for stands still before its lease is stale: NFS may show a file as it was a
/// minute ago.
pub const SILENCE: Duration = Duration::from_secs(120);
/// The most that counts as silence between two looks: an observer that could not look, because its disk or its machine stood still,
/// has not heard that the holder was silent.
const LONGEST_LOOK: Duration = Duration::from_secs(15);

/// What one process has seen of the leases of others.
#[derive(Debug, Default)]
pub struct Watch(HashMap<String, Seen>);

#[derive(Debug)]
struct Seen {
    lease: Found,
    silent: Duration,
    looked: Instant,
}

impl Watch {
    /// Why a lease is stale, if it is. To be called with every look, with the time of it.
    pub fn stale(&mut self, lease: &Found, now: Instant) -> Option<String> {
        let near = lease.holder.as_ref().filter(|holder| holder.is_near());
        if let Some(holder) = near {
            return (!holder.is_there()).then(|| "that process is gone".to_owned());
        }
        let seen = self.0.entry(lease.id.clone()).or_insert_with(|| Seen {
            lease: lease.clone(),
            silent: Duration::ZERO,
            looked: now,
        });
        let since = now.saturating_duration_since(seen.looked).min(LONGEST_LOOK);
        let silent = if seen.lease == *lease { seen.silent + since } else { Duration::ZERO };
        *seen = Seen { lease: lease.clone(), silent, looked: now };
        (silent >= SILENCE).then(|| format!("it has not been heard of for {} s", silent.as_secs()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::super::holder::{Holder, Process};
    use super::super::lease::token;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A lease of this process, but for a change of its holder.
    fn lease(change: impl FnOnce(&mut Holder)) -> Found {
        let mut holder = Holder::here(token(), false);
        change(&mut holder);
        Found { id: "a".to_owned(), holder: Some(holder), beat: 7 }
    }

    fn of_another_machine(holder: &mut Holder) {
        holder.host = "elsewhere".to_owned();
        holder.kernel = Some("another boot".to_owned());
    }

    /// The number of a process that has ended.
    fn ended() -> Process {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let started = crate::machine::process_start(child.id());
        let process = Process { pid: child.id(), started };
        child.kill().unwrap();
        child.wait().unwrap();
        process
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_killed_holder_is_gone_and_a_silent_one_that_lives_is_not() {
        let dead = ended();
        let (now, mut watch) = (Instant::now(), Watch::default());
        let killed = lease(|holder| holder.processes = vec![dead, dead]);
        assert_eq!(watch.stale(&killed, now).as_deref(), Some("that process is gone"));
        // Its number was given to another process.
        let reused = lease(|holder| holder.processes[0].started = Some(1));
        assert!(watch.stale(&reused, now).is_some());
        let of_two = lease(|holder| holder.processes.push(dead));
        for hours in 0..100 {
            assert_eq!(
                watch.stale(&of_two, now + Duration::from_secs(3600 * hours)),
                None,
                "one of its processes lives"
            );
        }
    }

    #[test]
    fn a_holder_elsewhere_is_gone_when_it_was_silent_under_our_eyes() {
        let elsewhere = lease(of_another_machine);
        let beats = |beat| Found { beat, ..elsewhere.clone() };
        let mut now = Instant::now();
        let mut watch = Watch::default();
        // It beats, though seldom: it lives.
        for beat in 0..10 {
            for _ in 0..100 {
                now += SECOND;
                assert_eq!(watch.stale(&beats(beat), now), None);
            }
        }
        // We could not look for a day, and then once in a while: that is no day of silence.
        for _ in 0..5 {
            now += 86_400 * SECOND;
            assert_eq!(watch.stale(&beats(11), now), None);
        }
        let looks = (0..1000).take_while(|_| {
            now += SECOND;
            watch.stale(&beats(11), now).is_none()
        });
        assert!((40..=120).contains(&looks.count()));
        assert!(watch.stale(&beats(11), now).unwrap().starts_with("it has not been heard of for 12"));
        // A clock that is set says nothing: those of the two machines are never asked.
        let since = lease(|holder| {
            of_another_machine(holder);
            holder.since = "1970-01-01T00:00:00Z".to_owned();
        });
        assert_eq!(watch.stale(&since, now), None);
    }

    #[test]
    fn what_is_no_lease_is_stale_when_it_stays() {
        let nobody = Found { id: "a".to_owned(), holder: None, beat: 0 };
        let (start, mut watch) = (Instant::now(), Watch::default());
        let stale = |second| watch.stale(&nobody, start + second * SECOND).is_some();
        assert_eq!((0..=120).map(stale).filter(|&stale| stale).count(), 1, "at the last look");
    }
}
