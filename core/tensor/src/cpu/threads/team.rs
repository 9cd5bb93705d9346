//! A team of threads that spin between short parallel regions.
//!
//! A step of sampling is a chain of products of some ten microseconds each. To unpark a thread takes as long, so workers spin
//! for a while before they park, and inside a region all members meet at barriers. Where other programs use the processors, a
//! worker that has lost its own is a straggler that keeps all others waiting at every barrier; the leader then runs some
//! regions serially.
//!
//! `tests/loom` runs this file on threads, variables and a clock that loom drives through all orders.

#![allow(unsafe_code)]

use super::sync::{
    AtomicU64, AtomicUsize, Cell, Condvar, Instant, Mutex, Ordering, POLLS, SPINS, spin_loop, thread_count, yield_now,
};
use std::ops::Range;
use std::sync::{OnceLock, PoisonError};
use std::time::Duration;

/// A worker spins for so long before it parks.
const SPIN: Duration = Duration::from_micros(200);
/// A leader that waits longer than this, and for most of a region, waits for a straggler.
const STRAGGLING: Duration = Duration::from_millis(1);
/// Regions at most that the leader runs serially before it tries the team again.
const MOST_SERIAL: usize = 1 << 9;

type Region = dyn Fn(&Member<'_>) + Sync;

/// A variable in cache lines of its own (processors fetch them in pairs).
#[repr(align(128))]
struct Line<T>(T);

pub(super) struct Team {
    /// Members beside the leader.
    workers: usize,
    /// Held by the leader of a region.
    leader: Mutex<()>,
    /// What the members do; written by the leader before `begun` changes.
    region: Cell<Option<*const Region>>,
    /// Regions so far.
    begun: Line<AtomicUsize>,
    /// Workers that are done with the region.
    finished: Line<AtomicUsize>,
    /// Members that wait at the barrier, and how often all have passed it.
    arrived: Line<AtomicUsize>,
    passed: Line<AtomicUsize>,
    /// Nanoseconds that the leader has waited for others since the region began, less short waits.
    waited: AtomicU64,
    backoff: Backoff,
    /// Workers that are parked, or about to be.
    parked: AtomicUsize,
    parking: Mutex<()>,
    unpark: Condvar,
}

// SAFETY: `region` is written by the holder of `leader` alone, while no worker is between `begun` and `finished`, and
// the two counters order writes before reads. What it points to is shared between threads (`Sync`).
unsafe impl Sync for Team {}
// SAFETY: as above.
unsafe impl Send for Team {}

/// One thread of a region.
pub(crate) struct Member<'a> {
    team: Option<&'a Team>,
    index: usize,
    count: usize,
}

/// Ends the process when dropped by a panic: the other members would wait for this one forever.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

impl Member<'_> {
    /// This member's part of `pieces`: the same for every region, so that it finds what it read before in its cache.
    pub(crate) fn share(&self, pieces: usize) -> Range<usize> {
        self.index * pieces / self.count..(self.index + 1) * pieces / self.count
    }

    /// How many members there are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Waits until all members are here: a barrier.
    pub(crate) fn barrier(&self) {
        let Some(team) = self.team else { return };
        let passed = team.passed.0.load(Ordering::Relaxed);
        if team.arrived.0.fetch_add(1, Ordering::AcqRel) + 1 == self.count {
            team.arrived.0.store(0, Ordering::Relaxed);
            team.passed.0.store(passed.wrapping_add(1), Ordering::Release);
        } else {
            let waited = team.spin_until(|| team.passed.0.load(Ordering::Acquire) != passed);
            if self.index == 0 {
                team.waited.fetch_add(waited, Ordering::Relaxed);
            }
        }
    }
}

impl Team {
    pub(super) fn new(workers: usize) -> Self {
        Self {
            workers,
            leader: Mutex::new(()),
            region: Cell::new(None),
            begun: Line(AtomicUsize::new(0)),
            finished: Line(AtomicUsize::new(0)),
            arrived: Line(AtomicUsize::new(0)),
            passed: Line(AtomicUsize::new(0)),
            waited: AtomicU64::new(0),
            backoff: Backoff::default(),
            parked: AtomicUsize::new(0),
            parking: Mutex::new(()),
            unpark: Condvar::new(),
        }
    }

