//! Work of low priority on a reactor's thread: scrub, resync, upload, metrics.
//!
//! Background tasks run in a glommio queue with small shares. The loop leaves the executor to them
//! at bounded intervals, and they leave it to the loop at their pause points. While any lives, the
//! reactor sleeps for a few milliseconds at most, so that they may wait for anything glommio offers
//! (timers, channels, files).

#![allow(clippy::disallowed_methods, reason = "the way into the executor is a device file")]

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::future::Future;
use std::io;
use std::rc::Rc;

use glommio::{Latency, Shares, TaskQueueHandle};
use ogive_types::Time;

use crate::clock::now;
use crate::foreign::ForeignFd;
use crate::limits;

thread_local! {
    static BACKGROUND: RefCell<Option<Rc<Background>>> = const { RefCell::new(None) };
}

/// The background queue of a reactor.
pub(crate) struct Background {
    queue: TaskQueueHandle,
    alive: Cell<usize>,
    /// When the executor last got to its rings and timers.
    breathed: Cell<Time>,
    /// A background task reached a pause point since this was last taken: it computes.
    active: Cell<bool>,
    /// /dev/zero: a read that always succeeds at once.
    zero: ForeignFd,
}

impl Background {
    /// Creates the queue; call inside the executor, once.
    pub(crate) fn install() -> io::Result<Rc<Background>> {
        let shares = Shares::Static(limits::BACKGROUND_SHARES);
        let queue =
            glommio::executor().create_task_queue(shares, Latency::NotImportant, "background");
        let zero = ForeignFd::new(File::open("/dev/zero")?.into());
        let (alive, breathed) = (Cell::new(0), Cell::new(now()));
        let background =
            Rc::new(Background { queue, alive, breathed, active: Cell::new(false), zero });
        BACKGROUND.set(Some(Rc::clone(&background)));
        Ok(background)
    }

    pub(crate) fn uninstall() {
        BACKGROUND.set(None);
    }

    /// True while any background task lives.
    pub(crate) fn is_alive(&self) -> bool {
        self.alive.get() > 0
    }

    /// True when the executor must be let in at `now`.
    pub(crate) fn is_due(&self, now: Time) -> bool {
        self.is_alive() && now.since(self.breathed.get()) >= limits::SLICE
    }

    /// True when a background task has computed since the last call.
    pub(crate) fn take_active(&self) -> bool {
        self.active.replace(false)
    }

    /// Suspends the calling task until the executor has looked at its rings and timers, and run
    /// other tasks.
    pub(crate) async fn breathe(&self) -> io::Result<()> {
        // A task that merely yields is run again before the executor polls, and a timer of zero
        // does not suspend; a task that waits for a read does.
        let read = self.zero.read(1).await;
        self.breathed.set(now());
        read
    }
}

/// Counts a task for as long as it lives, however it ends.
struct Alive(Rc<Background>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.alive.set(self.0.alive.get() - 1);
    }
}

/// Starts a task in the background queue of this thread's reactor. It must reach [`pause_point`] at
/// least every [`limits::BACKGROUND_SLICE`], because nothing interrupts it, and it ends with the
/// reactor at the latest.
///
/// Panics when the thread is not a reactor's.
pub fn spawn_background(task: impl Future<Output = ()> + 'static) {
    let background = BACKGROUND.with_borrow(Clone::clone);
    let background = background.expect("background tasks are spawned on a reactor's thread");
    background.alive.set(background.alive.get() + 1);
    let alive = Alive(Rc::clone(&background));
    let counted = async move {
        let _alive = alive;
        task.await;
    };
    glommio::spawn_local_into(counted, background.queue)
        .expect("the queue lives as long as the reactor")
        .detach();
}

/// Lets the loop and other tasks run, if this task has had its slice. Cheap to call: one clock
/// read.
pub async fn pause_point() {
    let background = BACKGROUND.with_borrow(Clone::clone);
    let Some(b) = background else {
        // The reactor has ended: never come back, so that the executor can end too.
        return std::future::pending().await;
    };
    b.active.set(true);
    if now().since(b.breathed.get()) >= limits::BACKGROUND_SLICE {
        // A failure (no memory) ends the pause early, and the loop meets it too.
        let _ = b.breathe().await;
    }
}
