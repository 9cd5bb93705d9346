//! Ctrl-C, and the signals by which a system asks processes to end, or says that their time will soon be over, while jobs run.

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR2, SIGXFSZ};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::thread;

type Tell = Box<dyn FnOnce(i32) + Send>;

/// Who wants to know.
static LISTENER: Mutex<Option<Tell>> = Mutex::new(None);

fn replace(listener: Option<Tell>) -> Option<Tell> {
    std::mem::replace(&mut *LISTENER.lock().unwrap_or_else(PoisonError::into_inner), listener)
}

/// Nobody listens any more once it is dropped.
pub(crate) struct Listening;

impl Drop for Listening {
    fn drop(&mut self) {
        replace(None);
    }
}

/// Has `tell` called with the first signal, in another thread. The second one, and those that come when nobody listens,
/// end the process as if they had not been heard.
pub(crate) fn listen(tell: impl FnOnce(i32) + Send + 'static) -> Listening {
    static STARTED: Once = Once::new();
    replace(Some(Box::new(tell)));
    STARTED.call_once(|| {
        // Where signals cannot be heard, they do what they always did.
        let Ok(mut signals) = Signals::new([SIGINT, SIGTERM, SIGUSR2]) else { return };
        thread::spawn(move || {
            for signal in signals.forever() {
                match replace(None) {
                    Some(tell) => tell(signal),
                    None => end_process(signal),
                }
            }
        });
    });
    Listening
}

/// Has a file that would grow beyond the system's limit (`ulimit -f`) be an error of whoever writes it, and not the end of the
/// process.
pub fn outlive_file_limit() {
    // A signal that is heard by anybody does not end the process. Where it cannot be heard, it does what it always did.
    let _ = signal_hook::flag::register(SIGXFSZ, Arc::default());
}

/// Ends this process by a signal, so that the shell that started it sees that it was stopped. Returns only where that
/// cannot be done.
pub fn end_process(signal: i32) {
    let _ = emulate_default_handler(signal);
}
