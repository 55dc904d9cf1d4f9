//! Counters of all paths.

use crate::transport::tcp::TcpStats;
use crate::transport::{Path, PathStats};

/// What a transport did since it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetStats {
    /// The TCP transport, over which every connection begins.
    pub tcp: TcpStats,
    /// The lanes that were started, best first.
    pub lanes: Vec<(Path, PathStats)>,
    /// Connections that took each path.
    pub chosen: [(Path, u64); Path::ALL.len()],
}
