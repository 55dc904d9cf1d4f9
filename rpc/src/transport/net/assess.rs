//! Which paths two ends can share, judged by what their HELLOs offer.

use super::lanes::Missing;
use crate::offer::Offer;
use crate::transport::{Path, PathChoice};

/// The paths beside TCP, best first.
pub(super) const LANE_PATHS: [Path; 2] = [Path::Rdma, Path::Shm];

/// What this end has of the paths beside TCP, and which it may take.
#[derive(Clone, Debug)]
pub(super) struct Own {
    pub(super) choice: PathChoice,
    pub(super) offers: Vec<Offer>,
    /// Why the others are not offered.
    pub(super) missing: Vec<Missing>,
}

impl Own {
    /// What is offered of a path, or why it is not.
    fn offer(&self, path: Path) -> Result<&Offer, String> {
        if !self.choice.allows(path) {
            return Err(format!("excluded by --transport {}", self.choice));
        }
        let offer = self.offers.iter().find(|offer| offer.path() == Some(path));
        offer.ok_or_else(|| {
            let missing = self.missing.iter().find(|missing| missing.path == path);
            missing.map_or_else(|| "not in this build".into(), |missing| missing.why.clone())
        })
    }

    /// Whether a path can be shared with a peer that offers `theirs`; `Err` says why not.
    pub(super) fn assess(&self, path: Path, theirs: &[Offer]) -> Result<(), String> {
        let ours = self.offer(path)?;
        let theirs = theirs.iter().find(|offer| offer.path() == Some(path));
        let theirs = theirs.ok_or("peer does not offer it")?;
        if let (Offer::Shm { host: a, .. }, Offer::Shm { host: b, .. }) = (ours, theirs)
            && a != b
        {
            return Err("peer is on another host, or another user or container".into());
        }
        match (ours.version(), theirs.version()) {
            (Some(a), Some(b)) if a != b => Err(format!("peer has UCX {b}, this end {a}")),
            _ => Ok(()),
        }
    }

    /// Refuses, before anything else is said, a peer with which the demanded path cannot be had.
    pub(super) fn demand(&self, theirs: &[Offer]) -> Result<(), String> {
        match self.choice {
            PathChoice::Auto | PathChoice::Only(Path::Tcp) => Ok(()),
            PathChoice::Only(path) => self.assess(path, theirs).map_err(|why| demanded(path, &why)),
        }
    }
}

/// What a peer is told when the only path that is allowed cannot be had.
pub(super) fn demanded(path: Path, why: &str) -> String {
    format!("path {path} was demanded with --transport {path}: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::lane::LaneVersion;

    const OLD: LaneVersion = LaneVersion { major: 1, minor: 13 };
    const NEW: LaneVersion = LaneVersion { major: 1, minor: 16 };

    fn shm(version: LaneVersion, host: u128) -> Offer {
        Offer::Shm { version, host }
    }

    #[test]
    fn each_reason_is_named() {
        let rdma = Missing { path: Path::Rdma, why: "no RDMA device".into() };
        let own = Own { choice: PathChoice::Auto, offers: vec![shm(OLD, 7)], missing: vec![rdma] };
        let why = |path, theirs: &[Offer]| own.assess(path, theirs).expect_err("not shared");
        assert_eq!(own.assess(Path::Shm, &[shm(OLD, 7)]), Ok(()));
        assert_eq!(why(Path::Rdma, &[Offer::Rdma { version: OLD }]), "no RDMA device");
        assert_eq!(why(Path::Shm, &[Offer::Rdma { version: OLD }]), "peer does not offer it");
        assert!(why(Path::Shm, &[shm(OLD, 8)]).starts_with("peer is on another host"));
        assert_eq!(why(Path::Shm, &[shm(NEW, 7)]), "peer has UCX 1.16, this end 1.13");
        let none = Own { choice: PathChoice::Only(Path::Tcp), offers: vec![], missing: vec![] };
        let why = none.assess(Path::Shm, &[shm(OLD, 7)]).expect_err("not shared");
        assert_eq!(why, "excluded by --transport tcp");
    }

    #[test]
    fn only_a_demanded_path_refuses_a_peer() {
        let own = |choice| Own { choice, offers: vec![shm(OLD, 7)], missing: vec![] };
        assert_eq!(own(PathChoice::Auto).demand(&[]), Ok(()));
        assert_eq!(own(PathChoice::Only(Path::Shm)).demand(&[shm(OLD, 7)]), Ok(()));
        let text = own(PathChoice::Only(Path::Shm)).demand(&[]).expect_err("refused");
        assert_eq!(text, "path shm was demanded with --transport shm: peer does not offer it");
    }
}
