//! Connecting again: a helper thread tries, so that the loop never blocks.

// A shell: it owns threads and clocks.
#![allow(clippy::disallowed_methods)]

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use crate::limits::RECONNECT_PAUSE;
use crate::nbd::{ConnectError, Export, NbdUri, open};

/// A search for the server; dropping it ends the search.
pub(crate) struct Reconnect {
    result: Receiver<Result<(OwnedFd, Export), ConnectError>>,
    cancelled: Arc<AtomicBool>,
}

impl Reconnect {
    /// Tries every 5 ms for at most `patience`.
    pub(crate) fn begin(uri: NbdUri, patience: Duration) -> std::io::Result<Reconnect> {
        let (sender, result) = sync_channel(1);
        let cancelled = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&cancelled);
        std::thread::Builder::new().name("bench-reconnect".into()).spawn(move || {
            let start = Instant::now();
            while !flag.load(Ordering::Relaxed) {
                let attempt = open(&uri);
                if attempt.is_ok() || start.elapsed() >= patience {
                    // Nobody listens any more when the run was ended meanwhile.
                    let _ = sender.send(attempt);
                    return;
                }
                std::thread::sleep(RECONNECT_PAUSE);
            }
        })?;
        Ok(Reconnect { result, cancelled })
    }

    /// The outcome, once there is one.
    pub(crate) fn poll(&self) -> Option<Result<(OwnedFd, Export), ConnectError>> {
        match self.result.try_recv() {
            Ok(result) => Some(result),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => unreachable!("the thread sends before it ends"),
        }
    }
}

impl Drop for Reconnect {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }
}
