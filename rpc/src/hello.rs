//! HELLO: the first frame in both directions.
//!
//! The end that connects speaks first. The other checks what it said and answers with its own, so a
//! stranger learns nothing about whom it has reached.

use ogive_types::message::{self, Malformed};
use ogive_types::{ChunkserverId, ClusterId, SessionId};
use serde::{Deserialize, Serialize};

use crate::limits::{HELLO_BODY_BYTES_MAX, OFFERS_MAX, TOKEN_BYTES_MAX};
use crate::offer::Offer;

/// What an end says of itself when a connection is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The cluster it belongs to; both ends must agree.
    pub cluster: ClusterId,
    /// Who it is.
    pub identity: Identity,
    /// Bit set of optional features; none yet.
    pub features: u64,
    /// Proof of identity, see [`crate::token`]; empty when the end has none yet.
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

/// The body of the frame: what the owner of a transport says, then what the transport offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// What the owner says of itself.
    pub hello: Hello,
    /// Paths beside TCP; none to stay there. Each once, and no more than [`OFFERS_MAX`].
    pub offers: Vec<Offer>,
}

impl Greeting {
    /// The body of the frame. Panics when a rule is broken: a token longer than
    /// [`TOKEN_BYTES_MAX`], or a path offered twice.
    pub fn encode(&self) -> Vec<u8> {
        if let Err(Malformed(rule)) = self.validate() {
            panic!("a HELLO that cannot be sent: {rule}");
        }
        let body = message::encode(self);
        assert!(body.len() <= HELLO_BODY_BYTES_MAX, "HELLO of {} bytes", body.len());
        body
    }

    /// Reads the body of a frame and checks it.
    pub fn decode(body: &[u8]) -> Result<Greeting, Malformed> {
        let greeting: Greeting = message::decode(body)?;
        greeting.validate()?;
        Ok(greeting)
    }

    /// Checks a HELLO from the network.
    pub fn validate(&self) -> Result<(), Malformed> {
        if self.hello.token.len() > TOKEN_BYTES_MAX {
            return Err(Malformed("token longer than the limit"));
        }
        if self.offers.len() > OFFERS_MAX {
            return Err(Malformed("more offers than the limit"));
        }
        for (i, offer) in self.offers.iter().enumerate() {
            offer.validate()?;
            let path = offer.path();
            if path.is_some() && self.offers[..i].iter().any(|other| other.path() == path) {
                return Err(Malformed("a path is offered twice"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::lane::LaneVersion;

    const V: LaneVersion = LaneVersion { major: 1, minor: 13 };

    fn greeting() -> Greeting {
        let hello = Hello {
            cluster: ClusterId(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
            identity: Identity::Shard { server: ChunkserverId(7), shard: 3 },
            features: 0,
            token: vec![0xaa; 4],
            credit_requests: 256,
            credit_bytes: 16 << 20,
        };
        Greeting { hello, offers: vec![Offer::Rdma { version: V }] }
    }

    #[test]
    fn survives_the_wire_and_nothing_may_follow_it() {
        let mut body = greeting().encode();
        assert_eq!(Greeting::decode(&body), Ok(greeting()));
        body.push(0);
        assert!(Greeting::decode(&body).is_err());
    }

    #[test]
    fn bytes_on_the_wire_are_fixed() {
        let golden = "909eb8e8c0e1828589909cb0d080c1818202 00 07 03 00 04aaaaaaaa 8002 80808008 \
                      01 01 04 01000d00";
        let hex: String = greeting().encode().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, golden.replace(' ', ""));
    }

    #[test]
    fn a_long_token_is_refused() {
        let mut greeting = greeting();
        greeting.hello.token = vec![0; TOKEN_BYTES_MAX];
        assert!(Greeting::decode(&message::encode(&greeting)).is_ok());
        greeting.hello.token.push(0);
        assert!(Greeting::decode(&message::encode(&greeting)).is_err());
    }

    #[test]
    fn offers_are_few_each_is_once_and_the_unknown_are_passed_over() {
        let with = |offers: Vec<Offer>| {
            Greeting::decode(&message::encode(&Greeting { offers, ..greeting() }))
        };
        let unknown: Offer = message::decode(&[9, 1, 0]).expect("kept");
        assert!(with(vec![unknown.clone(); OFFERS_MAX]).is_ok());
        assert!(with(vec![unknown; OFFERS_MAX + 1]).is_err());
        let (rdma, shm) = (Offer::Rdma { version: V }, Offer::Shm { version: V, host: 1 });
        assert!(with(vec![shm.clone(), rdma.clone()]).is_ok());
        assert!(with(vec![rdma.clone(), shm, rdma]).is_err());
        let mut long = vec![9, 65];
        long.extend([0; 65]);
        assert!(with(vec![message::decode(&long).expect("kept")]).is_err());
    }
}
