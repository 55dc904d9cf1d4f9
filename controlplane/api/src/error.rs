//! What can go wrong when asking the metadata servers.

use crate::refusal::Refusal;

/// Why a call failed. The message is for people and says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// The leader refused; a retry would get the same answer.
    #[error("{message}")]
    Refused {
        /// For programs.
        refusal: Refusal,
        /// For people.
        message: String,
    },
    /// No leader answered before the deadline. A change that was asked for may or may not have been
    /// made.
    #[error(
        "no leader among {addresses} within {waited_ms} ms: is a majority of the MDS running? \
         (last: {last})"
    )]
    NoLeader {
        /// Who was asked.
        addresses: String,
        /// How long.
        waited_ms: u64,
        /// The last failure.
        last: String,
    },
    /// A server failed in a way that asking another would not mend.
    #[error("MDS {address} failed: {message}")]
    Server {
        /// Which.
        address: String,
        /// What it said.
        message: String,
    },
    /// A server answered with something that this version does not understand.
    #[error("MDS answered with {0}; are this program and the MDS of the same version?")]
    Malformed(&'static str),
    /// The list of addresses makes no sense.
    #[error("bad MDS address {0:?}: give HOST:PORT, or several joined by commas")]
    Address(String),
}

impl ApiError {
    /// The refusal, when it is one.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            ApiError::Refused { refusal, .. } => Some(*refusal),
            _ => None,
        }
    }
}
