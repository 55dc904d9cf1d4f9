//! One thread per process that ends the process when a reactor hangs: a dead chunkserver is
//! repaired by its peers, a hung one holds its clients.
//!
//! What counts as hung is defined in `pulse.rs`. The thread is a plain one, outside all executors,
//! and starts with the first reactor.

#![allow(clippy::disallowed_methods, reason = "the watchdog owns a thread and its sleep")]

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::now;
use crate::limits;
use crate::pulse::{Hang, Pulse, Suspicion};

struct Watched {
    name: String,
    pulse: Arc<Pulse>,
    suspicion: Suspicion,
}

struct Watchdog {
    running: bool,
    watched: Vec<Watched>,
}

static WATCHDOG: Mutex<Watchdog> = Mutex::new(Watchdog { running: false, watched: Vec::new() });
static HANG_AFTER_US: AtomicU64 = AtomicU64::new(limits::HANG_AFTER.as_micros() as u64);

/// Sets how long a reactor may hang before the process is aborted, for all reactors of the process;
/// at least [`limits::HANG_AFTER_MIN`]. The default is [`limits::HANG_AFTER`].
pub fn set_limit(hang_after: Duration) {
    let limit = hang_after.max(limits::HANG_AFTER_MIN);
    HANG_AFTER_US.store(limit.as_micros() as u64, Ordering::Relaxed);
}

/// Watches a loop until its pulse says that it ended; starts the thread if need be.
pub(crate) fn watch(name: &str, pulse: Arc<Pulse>) -> io::Result<()> {
    let mut dog = lock();
    if !dog.running {
        std::thread::Builder::new().name("watchdog".into()).spawn(run)?;
        dog.running = true;
    }
    dog.watched.push(Watched { name: name.into(), pulse, suspicion: Suspicion::default() });
    Ok(())
}

fn lock() -> MutexGuard<'static, Watchdog> {
    WATCHDOG.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run() {
    let mut last = now();
    loop {
        let limit = Duration::from_micros(HANG_AFTER_US.load(Ordering::Relaxed));
        let pause = limit / limits::WATCHDOG_LOOKS;
        std::thread::sleep(pause);
        let seen = now();
        let late = seen.since(last) > pause * 2;
        last = seen;
        let mut dog = lock();
        // Only the list holds the pulse of a loop that ended.
        dog.watched.retain(|w| Arc::strong_count(&w.pulse) > 1);
        for w in &mut dog.watched {
            if let Some(hang) = w.suspicion.look(w.pulse.read(), seen, late, limit) {
                abort(&w.name, hang);
            }
        }
    }
}

/// Ends the process. Standard error only: logging may need what the hung thread holds.
fn abort(name: &str, hang: Hang) -> ! {
    let what = match hang {
        Hang::NoTurn(d) => format!("made no turn for {:.1} s", d.as_secs_f64()),
        Hang::Overslept(d) => format!("overslept its deadline by {:.1} s", d.as_secs_f64()),
    };
    eprintln!(
        "ogive: reactor '{name}' {what}: it hangs. \
         Aborting the process so that its peers take over; \
         please report this with the core dump."
    );
    std::process::abort();
}
