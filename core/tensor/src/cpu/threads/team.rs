//! A team of threads that stay awake between short parallel regions.
//!
//! A step of sampling is a chain of products of some ten microseconds each. To wake a sleeping thread takes as long, so
//! members of a team watch for work for a while before they sleep, and inside a region they meet at barriers. Where other
//! programs use the processors, a member that has lost its own keeps all others waiting at every barrier; the caller then
//! does without helpers for a while.

#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// A helper watches for the next region for so long before it sleeps.
const WATCH: Duration = Duration::from_micros(200);
/// Looks at a barrier before the waiting thread lets others run: a member may have lost its processor.
const LOOKS: usize = 1 << 10;
/// A leader who waits longer than this, and for most of a region, may have a helper without a processor.
const LATE: Duration = Duration::from_millis(1);
/// Regions at most that the caller goes through alone before it tries the team again.
const ALONE: usize = 1 << 9;

type Region = dyn Fn(&Member<'_>) + Sync;

/// A variable in cache lines of its own (processors fetch them in pairs).
#[repr(align(128))]
struct Line<T>(T);

struct Team {
    helpers: usize,
    /// Held by the leader of a region.
    leader: Mutex<()>,
    /// What the members do; written by the leader before `begun` changes.
    region: UnsafeCell<Option<*const Region>>,
    /// Regions so far.
    begun: Line<AtomicUsize>,
    /// Helpers that are done with the region.
    finished: Line<AtomicUsize>,
    /// Members that wait at the barrier, and how often all have passed it.
    arrived: Line<AtomicUsize>,
    passed: Line<AtomicUsize>,
    /// Nanoseconds that the leader has waited for others since the region began, less short waits.
    waited: AtomicU64,
    patience: Patience,
    /// Helpers asleep, or about to be.
    asleep: AtomicUsize,
    bed: Mutex<()>,
    alarm: Condvar,
}

// SAFETY: `region` is written by the holder of `leader` alone, while no helper is between `begun` and `finished`, and
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
struct Together;

impl Drop for Together {
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

    /// Waits until all members are here.
    pub(crate) fn meet(&self) {
        let Some(team) = self.team else { return };
        let passed = team.passed.0.load(Ordering::Relaxed);
        if team.arrived.0.fetch_add(1, Ordering::AcqRel) + 1 == self.count {
            team.arrived.0.store(0, Ordering::Relaxed);
            team.passed.0.store(passed.wrapping_add(1), Ordering::Release);
        } else {
            let waited = team.watch(|| team.passed.0.load(Ordering::Acquire) != passed);
            if self.index == 0 {
                team.waited.fetch_add(waited, Ordering::Relaxed);
            }
        }
    }
}

impl Team {
    /// Looks until `done`. Gives the nanoseconds that this took, or none if it took only some [`LOOKS`].
    fn watch(&self, done: impl Fn() -> bool) -> u64 {
        for _ in 0..LOOKS {
            if done() {
                return 0;
            }
            std::hint::spin_loop();
        }
        let since = Instant::now();
        while !done() {
            std::thread::yield_now();
        }
        since.elapsed().as_nanos() as u64
    }
}

/// When the leader does without helpers, who were late. Only the leader asks.
#[derive(Default)]
struct Patience {
    /// Regions that the leader is still to go through alone.
    alone: AtomicUsize,
    /// How many it was given last time, less what helpers in time have won back.
    given: AtomicUsize,
}

impl Patience {
    /// Whether the leader is to go through this region alone; counts it as one of those.
    fn goes_alone(&self) -> bool {
        let left = self.alone.load(Ordering::Relaxed);
        self.alone.store(left.saturating_sub(1), Ordering::Relaxed);
        left > 0
    }

    /// After a region of so many members that took so long, of which the leader waited for some. If it would have been
    /// done sooner with all of their work alone, it goes on alone for a while, longer each time; every region in time makes
    /// the next while shorter.
    fn judge(&self, members: u32, took: Duration, waited: Duration) {
        let late = waited > LATE && took.saturating_sub(waited) * members < took;
        let given = self.given.load(Ordering::Relaxed);
        let given = if late { (4 * given).clamp(4, ALONE) } else { given - given.div_ceil(4) };
        self.given.store(given, Ordering::Relaxed);
        self.alone.store(if late { given } else { 0 }, Ordering::Relaxed);
    }
}

/// Runs `f` on all threads of the team at once; on the calling one alone if the others are in another region. Results
/// must not depend on the number of members. A panic in a region ends the process.
pub(crate) fn region(f: impl Fn(&Member<'_>) + Sync) {
    let Some((team, _leader)) = team().and_then(|team| Some((team, team.leader.try_lock().ok()?))) else {
        return f(&Member { team: None, index: 0, count: 1 });
    };
    if team.patience.goes_alone() {
        return f(&Member { team: None, index: 0, count: 1 });
    }
    let since = Instant::now();
    let together = Together;
    let region: *const (dyn Fn(&Member<'_>) + Sync + '_) = &f;
    // SAFETY: only the lifetime changes; no helper uses the pointer after the last has finished, which is waited for.
    let region: *const Region = unsafe { std::mem::transmute(region) };
    // SAFETY: this thread holds `leader`, and all helpers have finished the region before.
    unsafe { *team.region.get() = Some(region) };
    team.finished.0.store(0, Ordering::Relaxed);
    team.begun.0.fetch_add(1, Ordering::SeqCst);
    if team.asleep.load(Ordering::SeqCst) > 0 {
        drop(team.bed.lock().unwrap_or_else(PoisonError::into_inner));
        team.alarm.notify_all();
    }
    f(&Member { team: Some(team), index: 0, count: team.helpers + 1 });
    let waited = team.watch(|| team.finished.0.load(Ordering::Acquire) == team.helpers);
    let waited = Duration::from_nanos(team.waited.swap(0, Ordering::Relaxed) + waited);
    team.patience.judge(team.helpers as u32 + 1, since.elapsed(), waited);
    drop(together);
}

/// The team of the process: as many threads as the pool has, the caller among them; alone where they cannot be started.
fn team() -> Option<&'static Team> {
    static TEAM: OnceLock<Option<&'static Team>> = OnceLock::new();
    *TEAM.get_or_init(|| {
        let helpers = rayon::current_num_threads().saturating_sub(1);
        let team: &'static Team = Box::leak(Box::new(Team {
            helpers,
            leader: Mutex::new(()),
            region: UnsafeCell::new(None),
            begun: Line(AtomicUsize::new(0)),
            finished: Line(AtomicUsize::new(0)),
            arrived: Line(AtomicUsize::new(0)),
            passed: Line(AtomicUsize::new(0)),
            waited: AtomicU64::new(0),
            patience: Patience::default(),
            asleep: AtomicUsize::new(0),
            bed: Mutex::new(()),
            alarm: Condvar::new(),
        }));
        let start = |index| std::thread::Builder::new().name("team".to_owned()).spawn(move || help(team, index));
        (helpers > 0 && (1..=helpers).all(|index| start(index).is_ok())).then_some(team)
    })
}

