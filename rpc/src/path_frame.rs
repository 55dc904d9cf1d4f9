//! PATH: how the two ends of a connection agree, after HELLO, on the path that its frames take.
//!
//! Both ends send these over TCP when both HELLOs offered a path. Who may say what when is in
//! `transport/net/negotiate.rs`. The body, numbers and lengths as postcard writes them:
//!
//! | byte 0 | frame | then |
//! |---|---|---|
//! | 0 | Propose | path (1 byte), length and bytes of the lane's address, key (varint) |
//! | 1 | Accept | the same |
//! | 2 | Decline | path, length and bytes of a text for a person |
//! | 3 | Use | path |
//!
//! Paths are 0 rdma, 1 shm, 2 tcp.

use ogive_types::message::{self, Malformed};
use serde::{Deserialize, Serialize};

use crate::limits::{LANE_ADDRESS_BYTES_MAX, PATH_BODY_BYTES_MAX, PATH_WHY_BYTES_MAX};
use crate::text;
use crate::transport::Path;

/// One step of the agreement.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PathFrame {
    /// The connector wants to try a path.
    Propose {
        /// Which; never TCP.
        path: Path,
        /// How to reach the connector's lane.
        address: Vec<u8>,
        /// By which messages for this connection are known there.
        key: u64,
    },
    /// The acceptor can try it too.
    Accept {
        /// The path that was proposed.
        path: Path,
        /// How to reach the acceptor's lane.
        address: Vec<u8>,
        /// By which messages for this connection are known there.
        key: u64,
    },
    /// The sender does not use this path on this connection, or no longer.
    Decline {
        /// Which; never TCP.
        path: Path,
        /// Why not, for a person.
        why: String,
    },
    /// From now on the connector's frames take this path, and the acceptor's may.
    Use {
        /// Which; TCP means to stay.
        path: Path,
    },
}

impl PathFrame {
    /// A [`PathFrame::Decline`] whose text is cut to its limit.
    pub fn decline(path: Path, why: &str) -> PathFrame {
        PathFrame::Decline { path, why: text::cut(why, PATH_WHY_BYTES_MAX).into() }
    }

    /// The body of the frame. Panics when it breaks a rule, which is a bug of the sender.
    pub fn encode(&self) -> Vec<u8> {
        if let Err(Malformed(rule)) = self.validate() {
            panic!("a PATH frame that cannot be sent: {rule}");
        }
        let body = message::encode(self);
        assert!(body.len() <= PATH_BODY_BYTES_MAX, "PATH of {} bytes", body.len());
        body
    }

    /// Reads the body of a frame and checks it. Control characters of texts are replaced, for they
    /// go to logs.
    pub fn decode(body: &[u8]) -> Result<PathFrame, Malformed> {
        let mut frame: PathFrame = message::decode(body)?;
        frame.validate()?;
        if let PathFrame::Decline { why, .. } = &mut frame {
            *why = text::clean(why);
        }
        Ok(frame)
    }

    /// Checks a frame from the network.
    pub fn validate(&self) -> Result<(), Malformed> {
        match self {
            PathFrame::Use { .. } => return Ok(()),
            PathFrame::Propose { path: Path::Tcp, .. }
            | PathFrame::Accept { path: Path::Tcp, .. }
            | PathFrame::Decline { path: Path::Tcp, .. } => {
                return Err(Malformed("TCP is neither proposed nor declined"));
            }
            PathFrame::Propose { address, .. } | PathFrame::Accept { address, .. } => {
                if address.is_empty() || address.len() > LANE_ADDRESS_BYTES_MAX {
                    return Err(Malformed("address of a lane empty or longer than the limit"));
                }
            }
            PathFrame::Decline { why, .. } => {
                if why.len() > PATH_WHY_BYTES_MAX {
                    return Err(Malformed("reason longer than the limit"));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hex(frame: &PathFrame) -> String {
        frame.encode().iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn bytes_on_the_wire_are_fixed() {
        let address = vec![0xaa, 0xbb];
        let propose = PathFrame::Propose { path: Path::Rdma, address: address.clone(), key: 300 };
        assert_eq!(hex(&propose), "00 00 02aabb ac02".replace(' ', ""));
        let accept = PathFrame::Accept { path: Path::Shm, address, key: 1 };
        assert_eq!(hex(&accept), "01 01 02aabb 01".replace(' ', ""));
        assert_eq!(hex(&PathFrame::decline(Path::Shm, "no")), "02 01 026e6f".replace(' ', ""));
        assert_eq!(hex(&PathFrame::Use { path: Path::Tcp }), "0302");
    }

    #[test]
    fn rules_are_checked() {
        let refused = |frame: PathFrame| PathFrame::decode(&message::encode(&frame)).is_err();
        let accept = |path, n| PathFrame::Accept { path, address: vec![1; n], key: 0 };
        assert!(refused(accept(Path::Tcp, 1)));
        assert!(refused(accept(Path::Shm, 0)));
        assert!(!refused(accept(Path::Shm, LANE_ADDRESS_BYTES_MAX)));
        assert!(refused(accept(Path::Shm, LANE_ADDRESS_BYTES_MAX + 1)));
        let decline = |path, n| PathFrame::Decline { path, why: "x".repeat(n) };
        assert!(refused(decline(Path::Tcp, 1)));
        assert!(!refused(decline(Path::Rdma, PATH_WHY_BYTES_MAX)));
        assert!(refused(decline(Path::Rdma, PATH_WHY_BYTES_MAX + 1)));
        assert!(PathFrame::decode(&[3, 3]).is_err(), "no such path");
        assert!(PathFrame::decode(&[3, 2, 0]).is_err(), "nothing may follow");
    }

    #[test]
    fn texts_are_cut_and_cleaned() {
        let long = PathFrame::decline(Path::Shm, &"é".repeat(PATH_WHY_BYTES_MAX));
        assert_eq!(PathFrame::decode(&long.encode()), Ok(long));
        let nasty = PathFrame::decode(&PathFrame::decline(Path::Shm, "a\n\x1b[31m").encode());
        assert_eq!(nasty, Ok(PathFrame::decline(Path::Shm, "a??[31m")));
    }

    fn frames() -> impl Strategy<Value = PathFrame> {
        let lane = || prop_oneof![Just(Path::Rdma), Just(Path::Shm)];
        let address = || prop::collection::vec(any::<u8>(), 1..600);
        prop_oneof![
            (lane(), address(), any::<u64>()).prop_map(|(path, address, key)| PathFrame::Propose {
                path,
                address,
                key
            }),
            (lane(), address(), any::<u64>()).prop_map(|(path, address, key)| PathFrame::Accept {
                path,
                address,
                key
            }),
            (lane(), "[a-zé ]{0,90}").prop_map(|(path, why)| PathFrame::decline(path, &why)),
            prop::sample::select(&Path::ALL[..]).prop_map(|path| PathFrame::Use { path }),
        ]
    }

    proptest! {
        #[test]
        fn frames_survive_the_wire(frame in frames()) {
            prop_assert_eq!(PathFrame::decode(&frame.encode()), Ok(frame));
        }
    }
}
