//! What a person or a scheduler may want to know.

use ogive_types::{Index, LogPos, ShardAddr, Term, Time};

use crate::copyset::Copyset;
use crate::election::Role;
use crate::progress::ProgressState;

/// A picture of one replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// What it is.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// Whom it takes for the leader.
    pub leader: Option<ShardAddr>,
    /// What is committed, as far as it knows.
    pub commit: Index,
    /// The end of its log.
    pub last: LogPos,
    /// What is on its stable storage.
    pub persisted: Index,
    /// What is in its map.
    pub applied: Index,
    /// On a leader, the other members; else empty.
    pub followers: Vec<FollowerStatus>,
}

/// A follower as its leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowerStatus {
    /// Who.
    pub addr: ShardAddr,
    /// It has persisted the leader's log up to here; 0 until it first answered in this term.
    pub matched: Index,
    /// How it is treated.
    pub state: ProgressState,
    /// It answered a message of the last election time-out.
    pub active: bool,
}

impl Copyset {
    /// A picture of this replica at `now`.
    pub fn status(&self, now: Time) -> Status {
        let followers = match self.role {
            Role::Leader => self.follower_status(now),
            _ => Vec::new(),
        };
        Status {
            role: self.role,
            term: self.hard.term(),
            leader: self.leader,
            commit: self.commit,
            last: self.log.last(),
            persisted: self.persisted,
            applied: self.applied,
            followers,
        }
    }

    fn follower_status(&self, now: Time) -> Vec<FollowerStatus> {
        let recent = now - self.config.timing.election;
        let active = |acked: Option<Time>| acked.is_some_and(|sent| sent >= recent);
        let followers = self.lead.followers.iter();
        followers
            .map(|f| FollowerStatus {
                addr: f.addr,
                matched: f.matched,
                state: f.state,
                active: active(f.acked),
            })
            .collect()
    }
}