/// The life of a helper.
fn help(team: &'static Team, index: usize) {
    let mut seen = 0;
    loop {
        next(team, seen);
        seen = seen.wrapping_add(1);
        // SAFETY: the leader wrote it before it raised `begun`, and writes no other until this helper has finished.
        let region = unsafe { *team.region.get() };
        let together = Together;
        if let Some(region) = region {
            // SAFETY: it lives until the leader returns, after all helpers have finished.
            let region = unsafe { &*region };
            region(&Member { team: Some(team), index, count: team.helpers + 1 });
        }
        drop(together);
        team.finished.0.fetch_add(1, Ordering::AcqRel);
    }
}

/// Waits for a region after the first `seen`: awake for a while, then asleep.
fn next(team: &Team, seen: usize) {
    let new = || team.begun.0.load(Ordering::SeqCst) != seen;
    let since = Instant::now();
    loop {
        for _ in 0..32 {
            if new() {
                return;
            }
            std::hint::spin_loop();
        }
        if since.elapsed() > WATCH {
            break;
        }
    }
    let mut bed = team.bed.lock().unwrap_or_else(PoisonError::into_inner);
    // Either the leader sees a sleeper, or the sleeper sees the region.
    team.asleep.fetch_add(1, Ordering::SeqCst);
    while !new() {
        bed = team.alarm.wait(bed).unwrap_or_else(PoisonError::into_inner);
    }
    team.asleep.fetch_sub(1, Ordering::SeqCst);
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
                    member.meet();
                    assert!(cells.iter().all(|cell| cell.load(Ordering::Relaxed) == turn));
                    member.meet();
                }
            });
        }
    }

    #[test]
    fn helpers_who_are_late_are_left_alone_longer_each_time_and_called_again() {
        let patience = Patience::default();
        let rest = || (0..).take_while(|_| patience.goes_alone()).count();
        assert_eq!(rest(), 0);
        for wanted in [4, 16, 64, 256, ALONE, ALONE] {
            patience.judge(2, 10 * LATE, 6 * LATE);
            assert_eq!(rest(), wanted);
        }
        for _ in 0..30 {
            // Waits that are not worth the time that helpers save, and one too short to tell.
            patience.judge(2, 10 * LATE, 4 * LATE);
            patience.judge(4, 10 * LATE, 6 * LATE);
            patience.judge(2, LATE, LATE);
            assert_eq!(rest(), 0);
        }
        patience.judge(4, 10 * LATE, 8 * LATE);
        assert_eq!(rest(), 4);
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
