//! Refusals: answers of the leader that a retry would not change, by a name that programs may
//! branch on.

use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

/// Metadata key with the leader's address, in the answer of a server that does not lead.
pub const LEADER_KEY: &str = "ogive-leader";
/// Metadata key with the name of a [`Refusal`].
pub const REFUSAL_KEY: &str = "ogive-refusal";

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $code:ident;)*) => {
        /// Why the leader refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Refusal {
            $($(#[$doc])* $name,)*
        }

        impl Refusal {
            /// All of them.
            pub const ALL: &[Refusal] = &[$(Refusal::$name),*];

            /// The name on the wire.
            pub fn name(self) -> &'static str {
                match self { $(Refusal::$name => $text,)* }
            }

            /// The gRPC code that goes with it.
            pub fn code(self) -> Code {
                match self { $(Refusal::$name => Code::$code,)* }
            }
        }
    };
}

refusals! {
    /// The request makes no sense: a bad name, size or id.
    Invalid = "invalid", InvalidArgument;
    /// No volume has that name or id.
    VolumeNotFound = "volume-not-found", NotFound;
    /// Another volume has that name.
    VolumeExists = "volume-exists", AlreadyExists;
    /// Another session is alive.
    VolumeAttached = "volume-attached", FailedPrecondition;
    /// The session has ended, or another took its place.
    SessionGone = "session-gone", FailedPrecondition;
    /// A newer attachment exists.
    StaleEpoch = "stale-epoch", FailedPrecondition;
    /// Volumes do not shrink.
    Shrink = "shrink", FailedPrecondition;
    /// There are no copysets to hold data yet.
    NoCopysets = "no-copysets", FailedPrecondition;
    /// The device or client is of another cluster.
    WrongCluster = "wrong-cluster", FailedPrecondition;
    /// The chunkserver is not known: register first.
    NotRegistered = "not-registered", NotFound;
    /// The chunkserver's id belongs to another device.
    WrongDevice = "wrong-device", FailedPrecondition;
    /// A limit of the cluster is reached.
    Limit = "limit", ResourceExhausted;
}

impl Refusal {
    /// The refusal with that name.
    pub fn parse(name: &str) -> Option<Refusal> {
        Refusal::ALL.iter().copied().find(|r| r.name() == name)
    }

    /// The status that carries this refusal and a message for people.
    pub fn status(self, message: impl Into<String>) -> Status {
        let mut status = Status::new(self.code(), message);
        status.metadata_mut().insert(REFUSAL_KEY, MetadataValue::from_static(self.name()));
        status
    }

    /// The refusal in a status, if there is one.
    pub fn of(status: &Status) -> Option<Refusal> {
        Refusal::parse(status.metadata().get(REFUSAL_KEY)?.to_str().ok()?)
    }
}

/// The status of a server that does not lead.
pub fn not_leader(leader: Option<&str>) -> Status {
    let Some(address) = leader else {
        return Status::unavailable("this MDS does not lead and knows no leader at the moment");
    };
    let mut status = Status::unavailable(format!("this MDS does not lead; ask {address}"));
    if let Ok(value) = MetadataValue::try_from(address) {
        status.metadata_mut().insert(LEADER_KEY, value);
    }
    status
}

/// The leader's address in the status of a server that does not lead.
pub fn leader_of(status: &Status) -> Option<String> {
    Some(status.metadata().get(LEADER_KEY)?.to_str().ok()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_survives_the_wire() {
        for &refusal in Refusal::ALL {
            let status = refusal.status("why");
            assert_eq!(Refusal::of(&status), Some(refusal));
            assert_eq!(status.code(), refusal.code());
        }
        assert_eq!(Refusal::of(&Status::internal("x")), None);
        assert_eq!(Refusal::parse("no such refusal"), None);
    }

    #[test]
    fn a_redirect_names_the_leader() {
        assert_eq!(leader_of(&not_leader(Some("10.0.0.1:7000"))), Some("10.0.0.1:7000".into()));
        assert_eq!(leader_of(&not_leader(None)), None);
    }
}
