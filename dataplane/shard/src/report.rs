//! What a shard tells the control plane, and the operator, about its replicas.

use ogive_copyset::Role;
use ogive_types::{CopysetId, Epoch, Index, ShardAddr, Term, Time, VolumeId};

use crate::shard::Shard;

/// Role of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaRole {
    /// Serves clients.
    Leader,
    /// Follows a leader.
    Follower,
    /// Knows no leader.
    Candidate,
}

/// State of one replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaReport {
    /// Its copyset.
    pub copyset: CopysetId,
    /// Its role.
    pub role: ReplicaRole,
    /// Its term.
    pub term: Term,
    /// The leader that it knows of.
    pub leader: Option<ShardAddr>,
    /// Last index of its log.
    pub last: Index,
    /// What it knows to be committed.
    pub commit: Index,
    /// What its maps show.
    pub applied: Index,
    /// True for a leader that serves clients (its no-op is applied).
    pub serving: bool,
    /// As a leader: the other members, what they have, and whether they answer.
    pub followers: Vec<(ShardAddr, Index, bool)>,
    /// Deleted volumes whose chunks are gone here.
    pub dropped: Vec<VolumeId>,
}

impl Shard {
    /// The state of all replicas, by copyset.
    pub fn report(&self, now: Time) -> Vec<ReplicaReport> {
        self.groups.keys().filter_map(|&id| self.report_of(id, now)).collect()
    }

    fn report_of(&self, id: CopysetId, now: Time) -> Option<ReplicaReport> {
        let group = self.groups.get(&id)?;
        let applied = self.store.applied(id).index;
        let status = group.core.status(now);
        let role = match status.role {
            Role::Leader => ReplicaRole::Leader,
            Role::Follower => ReplicaRole::Follower,
            Role::Candidate | Role::PreCandidate => ReplicaRole::Candidate,
        };
        let followers = status.followers.iter().map(|f| (f.addr, f.matched, f.active)).collect();
        let fences = self.store.fences(id);
        let dropped = fences.iter().filter(|(_, epoch)| *epoch == Epoch(u64::MAX));
        Some(ReplicaReport {
            copyset: id,
            role,
            term: status.term,
            leader: status.leader,
            last: status.last.index,
            commit: status.commit,
            applied,
            serving: group.noop.is_some_and(|noop| noop <= applied),
            followers,
            dropped: dropped.map(|&(volume, _)| volume).collect(),
        })
    }
}
