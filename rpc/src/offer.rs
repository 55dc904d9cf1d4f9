//! What an end offers beside TCP, as part of its HELLO.
//!
//! | kind | offer | its bytes |
//! |---|---|---|
//! | 1 | rdma | version of UCX: major, minor (2 bytes each, little-endian) |
//! | 2 | shm | the same; then the host's name (16 bytes, little-endian) |
//!
//! Kinds that this release does not know are passed over, so that a newer peer may offer more.

use ogive_types::message::Malformed;
use serde::{Deserialize, Serialize};

use crate::limits::OFFER_BYTES_MAX;
use crate::transport::Path;
use crate::transport::lane::LaneVersion;

const RDMA: u8 = 1;
const SHM: u8 = 2;

/// One path that an end has, and what the peer must know to judge whether it can be shared.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "Raw", try_from = "Raw")]
pub enum Offer {
    /// RDMA through UCX.
    Rdma {
        /// Of UCX.
        version: LaneVersion,
    },
    /// Shared memory through UCX.
    Shm {
        /// Of UCX.
        version: LaneVersion,
        /// Equal at two ends that can share memory; see `transport/net/host.rs`.
        host: u128,
    },
    /// Something of a newer release.
    Other(Unknown),
}

/// An offer that this release does not know.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Unknown {
    kind: u8,
    bytes: Vec<u8>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Raw {
    kind: u8,
    bytes: Vec<u8>,
}

impl Offer {
    /// The path offered, if this release knows it.
    pub fn path(&self) -> Option<Path> {
        match self {
            Offer::Rdma { .. } => Some(Path::Rdma),
            Offer::Shm { .. } => Some(Path::Shm),
            Offer::Other(_) => None,
        }
    }

    /// The version of the library under the path, if this release knows it.
    pub fn version(&self) -> Option<LaneVersion> {
        match *self {
            Offer::Rdma { version } | Offer::Shm { version, .. } => Some(version),
            Offer::Other(_) => None,
        }
    }

    /// Checks an offer from the network.
    pub(crate) fn validate(&self) -> Result<(), Malformed> {
        match self {
            Offer::Other(unknown) if unknown.bytes.len() > OFFER_BYTES_MAX => {
                Err(Malformed("offer longer than the limit"))
            }
            _ => Ok(()),
        }
    }
}

impl From<Offer> for Raw {
    fn from(offer: Offer) -> Raw {
        match offer {
            Offer::Rdma { version } => Raw { kind: RDMA, bytes: version_bytes(version).to_vec() },
            Offer::Shm { version, host } => Raw {
                kind: SHM,
                bytes: [&version_bytes(version)[..], &host.to_le_bytes()].concat(),
            },
            Offer::Other(Unknown { kind, bytes }) => Raw { kind, bytes },
        }
    }
}

impl TryFrom<Raw> for Offer {
    type Error = Malformed;

    fn try_from(raw: Raw) -> Result<Offer, Malformed> {
        let wrong = || Malformed("offer of another length than its kind has");
        match raw.kind {
            RDMA => {
                let version = raw.bytes.try_into().map_err(|_| wrong())?;
                Ok(Offer::Rdma { version: version_of(version) })
            }
            SHM => {
                let (version, host) = raw.bytes.split_first_chunk::<4>().ok_or_else(wrong)?;
                let host = host.try_into().map_err(|_| wrong())?;
                Ok(Offer::Shm { version: version_of(*version), host: u128::from_le_bytes(host) })
            }
            kind => Ok(Offer::Other(Unknown { kind, bytes: raw.bytes })),
        }
    }
}

fn version_bytes(version: LaneVersion) -> [u8; 4] {
    let [a, b] = version.major.to_le_bytes();
    let [c, d] = version.minor.to_le_bytes();
    [a, b, c, d]
}

fn version_of([a, b, c, d]: [u8; 4]) -> LaneVersion {
    LaneVersion { major: u16::from_le_bytes([a, b]), minor: u16::from_le_bytes([c, d]) }
}

#[cfg(test)]
mod tests {
    use ogive_types::message::{decode, encode};

    use super::*;

    const V: LaneVersion = LaneVersion { major: 1, minor: 0x0213 };

    #[test]
    fn bytes_on_the_wire_are_fixed() {
        assert_eq!(encode(&Offer::Rdma { version: V }), [1, 4, 1, 0, 0x13, 2]);
        let shm = encode(&Offer::Shm { version: V, host: 0x0102 });
        assert_eq!(shm[..8], [2, 20, 1, 0, 0x13, 2, 2, 1]);
        assert_eq!(shm[8..], [0; 14]);
    }

    #[test]
    fn what_is_unknown_is_kept_and_what_is_known_is_exact() {
        let newer = decode::<Offer>(&[9, 2, 7, 7]).expect("passed over");
        assert_eq!((newer.path(), newer.version()), (None, None));
        assert_eq!(encode(&newer), [9, 2, 7, 7]);
        for bytes in [&[1, 3, 1, 0, 0][..], &[1, 5, 1, 0, 0, 0, 0], &[2, 4, 1, 0, 0, 0]] {
            assert!(decode::<Offer>(bytes).is_err());
        }
    }
}