    /// Runs `f` on all members at once, the calling thread among them, which holds `leader`.
    pub(super) fn lead(&self, f: impl Fn(&Member<'_>) + Sync) {
        let since = Instant::now();
        let abort = AbortOnPanic;
        let region: *const (dyn Fn(&Member<'_>) + Sync + '_) = &f;
        // SAFETY: only the lifetime changes; no worker uses the pointer after the last has finished, which is waited for.
        let region: *const Region = unsafe { std::mem::transmute(region) };
        // SAFETY: this thread holds `leader`, and all workers have finished the region before.
        unsafe { self.region.set(Some(region)) };
        self.finished.0.store(0, Ordering::Relaxed);
        self.begun.0.fetch_add(1, Ordering::SeqCst);
        if self.parked.load(Ordering::SeqCst) > 0 {
            drop(self.parking.lock().unwrap_or_else(PoisonError::into_inner));
            self.unpark.notify_all();
        }
        f(&Member { team: Some(self), index: 0, count: self.workers + 1 });
        let waited = self.spin_until(|| self.finished.0.load(Ordering::Acquire) == self.workers);
        let waited = Duration::from_nanos(self.waited.swap(0, Ordering::Relaxed) + waited);
        self.backoff.after_region(self.workers as u32 + 1, since.elapsed(), waited);
        drop(abort);
    }

    /// What worker `index` does of the region after the first `seen`, once it begins.
    pub(super) fn follow(&self, index: usize, seen: usize) {
        self.wait_for_region(seen);
        // SAFETY: the leader wrote it before it raised `begun`, and writes no other until this worker has finished.
        let region = unsafe { self.region.get() };
        let abort = AbortOnPanic;
        if let Some(region) = region {
            // SAFETY: it lives until the leader returns, after all workers have finished.
            let region = unsafe { &*region };
            region(&Member { team: Some(self), index, count: self.workers + 1 });
        }
        drop(abort);
        self.finished.0.fetch_add(1, Ordering::AcqRel);
    }

    /// Waits for a region after the first `seen`: spins for a while, then parks.
    fn wait_for_region(&self, seen: usize) {
        let new = || self.begun.0.load(Ordering::SeqCst) != seen;
        let since = Instant::now();
        loop {
            for _ in 0..POLLS {
                if new() {
                    return;
                }
                spin_loop();
            }
            if since.elapsed() > SPIN {
                break;
            }
        }
        let mut parking = self.parking.lock().unwrap_or_else(PoisonError::into_inner);
        // Either the leader sees a parked worker, or that worker sees the region.
        self.parked.fetch_add(1, Ordering::SeqCst);
        while !new() {
            parking = self.unpark.wait(parking).unwrap_or_else(PoisonError::into_inner);
        }
        self.parked.fetch_sub(1, Ordering::SeqCst);
    }

    /// Spins until `done`. Gives the nanoseconds that this took, or none if it took no more than [`SPINS`].
    fn spin_until(&self, done: impl Fn() -> bool) -> u64 {
        for _ in 0..SPINS {
            if done() {
                return 0;
            }
            spin_loop();
        }
        let since = Instant::now();
        while !done() {
            yield_now();
        }
        since.elapsed().as_nanos() as u64
    }
}

/// When the leader runs regions serially, because of stragglers. Only the leader asks.
#[derive(Default)]
struct Backoff {
    /// Regions that are still to be run serially.
    serial: AtomicUsize,
    /// How many there were last time, less what regions without stragglers have won back.
    last: AtomicUsize,
}

impl Backoff {
    /// Whether this region is to be run serially; counts it as one of those.
    fn runs_serially(&self) -> bool {
        let left = self.serial.load(Ordering::Relaxed);
        self.serial.store(left.saturating_sub(1), Ordering::Relaxed);
        left > 0
    }

    /// After a region of so many members that took so long, of which the leader waited for some. If the leader would have
    /// been done sooner with all of the work itself, it runs some regions serially, more each time; every region without
    /// stragglers makes the next such run shorter.
    fn after_region(&self, members: u32, took: Duration, waited: Duration) {
        let straggler = waited > STRAGGLING && took.saturating_sub(waited) * members < took;
        let last = self.last.load(Ordering::Relaxed);
        let last = if straggler { (4 * last).clamp(4, MOST_SERIAL) } else { last - last.div_ceil(4) };
        self.last.store(last, Ordering::Relaxed);
        self.serial.store(if straggler { last } else { 0 }, Ordering::Relaxed);
    }
}

/// Runs `f` on all threads of the team at once; on the calling one alone if the others are in another region. Results
/// must not depend on the number of members. A panic in a region ends the process.
pub(crate) fn region(f: impl Fn(&Member<'_>) + Sync) {
    let Some((team, _leader)) = team().and_then(|team| Some((team, team.leader.try_lock().ok()?))) else {
        return f(&Member { team: None, index: 0, count: 1 });
    };
    if team.backoff.runs_serially() {
        return f(&Member { team: None, index: 0, count: 1 });
    }
    team.lead(f);
}

/// The team of the process: as many threads as the pool has, the caller among them; alone where they cannot be started.
fn team() -> Option<&'static Team> {
    static TEAM: OnceLock<Option<&'static Team>> = OnceLock::new();
    *TEAM.get_or_init(|| {
        let workers = thread_count().saturating_sub(1);
        let team: &'static Team = Box::leak(Box::new(Team::new(workers)));
        let start = |index| {
            std::thread::Builder::new().name("team".to_owned()).spawn(move || {
                let mut seen = 0;
                loop {
                    team.follow(index, seen);
                    seen = seen.wrapping_add(1);
                }
            })
        };
        (workers > 0 && (1..=workers).all(|index| start(index).is_ok())).then_some(team)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every member adds to its cell, and after each barrier finds all others at the same count.
    #[test]
    fn no_member_passes_a_barrier_before_all_have_arrived() {
        for _ in 0..50 {
            let cells: Vec<AtomicUsize> = (0..rayon::current_num_threads()).map(|_| AtomicUsize::new(0)).collect();
            region(|member| {
                for turn in 1..=20 {
                    member.share(cells.len()).for_each(|i| {
                        cells[i].fetch_add(1, Ordering::Relaxed);
                    });
                    member.barrier();
                    assert!(cells.iter().all(|cell| cell.load(Ordering::Relaxed) == turn));
                    member.barrier();
                }
            });
        }
    }

    #[test]
    fn after_stragglers_more_and_more_regions_are_run_serially() {
        let backoff = Backoff::default();
        let serial = || (0..).take_while(|_| backoff.runs_serially()).count();
        assert_eq!(serial(), 0);
        for wanted in [4, 16, 64, 256, MOST_SERIAL, MOST_SERIAL] {
            backoff.after_region(2, 10 * STRAGGLING, 6 * STRAGGLING);
            assert_eq!(serial(), wanted);
        }
        for _ in 0..30 {
            // Waits that are not worth the time that workers save, and one too short to tell.
            backoff.after_region(2, 10 * STRAGGLING, 4 * STRAGGLING);
            backoff.after_region(4, 10 * STRAGGLING, 6 * STRAGGLING);
            backoff.after_region(2, STRAGGLING, STRAGGLING);
            assert_eq!(serial(), 0);
        }
        backoff.after_region(4, 10 * STRAGGLING, 8 * STRAGGLING);
        assert_eq!(serial(), 4);
    }

    #[test]
    fn shares_cover_all_pieces_once() {
        for pieces in [0, 1, 2, 7, 100] {
            let taken: Vec<AtomicUsize> = (0..pieces).map(|_| AtomicUsize::new(0)).collect();
            region(|member| {
                for piece in member.share(pieces) {
                    taken[piece].fetch_add(1, Ordering::Relaxed);
                }
            });
            assert!(taken.iter().all(|t| t.load(Ordering::Relaxed) == 1));
        }
    }

    /// A region inside a region, and regions of several threads at once, run on the calling thread.
    #[test]
    fn a_region_runs_while_another_does() {
        let sum = AtomicUsize::new(0);
        let add = |member: &Member<'_>| {
            sum.fetch_add(member.share(10).len(), Ordering::Relaxed);
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..100).for_each(|_| region(add)));
            }
        });
        assert_eq!(sum.swap(0, Ordering::Relaxed), 4000);
        region(|member| {
            member.share(1).for_each(|_| region(add));
        });
        assert_eq!(sum.load(Ordering::Relaxed), 10);
    }
}
