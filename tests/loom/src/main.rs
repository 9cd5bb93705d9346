//! The team of threads (`core/tensor/src/cpu/threads/team.rs`) in all orders in which its threads can run and see each other's
//! writes, as far as a bound on preemptions goes: `just threads`. What loom finds, a race, a deadlock or a broken promise, ends
//! the program.

#![allow(unsafe_code)]

mod sync;
#[allow(dead_code, reason = "the team of the process is not started here")]
#[path = "../../../core/tensor/src/cpu/threads/team.rs"]
mod team;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use team::{Member, Team};

/// A number that one member writes and all read, each when the barriers say that it may: loom ends the program if two do at once.
struct Slot(UnsafeCell<usize>);

// SAFETY: loom finds out if it is used by two threads at once, of which one writes.
unsafe impl Sync for Slot {}

impl Slot {
    fn read(&self) -> usize {
        // SAFETY: checked by loom.
        self.0.with(|number| unsafe { *number })
    }

    fn add_one(&self) {
        // SAFETY: checked by loom.
        self.0.with_mut(|number| unsafe { *number += 1 });
    }
}

/// Workers, regions, turns, whether there are barriers, and how often a thread that could go on is preempted at most: what takes
/// a few seconds. With two workers and barriers between them, one preemption would take minutes.
const CASES: [(usize, usize, usize, bool, usize); 7] = [
    (1, 1, 1, false, 6),
    (1, 2, 1, true, 4),
    (1, 2, 2, true, 3),
    (1, 3, 1, false, 4),
    (2, 1, 1, false, 3),
    (2, 2, 1, false, 1),
    (2, 1, 1, true, 0),
];

/// So many regions of a team. In each of the turns of a region every member writes what is its own, waits at a barrier, and reads
/// what all others wrote; a barrier stands between two turns. The leader reads it after the region.
fn check(workers: usize, regions: usize, turns: usize, barriers: bool, preemptions: usize) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.max_branches = 100_000;
    model.check(move || {
        let team = Arc::new(Team::new(workers));
        let follow = |index: usize| {
            let team = team.clone();
            loom::thread::spawn(move || (0..regions).for_each(|seen| team.follow(index, seen)))
        };
        let threads: Vec<_> = (1..=workers).map(follow).collect();
        let slots: Vec<Slot> = (0..=workers).map(|_| Slot(UnsafeCell::new(0))).collect();
        for region in 0..regions {
            team.lead(|member: &Member<'_>| {
                for turn in 1..=turns {
                    if barriers && turn > 1 {
                        member.barrier();
                    }
                    member.share(slots.len()).for_each(|own| slots[own].add_one());
                    if barriers {
                        member.barrier();
                        assert!(slots.iter().all(|slot| slot.read() == region * turns + turn));
                    }
                }
            });
            assert!(slots.iter().all(|slot| slot.read() == (region + 1) * turns));
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    let barriers = if barriers { "with" } else { "without" };
    println!(
        "{workers} workers, {regions} regions, {turns} turns {barriers} barriers, up to {preemptions} preemptions: sound"
    );
}

fn main() {
    for (workers, regions, turns, barriers, preemptions) in CASES {
        check(workers, regions, turns, barriers, preemptions);
    }
}
