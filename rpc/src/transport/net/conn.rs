//! What the transport knows of a connection beside what TCP knows.

use std::net::SocketAddr;

use super::assess::{LANE_PATHS, Own};
use super::negotiate::Negotiation;
use crate::hello::Hello;
use crate::offer::Offer;
use crate::transport::{CloseReason, Path};

/// A connection whose HELLOs are done.
pub(super) struct Conn {
    /// `None` when TCP has closed it already.
    pub(super) addr: Option<SocketAddr>,
    pub(super) inbound: bool,
    /// What the peer said; taken when the connection is reported.
    pub(super) peer: Option<Hello>,
    /// The path in use, from the report on until the end.
    pub(super) up: Option<Path>,
    /// `None` when the ends do not talk about paths, and once this end has closed.
    pub(super) talk: Option<Negotiation>,
    /// The path whose lane is open for this connection, and its key there.
    pub(super) lane: Option<(Path, u64)>,
    /// Why this end closed it, though TCP may have been closed by the peer first.
    pub(super) ended: Option<CloseReason>,
    /// The paths better than the one in use, and why they are not.
    pub(super) passed_over: Vec<(Path, String)>,
}

impl Conn {
    pub(super) fn new(
        addr: Option<SocketAddr>,
        inbound: bool,
        peer: Hello,
        talk: Option<Negotiation>,
    ) -> Conn {
        let (peer, passed_over) = (Some(peer), Vec::new());
        Conn { addr, inbound, peer, up: None, talk, lane: None, ended: None, passed_over }
    }

    /// The owner knows of it: it connected, or was told.
    pub(super) fn is_known_to_owner(&self) -> bool {
        !self.inbound || self.peer.is_none()
    }

    /// Notes the path in use, and why the better ones are not. Returns what the peer said.
    pub(super) fn settle(&mut self, path: Path, own: &Own, theirs: &[Offer]) -> Hello {
        assert_eq!(self.up, None, "a connection comes up once");
        self.up = Some(path);
        let better = LANE_PATHS.into_iter().filter(|&better| better < path);
        let why = |better| {
            let said = self.talk.as_ref().and_then(|talk| talk.why_not(better));
            let assessed = || own.assess(better, theirs).err();
            let why = said.map(String::from).or_else(assessed);
            (better, why.unwrap_or_else(|| "peer did not propose it".into()))
        };
        self.passed_over = better.map(why).collect();
        self.peer.take().expect("a connection is reported once")
    }

    /// The one line that says what was chosen, and why.
    pub(super) fn log(&self, hello: &Hello) {
        let (Some(path), identity, inbound) = (self.up, hello.identity, self.inbound) else {
            return;
        };
        let peer = self.addr.map_or_else(|| "?".into(), |addr| addr.to_string());
        if self.passed_over.is_empty() {
            return tracing::info!(%peer, ?identity, inbound, %path, "connection up");
        }
        let why: Vec<_> = self.passed_over.iter().map(|(p, why)| format!("{p}: {why}")).collect();
        let why = why.join("; ");
        tracing::info!(%peer, ?identity, inbound, %path, why, "connection up");
    }
}

/// What the peer is told when a connection ends for `reason`. TCP is in order when a lane broke, so
/// a peer that still lives gets an orderly end.
pub(super) fn told(reason: &CloseReason) -> CloseReason {
    match reason {
        CloseReason::Protocol(_) | CloseReason::Refused(_) => reason.clone(),
        _ => CloseReason::Local,
    }
}
