//! A worker's hold on its stage, and how it lets go of it before its job is done: its parent is gone, a signal asks it to end
//! (Ctrl-C, a preemption, a time limit that is near), or its lease was broken.
//!
//! Training that is under way then keeps a checkpoint after its step, if that takes no longer than [`GRACE`]; all else ends at
//! once. Ranks end together.

use crate::store::{BEAT, Lease};
use crate::ui::say;
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR2};
use signal_hook::iterator::Signals;
use std::io::Read;
use std::process::exit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Exit code of a worker that was asked to end. (1 is that of a stage that failed.)
pub(super) const ASKED_TO_END: i32 = 3;
/// The same in words.
pub(super) const WAS_ASKED: &str = "it was asked to end";
/// Exit code of a worker whose lease was broken.
pub(super) const LEASE_LOST: i32 = 4;

/// The longest that training goes on when it is asked to end: queues kill after 30 s if nothing else is said.
const GRACE: Duration = Duration::from_secs(20);
/// How often it is looked whether training has ended.
const LOOK: Duration = Duration::from_millis(10);

static LEASE: Mutex<Option<Lease>> = Mutex::new(None);
static ASKED: AtomicBool = AtomicBool::new(false);
static TRAINING: AtomicBool = AtomicBool::new(false);

fn lease() -> MutexGuard<'static, Option<Lease>> {
    LEASE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Holds a lease, in the place of the one before, and raises its counter while this process lives. Who took it for a worker gives
/// it up, once it has seen what came of the job.
pub(crate) fn hold(held: Lease) {
    static STARTED: Once = Once::new();
    *lease() = Some(held);
    STARTED.call_once(|| {
        thread::spawn(|| {
            loop {
                thread::sleep(BEAT);
                let is_ours = lease().as_mut().is_none_or(Lease::beat);
                if !is_ours {
                    lost();
                }
            }
        });
    });
}

/// Gives up the lease.
pub(crate) fn give_up() {
    *lease() = None;
}

/// Whether the lease is still this process's.
pub(super) fn is_held() -> bool {
    lease().as_ref().is_none_or(Lease::is_held)
}

/// Ends this process, which no longer holds the lease.
pub(super) fn lost() -> ! {
    say("another process has the lease of this stage: this one ends");
    exit(LEASE_LOST)
}

/// Training is under way until it is dropped.
pub(crate) struct Training;

impl Training {
    pub(crate) fn begin() -> Self {
        TRAINING.store(true, Ordering::SeqCst);
        Self
    }

    /// Whether it is to keep a checkpoint and end.
    pub(crate) fn is_asked_to_end(&self) -> bool {
        is_asked_to_end()
    }

    /// Another rank was asked to: this process ends with it.
    pub(crate) fn ask_to_end(&self) {
        ASKED.store(true, Ordering::SeqCst);
    }
}

impl Drop for Training {
    fn drop(&mut self) {
        TRAINING.store(false, Ordering::SeqCst);
    }
}

/// Whether this worker is about to end before its job is done.
pub(super) fn is_asked_to_end() -> bool {
    ASKED.load(Ordering::SeqCst)
}

/// How a worker ends that is asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Once training has kept its checkpoint.
    Alone,
    /// As one of several ranks: together with the others, who hear of it before their next step. One that ended by itself would
    /// have all others killed by what started them, which takes its time.
    WithOthers,
}

/// Ends this process when its standard input ends, that is, when its parent is gone or lets go of it, and when a signal asks. Of
/// several ranks the first alone has an `input`.
pub fn end_when_asked(input: bool, asked: Asked) {
    let parent = parent();
    if input {
        thread::spawn(move || {
            let mut rest = Vec::new();
            let _ = std::io::stdin().read_to_end(&mut rest);
            end(parent, asked);
        });
    }
    // Where signals cannot be heard, they do what they always did.
    let Ok(mut signals) = Signals::new([SIGINT, SIGTERM, SIGUSR2]) else { return };
    thread::spawn(move || {
        if signals.forever().next().is_some() {
            end(parent, asked);
        }
    });
}

#[cfg(unix)]
fn parent() -> u32 {
    std::os::unix::process::parent_id()
}

#[cfg(not(unix))]
fn parent() -> u32 {
    0
}

fn end(before: u32, how: Asked) {
    ASKED.store(true, Ordering::SeqCst);
    let asked = Instant::now();
    while (how == Asked::WithOthers || TRAINING.load(Ordering::SeqCst)) && asked.elapsed() < GRACE {
        thread::sleep(LOOK);
    }
    if parent() != before {
        // Nobody else would give it up.
        drop(lease().take());
    }
    exit(ASKED_TO_END);
}
