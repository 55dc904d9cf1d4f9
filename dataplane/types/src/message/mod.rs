//! Message bodies of the data plane, encoded with postcard (a stable, published wire format).
//!
//! | kind | request | response | payload |
//! |---|---|---|---|
//! | [`Kind::Io`] | [`IoRequest`] | [`IoReply`] | data of a write; data of a read in the response |
//! | [`Kind::Replica`] | [`ReplicaRequest`] | [`ReplicaReply`] | data of the entries, or of a delta, in order; blocks fetched in the response |
//!
//! Every request has exactly one response, so that credits can be counted. Bodies from the network
//! are decoded with [`decode`], which never panics, and then checked by `validate` before anything
//! acts on them.

mod io;
mod replica;

pub use io::{Fence, IoError, IoOp, IoReply, IoRequest, Mapped};
pub use replica::{
    Append, AppendReply, BlockVersion, DeltaChunk, DeltaEnd, DeltaExtent, DeltaPage, DeltaReply,
    Entry, FETCH_BLOCKS_MAX, Found, Heartbeat, HeartbeatReply, Op, ReplicaReply, ReplicaRequest,
    Vote, VoteReply,
};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// What a frame carries; the `kind` byte of its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A client's read, write, trim or query.
    Io = 16,
    /// Replication between shards.
    Replica = 17,
}

impl Kind {
    /// The kind of a header byte.
    pub fn from_byte(byte: u8) -> Option<Kind> {
        match byte {
            16 => Some(Kind::Io),
            17 => Some(Kind::Replica),
            _ => None,
        }
    }
}

/// A body that does not decode or breaks a rule of its message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed message: {0}")]
pub struct Malformed(pub &'static str);

/// Encodes a body.
pub fn encode<T: Serialize>(body: &T) -> Vec<u8> {
    postcard::to_allocvec(body).expect("plain data always encodes")
}

/// Decodes a body; trailing bytes are an error.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Malformed> {
    match postcard::take_from_bytes(bytes) {
        Ok((body, [])) => Ok(body),
        Ok(_) => Err(Malformed("bytes after the end of the body")),
        Err(_) => Err(Malformed("body does not decode")),
    }
}
