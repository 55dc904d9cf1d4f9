//! Starting, watching and stopping a reactor from outside.

#![allow(clippy::disallowed_methods, reason = "a reactor owns its thread")]

use std::fmt::Display;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

use glommio::{LocalExecutor, LocalExecutorBuilder, Placement};
use rustix::process::{Resource, getrlimit};

use crate::background::Background;
use crate::limits;
use crate::pulse::Pulse;
use crate::run::run;
use crate::wake::EventFd;
use crate::watchdog;
use crate::work::{ReactorConfig, Work};

/// Why a reactor could not start, or ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReactorError {
    /// The executor or a ring could not be set up on the thread.
    #[error("reactor '{name}' cannot start: {reason}")]
    Start {
        /// The reactor.
        name: String,
        /// What failed and what to do.
        reason: String,
    },
    /// `make` refused.
    #[error("reactor '{name}' has no work to run: {reason}")]
    Make {
        /// The reactor.
        name: String,
        /// What `make` said.
        reason: String,
    },
    /// The loop met an error of the system that it cannot go on with.
    #[error("reactor '{name}' failed: {reason}")]
    Loop {
        /// The reactor.
        name: String,
        /// What failed.
        reason: String,
    },
    /// The work panicked.
    #[error("reactor '{name}' panicked: {message}")]
    Panicked {
        /// The reactor.
        name: String,
        /// The panic's message.
        message: String,
    },
}

/// What the handle and the thread share.
pub(crate) struct Control {
    stop: AtomicBool,
    event: EventFd,
}

impl Control {
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(crate) fn wake_fd(&self) -> RawFd {
        self.event.raw()
    }
}

/// A running reactor. Dropping the handle leaves it running.
pub struct ReactorHandle {
    name: String,
    control: Arc<Control>,
    thread: JoinHandle<Result<(), ReactorError>>,
    ready: mpsc::Receiver<()>,
}

/// Starts a reactor: a thread with a glommio executor, pinned when `config.core` says so, that
/// calls `make` and turns what it gives until that is finished or the reactor is stopped.
///
/// Returns as soon as the thread runs; [`ReactorHandle::ready`] waits for `make`.
///
/// # Errors
/// When RLIMIT_MEMLOCK is too low for glommio, the core does not exist, or the thread cannot be
/// made; the message says what to do.
pub fn spawn<W, E, F>(config: ReactorConfig, make: F) -> io::Result<ReactorHandle>
where
    W: Work,
    E: Display,
    F: FnOnce() -> Result<W, E> + Send + 'static,
{
    check_memlock()?;
    check_core(&config)?;
    let control = Arc::new(Control { stop: AtomicBool::new(false), event: EventFd::new()? });
    let (made, ready) = mpsc::channel();
    let name = config.name.clone();
    let theirs = Arc::clone(&control);
    let thread = std::thread::Builder::new()
        .name(config.name.clone())
        .spawn(move || live(&config, &theirs, make, made))?;
    Ok(ReactorHandle { name, control, thread, ready })
}

impl ReactorHandle {
    /// The name it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits until `make` has succeeded and the loop turns. After an error, `self` can only be
    /// joined.
    ///
    /// # Errors
    /// When the reactor ended before that; [`ReactorHandle::join`] says why.
    pub fn ready(&self) -> Result<(), ReactorError> {
        self.ready.recv().map_err(|_| ReactorError::Start {
            name: self.name.clone(),
            reason: "it ended before its work was made".into(),
        })
    }

    /// Asks it to end after its current turn, asleep or not. The work is dropped on its own thread.
    pub fn stop(&self) {
        self.control.stop.store(true, Ordering::Relaxed);
        self.control.event.signal();
    }

    /// True once the thread has ended, well or not; [`ReactorHandle::join`] then does not block.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// Why it ended, unless it was stopped or finished.
    pub fn join(self) -> Result<(), ReactorError> {
        match self.thread.join() {
            Ok(outcome) => outcome,
            Err(payload) => Err(panicked(&self.name, payload.as_ref())),
        }
    }
}

/// The life of a reactor's thread.
fn live<W, E, F>(
    config: &ReactorConfig,
    control: &Control,
    make: F,
    made: mpsc::Sender<()>,
) -> Result<(), ReactorError>
where
    W: Work,
    E: Display,
    F: FnOnce() -> Result<W, E>,
{
    let name = config.name.clone();
    let start = |reason: String| ReactorError::Start { name: name.clone(), reason };
    let executor = executor(config).map_err(|e| start(e.to_string()))?;
    let pulse = Arc::new(Pulse::default());
    executor.run(async {
        let background = Background::install().map_err(|e| start(e.to_string()))?;
        let outcome = async {
            // Not watched yet: opening a large device takes its time.
            let work = make().map_err(|e| ReactorError::Make {
                name: config.name.clone(),
                reason: e.to_string(),
            })?;
            watchdog::watch(&config.name, Arc::clone(&pulse)).map_err(|e| start(e.to_string()))?;
            let _ = made.send(());
            run(work, config.mode, control, &pulse, &background).await.map_err(|e| {
                ReactorError::Loop { name: config.name.clone(), reason: e.to_string() }
            })
        };
        let outcome = outcome.await;
        pulse.end();
        Background::uninstall();
        outcome
    })
}

fn executor(config: &ReactorConfig) -> Result<LocalExecutor, glommio::GlommioError<()>> {
    let placement = config.core.map_or(Placement::Unbound, Placement::Fixed);
    LocalExecutorBuilder::new(placement)
        .name(&config.name)
        // The loop's I/O goes through its own ring; this is the least that glommio accepts.
        .io_memory(0)
        .ring_depth(limits::EXECUTOR_RING_DEPTH)
        .preempt_timer(limits::PREEMPT_TIMER)
        .make()
}

fn check_memlock() -> io::Result<()> {
    match getrlimit(Resource::Memlock).current {
        Some(bytes) if bytes < limits::MEMLOCK_MIN => Err(io::Error::other(format!(
            "RLIMIT_MEMLOCK is {} KiB, but each reactor's rings need {} KiB; \
             raise it with 'ulimit -l unlimited', \
             LimitMEMLOCK=infinity in the systemd unit, or 'memlock' in /etc/security/limits.conf",
            bytes / 1024,
            limits::MEMLOCK_MIN / 1024,
        ))),
        _ => Ok(()),
    }
}

fn check_core(config: &ReactorConfig) -> io::Result<()> {
    let Some(core) = config.core else { return Ok(()) };
    let allowed = rustix::thread::sched_getaffinity(None)?;
    if core < rustix::thread::CpuSet::MAX_CPU && allowed.is_set(core) {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!(
            "reactor '{}' cannot run on core {core}: this process may use {} core(s); \
             choose another or leave it out",
            config.name,
            allowed.count(),
        ),
    ))
}

fn panicked(name: &str, payload: &(dyn std::any::Any + Send)) -> ReactorError {
    let text = payload.downcast_ref::<&str>().map(|s| s.to_string());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    let message = text.unwrap_or_else(|| "without a message".into());
    ReactorError::Panicked { name: name.into(), message }
}
