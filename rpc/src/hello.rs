//! HELLO: the first frame in both directions.

use ogive_types::{ChunkserverId, ClusterId, SessionId};
use serde::{Deserialize, Serialize};

/// What an end says of itself when a connection is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The cluster it belongs to; both ends must agree.
    pub cluster: ClusterId,
    /// Who it is.
    pub identity: Identity,
    /// Bit set of optional features; none yet.
    pub features: u64,
    /// Proof of identity; empty until tickets are issued.
    pub token: Vec<u8>,
    /// Requests that the peer may have unanswered at this end.
    pub credit_requests: u32,
    /// Payload bytes (of requests) that the peer may have unanswered at this end.
    pub credit_bytes: u64,
}

/// Who an end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Identity {
    /// A shard of a chunkserver.
    Shard {
        /// The chunkserver.
        server: ChunkserverId,
        /// Which shard.
        shard: u16,
    },
    /// A client, by its session.
    Client {
        /// The attachment.
        session: SessionId,
    },
}
