//! HELLO: the first frame in both directions.
//!
//! The end that connects speaks first. The other checks what it said and answers with its own, so a
//! stranger learns nothing about whom it has reached.

use ogive_types::message::{self, Malformed};
use ogive_types::{ChunkserverId, ClusterId, SessionId};
use serde::{Deserialize, Serialize};

use crate::limits::{HELLO_BODY_BYTES_MAX, TOKEN_BYTES_MAX};

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

impl Hello {
    /// The body of the frame. Panics when the token is longer than [`TOKEN_BYTES_MAX`].
    pub fn encode(&self) -> Vec<u8> {
        assert!(self.token.len() <= TOKEN_BYTES_MAX, "token of {} bytes", self.token.len());
        let body = message::encode(self);
        assert!(body.len() <= HELLO_BODY_BYTES_MAX, "HELLO of {} bytes", body.len());
        body
    }

    /// Reads the body of a frame and checks it.
    pub fn decode(body: &[u8]) -> Result<Hello, Malformed> {
        let hello: Hello = message::decode(body)?;
        hello.validate()?;
        Ok(hello)
    }

    /// Checks a HELLO from the network.
    pub fn validate(&self) -> Result<(), Malformed> {
        if self.token.len() > TOKEN_BYTES_MAX {
            return Err(Malformed("token longer than the limit"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello {
            cluster: ClusterId(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
            identity: Identity::Shard { server: ChunkserverId(7), shard: 3 },
            features: 0,
            token: vec![0xaa; 4],
            credit_requests: 256,
            credit_bytes: 16 << 20,
        }
    }

    #[test]
    fn survives_the_wire_and_nothing_may_follow_it() {
        let mut body = hello().encode();
        assert_eq!(Hello::decode(&body), Ok(hello()));
        body.push(0);
        assert!(Hello::decode(&body).is_err());
    }

    #[test]
    fn bytes_on_the_wire_are_fixed() {
        let golden = "909eb8e8c0e1828589909cb0d080c1818202 00 07 03 00 04aaaaaaaa 8002 80808008";
        let hex: String = hello().encode().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, golden.replace(' ', ""));
    }

    #[test]
    fn a_long_token_is_refused() {
        let long = Hello { token: vec![0; TOKEN_BYTES_MAX + 1], ..hello() };
        assert!(Hello::decode(&message::encode(&long)).is_err());
    }
}
