//! What a [`NetTransport`](super::NetTransport) is told at its start, and why it may not start.

use crate::transport::tcp::{TcpConfig, TcpError};
use crate::transport::{Path, PathChoice};

/// Configuration of a [`NetTransport`](super::NetTransport).
#[derive(Clone, Debug)]
pub struct NetConfig {
    /// How peers are met, and what holds for all paths: identity, pool, time-outs, limits.
    pub tcp: TcpConfig,
    /// Which paths may be taken.
    pub choice: PathChoice,
}

/// Why a transport did not start.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// TCP, over which every connection begins.
    #[error(transparent)]
    Tcp(#[from] TcpError),
    /// The one path that the user allows cannot be had here.
    #[error("--transport {path} cannot be had: {why}; use --transport auto to fall back")]
    Forced {
        /// The path.
        path: Path,
        /// Why not.
        why: String,
    },
    /// The system gives no epoll descriptor for all paths together.
    #[error("cannot start the transport: {0}")]
    System(#[source] std::io::Error),
}
