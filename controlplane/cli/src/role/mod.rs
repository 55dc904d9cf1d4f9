//! The processes of a cluster: each runs until it is told to stop.

pub mod chunkserver;
pub mod mds;
pub mod nbd;

pub(crate) mod checks;
pub(crate) use checks::PATHS;
mod paths;

use tokio::signal::unix::{SignalKind, signal};

/// Resolves when the process is asked to end (SIGINT or SIGTERM).
pub(crate) async fn asked_to_stop() -> &'static str {
    let interrupt = signal(SignalKind::interrupt());
    let terminate = signal(SignalKind::terminate());
    match (interrupt, terminate) {
        (Ok(mut interrupt), Ok(mut terminate)) => tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
        },
        _ => {
            tracing::warn!("cannot catch signals; stop this process with SIGKILL");
            std::future::pending().await
        }
    }
}

/// A runtime for the control side: one thread, since nothing on the data path runs in it.
pub(crate) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    use anyhow::Context;
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().context("cannot start the asynchronous runtime")
}
